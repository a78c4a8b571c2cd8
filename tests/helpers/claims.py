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
                _changed(entry, change)

    synthetic.edit(synthetic.layout.sparsity(run, 1), edit)


def _changed(entry, change):
    """Change a measurement's loss and sparsity, and those of its sequences along with them."""
    before = dict(entry)
    change(entry)
    for key in ("loss", "sparsity"):
        for corpus in entry["corpora"].values():
            corpus["sequences"][key] = [x + entry[key] - before[key] for x in corpus["sequences"][key]]


def precise(shift):
    """Edits benchmark scores: all there, above chance by 20 points and ``shift``, with a small error."""

    def edit(value):
        value["missing"] = {}
        value["benchmarks"]["agi_eval"] = dict(value["benchmarks"]["mmlu"])
        for row in value["benchmarks"].values():
            score = row["chance"] + 0.2 + shift
            row.update(score=score, standard_error=0.002, rows=[score + (i % 2 - 0.5) / 25 for i in range(100)])

    return edit
