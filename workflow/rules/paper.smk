# Measurements against the published numbers: tables, figures, claims, and the page that shows them.
from prosparse.paper import page
from prosparse.paper.acceleration import page as acceleration_page
from prosparse.paper.claims.registry import CLAIMS
from prosparse.paper.summary import summary


rule resolved_config:
    output:
        "<experiment>/config.json",
    log:
        "<experiment>/logs/resolved_config.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    params:
        experiment=lambda wildcards: as_json(experiment),
    shell:
        "echo {params.experiment:q} > {output} 2> {log}"


rule table:
    input:
        lambda wildcards: TABLES.needs(wildcards.table, experiment).inputs(layout),
        config=rules.resolved_config.output,
    output:
        report(
            multiext("<experiment>/tables/{table}", ".md", ".csv", ".tex"),
            caption="../report/table.rst",
            category="Tables",
        ),
    log:
        "<experiment>/logs/tables/{table}.log",
    wildcard_constraints:
        table="|".join(TABLES),
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step table {wildcards.table} --config {input.config} > {log} 2>&1"


rule figure:
    input:
        lambda wildcards: FIGURES.needs(wildcards.figure, experiment).inputs(layout),
        config=rules.resolved_config.output,
    output:
        report(
            multiext("<experiment>/figures/{figure}", ".png", ".svg", ".json"),
            caption="../report/figure.rst",
            category="Figures",
        ),
    log:
        "<experiment>/logs/figures/{figure}.log",
    wildcard_constraints:
        figure="|".join(FIGURES),
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step figure {wildcards.figure} --config {input.config} > {log} 2>&1"


rule judge_claims:
    input:
        CLAIMS.all_needs(experiment).inputs(layout),
        config=rules.resolved_config.output,
    output:
        report(
            multiext("<experiment>/claims", ".md", ".json"),
            caption="../report/claims.rst",
            category="Claims",
        ),
    log:
        "<experiment>/logs/claims.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step claims --config {input.config} > {log} 2>&1"


rule acceleration:
    input:
        acceleration_page.needs(experiment).inputs(layout),
        config=rules.resolved_config.output,
    output:
        report(
            "<experiment>/acceleration.md",
            caption="../report/acceleration.rst",
            category="Tables",
        ),
    log:
        "<experiment>/logs/acceleration.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step acceleration --config {input.config} > {log} 2>&1"


rule page:
    input:
        page.needs(experiment).inputs(layout),
        collect("<experiment>/tables/{table}.md", table=TABLES.names),
        collect("<experiment>/figures/{figure}.png", figure=FIGURES.names),
        [layout.documents_counts(corpus) for corpus in experiment.data.corpora],
        rules.judge_claims.output,
        rules.acceleration.output,
        overhead=rules.overhead.output if lineage.overhead_run(experiment) else [],
        compiled=rules.compiled_operators.output,
        config=rules.resolved_config.output,
    output:
        report(
            "<experiment>/README.md",
            caption="../report/page.rst",
            category="Page",
        ),
        "<experiment>/details.md",
    log:
        "<experiment>/logs/page.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step page --config {input.config} > {log} 2>&1"


rule html:
    input:
        rules.page.input,  # the same results
    output:
        report(
            "<experiment>/index.html",
            caption="../report/html.rst",
            category="Page",
        ),
    log:
        "<experiment>/logs/html.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    params:
        config=rules.resolved_config.output,
    shell:
        "prosparse step html --config {params.config} > {log} 2>&1"


rule publish:
    input:
        rules.page.output,
        rules.html.output,
        config=rules.resolved_config.output,
    log:
        "<experiment>/logs/publish.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step publish --config {input.config} 2>&1 | tee {log}"


rule compare:
    input:
        rules.page.output,
        config=rules.resolved_config.output,
    log:
        "<experiment>/logs/compare.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step compare --config {input.config} 2>&1 | tee {log}"
