"""The README and the pages in docs/."""

from __future__ import annotations

from helpers.repository import ROOT

from prosparse.cli.application import EXAMPLES

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def pages() -> dict[str, str]:
    """What tells a user to run `prosparse`: the help, the front page, the pages behind it."""
    return {"--help": EXAMPLES, **{path.name: path.read_text(encoding="utf-8") for path in PAGES}}
