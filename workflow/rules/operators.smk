# The sparse FFN operators: their times on this machine's device, and what the GPU's need once compiled.
trained_pairs = table2_rows.trained(experiment).values()


# at the config's shapes: needs nothing that is trained
rule operators:
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
        specification=lambda wildcards: as_json(timings.operators(layout)),
    shell:
        # large pages, so that page walks do not mask the memory's speed
        "THP_MEM_ALLOC_ENABLE=1 OMP_NUM_THREADS={threads} prosparse step operators --specification {params.specification:q}"
        " --output {output} > {log} 2>&1"


# with the activation patterns of trained models
use rule operators as trained_operators with:
    input:
        checkpoints=lambda wildcards: pairs_checkpoints(trained_pairs),
        tokens=lambda wildcards: pairs_tokens(trained_pairs),
    output:
        "<experiment>/measurements/trained_operators.json",
    log:
        "<experiment>/logs/trained_operators.log",
    benchmark:
        "<experiment>/timings/trained_operators.tsv"
    params:
        specification=lambda wildcards: as_json(timings.trained_operators(layout)),


rule compiled_operators:
    output:
        "<experiment>/measurements/compiled_operators.json",
    log:
        "<experiment>/logs/compiled_operators.log",
    benchmark:
        "<experiment>/timings/compiled_operators.tsv"
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step compiled-operators --output {output} > {log} 2>&1"
