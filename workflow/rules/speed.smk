# The overhead of our own code (the L1 gradient in training, counting zeros in measurements) and the gain of sparsity.


rule speed:
    input:
        checkpoint=lambda wildcards: pairs_checkpoints([lineage.speed_run(experiment)]),
        tokens=lambda wildcards: run_tokens(lineage.speed_run(experiment)),
    output:
        "<experiment>/measurements/speed.json",
    log:
        "<experiment>/logs/speed.log",
    benchmark:
        "<experiment>/timings/speed.tsv"
    conda:
        "../../envs/prosparse.yaml"
    threads: workflow.cores  # nothing else may run during a timing
    params:
        specification=lambda wildcards: specifications.overhead(
            experiment
        ).model_dump_json(ensure_ascii=True),
        tokens=lambda wildcards, input: subpath(input.tokens[0], ancestor=2),
        precision=experiment.precision,
        stage_threads=experiment.threads,
    shell:
        # use a stage's threads; Snakemake sets MKL_NUM_THREADS to this rule's, and torch follows it
        "OMP_NUM_THREADS={params.stage_threads} MKL_NUM_THREADS={params.stage_threads} prosparse step speed {input.checkpoint}"
        " --specification {params.specification:q} --precision {params.precision}"
        " --tokens {params.tokens} --output {output} 2>&1 | tee {log}"


trained_pairs = table2_rows.trained(experiment).values()


rule operators:
    input:
        checkpoints=lambda wildcards: pairs_checkpoints(trained_pairs),
        tokens=lambda wildcards: pairs_tokens(trained_pairs),
    output:
        "<experiment>/measurements/operators.json",
    log:
        "<experiment>/logs/operators.log",
    benchmark:
        "<experiment>/timings/operators.tsv"
    conda:
        "../../envs/prosparse.yaml"
    threads: workflow.cores  # nothing else may run during a timing
    params:
        specification=lambda wildcards: as_json(specifications.operators(layout)),
    shell:
        # large pages, so that page walks do not mask the memory's speed
        "THP_MEM_ALLOC_ENABLE=1 OMP_NUM_THREADS={threads} prosparse step operators --specification {params.specification:q}"
        " --output {output} 2>&1 | tee {log}"


rule compiled_operators:
    output:
        "<experiment>/measurements/operators_compiled.json",
    log:
        "<experiment>/logs/compiled_operators.log",
    benchmark:
        "<experiment>/timings/compiled_operators.tsv"
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step compile-operators --output {output} 2>&1 | tee {log}"
