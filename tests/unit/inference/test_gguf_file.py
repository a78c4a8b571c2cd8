"""What is refused as a GGUF file."""

from __future__ import annotations

import pytest

from prosparse.inference.gguf_file import read_back
from prosparse.system.errors import UserError


def test_read_back_says_what_is_no_gguf_file(tmp_path):
    (tmp_path / "text").write_text("not weights at all")
    with pytest.raises(UserError, match=r"text is not a complete GGUF file"):
        read_back(tmp_path / "text")
    with pytest.raises(UserError, match=r"missing is not a complete GGUF file"):
        read_back(tmp_path / "missing")
