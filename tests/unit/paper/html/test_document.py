from __future__ import annotations

import json
import re
from statistics import fmean

import pytest
from helpers.html_page import Page

from prosparse.experiment.layout import Layout
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.html import document
from prosparse.paper.publish import publish
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.registry import TABLES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(written):
    assert written.stat().st_size < 5_000_000
    return Page(written.read_text())


def test_links_within_the_page_lead_somewhere(page):
    targets = {attributes["href"][1:] for attributes, _ in page.all("a") if (attributes["href"] or "").startswith("#")}
    assert {*TABLES, *(name for name in FIGURES if name != "figure_frontier")} <= targets
    assert targets <= page.ids


def test_every_number_of_ours_leads_to_the_file_that_holds_it(page, seeds_results):
    linked = page.all("a", **{"class": "ours"})
    files = page.json("files")
    assert len(linked) > 300
    for attributes, _ in linked:
        numbers = [int(number) for number in attributes["data-files"].split()]
        assert attributes["href"] == files[numbers[0]]["path"]
    for each in files:
        assert (seeds_results.directory / each["path"]).is_file()
        assert each["path"] == "config.json" or each["processor"] == "Imaginary CPU, 2 cores"
    assert not [text for attributes, text in page.all("td") if "data-sort" in attributes and re.search(r"\d", text)]


def test_a_claims_numbers_lead_to_the_measurements_that_it_is_judged_by(page, seeds_results):
    files = page.json("files")
    verdicts = json.loads(seeds_results.layout.claims("json").read_text())["claims"]
    ids = [attributes.get("id") for _, attributes, _ in page.elements]
    for number, run in ((1, "vanilla"), (2, "base"), (7, "progressive")):
        article = page.elements[ids.index(f"claim-{number}") : ids.index(f"claim-{number + 1}")]
        linked = [attributes["data-files"].split() for _, attributes, _ in article if "data-files" in attributes]
        assert len(linked) == len(verdicts[number - 1]["parts"])
        for numbers in linked:
            paths = [files[int(each)]["path"] for each in numbers]
            assert any(path.startswith(f"measurements/{run}/seed2/") for path in paths), (number, paths)


def test_a_sparsity_is_the_mean_of_its_files(page, seeds_results):
    shown = {
        text: attributes["data-files"]
        for attributes, text in page.all("a", **{"class": "ours"})
        if attributes["href"].startswith("measurements/progressive/seed1/sparsity")
    }
    files = page.json("files")
    shares = {}
    for seed in seeds_results.experiment.seeds:
        for entry in json.loads(seeds_results.layout.sparsity("progressive", seed).read_text())["measurements"]:
            shares.setdefault(entry["activation"], []).append(100 * entry["sparsity"])
    for activation in ("relu", "fatrelu-0.01", "fatrelu-0.03"):
        [numbers] = [given for text, given in shown.items() if text.startswith(f"{fmean(shares[activation]):.2f} (")]
        assert [files[int(number)]["path"] for number in numbers.split()] == [
            f"measurements/progressive/seed{seed}/sparsity.json" for seed in seeds_results.experiment.seeds
        ]


def test_the_frontier_draws_every_pair_and_seed(page, seeds_results):
    for index, frontier in enumerate(seeds_results.experiment.figures.frontier.values()):
        rows = [
            row
            for layer in page.json(f"frontier-{index}-spec")["layer"]
            for row in layer["data"].get("values", [])
            if "seed" in row
        ]
        drawn = sorted((row["pair"], row["seed"]) for row in rows)
        pairs = [pair for pairs in frontier.methods.values() for pair in pairs]
        if frontier.training_free:
            settings = ("50%", "90%", "perplexity +1%")
            pairs += [f"{method}, {setting}" for method in ("CATS", "TEAL", "CETT") for setting in settings]
        assert drawn == sorted((pair, seed) for pair in pairs for seed in seeds_results.experiment.seeds)


def test_a_runs_chart_shows_its_ledger(page, seeds_results):
    rows = page.json("training-progressive-spec")["datasets"]["rows"]
    ledger = seeds_results.results.ledger("progressive")
    assert [(row["step"], row["lambda"]) for row in rows] == [(entry.step, entry.factor) for entry in ledger]
    assert rows[-1]["low"] < rows[-1]["sparsity"] < rows[-1]["high"]


def test_nothing_is_fetched(page):
    [(policy, _)] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'")
    assert not [tag for tag, attributes, _ in page.elements if "src" in attributes or tag == "link"]


def test_what_is_missing_says_so(nothing, synthetic):
    empty = Page(document.write(nothing.layout).read_text())
    assert set(TABLES) <= empty.ids
    synthetic.layout.sparsity("vanilla", 1).unlink()
    page = Page(document.write(synthetic.layout).read_text())
    assert any("vanilla/seed1/sparsity.json: no such result" in text for _, text in page.all("p"))
    assert any("the claims have not been judged" in text for _, text in page.all("p"))


def test_text_from_a_config_cannot_become_markup(synthetic):
    experiment = synthetic.experiment.model_copy(update={"experiment": "<script>alert(1)</script>"})
    page = Page(document.render(Results(Layout(experiment, synthetic.directory))))
    assert [text for _, text in page.all("title")] == ["<script>alert(1)</script>: ProSparse, reproduced"]
    assert "alert(1)" not in [text for _, text in page.all("script")]


def test_the_published_page_links_only_what_was_published(seeds_results, written):
    copy = publish(seeds_results.layout)
    page = Page((copy / "index.html").read_text())
    assert (copy / "config.json").exists()
    for each in page.json("files"):
        assert (copy / each["path"]).is_file()
    assert len(page.json("files")) >= len(Page(written.read_text()).json("files"))


def test_a_method_looks_the_same_in_every_frontier(page, seeds_results):
    """The second panel names Vanilla ReLU and a method of its own."""
    looks: dict[str, set[tuple[str, str]]] = {}
    for index in range(len(seeds_results.experiment.figures.frontier)):
        marks = page.json(f"frontier-{index}-spec")["layer"][-1]["encoding"]
        colors, shapes = (marks[channel]["scale"] for channel in ("color", "shape"))
        for method, *look in zip(colors["domain"], colors["range"], shapes["range"], strict=True):
            looks.setdefault(method, set()).add(tuple(look))
    assert all(len(each) == 1 for each in looks.values())
    assert len(set.union(*looks.values())) == len(looks) > 4
