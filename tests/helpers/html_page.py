"""A page's elements, as a test looks them up."""

from __future__ import annotations

import json
from html.parser import HTMLParser


class Page(HTMLParser):
    """A page's elements as (tag, attributes, text directly within)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_data(self, data):
        if self.elements:
            self.elements[-1][2].append(data)

    def all(self, tag, **wanted):
        return [
            (attributes, "".join(text).strip())
            for name, attributes, text in self.elements
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items())
        ]

    @property
    def ids(self):
        return {attributes["id"] for _, attributes, _ in self.elements if "id" in attributes}

    def json(self, name):
        (((_, text)),) = self.all("script", id=name)
        return json.loads(text)
