# The overhead of our own code: the L1 gradient in training, counting zeros in measurements.


rule overhead:
    input:
        checkpoint=lambda wildcards: pairs_checkpoints(
            [lineage.overhead_run(experiment)]
        ),
        tokens=lambda wildcards: run_tokens(lineage.overhead_run(experiment)),
    output:
        "<experiment>/measurements/overhead.json",
    log:
        "<experiment>/logs/overhead.log",
    benchmark:
        "<experiment>/timings/overhead.tsv"
    conda:
        "../../envs/prosparse.yaml"
    threads: workflow.cores  # nothing else may run during a timing
    params:
        specification=lambda wildcards: as_json(specifications.overhead(experiment)),
        tokens=lambda wildcards, input: subpath(input.tokens[0], ancestor=2),
        precision=experiment.precision,
        stage_threads=experiment.threads,
    shell:
        # use a stage's threads; Snakemake sets MKL_NUM_THREADS to this rule's, and torch follows it
        "OMP_NUM_THREADS={params.stage_threads} MKL_NUM_THREADS={params.stage_threads} prosparse step overhead {input.checkpoint}"
        " --specification {params.specification:q} --precision {params.precision}"
        " --tokens {params.tokens} --output {output} > {log} 2>&1"
