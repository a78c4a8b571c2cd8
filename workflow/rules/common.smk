# The validated experiment and the paths of its files.
import json
import re
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.iocontainers import Wildcards

from prosparse.data.sources import check as check_source
from prosparse.experiment import bases, lineage
from prosparse.experiment.activation import Activation
from prosparse.experiment.data import PackageSource
from prosparse.experiment.layout import Layout
from prosparse.experiment.loading import load
from prosparse.experiment.model import PretrainedInit
from prosparse.experiment.problems import did_you_mean
from prosparse.experiment.specifications import stage_specification as specify_stage
from prosparse.measure import benchmark_rows
from prosparse.paper import page
from prosparse.paper.acceleration import page as acceleration_page
from prosparse.paper.claims import registry as claims
from prosparse.paper.figures import registry as figures
from prosparse.paper.release import card
from prosparse.paper.release import folder as release
from prosparse.paper.results import accelerated, operators
from prosparse.paper.tables import registry as tables
from prosparse.plan import invocation, memory, slurm
from prosparse.plan import targets as plan_targets
from prosparse.published.settings import scale_of, settings
from prosparse.system import environment
from prosparse.system.errors import ConfigError
from prosparse.training.launch import time_budget

# how Snakemake was called; None inside a job
call = invocation.called() if workflow.is_main_process else None
try:
    if call is not None:
        invocation.check_profile(call.workflow_profile, Path(workflow.basedir))
        invocation.check_experiment(
            workflow.config_settings.config.get("experiment"),
            named,
            Path(workflow.basedir),
        )
    experiment = load(config)
    layout = Layout.of(experiment)
    for name, corpus in experiment.data.corpora.items():
        check_source(name, corpus)
    bases.check(experiment)
    layout.check_packages()
except ConfigError as error:
    raise WorkflowError(str(error))

environment.prepare_jobs()
if shutil.which("prosparse") is None:
    raise WorkflowError(
        f"prosparse is not installed in the environment of {sys.executable}: pip install --no-deps --editable ."
    )

TABLES = list(tables.TABLES)
FIGURES = list(figures.FIGURES)

SPEED_RUN = lineage.speed_run(experiment)

# runs that use their start unchanged, and runs that train
STARTS = [name for name, run in experiment.runs.items() if not run.stages[-1].until]
TRAINED = [name for name in experiment.runs if name not in STARTS]

# the predictors that mode `predicted` decodes with
PREDICTOR_KIND = experiment.predictors.kinds[0] if experiment.predictors else None
DECISION_THRESHOLD = (
    experiment.predictors.decision_threshold if experiment.predictors else 0.5
)
SHARES = ("average_sparsity", "activation_recall", "predicted_sparsity")


pathvars:
    experiment=str(layout.directory),


# jobs on this machine share its memory; a job that needs more than that gets all of it
if workflow.resource_settings.nodes is None:
    if "mem_mb" not in workflow.global_resources and memory.machine_bytes():
        workflow.register_resource("mem_mb", memory.machine_bytes() // 1_000_000)


wildcard_constraints:
    run="|".join(experiment.runs),
    seed=r"\d+",
    stage=r"\d+",
    corpus="|".join(experiment.data.corpora),
    shard=r"\d+",
    tokenizer="|".join(experiment.data.tokenizers),
    activation=r"silu|relu|(shiftrelu|fatrelu)-[0-9.e-]+",
    shape="|".join(experiment.decoding.shapes if experiment.decoding else ()) or "none",


def ascii_json(model, **options):
    """Dump a model as ASCII JSON, which a command line passes on under any locale; ASCII text stays unchanged."""
    return re.sub(
        "[^\0-\x7f]+",
        lambda found: json.dumps(found[0])[1:-1],
        model.model_dump_json(**options),
    )


def checkpoint_file(run, seed):
    return layout.provenance(run, None, seed)


# data


def package_specification(wildcards):
    names = {layout.archive(name).name: name for name in experiment.data.packages}
    name = names[wildcards.archive]
    return json.dumps(
        {"name": name, "package": experiment.data.packages[name].model_dump()}
    )


def unpacked_archive(wildcards):
    names = {layout.unpacked(name).name: name for name in experiment.data.packages}
    return layout.archive(names[wildcards.folder])


def benchmark_archives(wildcards):
    packages = benchmark_rows.packages(experiment.benchmarks)
    return {package: layout.archive(package) for package in packages}


def corpus_archive(wildcards):
    source = experiment.data.corpora[wildcards.corpus].source
    return layout.archive(source.package) if isinstance(source, PackageSource) else []


def candidates_specification(wildcards):
    data = experiment.data
    return json.dumps(
        {
            "corpus": data.corpora[wildcards.corpus].model_dump(),
            # six characters per token is more than any of our tokenizers needs
            "heldout_characters": 6 * data.heldout_sequences * data.context_length,
        }
    )


def all_candidates(wildcards):
    return [
        layout.candidates(name, shard)
        for name, corpus in experiment.data.corpora.items()
        for shard in range(corpus.shards)
    ]


def tokenizer_documents(wildcards):
    """Return what a tokenizer trains on: the first shard of every corpus; nothing for an existing tokenizer."""
    if experiment.data.tokenizers[wildcards.tokenizer].vocabulary_size is None:
        return []
    return [layout.documents(corpus, 0) for corpus in experiment.data.corpora]


def corpus_shards(wildcards):
    shards = experiment.data.corpora[wildcards.corpus].shards
    return [
        layout.shard_manifest(wildcards.tokenizer, wildcards.corpus, shard)
        for shard in range(shards)
    ]


def tokenizer_gguf(wildcards):
    return layout.tokenizer_gguf(wildcards.tokenizer) or []


def tokens_directory(run):
    return str(layout.tokens(experiment.tokenizer(run)))


def run_tokens(run, corpora):
    """Return the corpora's tokens under a run's tokenizer."""
    return [layout.manifest(experiment.tokenizer(run), corpus) for corpus in corpora]


def pairs_tokens(pairs):
    """Return every corpus's tokens under each tokenizer that these pairs' runs use."""
    chosen = {experiment.pair(pair)[0] for pair in pairs}
    return sorted(
        {path for run in chosen for path in run_tokens(run, experiment.data.corpora)}
    )


# training


def stage_tokens(wildcards):
    mixture = experiment.data.mixtures[experiment.runs[wildcards.run].mixture]
    return run_tokens(wildcards.run, mixture)


def stage_tokenizer(wildcards):
    return layout.tokenizer(experiment.tokenizer(wildcards.run))


def stage_gguf(wildcards):
    first = int(wildcards.stage) == 0
    return (first and layout.start_gguf(wildcards.run)) or []


def stage_predecessor(wildcards):
    previous = lineage.predecessor(experiment, wildcards.run, int(wildcards.stage))
    return layout.provenance(*previous, wildcards.seed) if previous else []


def stage_teacher(wildcards):
    distillation = experiment.runs[wildcards.run].distillation
    return checkpoint_file(distillation.teacher, wildcards.seed) if distillation else []


def stage_processes(wildcards, resources):
    try:
        experiment.runs[wildcards.run].training.accumulation_steps(
            resources.nodes * resources.processes
        )
    except ConfigError as error:
        raise WorkflowError(
            f"runs.{wildcards.run}.{error}: the profile's {resources.nodes} nodes x {resources.processes} processes; "
            "its nodes may differ by run, see docs/cluster.md"
        )
    return f"--nodes {resources.nodes} --processes {resources.processes}"


def stage_memory(wildcards):
    return memory.training_megabytes(layout, wildcards.run)


def measuring_memory(wildcards):
    return memory.measuring_megabytes(layout, wildcards.run)


def benchmarks_memory(wildcards):
    return memory.benchmarks_megabytes(layout, wildcards.run)


def stage_budget(wildcards, resources):
    seconds = time_budget(resources.runtime)
    return "" if seconds is None else f"--max-seconds {seconds}"


def stage_specification(wildcards):
    return ascii_json(
        specify_stage(
            experiment, wildcards.run, int(wildcards.stage), int(wildcards.seed)
        )
    )


# measurement


def measured_tokens(wildcards):
    return run_tokens(wildcards.run, experiment.data.corpora)


def mixed_weights():
    weights = experiment.data.mixtures[experiment.data.mixed]
    return {
        name: {"stands_for": corpus.stands_for, "weight": weights.get(name, 0)}
        for name, corpus in experiment.data.corpora.items()
    }


def sparsity_specification(wildcards):
    return json.dumps(
        {
            "activations": [
                str(a) for a in lineage.measured_activations(experiment, wildcards.run)
            ],
            "corpora": mixed_weights(),
            "precision": experiment.precision,
        }
    )


def trained_checkpoints(wildcards):
    """Return the final checkpoints whose activation patterns the operators are timed with."""
    pairs = operators.trained(experiment).values()
    return {
        checkpoint_file(experiment.pair(pair)[0], experiment.seeds[0]) for pair in pairs
    }


def operators_tokens(wildcards):
    return pairs_tokens(operators.trained(experiment).values())


def operators_specification(wildcards):
    trained = {}
    for row, pair in operators.trained(experiment).items():
        run, activation = experiment.pair(pair)
        trained[row] = {
            "checkpoint": str(layout.checkpoint(run, None, experiment.seeds[0])),
            "activation": activation.model_dump(),
            "tokens": tokens_directory(run),
        }
    return json.dumps(
        {
            "settings": experiment.operators.model_dump(),
            "densities": operators.densities(experiment),
            "trained": trained,
        }
    )


# prediction and decoding


def predictor_tokens(wildcards):
    return run_tokens(wildcards.run, experiment.data.mixtures[experiment.data.mixed])


def predictor_specification(wildcards):
    return json.dumps(
        {
            "activation": Activation.parse(wildcards.activation).model_dump(),
            "settings": experiment.predictors.model_dump(
                exclude={"decision_threshold"}
            ),
            "mixture": experiment.data.mixtures[experiment.data.mixed],
            "seed": int(wildcards.seed),
            "precision": experiment.precision,
        }
    )


def prediction_specification(wildcards):
    return json.dumps(
        {
            "kinds": experiment.predictors.kinds,
            "decision_threshold": DECISION_THRESHOLD,
            "corpora": mixed_weights(),
            "precision": experiment.precision,
        }
    )


def predictors_file(pair):
    run, activation = experiment.pair(pair)
    return layout.predictors(run, activation, experiment.seeds[0])


def decoded_checkpoints(wildcards):
    return sorted(
        {
            checkpoint_file(experiment.pair(pair)[0], experiment.seeds[0])
            for pair in accelerated.pairs(experiment).values()
        }
    )


def decoded_predictors(wildcards):
    pairs = accelerated.predicted_pairs(experiment).values()
    return sorted({predictors_file(pair) for pair in pairs})


def decoded_tokens(wildcards):
    return pairs_tokens(accelerated.pairs(experiment).values())


def decoding_specification(wildcards):
    predicted = accelerated.predicted_pairs(experiment)
    models = []
    for row, pair in accelerated.pairs(experiment).items():
        run, activation = experiment.pair(pair)
        folder = predictors_file(pair).parent
        models.append(
            {
                "row": row,
                "scale": scale_of(row),
                "pair": pair,
                "checkpoint": str(layout.checkpoint(run, None, experiment.seeds[0])),
                "activation": activation.model_dump(),
                "tokens": tokens_directory(run),
                "predictors": (
                    str(folder / PREDICTOR_KIND) if row in predicted else None
                ),
            }
        )
    return json.dumps(
        {
            # shapes and engines belong to other jobs
            "settings": experiment.decoding.model_dump(exclude={"shapes", "engines"}),
            "decision_threshold": DECISION_THRESHOLD,
            "powerinfer": None,
            "models": models,
        }
    )


def powerinfer_program(wildcards):
    return layout.powerinfer() if experiment.decoding.engines.powerinfer else []


def shape_specification(wildcards):
    shape = experiment.decoding.shapes[wildcards.shape]
    printed = {setting.name: setting.printed for setting in settings()}
    return json.dumps(
        {
            "settings": experiment.decoding.model_dump(exclude={"shapes"}),
            "decision_threshold": 0.5,
            "powerinfer": (
                str(layout.powerinfer())
                if experiment.decoding.engines.powerinfer
                else None
            ),
            "models": [
                {
                    "row": row,
                    "scale": scale_of(row),
                    "shape": shape.model_dump(),
                    **{
                        column.replace("average_", ""): float(printed[row][column])
                        / 100
                        for column in SHARES
                    },
                }
                for row in shape.rows
            ],
        }
    )


# tables and figures


def documents_counts():
    return [
        path
        for corpus in experiment.data.corpora
        for path in layout.documents_counts(corpus)
    ]


def table_files(wildcards):
    return tables.needs(wildcards.table, experiment).inputs(layout)


def figure_files(wildcards):
    return figures.needs(wildcards.figure, experiment).inputs(layout)


def release_files(wildcards):
    pair = f"{wildcards.run}@{wildcards.activation}"
    return card.needs(experiment, pair).inputs(layout)


def release_folders(wildcards):
    if not experiment.release:
        raise WorkflowError(
            "release: the experiment names no pair; allowed: run or run@activation"
        )
    return [layout.release(pair) / "README.md" for pair in release.pairs(experiment)]


def base_checkpoints(wildcards):
    if not experiment.bases:
        raise WorkflowError("bases: the experiment names no run")
    return {run: checkpoint_file(run, experiment.seeds[0]) for run in experiment.bases}


def base_tokens(wildcards):
    return pairs_tokens(experiment.bases)


# before the first job


def refusals(targets, local):
    """Return one line per reason why the targets cannot be made; empty if nothing is known to stop them."""
    return [
        f"- {reason}"
        for reason in plan_targets.target_refusals(experiment, targets, local)
    ]


def copied_results():
    """Say what to do if finished work would be redone because a copy lost its files' times; None if all is well."""
    # .snakemake has no record of these jobs, so they did not finish here
    jobs = [
        job
        for job in workflow.dag.needrun_jobs()
        if workflow.dag.reason(job).updated_input
        and not workflow.dag.reason(job).missing_output
        and not workflow.persistence.has_metadata(job)
    ]
    return invocation.copied(
        [str(output) for job in jobs for output in job.output], str(layout.directory)
    )


# a dry run does not call onstart, and Snakemake sets the workflow's targets only after reading the Snakefile
if call is not None and workflow.output_settings.dryrun:
    if found := refusals(
        call.targets or [], local=workflow.resource_settings.nodes is None
    ):
        print("This run would be refused:", *found, sep="\n", file=sys.stderr)
