"""The command line as a whole: help, version, mistakes."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import metadata

import pytest

from prosparse.__main__ import main
from prosparse.cli import checkpoint, step_data, step_paper, step_training

USER_COMMANDS = (
    "sparsify", "substitute", "train", "sparsity", "evaluate", "predictors", "generate", "bench", "export",
)  # fmt: skip


def test_help_shows_the_commands_of_a_user_and_teaches(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^  ([a-z-]+)  +[A-Z]", out.partition("Commands:")[2], re.M) == list(USER_COMMANDS)
    for command in USER_COMMANDS:
        assert f"prosparse {command} " in out
    assert "snakemake --cores all" in out


@pytest.mark.parametrize("command", [*USER_COMMANDS, *(f"step {name}" for name in ("tokens", "train-stage", "table"))])
def test_help_of_a_command_shows_its_defaults(command, capsys):
    """As their handlers have them."""
    handler = {**checkpoint.COMMANDS, **step_data.COMMANDS, **step_training.COMMANDS, **step_paper.COMMANDS}[
        command.split()[-1]
    ]
    assert main([*command.split(), "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for name, parameter in inspect.signature(handler).parameters.items():
        if type(parameter.default) in (int, float) or parameter.default in ("bfloat16", "float32"):
            option = said.partition(f"--{name.replace('_', '-')} ")[2].partition(" --")[0]
            assert f"default: {parameter.default}" in option


def test_help_and_version_are_quick():
    """They import nothing that takes a second."""
    lines = [["--help"], ["sparsity", "--help"], ["step", "--help"], ["--version"]]
    program = f"import sys; from prosparse.__main__ import main; print(*map(main, {lines})); print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    *_, statuses, modules = said.splitlines()
    assert statuses == "0 0 0 0"
    assert not {"torch", "transformers", "datasets", "rich", "prosparse.experiment"} & set(modules.split())


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"prosparse {metadata.version('prosparse')}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sparsty model --text x", "did you mean 'sparsity'"),
        ("step sparsty", "did you mean 'sparsity'"),
        ("substitute model --activaton relu --output x", "--activation"),
        ("substitute model --activation fatrelu0.01 --output x", "did you mean fatrelu-0.01?"),
        ("sparsity model --text x --activation FATReLU_0.3", "did you mean fatrelu-0.3?"),
        ("generate model --prompt x --activation shiftrelu", "did you mean shiftrelu-0.1?"),
        ("substitute model --activation relu --output x y", "unexpected"),
        ("substitute", "prosparse substitute --help"),
        ("", "Missing command"),
        ("export model --engine powerinfr --output x", "did you mean powerinfer?"),
        ("generate model --prompt x --precision BFLOAT16", "did you mean bfloat16?"),
        ("predictors model --text x --output y --kind nonzer", "did you mean nonzero?"),
        ("substitute model --activation relu", "--output"),
        ("sparsity model --text --context-length 3", "--text"),
        ("sparsity model --text a b --sequnces 3", "--sequences"),
        ("generate model --prompt --dense", "--prompt needs a value"),
        ("sparsity model --text x --sequences 0", "--sequences"),
        ("step decoding --specification {} --output", "--output"),
        ("step sparsity c --specification {] --run r --seed 0 --tokens t --output o", "not JSON"),
    ],
)
def test_a_mistyped_line_is_answered_with_what_was_meant(line, message, capsys):
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("prosparse: error: ")
    assert said.count("\n") == 1
    assert message.lower() in said.lower()
