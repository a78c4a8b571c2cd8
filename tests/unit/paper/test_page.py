from __future__ import annotations

import re
import subprocess
import sys

from prosparse.experiment.layout import Layout
from prosparse.paper import page
from prosparse.paper.acceleration import page as acceleration
from prosparse.paper.claims import registry as claims
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.sections.host import facts
from prosparse.paper.tables import registry as tables


def test_page_renders_with_everything_missing(nothing):
    written, details = (path.read_text() for path in page.write(nothing.layout))
    assert "_missing: claims.md has not been made yet._" in written
    for name in tables.TABLES:
        assert f"_missing: tables/{name}.md has not been made yet._" in written
    for name in FIGURES:
        assert f"figures/{name}.png has not been made" in written
    assert "Wall time: missing" in details
    assert "activation recall, predicted sparsity): the experiment trains no predictors, so claim 8 has no" in details
    assert "the experiment times no operators, so claim 9 has no verdict" in details


def test_page_links_everything_that_was_made(synthetic):
    for name in tables.TABLES:
        tables.write(name, synthetic.layout)
    claims.write(synthetic.layout)
    acceleration.write(synthetic.layout)
    synthetic.json(synthetic.layout.figure("figure1", "json"), {"title": "Figure 1. λ(t)"})
    synthetic.layout.figure("figure1", "png").touch()
    written, details = (path.read_text() for path in page.write(synthetic.layout))
    assert "has not been made" in written  # figures 2 to 4
    assert "- [Figure 1. λ(t)](figures/figure1.png)" in written
    assert "so claim 8" not in details
    assert "[Our own comparisons: runs that the paper does not have](tables/ours.md)" in written
    assert written.index("## Claims") < written.index("## Tables") < written.index("[Table 1.")
    assert "Imaginary CPU, 2 cores" in details
    assert (
        "| `prose` | files | Wikipedia (stand-in) | language modelling | 1,200 | 1,150 | 80 | 3 | 5 | 2 | 1,067 "
        "| 945,678 | 250,000 | 97.5% |" in details
    )
    assert "Benchmark rows that the check can find in training text: copa 98.0% of 100." in details
    assert str(synthetic.directory) not in written + details
    for target in re.findall(r"\]\(([^)]+)\)", written):
        assert (synthetic.directory / target).is_file()


def test_the_page_is_three_screens_at_most(synthetic):
    for name in tables.TABLES:
        tables.write(name, synthetic.layout)
    claims.write(synthetic.layout)
    written = page.write(synthetic.layout)[0].read_text()
    assert len(written.split()) < 940
    assert sum(line.startswith("|") for line in written.splitlines()) < 25


def test_the_page_says_what_was_run_and_what_was_found(several_seeds):
    claims.write(several_seeds.layout)
    written = page.write(several_seeds.layout)[0].read_text()
    assert (
        "Models: tiny in place of LLaMA2-7B. They were made sparse on 0.369 million tokens; the paper's, on 34.6 b"
        in (written)
    )
    assert "3 seeds, measured on Imaginary CPU, 2 cores" in written
    sparsity = several_seeds.results.sparsity("progressive", "fatrelu-0.01").sparsity
    assert f"| **{sparsity.mean:.1f} ± {sparsity.spread:.1f}%** of FFN activations are zero | 89.32% |" in written
    assert written.count("**holds**") + written.count("**does not hold**") + written.count("**undecided**") == 10


def test_rows_beyond_the_limits_are_told(synthetic):
    def line(**limits):
        benchmarks = synthetic.experiment.benchmarks.model_copy(update=limits)
        experiment = synthetic.experiment.model_copy(update={"benchmarks": benchmarks})
        text = page.write(Layout(experiment, synthetic.directory))[1].read_text()
        return [found for found in text.splitlines() if found.startswith("- Benchmark rows")]

    own = {"gsm8k": 50, "boolq": 400}
    assert line(limit=None, limits={}) == []
    assert line(limit=200, limits={}) == ["- Benchmark rows beyond 200 per benchmark. The rows used are evenly spaced."]
    assert line(limit=200, limits=own) == [
        "- Benchmark rows beyond 200 per benchmark (GSM8K 50, BoolQ 400). The rows used are evenly spaced."
    ]
    assert line(limit=None, limits=own) == [
        "- Benchmark rows beyond these limits: GSM8K 50, BoolQ 400. The rows used are evenly spaced."
    ]


def test_results_that_do_not_exist_are_counted(synthetic):
    synthetic.layout.sparsity("vanilla", 1).unlink()
    text = page.write(synthetic.layout)[1].read_text()
    assert "1 result of sparsity" in text


def test_operators_on_a_cpu_leave_the_gpu_open(synthetic):
    text = page.write(synthetic.layout)[1].read_text()
    assert "have not been run. The times are from a CPU" in text
    assert "so claim 9" not in text
    assert "| operators | 1 | 100 | 100 |" in text
    synthetic.edit(synthetic.layout.operators(), lambda value: value.update(device="Imaginary GPU"))
    assert "have not been run" not in page.write(synthetic.layout)[1].read_text()
    synthetic.layout.operators().unlink()
    assert "1 result of operators" in page.write(synthetic.layout)[1].read_text()


def test_wall_time_comes_from_snakemake_where_given(synthetic):
    folder = synthetic.directory / "timings" / "train"
    folder.mkdir(parents=True)
    for index, seconds in enumerate((10, 30)):
        row = f"{seconds}\t0:00:{seconds}\t{100 + index}\n"
        (folder / f"{index}.tsv").write_text("s\th:m:s\tmax_rss\n" + row)
    (folder.parent / "tokenizer.tsv").write_text("s\th:m:s\tmax_rss\n5\t0:00:05\t-\n")
    text = page.write(synthetic.layout)[1].read_text()
    assert "| train | 2 | 40 | 30 | 101 |" in text
    assert "| tokenizer | 1 | 5 | 5 | missing |" in text


def test_overhead_is_shown_with_its_quartiles(synthetic):
    def rate(tokens):
        return {
            "tokens_per_second": tokens,
            "lower_quartile": 0.9 * tokens,
            "upper_quartile": 1.1 * tokens,
            "repeats": 20,
        }

    cost = {"percent": 3.0, "lower_quartile": 1.0, "upper_quartile": 5.0}
    speed = {
        "layers": {"measured": 2, "of": 30},
        "training_step": {
            **{arm: rate(5000) for arm in ("plain", "regularized", "regularized_and_measured")},
            "linear_layers": rate(8000),
            "share_of_matmul_rate": {"lower_quartile": 0.6, "median": 0.625, "upper_quartile": 0.65},
            "levers": {"transformers, float32": rate(1000), "bfloat16": rate(2000)},
            "threads": 1,
            "precision": "bfloat16",
            "tokens_per_step": 2048,
            "flop_per_token": 200_000_000,
            "slowdown_regularized": cost,
            "slowdown_measured_step": cost,
            "slowdown_of_run_percent": 3.25,
        },
        "sparsity_measurement": {"plain": rate(9000), "counting": rate(8000), "slowdown": cost},
    }
    assert "Missing: not measured." in page.write(synthetic.layout)[1].read_text()
    synthetic.json(synthetic.layout.overhead(), speed)
    text = page.write(synthetic.layout)[1].read_text()
    assert "| The same, counting zeros | 8,000 | 7,200 to 8,800 | +3.0 (+1.0 to +5.0) | 20 |" in text
    assert "cost 3.2%" in text or "cost 3.3%" in text
    assert "Measured with the first 2 of 30 layers." in text
    assert "| Its linear layers only | 8,000 | 1,600 |" in text  # 8,000 tokens/s of 0.2 GFLOP
    assert "reaches 62% of the speed of its matrix products" in text


def test_importing_the_package_loads_nothing_heavy():
    """About twenty short jobs import these modules, and the DAG does on every parse."""
    code = (
        "import sys; from prosparse.paper.page import CLAIMS, FIGURES, TABLES; "
        "[registry.module(name) for registry in (CLAIMS, FIGURES, TABLES) for name in registry]; "
        "heavy = ('torch', 'transformers', 'polars', 'altair', 'numpy', 'scipy', 'pandas'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_cores_of_one_processor_are_named_together(synthetic):
    recorded = ["AMD EPYC, 1 cores", "AMD EPYC, 2 cores", "Xeon, Gold, 1 core", "Another CPU"]
    blocks = {"sparsity": [{"processor": each} for each in recorded]}
    named = facts(synthetic.experiment, blocks)["Processor"]
    assert named == "AMD EPYC, 1 or 2 cores; Xeon, Gold, 1 core; Another CPU"
