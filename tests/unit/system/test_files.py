"""JSON files are short to read and exact to parse."""

from __future__ import annotations

import json

from prosparse.system.files import write_json


def test_a_list_of_numbers_is_one_line_and_everything_else_one_line_each(tmp_path):
    value = {
        "numbers": [0, -1.5, 2e-07, 1e30],
        "nested": [[1], [2, 3]],
        "mixed": [1, None, "a"],
        "empty": [],
        "text": "[\n 1,\n 2\n]",
    }
    write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text()
    assert json.loads(text) == value
    assert text.splitlines() == [
        "{",
        ' "numbers": [0, -1.5, 2e-07, 1e+30],',
        ' "nested": [',
        "  [1],",
        "  [2, 3]",
        " ],",
        ' "mixed": [',
        "  1,",
        "  null,",
        '  "a"',
        " ],",
        ' "empty": [],',
        ' "text": "[\\n 1,\\n 2\\n]"',
        "}",
    ]
