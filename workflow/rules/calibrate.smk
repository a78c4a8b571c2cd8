# By what number a model's λ are the paper's. The next call reads it: a workflow's λ are known before its first job.


rule calibration:
    input:
        probe_ledgers,
    output:
        json="<experiment>/calibration/{scale}.json",
        page="<experiment>/calibration/{scale}.md",
    log:
        "<experiment>/logs/calibration/{scale}.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    params:
        specification=lambda wildcards: as_json(
            calibration_specification(experiment, wildcards.scale)
        ),
    shell:
        "prosparse step calibrate {input} --specification {params.specification:q} --output {output.json} > {log} 2>&1"


rule calibrate:
    input:
        calibrations,
    log:
        "<experiment>/logs/calibrate.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "cat {input} 2>&1 | tee {log}"
