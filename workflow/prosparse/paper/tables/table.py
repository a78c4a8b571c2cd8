"""Result tables: rows of cells that hold the paper's number and ours."""

from __future__ import annotations

from dataclasses import dataclass, field

from prosparse.paper.results.value import Value


@dataclass(frozen=True)
class Column:
    key: str
    label: str
    unit: str
    digits: int | None = 2  # decimals; 0 groups thousands, None prints the shortest form

    def format(self, number: float) -> str:
        if self.digits is None:
            return f"{number:g}"
        return f"{number:,.{self.digits}f}"


@dataclass(frozen=True)
class Cell:
    """Our value and the paper's: ``published`` as printed in full, ``published_text`` where a table shortens it."""

    ours: Value | None = None
    published: str = ""
    note: str = ""
    mark: str = ""
    published_text: str | None = None
    text: str = ""  # our value, if it is text


@dataclass(frozen=True)
class Row:
    label: str
    cells: dict[str, Cell]
    pair: str | None = None  # the pair behind our values
    is_published: bool = True
    model: str = ""  # its name for readers; without, pair is shown


@dataclass
class Table:
    name: str
    title: str
    columns: list[Column]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    row_title: str = "Setting"

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


MISSING = "missing"


NOT_PUBLISHED = "–"
