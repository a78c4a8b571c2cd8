# Decoding speed in tokens/s: of the trained models, and of synthetic ones at true shapes against other engines.


rule decoding:
    input:
        checkpoints=decoded_checkpoints,
        predictors=decoded_predictors,
        tokens=decoded_tokens,
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
        specification=decoding_specification,
    shell:
        # large pages, as in rule operators
        "THP_MEM_ALLOC_ENABLE=1 OMP_NUM_THREADS={threads} prosparse step measure-decoding"
        " --specification {params.specification:q} --output {output} 2>&1 | tee {log}"


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
        specification=shape_specification,
    shell:
        "THP_MEM_ALLOC_ENABLE=1 OMP_NUM_THREADS={threads} prosparse step measure-decoding"
        " --specification {params.specification:q} --output {output} 2>&1 | tee {log}"


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
        specification=lambda wildcards: ascii_json(
            experiment.decoding.engines.powerinfer
        ),
    shell:
        "prosparse step build-powerinfer --specification {params.specification:q} --output {output} 2>&1 | tee {log}"
