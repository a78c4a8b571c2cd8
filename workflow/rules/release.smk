# Folders to upload: a sparse model's weights as links, a config that names the activation, and a model card.
from prosparse.paper.release import card


rule release_folder:
    input:
        lambda wildcards: card.needs(
            experiment, f"{wildcards.run}@{wildcards.activation}"
        ).inputs(layout),
        checkpoint=lambda wildcards: layout.provenance(
            wildcards.run, None, experiment.seeds[0]
        ),
        config=rules.resolved_config.output,
    output:
        multiext("<experiment>/release/{run}@{activation}/", "README.md", "config.json"),
    log:
        "<experiment>/logs/release/{run}@{activation}.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step release {wildcards.run}@{wildcards.activation} --config {input.config} 2>&1 | tee {log}"
