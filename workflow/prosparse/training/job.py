"""The job of one stage: what to train, from which files, into which folder, how long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prosparse.data.mixture import Mixture
from prosparse.experiment.layout import LEDGER
from prosparse.experiment.specifications import StageSpecification
from prosparse.training import distributed
from prosparse.training.reporting import Tracker


@dataclass(frozen=True)
class StageJob:
    """One stage to train, or to resume where an earlier call stopped.

    Attributes:
        specification: the stage and everything before it that shapes its weights.
        tokens: directory of tokenized corpora, one folder each.
        tokenizer: directory of the tokenizer, saved with the weights so that the checkpoint is self-contained.
        previous: the checkpoint directory the stage starts from; None for stage 0 from scratch or from a pretrained
            model.
        output: the stage's checkpoint directory.
        max_seconds: stop and save before this much time has passed, judging by the longest step so far.
        continuations: ``provenance.json`` of every stage that continues the previous one; once all exist, the previous
            one's optimizer state is removed. Empty: it is kept.
        expected_sparsity: the band that the stage is expected to stay in, 0 to 1; None: any.
        teacher: the checkpoint directory to distill from, if the specification has a share for it.
        report_to: the tracker that follows the stage, if any; part of no result.
    """

    specification: StageSpecification
    tokens: Path
    tokenizer: Path
    previous: Path | None
    output: Path
    max_seconds: float | None = None
    teacher: Path | None = None
    continuations: tuple[Path, ...] = ()
    expected_sparsity: tuple[float, float] | None = None
    report_to: Tracker | None = None

    @property
    def resume(self) -> Path:
        """Where everything lives until the stage is finished."""
        return self.output / "resume"

    @property
    def ledger(self) -> Path:
        return self.resume / LEDGER

    @property
    def last_step(self) -> int:
        return self.specification.stages[-1].until

    @property
    def sharded(self) -> bool:
        return self.specification.training.fsdp and distributed.count() > 1

    def mixture(self) -> Mixture:
        """The samples of the whole run, of which the stage reads its part."""
        wanted = self.specification
        samples = wanted.total_steps * wanted.training.batch_size
        return Mixture.load(self.tokens, wanted.mixture, samples, wanted.seed, wanted.earlier)
