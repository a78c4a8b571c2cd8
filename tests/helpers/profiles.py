"""Profiles, changed as their users change them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from helpers.repository import ROOT

PROFILES = ROOT / "profiles"


def adapted(profile: str, directory: Path, **lines: str) -> Path:
    """A copy of the profile with these variables' lines changed, as its user would change them."""
    copy = directory / profile
    shutil.copytree(PROFILES / profile, copy, dirs_exist_ok=True)
    text = (copy / "profile.yaml").read_text()
    for name, value in lines.items():
        text, count = re.subn(rf"^(  {name}: )(\{{.*?\}}|\S+)", rf"\g<1>{value}", text, flags=re.M)
        assert count == 1, f"{profile}: {name}"
    (copy / "profile.yaml").write_text(text)
    return copy
