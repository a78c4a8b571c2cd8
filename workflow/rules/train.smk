# One job per stage. It declares only its final files: an interrupted stage resumes from a directory that Snakemake does
# not know and therefore does not delete.
from prosparse.training import launch, share

# runs that use their start unchanged, and runs that train
STARTS = [name for name, run in experiment.runs.items() if not run.stages[-1].until]
TRAINED = [name for name in experiment.runs if name not in STARTS]


rule train_stage:
    input:
        tokens=stage_tokens,
        tokenizer=stage_tokenizer,
        previous=stage_predecessor,
        gguf=stage_gguf,
        teacher=stage_teacher,
    output:
        config="<experiment>/checkpoints/{run}/seed{seed}/stage{stage}/config.json",
        ledger="<experiment>/checkpoints/{run}/seed{seed}/stage{stage}/ledger.csv",
        provenance="<experiment>/checkpoints/{run}/seed{seed}/stage{stage}/provenance.json",
    log:
        "<experiment>/logs/train/{run}.seed{seed}.stage{stage}.log",
    benchmark:
        "<experiment>/timings/train/{run}.seed{seed}.stage{stage}.tsv"
    wildcard_constraints:
        run="|".join(TRAINED) or "none",
    conda:
        "../../envs/prosparse.yaml"
    threads: experiment.threads
    resources:
        # a profile may raise these; they change no results, so finished stages stay valid
        nodes=1,
        processes=1,
        runtime=0,
        mem_mb=lambda wildcards: memory.training_megabytes(layout, wildcards.run),
    params:
        processes=lambda wildcards, resources: (
            f"--nodes {resources.nodes} --processes {resources.processes}"
        ),
        # of a job that Slurm runs
        requeue=lambda wildcards, resources: (
            "--requeue" if resources.get("slurm_partition") else ""
        ),
        # Slurm's own log has all times that the job ran; before each, Snakemake removes {log}
        into=lambda wildcards, resources: (
            "|& tee" if resources.get("slurm_partition") else "&>"
        ),
        budget=lambda wildcards, resources: (
            f"--max-seconds {seconds}"
            if (seconds := launch.time_budget(resources.runtime)) is not None
            else ""
        ),
        specification=lambda wildcards: as_json(
            specifications.stage(
                experiment, wildcards.run, int(wildcards.stage), int(wildcards.seed)
            )
        ),
        tokens=lambda wildcards, input: subpath(input.tokens[0], ancestor=2),
        previous=lambda wildcards, input: (
            f"--previous {subpath(input.previous, parent=True)}"
            if input.previous
            else ""
        ),
        # untracked, as `input` is asked for: it changes no result
        continuations=lambda wildcards, input: " ".join(
            f"--continuation {path}" for path in stage_continuations(wildcards)
        ),
        # untracked likewise
        band=lambda wildcards, input: stage_band(wildcards),
        teacher=lambda wildcards, input: (
            f"--teacher {subpath(input.teacher, parent=True)}" if input.teacher else ""
        ),
    shell:
        "prosparse step launch {params.processes} {params.requeue} -- train-stage --specification {params.specification:q}"
        " --tokens {params.tokens} --tokenizer {input.tokenizer} {params.previous} {params.continuations} {params.teacher}"
        " {params.budget} {params.band} --output {output.provenance} {params.into} {log}"


given = workflow.resource_settings.overwrite_resources.get("train_stage", {})
share.fit(
    rules.train_stage.rule.resources,
    share.DIVIDED & given.keys(),
    experiment,
)


# Models used as they are: downloading or copying one must not wait for GPUs.
use rule train_stage as start with:
    wildcard_constraints:
        run="|".join(STARTS) or "none",
