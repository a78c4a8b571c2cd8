"""The README's commands and links are real."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"^make (\w+)", README, re.M))
    assert {"reproduce", "test"} <= named <= targets


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^(?:\$ )?prosparse ([a-z-]+)", README, re.M))))
def test_prosparse_commands_exist_and_explain_themselves(command):
    run = subprocess.run([sys.executable, "-m", "prosparse", command, "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    assert len(run.stdout) > 100


def test_snakemake_targets_exist(tmp_path):
    from test_dag import snakemake

    named = set(re.findall(r"^snakemake ((?:table|figure|ours|claim|publish)\w*)", README, re.M))
    assert named
    known = set(snakemake(tmp_path, "--list-target-rules").stdout.split()) | {"publish"}
    assert named <= known, named - known
