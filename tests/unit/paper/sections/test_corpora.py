"""The section on corpora prints what was counted."""

from __future__ import annotations

from prosparse.paper.sections.corpora import corpora


def test_what_was_not_counted_is_missing(synthetic):
    def row():
        header, _, *rows = corpora(synthetic.results)
        prose = next(line for line in rows if line.startswith("| `prose`"))
        titles, cells = ([each.strip() for each in line.strip("|").split("|")] for line in (header, prose))
        return dict(zip(titles, cells, strict=True))

    complete = row()
    [counts] = synthetic.layout.documents_counts("prose")
    synthetic.edit(counts, lambda value: [value.pop(key) for key in ("heldout_removed", "heldout_coverage")])
    assert "missing" not in complete.values()
    assert row() == {**complete, "In held-out text": "missing", "Recognized": "missing"}
