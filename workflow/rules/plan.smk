# What the experiment costs and what would stop it, before the first job.


rule plan:
    input:
        config=rules.resolved_config.output,
    log:
        "<experiment>/logs/plan.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step plan --config {input.config} 2>&1 | tee {log}"
