# Sparsity and held-out loss: of a run's last checkpoint under every activation that a table needs, after every stage
# under the run's own activation, and of a dense model under thresholds without training.


rule sparsity:
    input:
        checkpoint=measured_checkpoint,
        tokens=measured_tokens,
    output:
        "<experiment>/measurements/{run}/seed{seed}/sparsity.json",
    log:
        "<experiment>/logs/sparsity/{run}.seed{seed}.log",
    benchmark:
        "<experiment>/timings/sparsity/{run}.seed{seed}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    resources:
        mem_mb=lambda wildcards: memory.measuring_megabytes(layout, wildcards.run),
    params:
        specification=lambda wildcards: as_json(
            specifications.sparsity(experiment, wildcards.run)
        ),
        tokens=lambda wildcards, input: subpath(input.tokens[0], ancestor=2),
    shell:
        "prosparse step sparsity {input.checkpoint} --specification {params.specification:q}"
        " --run {wildcards.run} --seed {wildcards.seed}"
        " --tokens {params.tokens} --output {output} > {log} 2>&1"


rule stage_sparsity:
    input:
        checkpoints=stage_checkpoints,
        tokens=measured_tokens,
    output:
        "<experiment>/measurements/{run}/seed{seed}/stages.json",
    log:
        "<experiment>/logs/stage_sparsity/{run}.seed{seed}.log",
    benchmark:
        "<experiment>/timings/stage_sparsity/{run}.seed{seed}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    resources:
        mem_mb=lambda wildcards: memory.measuring_megabytes(layout, wildcards.run),
    params:
        specification=lambda wildcards: as_json(
            specifications.stage_sparsity(experiment, wildcards.run)
        ),
        tokens=lambda wildcards, input: subpath(input.tokens[0], ancestor=2),
    shell:
        "prosparse step stage-sparsity {input.checkpoints} --specification {params.specification:q}"
        " --run {wildcards.run} --seed {wildcards.seed}"
        " --tokens {params.tokens} --output {output} > {log} 2>&1"


rule training_free:
    input:
        checkpoint=measured_checkpoint,
        tokens=measured_tokens,
    output:
        "<experiment>/measurements/{run}/seed{seed}/training_free/{activation}.json",
    log:
        "<experiment>/logs/training_free/{run}@{activation}.seed{seed}.log",
    benchmark:
        "<experiment>/timings/training_free/{run}@{activation}.seed{seed}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    resources:
        mem_mb=lambda wildcards: memory.calibrating_megabytes(layout, wildcards.run),
    params:
        specification=lambda wildcards: as_json(
            specifications.training_free(
                experiment, wildcards.run, wildcards.activation
            )
        ),
        tokens=lambda wildcards, input: subpath(input.tokens[0], ancestor=2),
    shell:
        "prosparse step training-free {input.checkpoint} --specification {params.specification:q}"
        " --run {wildcards.run} --seed {wildcards.seed}"
        " --tokens {params.tokens} --output {output} > {log} 2>&1"
