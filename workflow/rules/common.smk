# The validated experiment, and which file of it is where.
import json
import shutil
from pathlib import Path

from snakemake.exceptions import WorkflowError

from prosparse import runs
from prosparse.config import ConfigError, PackageSource, load
from prosparse.data.packages import archive_name
from prosparse.data.sources import check as check_source
from prosparse.measure import benchmark_rows
from prosparse.paper import claims, figures, operators, page, tables
from prosparse.provenance import digest

try:
    experiment = load(config)
    for name, corpus in experiment.data.corpora.items():
        check_source(name, corpus)
except ConfigError as error:
    raise WorkflowError(str(error))

if shutil.which("prosparse") is None:
    raise WorkflowError(
        "the command prosparse is not on PATH: activate its environment, as the README shows"
    )

directory = f"results/{experiment.experiment}"
TABLES = list(tables.TABLES)
FIGURES = list(figures.FIGURES)

# speed is measured on the first regularized run, at a factor that the experiment uses
SPEED_RUN = next(
    (name for name, run in experiment.runs.items() if run.stages[-1].peak > 0),
    next(iter(experiment.runs)),
)


pathvars:
    experiment=directory,


wildcard_constraints:
    run="|".join(experiment.runs),
    seed=r"\d+",
    stage=r"\d+",
    corpus="|".join(experiment.data.corpora),
    activation=r"silu|relu|(shiftrelu|fatrelu)-[0-9.e-]+",


def archive(package):
    return (
        f"results/packages/{archive_name(package, experiment.data.packages[package])}"
    )


def checkpoint_file(run, seed):
    return f"{directory}/checkpoints/{runs.checkpoint(experiment, run).format(seed=seed)}/provenance.json"


# data


def package_specification(wildcards):
    archives = {archive(name): name for name in experiment.data.packages}
    name = archives[f"results/packages/{wildcards.archive}"]
    return json.dumps(
        {"name": name, "package": experiment.data.packages[name].model_dump()}
    )


def benchmark_archives(wildcards):
    return {
        name: archive(name) for name in benchmark_rows.packages(experiment.benchmarks)
    }


def corpus_archive(wildcards):
    source = experiment.data.corpora[wildcards.corpus].source
    return archive(source.package) if isinstance(source, PackageSource) else []


def documents_specification(wildcards):
    data = experiment.data
    return json.dumps(
        {
            "corpus": data.corpora[wildcards.corpus].model_dump(),
            "ngram": data.decontamination_ngram,
            # six characters a token is more than any tokenizer of ours needs
            "heldout_characters": 6 * data.heldout_sequences * data.context_length,
        }
    )


# training


def stage_tokens(wildcards):
    mixture = experiment.data.mixtures[experiment.runs[wildcards.run].mixture]
    return [f"{directory}/data/tokens/{corpus}/manifest.json" for corpus in mixture]


def stage_predecessor(wildcards):
    previous = runs.predecessor(experiment, wildcards.run, int(wildcards.stage))
    return (
        f"{directory}/checkpoints/{previous.format(seed=wildcards.seed)}/provenance.json"
        if previous
        else []
    )


def stage_specification(wildcards):
    return runs.specification(
        experiment, wildcards.run, int(wildcards.stage), int(wildcards.seed)
    ).model_dump_json()


# measurement


def sparsity_specification(wildcards):
    weights = experiment.data.mixtures[experiment.data.mixed]
    return json.dumps(
        {
            "activations": [
                str(a) for a in runs.measured_activations(experiment, wildcards.run)
            ],
            "corpora": {
                name: {"stands_for": corpus.stands_for, "weight": weights.get(name, 0)}
                for name, corpus in experiment.data.corpora.items()
            },
        }
    )


def trained_checkpoints(wildcards):
    """Final checkpoints of the runs whose activation patterns the operators are timed with."""
    pairs = operators.trained(experiment).values()
    return {
        checkpoint_file(experiment.pair(pair)[0], experiment.seeds[0]) for pair in pairs
    }


def operators_specification(wildcards):
    trained = {}
    for row, pair in operators.trained(experiment).items():
        run, activation = experiment.pair(pair)
        trained[row] = {
            "checkpoint": str(Path(checkpoint_file(run, experiment.seeds[0])).parent),
            "activation": activation.model_dump(),
            "tokens": f"{directory}/data/tokens",
        }
    return json.dumps(
        {
            "settings": experiment.operators.model_dump(),
            "densities": operators.densities(experiment),
            "trained": trained,
        }
    )


# tables and figures


def needed_files(needs):
    """Paths of what a table, figure, the claims or the page is made from."""
    per_seed = [
        *(
            f"{directory}/measurements/{run}/seed{{seed}}/sparsity.json"
            for run in sorted(needs.sparsity)
        ),
        *(
            f"{directory}/measurements/{run}/seed{{seed}}/benchmarks/{activation}.json"
            for run, activation in sorted(needs.benchmarks)
        ),
        *(
            f"{directory}/checkpoints/{runs.checkpoint(experiment, run, stage)}/{file}"
            for run, stage in sorted(needs.stages)
            for file in ("provenance.json", "ledger.csv")
        ),
    ]
    once = [f"{directory}/measurements/operators.json"] if needs.operators else []
    return once + sorted(
        {path.format(seed=seed) for path in per_seed for seed in experiment.seeds}
    )


def settings_of(needs):
    """Digest of the settings that a result shows, so that only their change makes it anew."""
    shown = {run for run, *_ in needs.benchmarks | needs.stages} | needs.sparsity
    return digest(
        {
            "runs": {
                run: experiment.runs[run].model_dump(mode="json") for run in shown
            },
            "rows": {
                row: pair
                for row, pair in experiment.rows.items()
                if pair.partition("@")[0] in shown
            },
            "seeds": experiment.seeds,
            "operators": (
                experiment.operators.model_dump(mode="json")
                if needs.operators and experiment.operators
                else None
            ),
        }
    )


def table_files(wildcards):
    return needed_files(tables.inputs(wildcards.table, experiment))


def figure_files(wildcards):
    return needed_files(figures.inputs(wildcards.figure, experiment))
