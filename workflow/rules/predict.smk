# Activation predictors of a pair (checkpoint, activation), how well they predict, and the quality under prediction.


rule predictors:
    input:
        checkpoint=lambda wildcards: checkpoint_file(wildcards.run, wildcards.seed),
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
        mem_mb=measuring_memory,
    params:
        specification=predictor_specification,
        tokens=lambda wildcards, input: subpath(input.tokens[0], ancestor=2),
    shell:
        # saves every epoch: if stopped, the same command resumes
        "prosparse step train-predictors {input.checkpoint} --specification {params.specification:q}"
        " --tokens {params.tokens} --output {output} 2>&1 | tee {log}"


rule prediction:
    input:
        checkpoint=lambda wildcards: checkpoint_file(wildcards.run, wildcards.seed),
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
        mem_mb=measuring_memory,
    params:
        specification=prediction_specification,
        tokens=lambda wildcards, input: subpath(input.tokens[0], ancestor=2),
    shell:
        "prosparse step measure-prediction {input.checkpoint} --specification {params.specification:q}"
        " --activation {wildcards.activation} --run {wildcards.run} --seed {wildcards.seed}"
        " --predictors {input.predictors} --tokens {params.tokens} --output {output} 2>&1 | tee {log}"


rule predicted_benchmarks:
    input:
        checkpoint=lambda wildcards: checkpoint_file(wildcards.run, wildcards.seed),
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
        mem_mb=benchmarks_memory,
    params:
        specification=lambda wildcards: ascii_json(experiment.benchmarks),
        precision=experiment.precision,
        predictors=lambda wildcards, input: f"{subpath(input.predictors, parent=True)}/{PREDICTOR_KIND}",
        decision_threshold=DECISION_THRESHOLD,
    shell:
        "prosparse step measure-benchmarks {input.checkpoint} --specification {params.specification:q}"
        " --activation {wildcards.activation} --run {wildcards.run} --seed {wildcards.seed}"
        " --predictors {params.predictors} --decision-threshold {params.decision_threshold}"
        " --rows {input.rows} --precision {params.precision} --output {output} 2>&1 | tee {log}"
