"""Claim 7: formatted data is sparser than plain text."""

from __future__ import annotations

from statistics import fmean

from prosparse.experiment.data import Corpus
from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, Quantity, all_of, untestable
from prosparse.paper.claims.pairs import named, pair_of, rows_needs, sized
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.samples import heldout_sample
from prosparse.paper.results.sparsity import CorpusSparsity
from prosparse.published.claims import published_claims
from prosparse.published.tables import SCALES, published_table


def needs(experiment: Experiment) -> Needs:
    return Needs(sparsity=rows_needs(experiment, [final for _, _, final in SCALES.values()]).sparsity)


def build(results: Results) -> Finding:
    tolerance = published_claims()[7].tolerance
    experiment, findings = results.experiment, []
    for scale, (_, _, final_row) in SCALES.items():
        final = pair_of(experiment, final_row)
        if final is None:
            continue
        groups: dict[str, list[CorpusSparsity]] = {"instruction": [], "code": [], "plain text": []}
        for measured in results.sparsity(*experiment.pair(final)).corpora:
            groups[_kind(experiment.data.corpora[measured.corpus])].append(measured)
        formatted, plain = groups["instruction"] + groups["code"], groups["plain text"]
        if not formatted or not plain:
            findings.append(untestable(f"{named(results, final)}: all corpora are of one kind."))
            continue
        each = ", ".join(
            f"{kind} {fmean(measured.sparsity.mean for measured in group):.2f}% ({len(group)})"
            for kind, group in groups.items()
            if group
        )
        weights = {measured.corpus: 1 / len(formatted) for measured in formatted}
        weights |= {measured.corpus: -1 / len(plain) for measured in plain}
        difference = heldout_sample(results, final, "sparsity", weights).estimate()
        findings.append(
            Finding.of(
                [
                    Quantity(
                        f"{sized(results, scale, final)}: sparsity, formatted data minus plain text",
                        difference,
                        "points",
                        paper=_papers(final_row),
                    ).more_than(tolerance["sparsity"])
                ],
                f"Mean sparsity of {named(results, final)}, with the number of corpora in parentheses: {each}.",
            )
        )
    return all_of(findings, "No run of the experiment stands for a ProSparse row.")


def _kind(corpus: Corpus) -> str:
    if corpus.kind == "instruction":
        return "instruction"
    return "code" if corpus.stands_for == "starcoder" else "plain text"


def _papers(row: str) -> str:
    """Return the same difference between the paper's data sets."""
    printed = next(each for each in published_table("table8_dataset_sparsity") if each["setting"] == row)
    shares = {name: float(share) for name, share in printed.items() if name not in ("setting", "mixed")}
    plain = [shares.pop(name) for name in ("wikipedia", "pile")]
    return f"{fmean(shares.values()) - fmean(plain):.2f} points"
