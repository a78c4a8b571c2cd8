# Folders to upload: a sparse model's weights as links, a config that names the activation, and a model card.


rule release_folder:
    input:
        release_files,
        checkpoint=lambda wildcards: checkpoint_file(wildcards.run, experiment.seeds[0]),
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
