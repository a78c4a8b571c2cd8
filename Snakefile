from snakemake.common.configfile import load_configfile
from snakemake.utils import min_version

min_version("9.19")


# a --configfile that says what to train on (data.corpora) is a whole experiment and replaces the default config, any
# other is merged over it; --config values override both
given = [load_configfile(file) for file in workflow.config_settings.configfiles]
named = any("experiment" in held for held in given)
if not any("corpora" in (held.get("data") or {}) for held in given):

    configfile: f"{workflow.basedir}/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/calibrate.smk"
include: "workflow/rules/sparsity.smk"
include: "workflow/rules/benchmarks.smk"
include: "workflow/rules/prediction.smk"
include: "workflow/rules/overhead.smk"
include: "workflow/rules/operators.smk"
include: "workflow/rules/decoding.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/release.smk"
include: "workflow/rules/bases.smk"


rule all:
    default_target: True
    input:
        layout.page(),
        layout.html(),
    localrule: True


rule tables:
    input:
        [layout.table(name, "md") for name in TABLES],
    localrule: True


rule figures:
    input:
        [layout.figure(name, "png") for name in FIGURES],
    localrule: True


rule claims:
    input:
        layout.claims("md"),
    localrule: True


rule release:
    input:
        release_folders,
    localrule: True


for name in TABLES:

    rule:
        name:
            name
        input:
            layout.table(name, "md"),
        localrule: True


for name in FIGURES:

    rule:
        name:
            name
        input:
            layout.figure(name, "png"),
        localrule: True


# what one comparison of schedules needs; the table and the figure show those that are measured
for name, comparison in experiment.schedules.comparisons.items():

    rule:
        name:
            f"schedules_{name}"
        input:
            Needs.of_heldout(experiment, comparison.pairs()).inputs(layout),
            rules.resolved_config.output,
        localrule: True


include: "workflow/rules/invocation.smk"
include: "workflow/rules/profile.smk"


onstart:
    # a killed call leaves its Slurm jobs running, and Snakemake would start them again
    if not workflow.local_exec and (jobs := slurm.leftover_jobs(Path.cwd())):
        raise WorkflowError(
            "Slurm jobs of an earlier call are still running in this folder. Wait for them or cancel them: "
            f"scancel {' '.join(jobs)}"
        )
    if not workflow.touch:
        if copied := invocation.copied(
            workflow.dag, workflow.persistence, layout.directory
        ):
            raise WorkflowError(copied)
        if found := target_refusals(
            experiment, workflow.dag_settings.targets, workflow.local_exec
        ):
            refused = "refused before the first job (--no-hooks runs it anyway):"
            raise WorkflowError("\n- ".join([refused, *found]))
    # with Snakemake's default limit of 100 jobs per second, every finished job adds a timer that evaluates the ready
    # jobs each second until the end, in all a third of a core after 100 jobs; `jobs` limits what is submitted at a time
    limiter = workflow.scheduler.job_rate_limiter
    if limiter and (limiter.max_jobs, limiter.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


onsuccess:
    # not every target builds the page
    if layout.html().exists():
        print(f"\n{summary(layout)}")
        if layout.published().exists():
            print(
                "`snakemake compare` compares this run with the copy in results/published."
            )


onerror:
    print(
        "\nFinished work is kept. Fix the problem named above and run the same command again."
    )
