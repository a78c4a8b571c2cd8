"""The committed pages in results/published: links lead to files, and a browser draws all of them."""

from __future__ import annotations

import re

import pytest
from helpers.html_page import Page
from helpers.repository import ROOT

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.claims import registry as claims
from prosparse.paper.results.reader import Results

PUBLISHED = sorted(path.parent for path in (ROOT / "results/published").glob("*/index.html"))
each_experiment = pytest.mark.parametrize("directory", PUBLISHED, ids=lambda directory: directory.name)


def test_every_experiment_that_the_readme_reports_has_a_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\(results/published/(\w+)/README\.md\)", readme))
    assert {"laptop", "overnight", "smollm2"} <= linked == {directory.name for directory in PUBLISHED}


@each_experiment
def test_links_lead_to_files(directory):
    for name in ("README.md", "details.md", "claims.md", "acceleration.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (directory / name).read_text(encoding="utf-8")):
            assert (directory / target).exists(), (name, target)
    page = Page((directory / "index.html").read_text(encoding="utf-8"))
    for attributes, _ in page.all("a"):
        target, _, anchor = (attributes["href"] or "").partition("#")
        assert (directory / target).exists() if target else anchor in page.ids, attributes["href"]
    files = page.json("files")
    assert files
    for each in files:
        assert (directory / each["path"]).is_file(), each["path"]


@each_experiment
def test_the_verdicts_follow_from_the_measurements_beside_them(directory):
    experiment = Experiment.model_validate_json((directory / "config.json").read_text(encoding="utf-8"))
    results = Results(Layout(experiment, directory))
    verdicts = {claim.number: claim.verdict.value for claim in claims.judge(results)}
    page = Page((directory / "index.html").read_text(encoding="utf-8"))
    written = dict(re.findall(r"^## (\d+)\. .*: (.*)$", (directory / "claims.md").read_text(encoding="utf-8"), re.M))
    assert {int(number): verdict for number, verdict in written.items()} == verdicts
    shown = [text for attributes, text in page.all("span") if (attributes.get("class") or "").startswith("verdict ")]
    assert shown[: len(verdicts)] == list(verdicts.values())


@pytest.mark.slow
@pytest.mark.commands("chromium", "chromedriver")
@each_experiment
def test_a_browser_draws_everything_without_an_error(directory):
    from helpers.browser import draw_everything, opened

    with opened(directory / "index.html") as browser:
        draw_everything(browser)
        assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
