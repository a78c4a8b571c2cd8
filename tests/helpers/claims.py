"""What tests of claims share."""

from __future__ import annotations

from prosparse.paper.claims import registry as claims


def verdicts_of(synthetic):
    return {verdict.number: verdict for verdict in claims.judge(synthetic.results)}


def change_measurements(synthetic, run, change, activations=None):
    """Change the measurements of a run, of some activations."""

    def edit(value):
        for entry in value["measurements"]:
            if activations is None or entry["activation"] in activations:
                change(entry)

    synthetic.edit(synthetic.layout.sparsity(run, 1), edit)


def precise(shift):
    """Edits benchmark scores: all there, above chance by 20 points and ``shift``, with a small error."""

    def edit(value):
        value["missing"] = {}
        value["benchmarks"]["agi_eval"] = dict(value["benchmarks"]["mmlu"])
        for row in value["benchmarks"].values():
            row.update(score=row["chance"] + 0.2 + shift, standard_error=0.002)

    return edit
