"""A stage's result: what it is made from, whether it exists, how it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from prosparse.experiment.layout import LEDGER, PROVENANCE
from prosparse.experiment.model import PretrainedInit
from prosparse.system import devices, identity, provenance
from prosparse.system.files import discard, write_json, write_through
from prosparse.system.locking import agree
from prosparse.training import checkpoints, distributed, ledger
from prosparse.training.job import StageJob
from prosparse.training.steering import Steering

#: A target is reached within half a point.
CLOSE = 0.005

#: A stage's arithmetic by precision, sharded or not; recorded in its provenance.
ARITHMETIC = {
    "float32": "float32",
    "bfloat16": "matrix products in bfloat16 (autocast); weights, optimizer, norms and the residual stream in float32",
}


def made_from(job: StageJob) -> identity.Identity:
    """What determines the stage's weights: the specification, and the content of every other input."""
    specification = job.specification
    inputs: identity.Identity = {"tokenizer": identity.of_tokenizer(job.tokenizer)}
    if specification.total_steps:
        inputs["tokens"] = {corpus: identity.of_tokens(job.tokens / corpus) for corpus in sorted(specification.mixture)}
    if job.previous is not None:
        inputs["previous"] = identity.of_checkpoint(job.previous)
    elif isinstance(start := specification.start, PretrainedInit):
        inputs["start"] = identity.of_checkpoint(start.pretrained, start.revision, start.gguf_file)
    if job.teacher is not None and specification.distillation_share:
        inputs["teacher"] = identity.of_checkpoint(job.teacher)
    return {"specification": _compared(specification.model_dump(mode="json")), "inputs": inputs}


def _compared(specification: dict[str, Any]) -> dict[str, Any]:
    """The specification without the name of its start; the start's content is among the inputs."""
    start = specification["start"]
    if isinstance(start, dict):
        start = {key: value for key, value in start.items() if key != "pretrained"}
    return {**specification, "start": start}


def is_there(job: StageJob, wanted: identity.Identity) -> bool:
    """Whether the output holds this stage.

    Raises:
        Refused: it holds another.
    """
    path = job.output / PROVENANCE
    if not path.exists():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))
    found = {"specification": _compared(record["specification"]), "inputs": record.get("inputs")}
    agree(found, wanted, job.output)
    print(f"{job.output}: already trained, nothing to do", flush=True)
    return True


def save_untrained(job: StageJob, model: PreTrainedModel) -> Path:
    """Save the unchanged start as a stage, for others to start from and compare with."""
    checkpoint = job.resume / "checkpoint-0"
    model.save_pretrained(checkpoint)
    ledger.write(job.ledger, [])
    checkpoints.keep(checkpoint)
    return checkpoint


def outcome(target: float, final: dict[str, Any]) -> str:
    """Say whether a stage with a target ended within half a point of it, by ``final`` of its ``provenance.json``."""
    reached = final["reached_sparsity"]
    text = f"reached {100 * reached:.2f}% sparsity in the stage's last tenth, lambda {final['lambda']:.4g}"
    if abs(reached - target) <= CLOSE:
        return f"target {100 * target:g}%: {text}"
    if reached > target:
        return f"warning: target {100 * target:g}% exceeded: {text}; a model may be that sparse without a penalty"
    return (
        f"warning: target {100 * target:g}% not reached: {text}; give the stage more steps, or a higher learning rate"
    )


def write(job: StageJob, inputs: identity.Identity, started: float) -> None:
    """Turn the last checkpoint into the stage's result, ``provenance.json`` last: it marks a finished stage."""
    specification, output = job.specification, job.output
    checkpoints.install(job.resume / f"checkpoint-{job.last_step}", output)
    checkpoints.copy_all(job.tokenizer, output)
    rows = ledger.read(job.ledger, job.last_step)
    ledger.write(output / LEDGER, rows)
    write_through(output)
    last = rows[-1] if rows else {"step": "0", "tokens": "0"}
    final: dict[str, Any] = {"lambda": 0.0, "lm_loss": None, "sparsity": None}
    if rows:
        epochs = job.mixture().epochs(job.last_step * specification.training.batch_size)
        final = {**{key: float(last[key]) for key in final}, "epochs": epochs}
    if (target := specification.stages[-1].target_sparsity) is not None:
        state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
        steering = Steering.saved_in(state)
        assert steering is not None
        final["reached_sparsity"] = steering.reached
        print(outcome(target, final), flush=True)
    write_json(
        output / PROVENANCE,
        {
            "stage": len(specification.stages) - 1,
            "seed": specification.seed,
            "specification": specification.model_dump(mode="json"),
            "arithmetic": ARITHMETIC[specification.training.precision],
            "inputs": inputs,
            "l1_reduction": "mean over tokens and intermediate neurons, sum over layers",
            "steps": int(last["step"]),
            "tokens": int(last["tokens"]),
            "parameters": checkpoints.parameters(output),
            "final": final,
            "processes": distributed.count(),
            "provenance": provenance.record(
                specification.model_dump(mode="json"), started, devices.name(devices.fastest())
            ),
        },
    )
    discard(job.resume)
