"""The wheel, installed in an environment of its own, without the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers.checkpoint import make_checkpoint
from helpers.documentation import PAGES
from helpers.repository import ROOT

#: What a snippet of the pages takes for granted.
GIVEN = """
import torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained("relu")
prompt = {"input_ids": torch.tensor([[0, 5, 9]]), "max_new_tokens": 4}
gate_proj, up_proj = (getattr(model.model.layers[0].mlp, name).bfloat16() for name in ("gate_proj", "up_proj"))
down_weight_transposed = model.model.layers[0].mlp.down_proj.weight.detach().bfloat16().T.contiguous()
x, threshold = torch.randn(2, 32).bfloat16(), 0.0
rows = torch.randint(9, (2, 8))
dataset = [{"input_ids": row, "labels": row} for row in rows]
model = transformers.AutoModelForCausalLM.from_pretrained("relu")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with a virtual environment that has the wheel and sees this one's packages, but not the repository."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # setuptools writes into it
    shutil.copytree(
        ROOT / "workflow", source / "workflow", ignore=shutil.ignore_patterns("__pycache__", "bases", "*.egg-info")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "environment"], check=True)
    python = folder / "environment" / "bin" / "python"
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    [packages] = (folder / "environment" / "lib").glob("*/site-packages")
    # a line of a .pth file adds a folder to the path without reading the .pth files there, as of editable installs
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.rmtree(source)
    make_checkpoint(folder / "model", "silu", positions=64)
    make_checkpoint(folder / "relu", "relu", positions=64)
    (folder / "book.txt").write_text("".join(f"Sentence {index}: not one before. " for index in range(150)))
    return folder


def called(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = folder / "environment" / "bin" / words[0]
    return subprocess.run([program, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True)


def printed(folder: Path, *words: str) -> str:
    run = called(folder, *words)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def test_the_package_comes_from_the_wheel_with_its_data(installed):
    found = Path(printed(installed, "python", "-c", "import prosparse; print(prosparse.__file__)").strip()).parent
    assert found.is_relative_to(installed / "environment")
    for folder, _, names in os.walk(ROOT / "workflow" / "prosparse"):
        for name in names:
            path = (Path(folder) / name).relative_to(ROOT / "workflow" / "prosparse")
            if "__pycache__" not in path.parts:
                assert (found / path).exists(), path
    assert (found / "__pycache__").exists()  # compiled once, not by every process


def test_commands_run(installed):
    assert re.fullmatch(r"prosparse \d+\.\d+\.\d+\n", printed(installed, "prosparse", "--version"))
    said = printed(installed, "prosparse", "sparsity", "model", "--text", "book.txt", "--context-length", "32")
    assert re.match(r"silu: sparsity \d+\.\d+% \| loss", said)


def test_the_pages_python_snippets_run(installed):
    snippets = [each for page in PAGES for each in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)]
    assert len(snippets) >= 3
    printed(installed, "python", "-c", "\n".join(f"{GIVEN}\n{snippet}" for snippet in snippets))


def test_a_command_says_which_extra_it_needs(installed):
    """lm-eval is hidden."""
    command = ["evaluate", "model", "--task", "piqa", "--output", "piqa.json"]
    program = f"import sys; sys.modules['lm_eval'] = None; from prosparse.__main__ import main; print(main({command}))"
    run = called(installed, "python", "-c", program)
    assert run.stdout == "1\n"
    assert run.stderr == "prosparse: error: this command needs lm-eval: pip install 'prosparse[workflow]'\n"
