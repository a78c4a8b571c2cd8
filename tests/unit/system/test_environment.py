"""What is left in the environment, and where it is that the workflow runs."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig

import pyarrow.parquet
import pytest
import yaml
from helpers.repository import ROOT
from helpers.toy_experiment import toy_experiment

from prosparse.system import environment

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "left",
    [
        {"RANK": "0"},
        {"WORLD_SIZE": "4"},
        {"LOCAL_RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": "2"},
        {name: value for name, value in TORCHRUN.items() if name != "LOCAL_RANK"},  # a pod of Kubeflow's PyTorchJob
        TORCHRUN | {"RANK": "2", "LOCAL_RANK": "2"},  # no process of two
        TORCHRUN | {"RANK": ""},
        TORCHRUN | {"WORLD_SIZE": "two"},
        TORCHRUN | {"MASTER_PORT": "none"},
        TORCHRUN | {"MASTER_ADDR": ""},
        TORCHRUN | {"LOCAL_RANK": "-1"},
    ],
    ids=lambda left: " ".join(f"{name}={value}" for name, value in left.items()),
)
def test_what_is_left_of_a_launcher_is_dropped_and_named(left):
    found = {**left, "HOME": "/home"}
    said = environment.settle_launcher(found)
    assert found == {"HOME": "/home"}
    assert said is not None
    assert all(f"{name}={value}" in said for name, value in left.items())
    assert "\n" not in said


@pytest.mark.parametrize("whole", [TORCHRUN, TORCHRUN | {"RANK": "9", "WORLD_SIZE": "16"}, {"HOME": "/home"}])
def test_a_launchers_process_stays_one(whole):
    found = dict(whole)
    assert environment.settle_launcher(found) is None
    assert found == whole


def test_only_torchruns_others_are_silent():
    assert environment.speaks_for_job({})
    assert environment.speaks_for_job({"RANK": "3"})
    assert environment.speaks_for_job(TORCHRUN)
    assert environment.speaks_for_job(TORCHRUN | {"RANK": "0", "TORCHELASTIC_RUN_ID": "x"})
    assert not environment.speaks_for_job(TORCHRUN | {"TORCHELASTIC_RUN_ID": "x"})


def test_own_commands_come_first_unless_their_folder_is_on_path():
    scripts = sysconfig.get_path("scripts")
    found = {"PATH": "/usr/bin"}
    environment.prepare_jobs(found)
    assert found["PATH"] == f"{scripts}{os.pathsep}/usr/bin"
    arranged = {"PATH": os.pathsep.join(["/first", scripts])}
    environment.prepare_jobs(arranged)
    assert arranged == {"PATH": os.pathsep.join(["/first", scripts]), "PYTHONUTF8": "1"}


# ------------------------------------------------------------------------------------ in Snakemake

#: What a user's shell may hold; no job may fail of it.
ODD = {
    "RANK": "1", "WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "many", "TMPDIR": "/no/such/folder",
    "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "1", "PYTHONIOENCODING": "latin-1",
}  # fmt: skip


@pytest.fixture(scope="module")
def odd_place(tmp_path_factory):
    """A copy of the repository in a folder whose name needs quotes, and a toy experiment with more than ASCII in it."""
    root = tmp_path_factory.mktemp("odd") / "my $repository's (copy)"
    root.mkdir()
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, root / name)
    for name in ("workflow", "profiles", "envs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = toy_experiment(root)
    config["description"] = "Größe λ – 稀疏"
    for path in (root / "text").glob("*.txt"):
        path.write_text(f"Größe λ – 稀疏. {path.read_text(encoding='utf-8')}", encoding="utf-8")
    (root / "toy.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    return root


def test_jobs_run_whatever_the_path_and_the_environment(odd_place):
    """By the snakemake that lies beside Python, its environment not activated."""
    scripts = os.path.dirname(sys.executable)
    path = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if folder != scripts)
    assert shutil.which("prosparse", path=path) is None
    odd = {**os.environ, **ODD, "PATH": path, "PYTHONPATH": str(odd_place / "workflow")}
    made = "results/toy/data/documents/prose/0.parquet"
    command = [f"{scripts}/snakemake", made, "plan", "--cores", "1", "--configfile", "toy.yaml"]
    run = subprocess.run(command, cwd=odd_place, env=odd, capture_output=True, encoding="utf-8", errors="replace")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-6000:]
    texts = pyarrow.parquet.read_table(odd_place / made)["text"].to_pylist()
    assert any("Größe λ – 稀疏" in text for text in texts)
    written = json.loads((odd_place / "results/toy/config.json").read_text(encoding="utf-8"))
    assert written["description"] == "Größe λ – 稀疏"
    assert "ignored: RANK=1, WORLD_SIZE=2" in (odd_place / "results/toy/logs/plan.log").read_text(encoding="utf-8")


@pytest.mark.commands("make")
def test_make_installs_whatever_the_path(odd_place):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, odd_place / name)
    run = subprocess.run(["make", "--dry-run", "install"], cwd=odd_place, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "-m venv .venv\n" in run.stdout
    assert "touch .venv/.installed\n" in run.stdout


# -------------------------------------------------------------------------------------- encodings

SOURCES = sorted((ROOT / "workflow" / "prosparse").rglob("*.py"))


def without_encoding(tree: ast.AST) -> list[int]:
    """Lines that read or write text in whatever encoding the locale has."""
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
            position = 0 if name.endswith("File") or (isinstance(node.func, ast.Attribute) and name == "open") else 1
            mode = node.args[position] if len(node.args) > position else keywords.get("mode")
            if mode is None and name.endswith("File"):
                mode = ast.Constant("w+b")
            system = isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in ("os.open", "tarfile.open")
            text = not system and "b" not in (ast.literal_eval(mode) if isinstance(mode, ast.Constant) else "")
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
        ("os.open('x', 0)", False), ("tarfile.open(file)", False), ("chart.encode(text='n')", False),
    ],
)  # fmt: skip
def test_the_check_finds_what_it_should(line, found):
    assert bool(without_encoding(ast.parse(line))) is found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "workflow" / "prosparse")))
def test_text_has_an_encoding(path):
    assert not without_encoding(ast.parse(path.read_text(encoding="utf-8"))), f"{path}: name the encoding"
