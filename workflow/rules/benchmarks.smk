# All benchmarks of one pair (checkpoint, activation) in one lm-eval call.


rule benchmarks:
    input:
        checkpoint=measured_checkpoint,
        rows=rules.benchmark_rows.output,
    output:
        "<experiment>/measurements/{run}/seed{seed}/benchmarks/{activation}.json",
    log:
        "<experiment>/logs/benchmarks/{run}.seed{seed}.{activation}.log",
    benchmark:
        "<experiment>/timings/benchmarks/{run}.seed{seed}.{activation}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    resources:
        mem_mb=lambda wildcards: memory.benchmarks_megabytes(layout, wildcards.run),
    params:
        specification=lambda wildcards: as_json(experiment.benchmarks),
        precision=experiment.precision,
    shell:
        "prosparse step benchmarks {input.checkpoint} --specification {params.specification:q}"
        " --activation {wildcards.activation} --run {wildcards.run} --seed {wildcards.seed}"
        " --rows {input.rows} --precision {params.precision} --output {output} > {log} 2>&1"
