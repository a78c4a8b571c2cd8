# All benchmarks of one pair (checkpoint, activation) in one lm-eval call.


rule evaluate:
    input:
        checkpoint=lambda wildcards: checkpoint_file(wildcards.run, wildcards.seed),
        rows=rules.benchmark_rows.output,
    output:
        "<experiment>/measurements/{run}/seed{seed}/benchmarks/{activation}.json",
    log:
        "<experiment>/logs/evaluate/{run}.seed{seed}.{activation}.log",
    benchmark:
        "<experiment>/timings/evaluate/{run}.seed{seed}.{activation}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    resources:
        mem_mb=benchmarks_memory,
    params:
        specification=lambda wildcards: ascii_json(experiment.benchmarks),
        precision=experiment.precision,
    shell:
        "prosparse step measure-benchmarks {input.checkpoint} --specification {params.specification:q}"
        " --activation {wildcards.activation} --run {wildcards.run} --seed {wildcards.seed}"
        " --rows {input.rows} --precision {params.precision} --output {output} 2>&1 | tee {log}"
