"""``results/{experiment}/README.md``: claims, tables, figures and where every number comes from, on one page."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from prosparse.config import Benchmarks, Experiment, PackageSource, published_rows
from prosparse.files import write_text
from prosparse.paper import acceleration, claims, explanation, figures, operators, published, tables
from prosparse.paper.origins import stands_in
from prosparse.paper.results import MissingResult, Needs, Results
from prosparse.paper.table import markdown_table


def inputs(experiment: Experiment) -> Needs:
    """Everything that any table, figure or claim needs."""
    needs = claims.inputs(experiment)
    for table in tables.TABLES:
        needs |= tables.inputs(table, experiment)
    for figure in figures.FIGURES:
        needs |= figures.inputs(figure, experiment)
    return needs


def write(experiment: Experiment, directory: str | Path) -> Path:
    """Writes ``directory/README.md`` from the tables, figures and claims that exist there.

    Snakemake's benchmark TSVs are those under ``directory/timings``. What has not been made is listed as not run.
    """
    path = Path(directory) / "README.md"
    benchmarks = sorted((Path(directory) / "timings").rglob("*.tsv"))
    write_text(path, render(Results(directory, experiment), benchmarks))
    return path


def render(results: Results, benchmarks: list[Path]) -> str:
    experiment, directory = results.experiment, results.directory
    blocks, absent = _provenance(results)
    lines = [
        f"# {experiment.experiment}",
        "",
        experiment.description.strip(),
        "",
        "Every number below is read from a measurement of this experiment or from the paper's tables "
        "(Song et al., COLING 2025, arXiv 2402.13516v7). What was not measured is printed as missing.",
        "",
        "## Claims",
        "",
        _included(directory / "claims.md", "claims.md"),
        "",
        "## Tables",
    ]
    for name in tables.TABLES:
        lines += ["", _included(directory / "tables" / f"{name}.md", f"tables/{name}.md")]
    lines += ["", "## Figures"]
    for name in figures.FIGURES:
        exists = (directory / "figures" / f"{name}.png").exists()
        lines += [
            "",
            f"![{name}](figures/{name}.png)" if exists else f"_missing: figures/{name}.png has not been made._",
        ]
    lines += ["", "## Acceleration", "", _included(directory / explanation.FILE, explanation.FILE)]
    lines += ["", "## What stands for what", "", *_origins(experiment)]
    lines += ["", "## Corpora", "", *_corpora(results)]
    lines += ["", "## What has not run", "", *_not_run(results, absent)]
    lines += [
        "",
        "## Host, versions and time",
        "",
        *_host(experiment, blocks),
        "",
        *_times(blocks, benchmarks),
        "",
        *_start_up(directory, benchmarks),
    ]
    lines += ["", "## What the machinery costs", "", *_speed(results.speed_file)]
    lines += ["", "## The GPU operators, compiled", ""]
    lines += _compiled(directory / "measurements" / "operators_compiled.json")
    return "\n".join(lines).rstrip() + "\n"


def _included(path: Path, name: str) -> str:
    """A fragment's text, without a heading that only repeats the section's."""
    if not path.exists():
        return f"_missing: {name} has not been made._"
    return path.read_text().strip().removeprefix("### Claims").strip()


def _origins(experiment: Experiment) -> list[str]:
    rows: dict[tuple[str, str], list[str]] = {}
    for row, pair in experiment.rows.items():
        run, activation = experiment.pair(pair)
        rows.setdefault((f"`{run}@{activation}`", stands_in(experiment, row, run)), []).append(row.replace("*", "\\*"))
    listed = [["; ".join(keys), pair, words] for (pair, words), keys in rows.items()]
    if not listed:
        return ["No run of this experiment stands for a row of the paper."]
    return markdown_table(["Rows of the paper", "Ours (run@activation)", "Trained from"], listed)


def _corpora(results: Results) -> list[str]:
    counted = {
        "read": "Read",
        "after_cleaning": "After cleaning",
        "duplicates_removed": "Duplicates",
        "contaminated_removed": "Contaminated",
        "documents": "Kept",
        "characters": "Characters kept",
    }
    tokenizers = list(results.experiment.data.tokenizers)
    rows = []
    for name, corpus in results.experiment.data.corpora.items():
        counts = results.corpora[name]
        manifests = [results.manifest(tokenizer, name) for tokenizer in tokenizers]
        source = corpus.source
        where = f"{source.package} (package)" if isinstance(source, PackageSource) else getattr(source, "hub", "files")
        commits = sorted({str(shard["commit"])[:12] for shard in counts or [] if shard.get("commit")})
        rows.append(
            [
                f"`{name}`",
                " ".join([where, *commits]),
                published.LABELS[corpus.stands_for] + (" (stand-in)" if corpus.stand_in else ""),
                corpus.kind.replace("_", " "),
                *(_total(counts and [shard[key] for shard in counts]) for key in counted),
                *(_total(manifest and manifest["tokens"]) for manifest in manifests),
            ]
        )
    tokens = ["Tokens"] if len(tokenizers) == 1 else [f"Tokens ({tokenizer})" for tokenizer in tokenizers]
    header = ["Corpus", "Source", "Stands for", "Kind", *counted.values(), *tokens]
    note = "Documents, unless named otherwise. Contaminated: sharing a word n-gram with a benchmark row; removed."
    return [*markdown_table(header, rows, numbers=len(counted) + len(tokens)), "", note]


def _total(value: Any) -> str:
    """A count, or the sum of a count's parts (shards, train and held-out)."""
    return "missing" if value is None else f"{_sum(value):,}"


def _sum(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value
    return value if isinstance(value, int) else sum(map(_sum, parts))


def _not_run(results: Results, absent: dict[str, int]) -> list[str]:
    experiment = results.experiment
    unfilled = [row.replace("*", "\\*") for row in published_rows() if row not in experiment.rows]
    lines = [*_acceleration_not_run(experiment), *_operators_not_run(results)]
    if unfilled:
        lines.append(f"- Rows of the paper that no run stands for: {'; '.join(unfilled)}.")
    tasks = set(experiment.benchmarks.tasks)
    gone = sorted({published.LABELS[b] for b in published.BENCHMARKS if b not in tasks})
    if gone:
        lines.append(f"- Benchmarks that the experiment does not name: {', '.join(gone)}.")
    for kind, number in absent.items():
        if number:
            lines.append(
                f"- {number} result{'s' if number > 1 else ''} of {kind} the tables need and that do not exist yet."
            )
    lines += _rows_not_run(experiment.benchmarks)
    if not experiment.benchmarks.execute_code:
        lines.append("- Model-written programs (HumanEval, MBPP): not executed.")
    return lines


def _rows_not_run(benchmarks: Benchmarks) -> list[str]:
    limits = [f"{published.LABELS[name]} {limit}" for name, limit in benchmarks.limits.items()]
    if benchmarks.limit is not None:
        others = f" ({', '.join(limits)})" if limits else ""
        return [f"- Benchmark rows beyond {benchmarks.limit} a benchmark{others}, taken at even distances."]
    return [f"- Benchmark rows beyond these, taken at even distances: {', '.join(limits)}."] if limits else []


def _acceleration_not_run(experiment: Experiment) -> list[str]:
    reasons = {
        "activation recall, predicted sparsity": acceleration.missing_predictors(experiment),
        "decoding speed": acceleration.missing_decoding(experiment),
    }
    return [
        f"- Table 2, left half ({what}): {reason}, so claim 8 has no verdict."
        for what, reason in reasons.items()
        if reason is not None
    ]


def _operators_not_run(results: Results) -> list[str]:
    try:
        timings = operators.read(results)
    except MissingResult:  # counted among the results that do not exist yet
        return []
    if timings is None:
        return ["- Table 2, right half (operator times): the experiment times no operators, so claim 9 has no verdict."]
    if timings.on_gpu:
        return []
    return [
        "- Table 2, right half, on a GPU: our kernels for GPUs are compiled, but none has run; the times are a CPU's."
    ]


# --------------------------------------------------------------------------------- provenance


def _provenance(results: Results) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    """(provenance blocks of the results in use by kind of job, number of results that do not exist by kind)."""
    files = results.files(inputs(results.experiment))
    documents = [path for name in results.experiment.data.corpora for path in results.documents_files(name)]
    files = {"documents": documents, **files}
    blocks: dict[str, list[dict[str, Any]]] = {}
    absent: dict[str, int] = {}
    for kind, paths in files.items():
        for path in paths:
            if not path.exists():
                absent[kind] = absent.get(kind, 0) + 1
                continue
            block = json.loads(path.read_text()).get("provenance")
            if block:
                blocks.setdefault(kind, []).append(block)
    return blocks, absent


def _host(experiment: Experiment, blocks: dict[str, list[dict[str, Any]]]) -> list[str]:
    every = [block for kind in blocks.values() for block in kind]

    def seen(*keys: str) -> str:
        values = []
        for block in every:
            for key in keys:
                block = (block or {}).get(key)  # type: ignore[assignment]
            if block:
                values.append(str(block))
        return ", ".join(dict.fromkeys(values)) or "missing"

    packages = list(dict.fromkeys(name for block in every for name in block.get("packages", {})))
    rows = [
        ["Processor", seen("processor")],
        ["Device", seen("device")],
        ["Threads a job", seen("threads")],
        ["Code revision", seen("code_revision")],
        ["Packages", ", ".join(f"{name} {seen('packages', name)}" for name in packages) or "missing"],
        ["Seeds", ", ".join(map(str, experiment.seeds))],
    ]
    return markdown_table(["", ""], rows)


def _times(blocks: dict[str, list[dict[str, Any]]], benchmarks: list[Path]) -> list[str]:
    """Wall time by kind of job: Snakemake's where given, else the time each result recorded."""
    if benchmarks:
        seconds: dict[str, list[float]] = {}
        memory: dict[str, list[float]] = {}
        for path in benchmarks:
            kind = path.stem if path.parent.name == "timings" else path.parent.name
            with open(path, newline="") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    seconds.setdefault(kind, []).append(float(row["s"]))
                    if row.get("max_rss", "-") not in ("-", "", "NA", None):
                        memory.setdefault(kind, []).append(float(row["max_rss"]))
        source = "Wall time and peak memory of each job, as Snakemake measured them."
    else:
        seconds = {kind: [b["wall_seconds"] for b in listed if "wall_seconds" in b] for kind, listed in blocks.items()}
        memory, source = {}, "Wall time as each result recorded it."
    rows = [
        [
            kind,
            str(len(times)),
            f"{sum(times):,.0f}",
            f"{max(times):,.0f}",
            f"{max(memory[kind]):,.0f}" if kind in memory else "missing",
        ]
        for kind, times in seconds.items()
        if times
    ]
    if not rows:
        return ["Wall time: missing, no job has recorded any."]
    total = sum(sum(times) for times in seconds.values())
    rows.append(["**all**", str(sum(map(len, seconds.values()))), f"{total:,.0f}", "", ""])
    return [
        source,
        "",
        *markdown_table(["Job", "Jobs", "Total (s)", "Longest (s)", "Peak memory (MB)"], rows, numbers=4),
    ]


#: Jobs that write down their own working time, which begins once their modules are imported: folder of the
#: Snakemake benchmark -> where their provenance is.
TIMED = {
    "train": "checkpoints/*/seed*/stage*/provenance.json",
    "sparsity": "measurements/*/seed*/sparsity.json",
    "evaluate": "measurements/*/seed*/benchmarks/*.json",
    "predictors": "predictors/*/seed*/*/training.json",
    "prediction": "measurements/*/seed*/prediction/*.json",
    "predicted_benchmarks": "measurements/*/seed*/predicted_benchmarks/*.json",
    "documents": "data/documents/*/*.json",
    "tokens": "data/tokens/*/*/shards/*/manifest.json",
}


def _start_up(directory: Path, benchmarks: list[Path]) -> list[str]:
    """What part of the jobs' time is imports and process start, not work."""
    jobs = work = 0.0
    for kind, pattern in TIMED.items():
        for path in benchmarks:
            if path.parent.name == kind:
                with open(path, newline="") as file:
                    jobs += sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
        for path in directory.glob(pattern):
            work += json.loads(path.read_text()).get("provenance", {}).get("wall_seconds", 0)
    if not 0 < work <= jobs:  # not recorded, or results whose work was spread over several jobs
        return []
    return [
        f"Of the {jobs:,.0f} s of {', '.join(TIMED)}, {work:,.0f} s were work and {1 - work / jobs:.0%} process "
        "start and imports."
    ]


def _speed(path: Path) -> list[str]:
    """Our own overhead (``measurements/speed.json``): the L1 gradient in training, the zero count in measuring."""
    if not path.exists():
        return ["Missing: not measured. It is where a run is regularized."]
    measured = json.loads(path.read_text())
    names = {
        ("training_step", "plain"): "Training step, no regularization",
        ("training_step", "regularized"): "Training step with the L1 gradient",
        ("training_step", "regularized_and_measured"): "The same, also measuring sparsity (one step in `log_every`)",
        ("sparsity_measurement", "plain"): "Forward pass and loss",
        ("sparsity_measurement", "counting"): "The same, counting zeros",
    }
    slower = {
        ("training_step", "regularized"): "slowdown_regularized",
        ("training_step", "regularized_and_measured"): "slowdown_measured_step",
        ("sparsity_measurement", "counting"): "slowdown",
    }
    rows = []
    for (work, arm), name in names.items():
        rate = measured[work][arm]
        quartiles = f"{rate['lower_quartile']:,.0f} to {rate['upper_quartile']:,.0f}"
        cost = "–"
        if (work, arm) in slower:
            change = measured[work][slower[work, arm]]
            cost = f"{change['percent']:+.1f} ({change['lower_quartile']:+.1f} to {change['upper_quartile']:+.1f})"
        rows.append([name, f"{rate['tokens_per_second']:,.0f}", quartiles, cost, str(rate["repeats"])])
    header = ["Work", "Tokens/s (median)", "Quartiles", "Slowdown in % (quartiles)", "Repeats"]
    training = measured["training_step"]
    whole = training["slowdown_of_a_run_percent"]
    layers = measured["layers"]
    shortened = layers["measured"] < layers["of"]
    cut = f" Of {layers['of']} layers the first {layers['measured']} alone." if shortened else ""
    return [
        *markdown_table(header, rows, numbers=4),
        "",
        f"Over a whole run the L1 gradient and its ledger cost {whole:.1f} %.{cut}",
        "",
        *_training_rate(training),
    ]


def _training_rate(measured: dict[str, Any]) -> list[str]:
    """What a training step reaches of the processor, and what each lever brought."""
    flop, arms = measured["flop_a_token"], {"plain": "Training step", "linear_layers_alone": "Its linear layers alone"}
    rows = [
        [name, f"{measured[arm]['tokens_per_second']:,.0f}", f"{flop * measured[arm]['tokens_per_second'] / 1e9:,.0f}"]
        for arm, name in arms.items()
    ]
    share = measured["share_of_matmul_rate"]
    levers = [
        [name, f"{rate['tokens_per_second']:,.0f}", f"{rate['lower_quartile']:,.0f} to {rate['upper_quartile']:,.0f}"]
        for name, rate in measured["levers"].items()
    ]
    return [
        f"Training step: {measured['tokens_a_step']:,} tokens, {measured['precision']}, {measured['threads']} "
        f"thread{'s' if measured['threads'] > 1 else ''}, {flop / 1e6:,.0f} MFLOP a token in linear layers "
        "(6 a weight; attention's own products are not counted).",
        "",
        *markdown_table(["Work", "Tokens/s (median)", "GFLOP/s"], rows, numbers=2),
        "",
        f"A training step reaches {share['median']:.0%} of the rate of its matrix products alone (quartiles "
        f"{share['lower_quartile']:.0%} to {share['upper_quartile']:.0%}). Each lever on top of those above it:",
        "",
        *markdown_table(["Training step with", "Tokens/s (median)", "Quartiles"], levers, numbers=2),
    ]


def _compiled(path: Path) -> list[str]:
    """What the machine code of the Triton kernels needs of a GPU (``measurements/operators_compiled.json``)."""
    if not path.exists():
        return ["Missing: not compiled."]
    found = json.loads(path.read_text())
    if "missing" in found:
        return [f"Missing: {found['missing']}."]
    rows = []
    for kernel in found["kernels"]:
        code = kernel["code"]
        rows.append(
            [
                f"`{kernel['name']}`",
                f"sm_{kernel['capability']}",
                str(kernel["threads"]),
                str(code["registers"]),
                f"{kernel['shared_memory']:,}",
                str(code["spill_stores"] + code["spill_loads"]),
                ", ".join(map(str, sorted(set(code["weight_load_widths"])))) or "–",
                "; ".join(kernel["uses"]),
            ]
        )
    header = ["Kernel", "Compiled for", "Threads", "Registers a thread", "Shared memory (B)", "Spilled (B)"]
    return [
        *markdown_table([*header, "Loads of weights (B)", "Launched by"], rows),
        "",
        "Each kernel as the operators launch it for one token at the 7B and 13B shapes in bfloat16. Read from the "
        "machine code, without a GPU.",
    ]
