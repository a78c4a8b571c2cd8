"""``snakemake compare``: this run against the committed copy of its experiment."""
