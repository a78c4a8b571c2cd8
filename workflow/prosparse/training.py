"""One stage of training: Hugging Face's Trainer, the L1 gradient, a ledger, exact resumption.

A stage continues the optimizer, the learning-rate schedule and the data order of the one before,
so that a run split into stages equals the same run in one piece. While it runs, everything lives
in ``{output}/resume``; a finished stage is linked into ``{output}``, ``provenance.json`` last.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler, Subset
from transformers import AutoTokenizer, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from prosparse import provenance
from prosparse.allocator import keep_freed_memory
from prosparse.config import Architecture, PretrainedInit, Training, UserError
from prosparse.data.mixture import Mixture
from prosparse.loss import FusedLoss, fuse_loss
from prosparse.method.activations import substitute
from prosparse.method.regularization import SparsityRegularization
from prosparse.method.schedule import factor
from prosparse.models import from_scratch, load, pretrained
from prosparse.progress import Refused, claim, locked
from prosparse.runs import StageSpecification

LEDGER = ("step", "tokens", "lambda", "lm_loss", "l1", "l_reg_ratio", "sparsity", "learning_rate", "tokens_per_second")


class OutOfTime(UserError):
    """The time budget is used up; the stage's progress is saved, and the same call goes on."""

    exit_status = 75  # sysexits' "temporary failure": a scheduler may simply try again


class Diverged(UserError):
    """The loss is no longer a number."""


def train_stage(
    specification: StageSpecification,
    tokens: Path,
    tokenizer: Path,
    previous: Path | None,
    output: Path,
    max_seconds: float | None = None,
    label: str = "",
    teacher: Path | None = None,
) -> None:
    """Train one stage, or continue it where an earlier call was stopped.

    Args:
        specification: the stage and everything before it that shapes its weights.
        tokens: directory of tokenised corpora, one folder each.
        tokenizer: saved beside the weights, so that the checkpoint stands alone.
        previous: the checkpoint directory this stage starts from; None for stage 0 from scratch.
        output: the stage's checkpoint directory.
        max_seconds: stop and save before this much time has passed.
        label: begins each progress line, where several stages print to one terminal.
        teacher: the checkpoint directory to distil from, where the specification has a share for it.

    Raises:
        Refused: another process trains here, or the directory holds another config's progress.
        OutOfTime: progress is saved, the same call continues.
        Diverged: the loss is not finite; the last checkpoint is kept.
    """
    started = time.time()
    resume = output / "resume"
    resume.mkdir(parents=True, exist_ok=True)
    with locked(resume):
        claim(resume, specification)
        model = _starting_model(specification, tokenizer, previous)
        if specification.total_steps == 0:
            _finish_untrained(specification, model, tokenizer, resume, output, started)
            return
        _check_disk(output, model)
        keep_freed_memory()
        trainer, callback = _trainer(specification, model, tokens, resume, started, max_seconds, label, teacher)
        continue_from = _newest_checkpoint(resume)
        if continue_from is None and len(specification.stages) > 1:
            continue_from = previous
        trainer.train(resume_from_checkpoint=str(continue_from) if continue_from else None)
        if trainer.state.global_step < specification.stages[-1].until:
            raise OutOfTime(
                f"saved at step {trainer.state.global_step} of {specification.stages[-1].until}: run again to go on"
            )
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            _finish(specification, trainer, callback, tokenizer, resume, output, started)
        trainer.accelerator.wait_for_everyone()


def _starting_model(specification: StageSpecification, tokenizer: Path, previous: Path | None) -> PreTrainedModel:
    match specification.start:
        case _ if previous is not None:
            model = load(previous)
        case Architecture() as architecture:
            size = len(AutoTokenizer.from_pretrained(tokenizer))
            model = from_scratch(architecture, size, specification.context_length, specification.seed)
        case PretrainedInit() as init:
            # what is not trained is saved as it was loaded
            model = pretrained(init, dtype=torch.float32 if specification.total_steps else "auto")
        case None:
            raise Refused("this stage starts from another checkpoint: none was given")
    substitute(model, specification.activation)
    return model


def _check_disk(output: Path, model: PreTrainedModel) -> None:
    # two checkpoints of float32 weights and two AdamW moments exist while one replaces the other
    needed = 2 * 12 * sum(parameter.numel() for parameter in model.parameters())
    free = shutil.disk_usage(output).free
    if free < needed:
        raise Refused(f"{output}: {free / 1e9:.2f} GB free, checkpoints of this stage need {needed / 1e9:.2f} GB")


def _newest_checkpoint(resume: Path) -> Path | None:
    """The last checkpoint that was written whole: the Trainer writes its state file last."""
    for path in sorted(resume.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True):
        try:
            if TrainerState.load_from_json(str(path / "trainer_state.json")).global_step == int(
                path.name.split("-")[1]
            ):
                return path
        except (OSError, ValueError, TypeError):
            pass
        shutil.rmtree(path)
    return None


class _StageTrainer(Trainer):
    """The data order is the mixture's own, a function of the step alone; a teacher sees each batch first."""

    fused_loss: FusedLoss | None = None
    teacher: PreTrainedModel | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)  # type: ignore[arg-type]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        if self.teacher is not None:
            assert self.fused_loss is not None
            with torch.no_grad():
                hidden = self.teacher(input_ids=inputs["input_ids"]).logits  # its head is detached
            self.fused_loss.teacher = hidden, self.teacher.get_output_embeddings().weight
        return super().compute_loss(model, inputs, *arguments, **options)


def prepare(model: PreTrainedModel, training: Training, distillation_share: float = 0.0) -> FusedLoss | None:
    """Attention, loss and compilation as the training section wants them, in place."""
    model.config.use_cache = False
    model.set_attn_implementation(training.attention)
    if training.compile:
        layers = model.base_model.get_submodule("layers")  # alike, so one is compiled and not thirty
        for layer in layers.children():
            layer.compile(dynamic=False)
    return fuse_loss(model, distillation_share, training.compile)


def _teacher(directory: Path, specification: StageSpecification, device: torch.device) -> PreTrainedModel:
    model = load(directory, dtype=getattr(torch, specification.training.precision))
    if prepare(model, specification.training) is None:
        raise Refused(f"{directory}: the teacher's logits are no product of hidden states and a matrix")
    return model.eval().to(device)  # type: ignore[arg-type]


def _trainer(
    specification: StageSpecification,
    model: PreTrainedModel,
    tokens: Path,
    resume: Path,
    started: float,
    max_seconds: float | None,
    label: str,
    teacher: Path | None,
) -> tuple[Trainer, _StageCallback]:
    training = specification.training
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if training.batch_size % (training.micro_batch_size * world_size):
        raise Refused(
            f"training.batch_size {training.batch_size} is not a multiple of micro_batch_size "
            f"{training.micro_batch_size} x {world_size} processes"
        )
    accumulation_steps = training.batch_size // (training.micro_batch_size * world_size)
    arguments = TrainingArguments(
        output_dir=str(resume),
        max_steps=specification.total_steps,
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=accumulation_steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type="constant_with_warmup" if training.schedule == "constant" else training.schedule,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        adam_beta1=training.betas[0],
        adam_beta2=training.betas[1],
        max_grad_norm=training.gradient_clip,
        optim="adamw_torch_fused",
        bf16=training.precision == "bfloat16",
        use_cpu=not torch.accelerator.is_available(),  # else bf16 is refused without a GPU
        activation_checkpointing=training.activation_checkpointing,
        logging_steps=training.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_steps=training.checkpoint_every,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        seed=specification.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    fused_loss = prepare(model, training, specification.distillation_share)
    first, last = (
        specification.first_sample,
        specification.first_sample + specification.total_steps * training.batch_size,
    )
    dataset = Subset(Mixture.load(tokens, specification.mixture, last, specification.seed), range(first, last))
    model.to(arguments.device)  # type: ignore[arg-type]
    regularization = SparsityRegularization(model, accumulation_steps)
    callback = _StageCallback(specification, regularization, resume / "ledger.csv", started, max_seconds, label)
    trainer = _StageTrainer(model=model, args=arguments, train_dataset=dataset, callbacks=[callback])
    trainer.fused_loss = fused_loss
    if specification.distillation_share:
        if teacher is None or fused_loss is None:
            raise Refused("distillation needs a teacher, and logits that are a product of hidden states and a matrix")
        trainer.teacher = _teacher(teacher, specification, arguments.device)
    # the Trainer's own printer shows raw dictionaries; the callback shows the same and more
    for printer in [c for c in trainer.callback_handler.callbacks if type(c).__name__ == "PrinterCallback"]:
        trainer.remove_callback(printer)
    return trainer, callback


class _StageCallback(TrainerCallback):
    """Sets lambda before each step, keeps the ledger, stops at the stage's end or time budget."""

    def __init__(
        self,
        specification: StageSpecification,
        regularization: SparsityRegularization,
        ledger: Path,
        started: float,
        max_seconds: float | None,
        label: str,
    ) -> None:
        self.specification = specification
        self.regularization = regularization
        self.ledger = ledger
        self.prefix = f"{label}: " if label else ""
        self.deadline = None if max_seconds is None else started + max_seconds
        self.last_step = specification.stages[-1].until
        self.l1 = self.sparsity = math.nan
        self.parameters = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        self.parameters = sum(parameter.numel() for parameter in given["model"].parameters())
        rows = []
        if self.ledger.exists():
            with open(self.ledger, newline="") as file:
                # rows after the checkpoint we resume from will be made again
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= state.global_step]
        with open(self.ledger, "w", newline="") as file:
            writer = csv.DictWriter(file, LEDGER)
            writer.writeheader()
            writer.writerows(rows)
        self.clock, self.clock_step = time.perf_counter(), state.global_step

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = state.global_step + 1
        self.regularization.factor = factor(self.specification.stages, step)
        self.regularization.measuring = step == 1 or step == self.last_step or step % args.logging_steps == 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.regularization.measuring:
            l1, sparsity = self.regularization.measured()
            self.l1, self.sparsity = sum(l1), sum(sparsity) / len(sparsity)
        if state.global_step == self.last_step:
            control.should_log = control.should_save = control.should_training_stop = True
        elif self.deadline is not None and time.time() > self.deadline:
            control.should_save = control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        if not math.isfinite(logs["loss"]):
            raise Diverged(
                f"loss is {logs['loss']} at step {state.global_step}: lower training.learning_rate or the peak; "
                "the last checkpoint is kept"
            )
        tokens_per_step = self.specification.training.batch_size * self.specification.context_length
        now = time.perf_counter()
        rate = (state.global_step - self.clock_step) * tokens_per_step / (now - self.clock)
        self.clock, self.clock_step = now, state.global_step
        weight = factor(self.specification.stages, state.global_step)
        row = {
            "step": state.global_step,
            "tokens": state.global_step * tokens_per_step,
            "lambda": weight,
            "lm_loss": logs["loss"],
            "l1": self.l1,
            "l_reg_ratio": weight * self.l1 / logs["loss"],
            "sparsity": self.sparsity,
            "learning_rate": logs["learning_rate"],
            "tokens_per_second": round(rate, 1),
        }
        with open(self.ledger, "a", newline="") as file:
            csv.DictWriter(file, LEDGER).writerow(row)
        remaining = (self.last_step - state.global_step) * tokens_per_step / rate
        print(
            f"{self.prefix}step {state.global_step}/{self.last_step} | loss {logs['loss']:.4f} | lambda {weight:.4g} | "
            f"sparsity {100 * self.sparsity:.2f} % | {rate:,.0f} tokens/s | ETA {remaining:.0f} s",
            flush=True,
        )


def _finish_untrained(
    specification: StageSpecification,
    model: PreTrainedModel,
    tokenizer: Path,
    resume: Path,
    output: Path,
    started: float,
) -> None:
    """The start as it is, in the form of a stage: what others start from and are compared with."""
    model.save_pretrained(output)
    shutil.copytree(tokenizer, output, dirs_exist_ok=True)
    (output / "ledger.csv").write_text(",".join(LEDGER) + "\n")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    final = {"lambda": 0.0, "lm_loss": None, "sparsity": None}
    _write_provenance(specification, output, 0, 0, parameters, final, started, str(model.device))
    shutil.rmtree(resume)


def _finish(
    specification: StageSpecification,
    trainer: Trainer,
    callback: _StageCallback,
    tokenizer: Path,
    resume: Path,
    output: Path,
    started: float,
) -> None:
    source = resume / f"checkpoint-{trainer.state.global_step}"
    (source / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing here reads
    for stale in output.iterdir():
        if stale.is_file():
            stale.unlink()
    # links, since a checkpoint of the paper's models is hundreds of gigabytes
    shutil.copytree(source, output, copy_function=os.link, dirs_exist_ok=True)
    shutil.copytree(tokenizer, output, dirs_exist_ok=True)
    shutil.copy2(callback.ledger, output)
    with open(callback.ledger, newline="") as file:
        last = list(csv.DictReader(file))[-1]
    final = {key: float(last[key]) for key in ("lambda", "lm_loss", "sparsity")}
    _write_provenance(
        specification, output, int(last["step"]), int(last["tokens"]), callback.parameters, final, started,
        str(trainer.args.device),
    )  # fmt: skip
    shutil.rmtree(resume)


def _write_provenance(
    specification: StageSpecification,
    output: Path,
    steps: int,
    tokens: int,
    parameters: int,
    final: dict[str, Any],
    started: float,
    device: str,
) -> None:
    """Written last: a stage that has it is finished."""
    provenance.write_json(
        output / "provenance.json",
        {
            "stage": len(specification.stages) - 1,
            "seed": specification.seed,
            "specification": specification.model_dump(mode="json"),
            "l1_reduction": "mean over tokens and intermediate neurons, sum over layers",
            "steps": steps,
            "tokens": tokens,
            "parameters": parameters,
            "final": final,
            "provenance": provenance.record(specification.model_dump(mode="json"), started, device),
        },
    )
