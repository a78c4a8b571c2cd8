# Decoding speed in tokens/s: of the trained models, and of synthetic ones at true shapes against other engines. Loss in
# each precision.
decoded_pairs = table2_rows.decoded(experiment).values()


rule decoding:
    input:
        checkpoints=lambda wildcards: pairs_checkpoints(decoded_pairs),
        predictors=decoded_predictors,
        tokens=lambda wildcards: pairs_tokens(decoded_pairs),
    output:
        "<experiment>/measurements/decoding.json",
    log:
        "<experiment>/logs/decoding.log",
    benchmark:
        "<experiment>/timings/decoding.tsv"
    conda:
        "../../envs/prosparse.yaml"
    threads: workflow.cores  # nothing else may run during a timing
    params:
        # the shapes and engines belong to other jobs; each model names its precision
        specification=lambda wildcards: as_json(
            timings.decoding(layout),
            exclude={"settings": {"precisions", "shapes", "engines"}},
        ),
    shell:
        # large pages, as in rule operators
        "THP_MEM_ALLOC_ENABLE=1 OMP_NUM_THREADS={threads} prosparse step decoding"
        " --specification {params.specification:q} --output {output} > {log} 2>&1"


rule precision:
    input:
        checkpoints=lambda wildcards: pairs_checkpoints(decoded_pairs),
        tokens=lambda wildcards: pairs_tokens(decoded_pairs),
    output:
        "<experiment>/measurements/precision.json",
    log:
        "<experiment>/logs/precision.log",
    benchmark:
        "<experiment>/timings/precision.tsv"
    conda:
        "../../envs/prosparse.yaml"
    resources:
        mem_mb=lambda wildcards: max(
            memory.measuring_megabytes(layout, experiment.pair(pair)[0])
            for pair in decoded_pairs
        ),
    params:
        specification=lambda wildcards: as_json(timings.precision(layout)),
    shell:
        "prosparse step precision --specification {params.specification:q} --output {output} > {log} 2>&1"


rule decoding_shape:
    input:
        powerinfer=powerinfer_program,
    output:
        "<experiment>/measurements/decoding/{shape}.json",
    log:
        "<experiment>/logs/decoding/{shape}.log",
    benchmark:
        "<experiment>/timings/decoding/{shape}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    threads: workflow.cores
    params:
        specification=lambda wildcards: as_json(
            timings.decoding_shape(layout, wildcards.shape),
            exclude={"settings": {"precisions", "shapes"}},
        ),
    shell:
        "THP_MEM_ALLOC_ENABLE=1 OMP_NUM_THREADS={threads} prosparse step decoding"
        " --specification {params.specification:q} --output {output} > {log} 2>&1"


rule powerinfer:
    output:
        layout.powerinfer(),
    log:
        "<experiment>/logs/powerinfer.log",
    benchmark:
        "<experiment>/timings/powerinfer.tsv"
    conda:
        "../../envs/prosparse.yaml"
    params:
        specification=lambda wildcards: as_json(experiment.decoding.engines.powerinfer),
    shell:
        "prosparse step powerinfer --specification {params.specification:q} --output {output} > {log} 2>&1"
