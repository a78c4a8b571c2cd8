# The validated experiment, and the files behind a job's wildcards.
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from prosparse.data.sources import check as check_source
from prosparse.experiment import (
    bases,
    lineage,
    specifications,
    table2_rows,
    timings,
)
from prosparse.experiment.calibrated import calibrated, probes, refusal, uncalibrated
from prosparse.experiment.calibrated import specification as calibration_specification
from prosparse.experiment.data import PackageSource
from prosparse.experiment.layout import Layout
from prosparse.experiment.loading import load
from prosparse.measure import benchmark_rows
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.release import folder as release
from prosparse.paper.results.needs import Needs
from prosparse.paper.tables.registry import TABLES
from prosparse.plan import invocation, memory, slurm
from prosparse.plan.targets import target_refusals
from prosparse.system import environment
from prosparse.system.errors import ConfigError

environment.prepare_jobs()

# how Snakemake was called; None inside a job
call = invocation.called() if workflow.is_main_process else None
try:
    if call is not None:
        root, options = Path(workflow.basedir), workflow.config_settings.config
        invocation.check_profile(call.workflow_profile, root)
        invocation.check_experiment(options.get("experiment"), named, root)
    invocation.check_installed()
    experiment = calibrated(load(config))
    layout = Layout.of(experiment)
    for name, corpus in experiment.data.corpora.items():
        check_source(name, corpus)
    if call is not None:  # it reads the bases whole, and a job checks its own again
        bases.check(experiment)
    layout.check_packages()
except ConfigError as error:
    raise WorkflowError(str(error))

if call is not None and (notice := invocation.notice_of_seeds(experiment)):
    logger.warning(notice)


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
    activation=r"silu|relu2?|drelu|(shiftrelu|fatrelu)-[0-9.e-]+",
    scale="|".join(experiment.calibration) or "none",
    shape="|".join(experiment.decoding.shapes if experiment.decoding else ()) or "none",


def as_json(specification, **options):
    """Return a job's specification as ASCII, which a command line passes on under any locale."""
    return specification.model_dump_json(ensure_ascii=True, **options)


# data


def benchmark_archives(wildcards):
    packages = benchmark_rows.packages(experiment.benchmarks)
    return {package: layout.archive(package) for package in packages}


def corpus_archive(wildcards):
    source = experiment.data.corpora[wildcards.corpus].source
    return layout.archive(source.package) if isinstance(source, PackageSource) else []


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


def tokenizer_gguf(wildcards):
    return layout.tokenizer_gguf(wildcards.tokenizer) or []


def corpus_shards(wildcards):
    shards = range(experiment.data.corpora[wildcards.corpus].shards)
    return [
        layout.shard_manifest(wildcards.tokenizer, wildcards.corpus, shard)
        for shard in shards
    ]


def run_tokens(run, corpora=experiment.data.corpora):
    """Return the corpora's tokens under a run's tokenizer."""
    return [layout.manifest(experiment.tokenizer(run), corpus) for corpus in corpora]


def pairs_tokens(pairs):
    """Return every corpus's tokens under each tokenizer that these pairs' runs use."""
    runs = {experiment.pair(pair)[0] for pair in pairs}
    return sorted({path for run in runs for path in run_tokens(run)})


# training


def stage_tokens(wildcards):
    mixture = experiment.runs[wildcards.run].mixture
    return run_tokens(wildcards.run, experiment.data.mixtures[mixture])


def stage_tokenizer(wildcards):
    return layout.tokenizer(experiment.tokenizer(wildcards.run))


def stage_gguf(wildcards):
    return wildcards.stage == "0" and layout.start_gguf(wildcards.run) or []


def stage_predecessor(wildcards):
    run, stage = wildcards.run, int(wildcards.stage)
    scale = uncalibrated(experiment, run, stage)
    # a dry run shows all jobs and says what would be refused
    if scale is not None and not workflow.output_settings.dryrun:
        raise WorkflowError(refusal(experiment, scale, run))
    previous = lineage.predecessor(experiment, run, stage)
    return layout.provenance(*previous, wildcards.seed) if previous else []


def stage_continuations(wildcards):
    """Return all that continue the stage before, whose optimizer state may go after them."""
    stage = int(wildcards.stage)
    if experiment.optimizer_states == "all" or stage == 0:
        return []
    found = lineage.continuations(experiment, wildcards.run, stage - 1)
    return [layout.provenance(*key, wildcards.seed) for key in found]


def stage_band(wildcards):
    """Return the option for the sparsity that is expected of a stage; runs that share it take the owner's."""
    band = experiment.runs[wildcards.run].stages[int(wildcards.stage)].expected_sparsity
    return "--expected-sparsity {} {}".format(*band) if band else ""


def stage_teacher(wildcards):
    distillation = experiment.runs[wildcards.run].distillation
    if distillation is None:
        return []
    return layout.provenance(distillation.teacher, None, wildcards.seed)


def probe_ledgers(wildcards):
    names = probes(experiment, wildcards.scale)
    return [layout.ledger(name, None, experiment.seeds[0]) for name in names]


def calibrations(wildcards):
    if not experiment.calibration:
        raise WorkflowError("calibration: the experiment has none")
    return [layout.calibration(scale, "md") for scale in experiment.calibration]


# measurements


def measured_checkpoint(wildcards):
    return layout.provenance(wildcards.run, None, wildcards.seed)


def stage_checkpoints(wildcards):
    """Return the checkpoint that a run starts from, if another run made it, and that of each of its stages."""
    chain = lineage.chain(experiment, wildcards.run)
    return [layout.provenance(*key, wildcards.seed) for _, key in chain]


def measured_tokens(wildcards):
    return run_tokens(wildcards.run)


def predictor_tokens(wildcards):
    return run_tokens(wildcards.run, experiment.data.mixtures[experiment.data.mixed])


def pairs_checkpoints(pairs):
    """Return the first seed's last checkpoint of each pair's run."""
    runs = {experiment.pair(pair)[0] for pair in pairs}
    return sorted(layout.provenance(run, None, experiment.seeds[0]) for run in runs)


def decoded_predictors(wildcards):
    pairs = map(experiment.pair, table2_rows.predicted(experiment).values())
    return sorted({layout.predictors(*pair, experiment.seeds[0]) for pair in pairs})


def powerinfer_program(wildcards):
    return layout.powerinfer() if experiment.decoding.engines.powerinfer else []


# tables and figures


def release_folders(wildcards):
    if not experiment.release:
        raise WorkflowError(
            "release: the experiment names no pair; allowed: run or run@activation"
        )
    return [layout.release(pair) / "README.md" for pair in release.pairs(experiment)]


def base_checkpoints(wildcards):
    if not experiment.bases:
        raise WorkflowError("bases: the experiment names no run")
    seed = experiment.seeds[0]
    return {run: layout.provenance(run, None, seed) for run in experiment.bases}
