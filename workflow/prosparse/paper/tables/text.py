"""Format a table as tidy CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

from prosparse.paper.markdown import bar
from prosparse.paper.tables.table import MISSING, NOT_PUBLISHED, Cell, Column, Row, Table


def our_text(cell: Cell, column: Column) -> str:
    """Format ``mean ± standard error (standard deviation over seeds)``, with its mark."""
    if cell.text:
        return cell.text
    if cell.ours is None:
        return MISSING + cell.mark
    text = column.format(cell.ours.mean)
    if cell.ours.standard_error is not None:
        text += f" ± {column.format(cell.ours.standard_error)}"
    if cell.ours.spread is not None:
        text += f" ({column.format(cell.ours.spread)})"
    return text + cell.mark


def published_text(cell: Cell) -> str:
    """Format the paper's number as printed; whole numbers with commas."""
    text = cell.published_text if cell.published_text is not None else cell.published or NOT_PUBLISHED
    return f"{int(text):,}" if text.isdigit() else text


def _lines(table: Table) -> Iterable[tuple[Row, str, list[str]]]:
    """Yield (row, whose, cells as text) in print order; a row without a run of ours is one line."""
    for row in table.rows:
        cells = [row.cells.get(column.key, Cell()) for column in table.columns]
        if row.pair is None and row.is_published:
            yield row, "paper (ours: missing)", [published_text(cell) for cell in cells]
            continue
        if row.is_published:
            yield row, "paper", [published_text(cell) for cell in cells]
        yield (
            row,
            "ours",
            [
                our_text(cell, column) if column.key in row.cells else NOT_PUBLISHED
                for cell, column in zip(cells, table.columns, strict=True)
            ],
        )


def to_csv(table: Table) -> str:
    """Format as tidy CSV: one line per cell. ``standard_error`` is over benchmark rows, ``spread`` over seeds."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", "column", "ours", "standard_error", "spread", "published", "unit", "pair", "note"])
    for row in table.rows:
        for column in table.columns:
            if column.key not in row.cells:
                continue
            cell = row.cells[column.key]
            numbers = [cell.ours.mean, cell.ours.standard_error, cell.ours.spread] if cell.ours else [None, None, None]
            written = ["" if number is None else f"{number:.10g}" for number in numbers]
            written[0] = "" if cell.text == NOT_PUBLISHED else cell.text or written[0]
            writer.writerow([row.label, column.key, *written, cell.published, column.unit, row.pair or "", cell.note])
    return buffer.getvalue()


def to_markdown(table: Table) -> str:
    if not table.rows:
        return "\n".join([f"# {table.title}", "", *table.notes]) + "\n"
    header = [table.row_title, "", *(f"{column.label}{unit_text(column)}" for column in table.columns)]
    lines = [f"# {table.title}", "", bar(header), bar(["---", "---", *["---:"] * len(table.columns)])]
    for row, whose, cells in _lines(table):
        if whose == "ours" and row.is_published:
            name = _model(row)
        else:
            name = f"**{_pipe(row.label)}**" + (f" {_model(row)}" if whose == "ours" and row.pair else "")
        lines.append(bar([name, whose, *cells]))
    lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _model(row: Row) -> str:
    return _pipe(row.model) if row.model else f"`{row.pair}`"


def _pipe(text: str) -> str:
    # a setting's * (without threshold shifting) must not start emphasis
    return text.replace("|", "\\|").replace("*", "\\*")


def unit_text(column: Column) -> str:
    """Format a unit as `` (unit)`` behind a column's label, where the label does not say it."""
    return "" if column.unit in ("", "%", "tokens") else f" ({column.unit})"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "°": r"$^\circ$",
    "‡": r"$^\ddagger$",
    "§": r"\S{}",
    "µ": r"$\mu$",
    "–": "--",
    "λ": r"$\lambda$",
    "×": r"$\times$",
}


#: Text between asterisks; a row's own * follows a letter or stands between backticks.
_EMPHASIS = re.compile(r"(?<![\w`])\*([^*`]+)\*(?![\w`])")


def latex_escape(text: str) -> str:
    """Escape text for LaTeX, pdflatex included: ASCII only, backticks dropped."""
    escaped = "".join(_LATEX.get(character, character) for character in text.replace("`", ""))
    return escaped.encode("ascii", "replace").decode()


def _latex_note(note: str) -> str:
    pieces = _EMPHASIS.split(note)  # every second one is emphasized
    escaped = (
        rf"\emph{{{latex_escape(piece)}}}" if index % 2 else latex_escape(piece) for index, piece in enumerate(pieces)
    )
    return "".join(escaped) + r"\par"


def to_latex(table: Table) -> str:
    """Format as a booktabs ``table*``, which needs the packages booktabs and graphicx."""
    heads = [table.row_title, "", *(f"{column.label}{unit_text(column)}" for column in table.columns)]
    lines = [
        r"\begin{table*}[t]",
        r"\centering",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{ll{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(map(latex_escape, heads)) + r" \\",
        r"\midrule",
    ]
    for row, whose, cells in _lines(table):
        ours = whose == "ours" and row.is_published
        name = rf"\quad {latex_escape(row.model or row.pair or '')}" if ours else latex_escape(row.label)
        lines.append(" & ".join([name, whose, *map(latex_escape, cells)]) + r" \\")
    number, _, title = table.title.partition(". ")  # LaTeX numbers its own tables
    caption = f"{title} ({number} of the paper)" if title else number
    lines += [
        r"\bottomrule",
        r"\end{tabular}}",
        rf"\caption{{{latex_escape(f'{caption}.')}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
    ]
    if table.notes:
        lines += [r"\par\smallskip\footnotesize\raggedright", *(_latex_note(note) for note in table.notes)]
    lines.append(r"\end{table*}")
    return "\n".join(lines) + "\n"
