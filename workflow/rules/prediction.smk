# Activation predictors of a pair (checkpoint, activation), how well they predict, and the quality under prediction.


rule predictors:
    input:
        checkpoint=measured_checkpoint,
        tokens=predictor_tokens,
    output:
        "<experiment>/predictors/{run}/seed{seed}/{activation}/training.json",
    log:
        "<experiment>/logs/predictors/{run}.seed{seed}.{activation}.log",
    benchmark:
        "<experiment>/timings/predictors/{run}.seed{seed}.{activation}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    resources:
        mem_mb=lambda wildcards: memory.measuring_megabytes(layout, wildcards.run),
    params:
        specification=lambda wildcards: as_json(
            specifications.predictors(
                experiment, wildcards.activation, int(wildcards.seed)
            ),
            exclude={"settings": {"decision_threshold"}},
        ),
        tokens=lambda wildcards, input: subpath(input.tokens[0], ancestor=2),
    shell:
        # saves every epoch: if stopped, the same command resumes
        "prosparse step predictors {input.checkpoint} --specification {params.specification:q}"
        " --tokens {params.tokens} --output {output} > {log} 2>&1"


rule prediction:
    input:
        checkpoint=measured_checkpoint,
        predictors=rules.predictors.output[0],
        tokens=measured_tokens,
    output:
        "<experiment>/measurements/{run}/seed{seed}/prediction/{activation}.json",
    log:
        "<experiment>/logs/prediction/{run}.seed{seed}.{activation}.log",
    benchmark:
        "<experiment>/timings/prediction/{run}.seed{seed}.{activation}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    resources:
        mem_mb=lambda wildcards: memory.measuring_megabytes(layout, wildcards.run),
    params:
        specification=lambda wildcards: as_json(specifications.prediction(experiment)),
        tokens=lambda wildcards, input: subpath(input.tokens[0], ancestor=2),
    shell:
        "prosparse step prediction {input.checkpoint} --specification {params.specification:q}"
        " --activation {wildcards.activation} --run {wildcards.run} --seed {wildcards.seed}"
        " --predictors {input.predictors} --tokens {params.tokens} --output {output} > {log} 2>&1"


rule predicted_benchmarks:
    input:
        checkpoint=measured_checkpoint,
        predictors=rules.predictors.output[0],
        rows=rules.benchmark_rows.output,
    output:
        "<experiment>/measurements/{run}/seed{seed}/predicted_benchmarks/{activation}.json",
    log:
        "<experiment>/logs/predicted_benchmarks/{run}.seed{seed}.{activation}.log",
    benchmark:
        "<experiment>/timings/predicted_benchmarks/{run}.seed{seed}.{activation}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    resources:
        mem_mb=lambda wildcards: memory.benchmarks_megabytes(layout, wildcards.run),
    params:
        specification=lambda wildcards: as_json(experiment.benchmarks),
        precision=experiment.precision,
        predictors=lambda wildcards: str(
            layout.decoding_predictors(
                wildcards.run, wildcards.activation, wildcards.seed
            )
        ),
        decision_threshold=lambda wildcards: experiment.predictors.decision_threshold,
    shell:
        "prosparse step benchmarks {input.checkpoint} --specification {params.specification:q}"
        " --activation {wildcards.activation} --run {wildcards.run} --seed {wildcards.seed}"
        " --predictors {params.predictors} --decision-threshold {params.decision_threshold}"
        " --rows {input.rows} --precision {params.precision} --output {output} > {log} 2>&1"
