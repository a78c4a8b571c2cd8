# The bases in bfloat16, committed in workflow/bases, where other experiments start from them.


rule bases:
    input:
        unpack(base_checkpoints),
        tokens=lambda wildcards: pairs_tokens(experiment.bases),
    log:
        "<experiment>/logs/bases.log",
    conda:
        "../../envs/prosparse.yaml"
    params:
        bases=lambda wildcards, input: " ".join(
            f"--base {run}={input[run]}" for run in experiment.bases
        ),
        specification=lambda wildcards: as_json(specifications.bases(experiment)),
        tokens=lambda wildcards, input: subpath(input.tokens[0], ancestor=2),
    shell:
        "prosparse step bases {params.bases} --specification {params.specification:q} --tokens {params.tokens}"
        " --output workflow/bases 2>&1 | tee {log}"
