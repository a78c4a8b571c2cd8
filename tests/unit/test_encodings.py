"""Text is read and written in a named encoding, whatever the locale."""

from __future__ import annotations

import ast

import pytest
from helpers.repository import ROOT

SOURCES = sorted((ROOT / "workflow" / "prosparse").rglob("*.py"))


def without_encoding(tree: ast.AST) -> list[int]:
    """Lines that read or write text in the locale's encoding."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        texts = [keywords.get(key) for key in ("text", "universal_newlines")]
        if "encoding" in keywords:
            continue
        if isinstance(node.func, ast.Attribute):
            # a path's own; functions of these names take the path as an argument
            text = (name == "read_text" and not node.args) or (name == "write_text" and len(node.args) == 1)
        else:
            text = name == "open"
        if name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
            called = ast.unparse(node.func)
            of_a_path = name == "open" and called not in ("open", "gzip.open")
            position = 0 if name.endswith("File") or of_a_path else 1
            mode = node.args[position] if len(node.args) > position else keywords.get("mode")
            if mode is None and (name.endswith("File") or called == "gzip.open"):
                mode = ast.Constant("w+b")
            letters = ast.literal_eval(mode) if isinstance(mode, ast.Constant) else ""
            text = called not in ("os.open", "tarfile.open") and "b" not in letters
        if text or any(isinstance(value, ast.Constant) and value.value is True for value in texts):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("open('x')", True), ("open('x', 'rb')", False), ("open('x', encoding='utf-8')", False),
        ("path.open('a')", True), ("path.open('wb')", False), ("path.read_text()", True),
        ("path.write_text('x')", True), ("path.write_text('x', encoding='utf-8')", False),
        ("write_text(path, 'x')", False), ("subprocess.run(['x'], text=True)", True),
        ("subprocess.run(['x'], text=True, encoding='utf-8')", False), ("subprocess.run(['x'])", False),
        ("tempfile.NamedTemporaryFile('w')", True), ("tempfile.NamedTemporaryFile()", False),
        ("os.fdopen(descriptor, 'w')", True), ("archive.open('x')", True),
        ("os.open('x', 0)", False), ("tarfile.open(file)", False), ("gzip.open(file)", False),
        ("gzip.open(file, 'rt')", True), ("chart.encode(text='n')", False),
    ],
)  # fmt: skip
def test_the_check_finds_what_it_should(line, found):
    assert bool(without_encoding(ast.parse(line))) is found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "workflow" / "prosparse")))
def test_text_has_an_encoding(path):
    assert not without_encoding(ast.parse(path.read_text(encoding="utf-8"))), f"{path}: name the encoding"
