"""One stage of training: Hugging Face's Trainer, the L1 gradient, a ledger, exact resumption.

A stage continues the optimizer, the learning-rate schedule and the data order of the one before,
so that a run split into stages equals the same run in one piece. While it runs, everything lives
in ``{output}/resume``; a finished stage is linked or copied into ``{output}``, ``provenance.json`` last. A call that
was stopped anywhere, in between too, is finished by the same call; of a finished stage it changes nothing.

Any number of processes does the same work: the batch of a step is theirs together. The first of
them owns the folder; what it cannot do, none does.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import threading
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import AutoTokenizer, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from prosparse import checkpoints, devices, processes, provenance, sharding
from prosparse.allocator import keep_freed_memory
from prosparse.config import Architecture, PretrainedInit, Training, UserError
from prosparse.data.mixture import Mixture
from prosparse.files import discard, write_json, write_through
from prosparse.loss import FusedLoss, fuse_loss
from prosparse.method.activations import substitute
from prosparse.method.regularization import SparsityRegularization
from prosparse.method.schedule import factor
from prosparse.models import empty, from_scratch, load, pretrained
from prosparse.progress import Refused, agree, asked_to_stop, claim, locked
from prosparse.runs import StageSpecification
from prosparse.system import identity

# epoch: of the corpus that has been read most often, the runs before this one included
LEDGER = (
    "step",
    "tokens",
    "lambda",
    "lm_loss",
    "l1",
    "l_reg_ratio",
    "sparsity",
    "learning_rate",
    "tokens_per_second",
    "epoch",
)

#: Of a stage, sharded or not: recorded in its provenance.
ARITHMETIC = {
    "float32": "float32",
    "bfloat16": "matrix products in bfloat16 (autocast); weights, optimizer, norms and the residual stream in float32",
}


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
        max_seconds: stop and save before this much time has passed, as far as the longest step so far tells.
        label: begins each progress line, where several stages print to one terminal.
        teacher: the checkpoint directory to distil from, where the specification has a share for it.

    Raises:
        Refused: another process trains here, or the directory holds what was made from another config, other tokens,
            or another checkpoint.
        ConfigError: the batch cannot be divided among this many processes.
        OutOfTime: the time is used up, or SIGTERM came; progress is saved, the same call continues.
        Diverged: the loss is not finite; the last checkpoint is kept.

    Each is raised in every process of the job.
    """
    started = time.time()
    resume = output / "resume"
    training = specification.training
    shard = training.fsdp and processes.count() > 1
    processes.join()
    with ExitStack() as held:

        def open_folder() -> tuple[bool, Path | None]:
            """Whether the stage is finished, and the checkpoint to continue from."""
            made_from.update(_inputs(specification, tokens, tokenizer, previous, teacher))
            if _is_finished(output, specification, made_from):
                discard(resume)
                return True, None
            resume.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(resume))
            compared = _compared(specification.model_dump(mode="json"))
            claim(resume, {"specification": compared, "inputs": made_from})
            checkpoint = checkpoints.newest(resume)
            if checkpoint is None and specification.total_steps == 0:
                checkpoint = _save_untrained(_starting_model(specification, tokenizer, previous), resume)
            if checkpoint is not None and checkpoints.step(checkpoint) == specification.stages[-1].until:
                finish()
                return True, None
            return False, previous if checkpoint is None and len(specification.stages) > 1 else checkpoint

        def starting_model() -> PreTrainedModel:
            model = _starting_model(specification, tokenizer, continue_from or previous)
            _check_disk(output, model)
            return model

        def finish() -> None:
            checkpoint = resume / f"checkpoint-{specification.stages[-1].until}"
            checkpoints.publish(checkpoint, output)
            checkpoints.copy_all(tokenizer, output)
            steps = specification.stages[-1].until
            epochs = _mixture(specification, tokens).epochs(steps * training.batch_size) if steps else {}
            _finish(specification, checkpoint, output, epochs, made_from, started)

        made_from: identity.Identity = {}
        finished, continue_from = processes.from_first(open_folder)
        if finished:
            return
        accumulation_steps = training.accumulation_steps(processes.count())
        with processes.together():
            model = starting_model() if processes.is_first() or not shard else None
        if model is None or shard:
            model = _shape_of_first(model, specification)
        keep_freed_memory()
        asked = held.enter_context(asked_to_stop())
        deadline = math.inf if max_seconds is None else started + max_seconds
        with processes.together():
            trainer = _trainer(
                specification, model, tokens, resume, accumulation_steps, shard, deadline, asked, label, teacher
            )
        trainer.train(resume_from_checkpoint=str(continue_from) if continue_from else None)
        if trainer.state.global_step < specification.stages[-1].until:
            raise OutOfTime(
                f"saved at step {trainer.state.global_step} of {specification.stages[-1].until}: run again to go on"
            )
        processes.from_first(finish)


def _starting_model(specification: StageSpecification, tokenizer: Path, weights: Path | None) -> PreTrainedModel:
    match specification.start:
        case _ if weights is not None:
            model = load(weights)
        case Architecture() as architecture:
            size = len(AutoTokenizer.from_pretrained(tokenizer))
            model = from_scratch(architecture, size, specification.context_length, specification.seed)
        case PretrainedInit() as init:
            # what is not trained is saved as it was loaded
            dtype: Any = torch.float32 if specification.total_steps else "auto"
            model = pretrained(init, specification.activation, dtype)
        case None:
            raise Refused("this stage starts from another checkpoint: none was given")
    substitute(model, specification.activation)
    return model


def _shape_of_first(model: PreTrainedModel | None, specification: StageSpecification) -> PreTrainedModel:
    """The first process's model as it is; in others one like it without weights, which sharding sends them."""
    config = processes.from_first(lambda: None if model is None else model.config)
    if model is None:
        assert config is not None  # the first process has the model
        model = empty(config)
        substitute(model, specification.activation)
    return model


def _check_disk(output: Path, model: PreTrainedModel) -> None:
    # two checkpoints of float32 weights and two AdamW moments exist while one replaces the other
    needed = 2 * 12 * sum(parameter.numel() for parameter in model.parameters())
    free = shutil.disk_usage(output).free
    if free < needed:
        raise Refused(f"{output}: {free / 1e9:.2f} GB free, checkpoints of this stage need {needed / 1e9:.2f} GB")


class _StageTrainer(Trainer):
    """The data order is the mixture's own, a function of the step alone; a teacher sees each batch first.

    A checkpoint has the same files whether the model is sharded or not.
    """

    def __init__(self, fused_loss: FusedLoss | None, teacher: PreTrainedModel | None, **options: Any) -> None:
        super().__init__(**options)
        self.fused_loss, self.teacher = fused_loss, teacher

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)  # type: ignore[arg-type]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        if self.teacher is not None:
            assert self.fused_loss is not None
            with torch.no_grad():
                hidden = self.teacher(input_ids=inputs["input_ids"]).logits  # its head is detached
            self.fused_loss.teacher = hidden, self.teacher.get_output_embeddings().weight
        with sharding.autocast(self.args) if self.is_fsdp_enabled else nullcontext():
            return super().compute_loss(model, inputs, *arguments, **options)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing to do: the model was loaded from it."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        saved = torch.load(Path(checkpoint) / "optimizer.pt", map_location="cpu", mmap=True, weights_only=True)
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        self.optimizer.load_state_dict(sharding.sharded(saved, parameters))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        state = sharding.whole(self.optimizer.state_dict())
        if self.args.should_save:
            torch.save(state, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if state_dict is not None:  # gathered from shares: tied weights, which are written once, no longer share memory
            assert isinstance(self.model, PreTrainedModel)
            tied = self.model.all_tied_weights_keys
            state_dict = {name: weight for name, weight in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # the state file, which says that a checkpoint is whole, is written next


def prepare(model: PreTrainedModel, training: Training, distillation_share: float = 0.0) -> FusedLoss | None:
    """Attention, loss and compilation as the training section wants them, in place."""
    model.config.use_cache = False
    model.set_attn_implementation(training.attention)
    if training.compile:
        layers = model.base_model.get_submodule("layers")  # alike, so one is compiled and not thirty
        for layer in layers.children():
            layer.compile(dynamic=False)
    return fuse_loss(model, distillation_share, training.compile)


def _teacher(directory: Path, specification: StageSpecification) -> PreTrainedModel:
    model = load(directory, dtype=getattr(torch, specification.training.precision))
    if prepare(model, specification.training) is None:
        raise Refused(f"{directory}: the teacher's logits are no product of hidden states and a matrix")
    return model.eval().to(devices.fastest())  # type: ignore[arg-type]


def _trainer(
    specification: StageSpecification,
    model: PreTrainedModel,
    tokens: Path,
    resume: Path,
    accumulation_steps: int,
    shard: bool,
    deadline: float,
    asked: threading.Event,
    label: str,
    teacher: Path | None,
) -> Trainer:
    training = specification.training
    fused_loss, taught_by = prepare(model, training, specification.distillation_share), None
    if specification.distillation_share:
        if teacher is None or fused_loss is None:
            raise Refused("distillation needs a teacher, and logits that are a product of hidden states and a matrix")
        taught_by = _teacher(teacher, specification)  # before accelerate says how a sharded model is loaded
    arguments = _arguments(specification, resume, accumulation_steps, shard)
    device = arguments.device
    dataset = _mixture(specification, tokens)
    if processes.is_first():
        _warn_of_repeats(dataset, label)
    if shard:
        sharding.configure(arguments)
    else:
        model.to(device)  # type: ignore[arg-type]
    regularization = SparsityRegularization(
        model, accumulation_steps, device,
        seed=specification.seed, rank=processes.rank(), world_size=processes.count(),
    )  # fmt: skip
    callback = _StageCallback(specification, dataset, regularization, resume / "ledger.csv", deadline, asked, label)
    trainer = _StageTrainer(
        fused_loss, taught_by, model=model, args=arguments, train_dataset=dataset, callbacks=[callback]
    )
    sharding.forget()
    # the Trainer's own printer shows raw dictionaries; the callback shows the same and more
    for printer in [c for c in trainer.callback_handler.callbacks if type(c).__name__ == "PrinterCallback"]:
        trainer.remove_callback(printer)
    return trainer


def _mixture(specification: StageSpecification, tokens: Path) -> Mixture:
    samples = specification.total_steps * specification.training.batch_size
    return Mixture.load(tokens, specification.mixture, samples, specification.seed, specification.earlier)


def _warn_of_repeats(dataset: Mixture, label: str) -> None:
    prefix, epochs = f"{label}: " if label else "", dataset.epochs()
    for corpus, samples in dataset.repeats().items():
        print(
            f"{prefix}warning: corpus {corpus} is exhausted: {samples} samples of this run repeat rows that "
            f"it or the runs before it have been trained on ({epochs[corpus]:.2f} epochs at its end)",
            flush=True,
        )


def _arguments(
    specification: StageSpecification, resume: Path, accumulation_steps: int, shard: bool
) -> TrainingArguments:
    training = specification.training
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
        activation_checkpointing=training.activation_checkpointing and not shard,
        logging_steps=training.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_steps=training.checkpoint_every,
        report_to="none",
        disable_tqdm=True,
        seed=specification.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        **(sharding.arguments(training) if shard else {}),
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process trains on one GPU: more are for more processes
    return arguments


class _StageCallback(TrainerCallback):
    """Sets lambda before each step, keeps the ledger, stops at the stage's end or time budget, or when asked to."""

    def __init__(
        self,
        specification: StageSpecification,
        dataset: Mixture,
        regularization: SparsityRegularization,
        ledger: Path,
        deadline: float,
        asked: threading.Event,
        label: str,
    ) -> None:
        self.specification = specification
        self.dataset = dataset
        self.regularization = regularization
        self.ledger = ledger
        self.prefix = f"{label}: " if label else ""
        self.deadline = deadline
        self.asked = asked
        self.last_step = specification.stages[-1].until
        self.l1 = self.sparsity = math.nan

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.clock, self.clock_step = time.perf_counter(), state.global_step
        self.step_ended, self.longest = time.time(), 0.0
        if not state.is_world_process_zero:
            return
        # rows after the checkpoint we resume from will be made again
        checkpoints.write_ledger(self.ledger, LEDGER, checkpoints.read_ledger(self.ledger, state.global_step))

    def epochs(self, step: int) -> dict[str, float]:
        """How often each corpus has been gone through by the end of a step."""
        return self.dataset.epochs(step * self.specification.training.batch_size)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = state.global_step + 1
        self.regularization.step, self.regularization.factor = step, factor(self.specification.stages, step)
        self.regularization.measuring = step == 1 or step == self.last_step or step % args.logging_steps == 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.regularization.measuring:
            l1, sparsity = self.regularization.measured()
            self.l1, self.sparsity = processes.mean([sum(l1), sum(sparsity) / len(sparsity)])
        now = time.time()
        self.longest = max(self.longest, now - self.step_ended)  # a step, and the checkpoint that came before it
        self.step_ended = now
        if state.global_step == self.last_step:
            control.should_log = control.should_save = control.should_training_stop = True
        elif processes.any_of(self.asked.is_set() or now + self.longest > self.deadline):
            control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            checkpoints.keep(self.ledger.parent / f"checkpoint-{state.global_step}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise Diverged(
                f"loss is {logs['loss']} at step {state.global_step}: lower training.learning_rate or the peak; "
                "the last checkpoint is kept"
            )
        if not state.is_world_process_zero:
            return
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
            "epoch": math.ceil(max(self.epochs(state.global_step).values())),
        }
        with open(self.ledger, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, LEDGER).writerow(row)
        remaining = (self.last_step - state.global_step) * tokens_per_step / rate
        print(
            f"{self.prefix}step {state.global_step}/{self.last_step} | loss {logs['loss']:.4f} | lambda {weight:.4g} | "
            f"sparsity {100 * self.sparsity:.2f} % | {rate:,.0f} tokens/s | ETA {remaining:.0f} s",
            flush=True,
        )


# ------------------------------------------------------------------------------------ the result


def _inputs(
    specification: StageSpecification, tokens: Path, tokenizer: Path, previous: Path | None, teacher: Path | None
) -> identity.Identity:
    """What the stage's weights depend on besides the specification."""
    found: identity.Identity = {"tokenizer": identity.of_tokenizer(tokenizer)}
    if specification.total_steps:
        found["tokens"] = {corpus: identity.of_tokens(tokens / corpus) for corpus in sorted(specification.mixture)}
    if previous is not None:
        found["previous"] = identity.of_checkpoint(previous)
    elif isinstance(start := specification.start, PretrainedInit):
        found["start"] = identity.of_checkpoint(start.pretrained, start.revision, start.gguf_file)
    if teacher is not None and specification.distillation_share:
        found["teacher"] = identity.of_checkpoint(teacher)
    return found


def _compared(specification: dict[str, Any]) -> dict[str, Any]:
    """The specification without the name of its start, whose content is among the inputs."""
    start = specification["start"]
    if isinstance(start, dict):
        start = {key: value for key, value in start.items() if key != "pretrained"}
    return {**specification, "start": start}


def _is_finished(output: Path, specification: StageSpecification, made_from: identity.Identity) -> bool:
    """Whether ``output`` holds this stage.

    Raises:
        Refused: it holds another.
    """
    if not (output / "provenance.json").exists():
        return False
    record = json.loads((output / "provenance.json").read_text(encoding="utf-8"))
    agree(
        {"specification": _compared(record["specification"]), "inputs": record.get("inputs")},
        {"specification": _compared(specification.model_dump(mode="json")), "inputs": made_from},
        output,
    )
    print(f"{output}: trained already, nothing to do", flush=True)
    return True


def _save_untrained(model: PreTrainedModel, resume: Path) -> Path:
    """The start as it is, in the form of a stage: what others start from and are compared with."""
    checkpoint = resume / "checkpoint-0"
    model.save_pretrained(checkpoint)
    checkpoints.write_ledger(resume / "ledger.csv", LEDGER, [])
    checkpoints.keep(checkpoint)
    return checkpoint


def _finish(
    specification: StageSpecification,
    checkpoint: Path,
    output: Path,
    epochs: dict[str, float],
    made_from: identity.Identity,
    started: float,
) -> None:
    """Make the last checkpoint the stage's result; ``provenance.json`` comes last: a stage that has it is finished."""
    resume = checkpoint.parent
    rows = checkpoints.read_ledger(resume / "ledger.csv", checkpoints.step(checkpoint))
    checkpoints.write_ledger(output / "ledger.csv", LEDGER, rows)
    write_through(output)
    last = rows[-1] if rows else {"step": "0", "tokens": "0"}
    final: dict[str, Any] = {"lambda": 0.0, "lm_loss": None, "sparsity": None}
    if rows:
        final = {**{key: float(last[key]) for key in final}, "epochs": epochs}
    write_json(
        output / "provenance.json",
        {
            "stage": len(specification.stages) - 1,
            "seed": specification.seed,
            "specification": specification.model_dump(mode="json"),
            "arithmetic": ARITHMETIC[specification.training.precision],
            "inputs": made_from,
            "l1_reduction": "mean over tokens and intermediate neurons, sum over layers",
            "steps": int(last["step"]),
            "tokens": int(last["tokens"]),
            "parameters": checkpoints.parameters(output),
            "final": final,
            "processes": processes.count(),
            "provenance": provenance.record(
                specification.model_dump(mode="json"), started, devices.name(devices.fastest())
            ),
        },
    )
    discard(resume)
