"""Commands and links of the README and the pages in docs/ are real."""

import re
import shlex
import shutil
from pathlib import Path

import datasets
import pytest
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


@pytest.mark.slow
def test_every_line_runs_as_it_is_written(tmp_path, monkeypatch, capsys):
    """In the pages' order, on a tiny model, with the recipe cut to a few steps. The hub is a stand-in's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prosparse.inference.export.LEAST_NEURONS", 1)
    for name, activation in (("my-model", "silu"), ("my-model-relu", "relu")):
        make_checkpoint(tmp_path / name, activation, positions=2048)
    (tmp_path / "corpus").mkdir()
    for name in ("book.txt", "corpus/one.txt", "corpus/two.txt"):
        (tmp_path / name).write_text("".join(f"{name}, sentence {index}: not one before. " for index in range(60)))
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
            assert main(words[1:]) == 0, (page, line, capsys.readouterr().err)
            assert capsys.readouterr().out.strip() or output is not None, (page, line)
            assert output is None or output.exists(), (page, line)
    assert {words[1] for words in done} == set(checkpoint.COMMANDS)
