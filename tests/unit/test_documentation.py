"""Commands and links of the README and the pages in docs/ are real."""

import re
import shlex
import shutil
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from helpers.checkpoint import make_checkpoint
from helpers.documentation import PAGES, README, pages
from helpers.repository import ROOT

from prosparse.__main__ import main
from prosparse.cli import checkpoint


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"^make (\w+)", README, re.M))
    assert {"reproduce", "test"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(#[^)]+)?\)", page.read_text(encoding="utf-8")):
        linked = (page.parent / target) if target else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}
            assert anchor[1:] in anchors, anchor


@pytest.mark.parametrize("stage", ["target_sparsity=0.9", "peak=3.0"])
def test_the_trainer_of_ones_own_logs_what_the_page_says(stage, tiny_llama, tmp_path, monkeypatch):
    """As written, and with a peak; sparsity near the target at its end, or constant lambda."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "sparsify.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.S)
    rows = torch.randint(64, (16, 16), generator=torch.Generator().manual_seed(1))
    names = {"model": tiny_llama(), "dataset": [{"input_ids": row, "labels": row} for row in rows]}
    exec(snippet.replace("target_sparsity=0.9", stage, 1), names)
    logged = [each for each in names["trainer"].state.log_history if "loss" in each]
    assert [each["step"] for each in logged] == list(range(10, 301, 10))
    assert all({"lambda", "l1", "sparsity", "learning_rate"} <= each.keys() for each in logged)
    lambdas = [each["lambda"] for each in logged]
    if stage.startswith("peak"):
        assert lambdas == [3.0] * 30
    else:
        last = [each["sparsity"] for each in logged[-3:]]
        assert sum(last) / 3 == pytest.approx(0.9, abs=0.04)  # of 128 tokens per step
        assert len(set(lambdas)) > 20


@pytest.mark.slow
def test_every_line_runs_as_it_is_written(tmp_path, monkeypatch, capsys):
    """In the pages' order, on a tiny model, with the recipe cut to a few steps. The hub is a stand-in's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prosparse.inference.export.LEAST_NEURONS", 1)
    for name, activation in (("my-model", "silu"), ("my-model-relu", "relu")):
        make_checkpoint(tmp_path / name, activation, positions=2048)
    (tmp_path / "corpus").mkdir()
    for name in ("book.txt", "corpus/one.txt", "corpus/two.txt"):
        (tmp_path / name).write_text("".join(f"{name}, sentence {index}: not one before. " for index in range(100)))
    written = re.search(r"```yaml\n(# recipe\.yaml.*?)```", "\n".join(pages().values()), re.S)
    recipe = yaml.safe_load(written[1])
    for index, stage in enumerate(recipe["stages"]):
        stage["until"] = index + 1
    recipe |= {"context_length": 64, "training": recipe["training"] | {"batch_size": 2, "micro_batch_size": 1}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    row = {"goal": "To sit,", "sol1": "stand.", "sol2": "use a chair.", "label": 1}
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: datasets.Dataset.from_list([row] * 3))

    done = set()
    for page, text in pages().items():
        for line in re.findall(r"^ *(prosparse (?!step\b).*)", text, re.M):
            words = shlex.split(line, comments=True)
            if tuple(words) in done:
                continue
            done.add(tuple(words))
            output = Path(words[words.index("--output") + 1]) if "--output" in words else None
            if output is not None and output.is_dir():
                shutil.rmtree(output)  # another page's, or made above for the pages that do not make it
            if words[1] == "sparsify":
                words += ["--context-length", "64", "--no-control"]  # little text, little time
            assert main(words[1:]) == 0, (page, line, capsys.readouterr().err)
            assert capsys.readouterr().out.strip() or output is not None, (page, line)
            assert output is None or output.exists(), (page, line)
    assert {words[1] for words in done} == set(checkpoint.COMMANDS)
