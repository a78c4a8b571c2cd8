"""Jobs, costs and the page of a plan, against hand calculations and the paper's own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.paper_scale import LLAMA2_7B, paper, paper_config
from helpers.repository import EXPERIMENTS, ROOT
from transformers import LlamaConfig

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.experiment.loading import load
from prosparse.paper.results.needs import Needs
from prosparse.plan import costs, downloads, durations, jobs, page, papers, targets
from prosparse.plan.costs import of_architecture
from prosparse.plan.jobs import Total
from prosparse.published.tables import BENCHMARKS, published_table


def planned(experiment: Experiment, directory: Path) -> list[jobs.Job]:
    return targets.jobs_behind(Layout(experiment, directory), targets.targets(experiment)["all"])


def test_hours_of_the_papers_7b(tmp_path):
    """34.6 B tokens on 8 A100 at 40 %, against the paper's about 10 days of the same."""
    experiment = paper()
    own = [job for job in planned(experiment, tmp_path) if job.target == "prosparse"]
    total = Total.of(own)
    assert total.jobs == 6
    assert total.tokens == 16500 * 512 * 4096
    assert total.tokens / 1e9 == pytest.approx(34.60, abs=0.005)
    seconds = total.tokens * 3 * (2 * 6_607_077_376 + 4 * 32 * 4096 * 4096) / (312e12 * 0.4)
    assert costs.gpu_hours(experiment, total.flops) == pytest.approx(seconds / 3600, rel=1e-9)
    assert costs.gpu_hours(experiment, total.flops) / 24 / 8 == pytest.approx(18.5, abs=0.1)  # days
    beside = papers.papers(experiment, own)[0]
    assert beside["gpu_hours"] == [1920, 1920]
    assert beside["our_gpu_hours"] / 1920 == pytest.approx(1.85, abs=0.01)
    # which at our count would be 74 % of the GPUs' peak
    assert beside["implied_utilization"][0] == pytest.approx(0.4 * 1.85, abs=0.005)


def test_hours_of_the_first_run_on_a_node(tmp_path):
    """SmolLM2-360M on 2.097 B tokens, from its matrices: 32 layers, the tied head, attention over 2,048 keys."""
    experiment = load(yaml.safe_load((ROOT / "workflow/experiments/node.yaml").read_text()))
    shape = of_architecture(experiment.architectures["smollm2-360m"])
    assert shape.parameters == 361_821_120  # as published
    layer = 2 * 960 * 960 + 2 * 960 * 320 + 3 * 960 * 2560
    per_token = 3 * (2 * (32 * layer + 49152 * 960) + 4 * 32 * 960 * 2048)
    whole = Total.of(job for job in planned(experiment, tmp_path) if job.target == "prosparse")
    assert (whole.jobs, whole.tokens) == (6, 4000 * 256 * 2048)
    assert whole.flops == per_token * whole.tokens
    assert costs.gpu_hours(experiment, whole.flops) == pytest.approx(18.2, abs=0.05)
    everything = Total.of(planned(experiment, tmp_path))
    assert 50 < costs.gpu_hours(experiment, everything.flops) < 200


def test_wall_time_of_stages(tmp_path):
    """The 7B's longest stage is its first, 5,000 of 16,500 steps; the layers' forward passes are repeated."""
    experiment = paper()
    stage = next(job for job in planned(experiment, tmp_path) if (job.run, job.stage) == ("prosparse", 0))
    forward = 2 * 6_607_077_376 + 4 * 32 * 4096 * 4096
    again = stage.recomputed / stage.tokens
    assert 0.9 * forward < again < forward  # the layers, not the head
    seconds = 5000 * 512 * 4096 * (3 * forward + again) / (8 * 312e12 * 0.4)
    found = durations.stage_hours(experiment, stage)
    assert found == pytest.approx(seconds / 3600, rel=1e-6)
    # a job of 24 hours trains for 23.5
    assert durations.jobs_of(found, 24) == math.ceil(found / 23.5)
    text = page.write(Layout(experiment, tmp_path), ask=False)
    assert f"prosparse: stage 0 takes {found:,.0f} hours: {math.ceil(found / 23.5)} jobs" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1-00:00:00", 24), ("4:00:00", 4), ("30:00", 0.5), ("7-12:30:00", 180.5), ("infinite", math.inf)],
)
def test_hours_as_slurm_prints_them(text, expected):
    assert durations.hours(text) == expected


def test_a_partition_that_allows_less_than_the_profile_is_named(tmp_path):
    experiment = paper()
    text = "\n".join(durations.lines(experiment, planned(experiment, tmp_path), {"short": 4.0, "long": 168.0}))
    assert "partition short allows 4" in text
    assert "long" not in text


def test_the_page_prints_the_ratio_to_the_paper(tmp_path):
    text = page.write(Layout(paper(), tmp_path), ask=False)
    assert "8 x A100 80GB, about 10 days = 1,920 GPU-hours for 34.6 B tokens" in text
    assert "1.85 times as many" in text
    assert "32 x A100 80GB, about 20-30 days = 15,360-23,040 GPU-hours" in text
    assert (tmp_path / "plan.md").read_text() == text
    assert max(len(line) for line in text.splitlines()) <= 120
    held = json.loads((tmp_path / "plan.json").read_text())
    assert sum(job["flops"] for job in held["jobs"] if job["target"] == "prosparse") > 1e21


def test_shared_stages_are_counted_once(tmp_path):
    names = [job.output for job in planned(paper(), tmp_path)]
    assert len(names) == len(set(names))
    by_run = {
        run: sum(job.run == run and job.stage is not None for job in planned(paper(), tmp_path)) for run in paper().runs
    }
    assert by_run == {"llama2-7b": 1, "prosparse": 6, "vanilla": 1}  # vanilla's first is prosparse's


def test_memory_and_disk_of_llama2_7b(tmp_path):
    jobs = {job.output: job for job in planned(paper(), tmp_path)}
    job = jobs["checkpoints/prosparse/seed0/stage0/provenance.json"]
    assert job.disk == 12 * 6_738_415_616
    assert job.memory.state == 16 * 6_738_415_616 / 8
    assert job.memory.logits == 2 * 4096 * 2 * 32000
    assert jobs["checkpoints/llama2-7b/seed0/stage0/provenance.json"].disk == 2 * 6_738_415_616
    whole = paper()
    plain = whole.runs["prosparse"].training.model_copy(update={"activation_checkpointing": False})
    shape = of_architecture(whole.architectures["llama2-7b"])
    assert costs.training_memory(whole, plain, shape).activations > 8 * job.memory.activations


def test_a_corpus_takes_its_limit_on_disk_or_what_it_was_found_to_be(tmp_path):
    def data_job(experiment: Experiment) -> jobs.Job:
        return next(job for job in planned(experiment, tmp_path) if job.target == "data")

    job = data_job(paper())
    assert job.stored == pytest.approx(35e9, rel=1e-4)
    assert job.disk == pytest.approx(4 * 35e9 + 2 * 140e9, rel=1e-4)  # tokens as int32, candidates and documents
    config = paper_config()
    del config["data"]["corpora"]["text"]["character_limit"]
    assert data_job(load(config)).disk is None
    manifest = tmp_path / "data/tokens/llama/text/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"tokens": 4096000}))
    job = data_job(load(config))
    assert (job.stored, job.done) == (4096000, True)


def test_benchmarks_are_bounded_by_their_requests(tmp_path):
    assert targets.benchmark_requests(Layout(paper(), tmp_path)) == jobs.Requests(
        2 * 1838 + 1319, False
    )  # PIQA has two candidates
    limited = paper(benchmarks={"rows": "hub", "tasks": ["piqa", "gsm8k"], "limit": 10})
    assert targets.benchmark_requests(Layout(limited, tmp_path)) == jobs.Requests(2 * 10 + 10, False)
    unknown = paper(benchmarks={"rows": "hub", "tasks": ["piqa", "agi_eval"]})
    assert targets.benchmark_requests(Layout(unknown, tmp_path)) == jobs.Requests(2 * 1838, True)
    total = Total.of(job for job in planned(unknown, tmp_path) if job.target == "benchmarks")
    assert total.tokens == 3 * 2 * 1838 * 4096
    assert "flops" in total.unknown
    # rows that are there count as they are, and a benchmark without any is not answered
    rows = tmp_path / "data/benchmark_rows/rows.json"
    rows.parent.mkdir(parents=True)
    rows.write_text(json.dumps({"rows": {"piqa": 7}}))
    assert targets.benchmark_requests(Layout(unknown, tmp_path)) == jobs.Requests(14, False)


def test_what_is_done_is_no_longer_to_do(tmp_path):
    experiment = paper()
    for stage in (0, 1):
        file = tmp_path / f"checkpoints/prosparse/seed0/stage{stage}/provenance.json"
        file.parent.mkdir(parents=True)
        file.touch()
    listed = planned(experiment, tmp_path)
    assert {job.output for job in listed if job.done} == {
        f"checkpoints/prosparse/seed0/stage{stage}/provenance.json" for stage in (0, 1)
    }
    assert "| prosparse " in page.write(Layout(experiment, tmp_path), ask=False)
    row = next(line for line in (tmp_path / "plan.md").read_text().splitlines() if line.startswith("| prosparse "))
    assert "2/6" in row


def test_a_teacher_is_trained_before_and_computes_a_forward_pass(tmp_path):
    config = paper_config()
    config["runs"]["student"] = {**config["runs"]["prosparse"], "distillation": {"teacher": "vanilla", "share": 1}}
    experiment = load(config)
    order = jobs.stages_behind(experiment, [("student", 0)])
    assert order.index(("vanilla", 1)) < order.index(("student", 0))
    student, plain = (jobs.stage_job(Layout(experiment, tmp_path), run, 0, 0) for run in ("student", "prosparse"))
    assert student.flops / plain.flops == pytest.approx(4 / 3)


def test_unknown_shape_is_said_not_guessed(tmp_path):
    config = paper_config()
    del config["runs"]["llama2-7b"]["init"]["architecture"]
    experiment = load(config)
    assert all(job.flops is None for job in planned(experiment, tmp_path) if job.target == "prosparse")
    row = next(
        line for line in page.write(Layout(experiment, tmp_path), ask=False).splitlines() if "| prosparse" in line
    )
    assert "34.6 B" in row
    assert row.count("unknown") == 4  # FLOPs, recomputed, GPU-hours, disk
    # until a checkpoint of it is there
    config_file = tmp_path / "checkpoints/llama2-7b/seed0/stage0/config.json"
    config_file.parent.mkdir(parents=True)
    LlamaConfig(vocab_size=32000).to_json_file(config_file, use_diff=False)
    assert Total.of(planned(experiment, tmp_path)).unknown == frozenset()


def test_what_is_fetched_is_summed_and_what_is_unknown_counted(tmp_path):
    """Two bytes of each weight, the characters of the corpus; the tokenizer and two benchmarks are unknown."""
    text = page.write(Layout(paper(), tmp_path), ask=False)
    assert f"STILL TO DOWNLOAD: about {(2 * 6_738_415_616 + 140e9) / 1e9:.1f} GB, and 3 of unknown size" in text
    manifest = tmp_path / "data/tokens/llama/text/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"tokens": 4096000}))
    text = page.write(Layout(paper(), tmp_path), ask=False)
    assert "STILL TO DOWNLOAD: about 13.5 GB, and 2 of unknown size" in text


def test_revisions_are_those_of_the_config(tmp_path):
    config = paper_config()
    config["data"]["tokenizers"]["llama"]["revision"] = "f00d"
    experiment = load(config)
    found = {
        remote.kind: remote.revision
        for remote in downloads.remotes(Layout(experiment, tmp_path), planned(experiment, tmp_path))
    }
    assert found == {"model": "01c7", "tokenizer": "f00d", "data set": "abc"}
    assert '"revision"' not in paper().data.tokenizers["llama"].model_dump_json()  # as it was before there was one


def requested(experiment: Experiment, *names: str) -> set[str]:
    return {job.output for job in targets.requested(experiment, names)}


def test_a_file_is_planned_as_the_target_that_it_belongs_to():
    experiment = paper(release=["vanilla", "prosparse@fatrelu-0.01"])
    pages = ("all", "publish", "compare", "results/scale/README.md")
    assert {frozenset(requested(experiment, *names)) for names in [(), *((page,) for page in pages)]} == {
        frozenset(requested(experiment))
    }
    assert requested(experiment, "results/scale/tables/table6.md") == requested(experiment, "table6") != set()
    assert requested(experiment, "results/scale/claims.json") == requested(experiment, "claims")
    assert requested(experiment, "results/scale/config.json", "results/other/README.md", "results/scale") == set()


def test_a_release_needs_its_own_last_stage_and_the_page_of_no_other():
    experiment = paper(release=["vanilla", "prosparse@fatrelu-0.01"])
    last = {
        "vanilla": "checkpoints/vanilla/seed0/stage1/provenance.json",
        "prosparse": "checkpoints/prosparse/seed0/stage5/provenance.json",
    }
    one = requested(experiment, "results/scale/release/vanilla@relu/README.md")
    assert {name for name, file in last.items() if file in one} == {"vanilla"}
    other = requested(experiment, "results/scale/release/prosparse@fatrelu-0.01/config.json")
    assert {name for name, file in last.items() if file in other} == {"prosparse"}
    assert requested(experiment, "release") == one | other
    assert "measurements/overhead.json" not in one | other
    assert requested(paper(), "release") == set()


def test_sparsity_after_every_stage_is_one_job_behind_all_stages(tmp_path):
    experiment = paper()
    found = targets.jobs_behind(Layout(experiment, tmp_path), Needs(stage_sparsity={"prosparse"}), whole=False)
    (job,) = (job for job in found if job.target == "stage sparsity")
    assert job.output == "measurements/prosparse/seed0/stages.json"
    sequences = experiment.data.heldout_sequences * len(experiment.data.corpora)
    assert job.tokens == (1 + 6) * sequences * experiment.data.context_length  # the start and six stages
    assert {(each.run, each.stage) for each in found if each.stage is not None} == {
        ("llama2-7b", 0), *(("prosparse", stage) for stage in range(6)),
    }  # fmt: skip


def test_sparsity_without_training_is_one_job_for_all_settings_of_an_original(tmp_path):
    panel = {"original": "llama2-7b", "methods": {"Vanilla ReLU": ["vanilla"]}, "training_free": [0.5, 0.9]}
    experiment = paper(figures={"frontier": {"7B": panel}})
    wanted = Needs(training_free={("llama2-7b", "silu")})
    found = targets.jobs_behind(Layout(experiment, tmp_path), wanted, whole=False)
    (job,) = (job for job in found if job.target == "sparsity without training")
    assert job.output == "measurements/llama2-7b/seed0/training_free/silu.json"
    sequences = experiment.data.heldout_sequences * len(experiment.data.corpora)
    measured = 3 * (2 + 1) * sequences * experiment.data.context_length  # three methods, two targets and 1% perplexity
    assert measured < job.tokens < measured + 21 * 16_384
    assert {(each.run, each.stage) for each in found if each.stage is not None} == {("llama2-7b", 0)}


def test_without_hardware_hours_are_not_printed(tmp_path):
    text = page.write(Layout(paper(hardware=None), tmp_path), ask=False)
    assert "give the experiment `hardware:`" in text
    assert "| GPU-hours" not in text


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_has_a_plan_that_fits_a_terminal(file, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = page.write(Layout(load(yaml.safe_load(file.read_text())), tmp_path), ask=False)
    assert max(len(line) for line in text.splitlines()) <= 120
    assert "| IN ALL" in text


def test_a_plan_imports_neither_torch_nor_transformers(tmp_path):
    program = (
        "import sys, yaml; from pathlib import Path; from prosparse.experiment.loading import load;"
        "from prosparse.experiment.layout import Layout; from prosparse.plan import page;"
        "page.write(Layout(load(yaml.safe_load(open('config.yaml'))), Path(sys.argv[1])), ask=False);"
        "assert not {'torch', 'transformers', 'datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=True)


def test_official_rows_are_of_benchmarks():
    assert set(targets.official_rows()) <= set(BENCHMARKS)


LLAMA2_13B = LLAMA2_7B | {"hidden_size": 5120, "intermediate_size": 13824, "layers": 40, "heads": 40, "kv_heads": 40}


def of_scale(scale: str, **over: Any) -> Experiment:
    """An experiment whose llama2-7b is of this scale."""
    shape = {"7B": LLAMA2_7B, "13B": LLAMA2_13B}[scale]
    return paper(architectures={"llama2-7b": shape}, **over)


@pytest.mark.parametrize(
    ("precision", "scale", "kv_cache", "weights"),
    # two (keys, values) x layers x width x bytes
    [
        ("bfloat16", "7B", 2 * 32 * 4096 * 2, 2 * 6_738_415_616),
        ("float32", "7B", 2 * 32 * 4096 * 4, 4 * 6_738_415_616),
        ("bfloat16", "13B", 2 * 40 * 5120 * 2, 2 * 13_015_864_320),
    ],
)
def test_batches_of_benchmarks_fit_the_gpu_and_are_shown(tmp_path, precision, scale, kv_cache, weights):
    experiment = of_scale(
        scale,
        precision=precision,
        benchmarks={"rows": "hub", "tasks": ["piqa", "gsm8k"], "batch_tokens": 32768},
    )
    memory = costs.answering_memory(Layout(experiment, tmp_path), "llama2-7b")
    assert memory is not None
    assert (memory.token.kv_cache, memory.weights) == (kv_cache, weights)
    assert memory.batch_tokens == min(32768, int(0.8 * (80e9 - weights)) // memory.token.total)
    assert weights + memory.batch_tokens * memory.token.total < 80e9
    text = page.write(Layout(experiment, tmp_path), ask=False)
    line = next(line for line in text.splitlines() if line.startswith("- llama2-7b: ") and "tokens per batch" in line)
    assert line.startswith(f"- llama2-7b: {memory.batch_tokens:,} tokens per batch")
    assert f"{memory.batch_tokens * kv_cache / 1e9:.1f} GB of KV cache" in " ".join(text.split())


def test_a_batch_that_the_gpu_does_not_hold_is_lowered(tmp_path):
    experiment = of_scale(
        "13B",
        precision="bfloat16",
        benchmarks={"rows": "hub", "tasks": ["piqa", "gsm8k"], "batch_tokens": 10**6},
    )
    memory = costs.answering_memory(Layout(experiment, tmp_path), "llama2-7b")
    assert memory is not None
    assert 30_000 < memory.batch_tokens < 60_000
    assert "(the 1,000,000 of benchmarks.batch_tokens do not fit)" in page.write(
        Layout(experiment, tmp_path), ask=False
    )


def test_the_papers_hardware_fits_its_stages():
    """Each model of the hardware table has stages, and its days imply a rate that GPUs can reach."""
    for row in published_table("hardware"):
        assert any(stage["model"] == row["model"] for stage in published_table("table6_stages_llama2"))
        assert float(row["days_at_least"]) <= float(row["days_at_most"])
    for entry in papers.papers(paper(), []):
        assert all(0.2 < implied < 1 for implied in entry["implied_utilization"])


def test_a_calibration_is_a_target_of_its_own(tmp_path):
    """Stage 0 and two probes of 800 steps; nothing else needs the probes."""
    experiment = paper(calibration={"7B": {"run": "prosparse", "probes": [0.5, 2], "steps": 800}})
    layout = Layout(experiment, tmp_path)
    found = targets.jobs_behind(layout, targets.targets(experiment)["calibrate"], False)
    trained = {job.run: job.tokens for job in found if job.stage is not None and job.tokens}
    per_step = 512 * 4096
    assert trained == {
        "prosparse": 5000 * per_step, "probe-7b-0.5": 800 * per_step, "probe-7b-2": 800 * per_step
    }  # fmt: skip
    assert not {job.run for job in planned(experiment, tmp_path)} & {"probe-7b-0.5", "probe-7b-2"}
    assert "| calibrate " in page.write(layout, ask=False)
    by_name, by_file = (
        targets.requested(experiment, [name]) for name in ("calibrate", "results/scale/calibration/7B.md")
    )
    assert by_name == by_file
    assert "calibrate" not in targets.targets(paper())
