"""Hugging Face's Trainer for one stage: data order, loss, optimizer, arithmetic."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch._functorch import config as functorch
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from prosparse.data.mixture import Mixture
from prosparse.experiment.training import Training
from prosparse.models.load import load
from prosparse.system import devices
from prosparse.system.locking import Refused
from prosparse.training import distributed, fsdp, reporting
from prosparse.training.callbacks import CheckpointCallback, DivergenceCallback, StopCallback, regularize
from prosparse.training.job import StageJob
from prosparse.training.ledger import LedgerCallback
from prosparse.training.loss import FusedLoss, fuse_loss


class StageTrainer(Trainer):
    """Trainer with the mixture's data order, a function of the step only; a teacher sees each batch first.

    Checkpoints have the same files whether or not the model is sharded.
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
        with fsdp.autocast(self.args) if self.is_fsdp_enabled else nullcontext():
            return super().compute_loss(model, inputs, *arguments, **options)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing to do: the model was already loaded from the checkpoint."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        saved = torch.load(Path(checkpoint) / "optimizer.pt", map_location="cpu", mmap=True, weights_only=True)
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        self.optimizer.load_state_dict(fsdp.sharded(saved, parameters))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        state = fsdp.whole(self.optimizer.state_dict())
        if self.args.should_save:
            torch.save(state, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if state_dict is not None:  # gathered from shards: tied weights, saved once, no longer share memory
            assert isinstance(self.model, PreTrainedModel)
            tied = self.model.all_tied_weights_keys
            state_dict = {name: weight for name, weight in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # next comes the state file, which marks a checkpoint as complete


def prepare(model: PreTrainedModel, training: Training, distillation_share: float = 0.0) -> FusedLoss | None:
    """Set up attention, loss and compilation in place, as the training section asks."""
    model.config.use_cache = False
    model.set_attn_implementation(training.attention)
    if training.compile:
        # torch caches the traced backward of the L1 gradient, too; each stage would trace it again, in seconds
        functorch.autograd_cache_allow_custom_autograd_functions = True
        layers = model.base_model.get_submodule("layers")  # identical, so torch compiles one instead of thirty
        for layer in layers.children():
            layer.compile(dynamic=False)
    return fuse_loss(model, distillation_share, training.compile)


def stage_trainer(job: StageJob, model: PreTrainedModel, accumulation_steps: int, stop: StopCallback) -> StageTrainer:
    """The Trainer of a stage's job, which sets lambda, writes the ledger and stops in time."""
    specification, training = job.specification, job.specification.training
    fused_loss, teacher = prepare(model, training, specification.distillation_share), None
    if specification.distillation_share:
        if job.teacher is None or fused_loss is None:
            raise Refused("distillation needs a teacher, and logits that are a product of hidden states and a matrix")
        teacher = _teacher(job.teacher, training)  # before accelerate changes how a sharded model is loaded
    arguments = _arguments(job, accumulation_steps)
    device = arguments.device
    dataset = job.mixture()
    if distributed.is_first():
        _warn_of_repeats(dataset)
        _warn_of_emulation(training)
    if job.sharded:
        fsdp.configure(arguments)
    else:
        model.to(device)  # type: ignore[arg-type]
    callbacks: list[TrainerCallback] = [
        DivergenceCallback(),  # before the ledger, which gets no such row
        LedgerCallback(job, dataset),
        CheckpointCallback(job.resume),
        stop,
    ]
    trainer = StageTrainer(fused_loss, teacher, model=model, args=arguments, train_dataset=dataset, callbacks=callbacks)
    fsdp.forget()
    regularize(trainer, specification.stages, specification.seed)
    reporting.prepare(trainer, job.output)
    # the Trainer's own printer shows raw dictionaries; the ledger's callback prints the same and more
    for printer in [c for c in trainer.callback_handler.callbacks if type(c).__name__ == "PrinterCallback"]:
        trainer.remove_callback(printer)
    return trainer


def _teacher(directory: Path, training: Training) -> PreTrainedModel:
    model = load(directory, dtype=getattr(torch, training.precision))
    if prepare(model, training) is None:
        raise Refused(f"{directory}: the teacher's logits are not a product of hidden states and a matrix")
    return model.eval().to(devices.fastest())  # type: ignore[arg-type]


def _warn_of_repeats(dataset: Mixture) -> None:
    epochs = dataset.epochs()
    for corpus, samples in dataset.repeats().items():
        print(
            f"warning: corpus {corpus} is exhausted: {samples} samples of this run repeat rows that "
            f"it or the runs before it have been trained on ({epochs[corpus]:.2f} epochs at its end)",
            flush=True,
        )


def _warn_of_emulation(training: Training) -> None:
    if training.precision == "bfloat16" and not devices.fast_in_bfloat16():
        print(
            "warning: training.precision is bfloat16, which this processor may have no instructions for: float32 can "
            "be ten times as fast",
            flush=True,
        )


#: transformers' names of learning-rate schedules, where ours differ.
_SCHEDULES = {"constant": "constant_with_warmup", "wsd": "warmup_stable_decay"}


def _decay(training: Training, total_steps: int) -> dict[str, Any]:
    """Options of the learning-rate schedule; 1 - sqrt decays best in Haegele et al. (arXiv 2405.18392)."""
    if training.schedule != "wsd":
        return {}
    return {"num_decay_steps": training.decay_steps(total_steps), "decay_type": "1-sqrt"}


def _arguments(job: StageJob, accumulation_steps: int) -> TrainingArguments:
    specification, training = job.specification, job.specification.training
    arguments = TrainingArguments(
        output_dir=str(job.resume),
        max_steps=specification.total_steps,
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=accumulation_steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type=_SCHEDULES.get(training.schedule, training.schedule),
        lr_scheduler_kwargs=_decay(training, specification.total_steps),
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        adam_beta1=training.betas[0],
        adam_beta2=training.betas[1],
        max_grad_norm=training.gradient_clip,
        optim="adamw_torch_fused",
        bf16=training.precision == "bfloat16",
        use_cpu=not torch.accelerator.is_available(),  # else bf16 is refused without a GPU
        activation_checkpointing=training.activation_checkpointing and not job.sharded,
        logging_steps=training.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_steps=training.checkpoint_every,
        disable_tqdm=True,
        seed=specification.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        **reporting.options(job.report_to, job.output),
        **(fsdp.arguments(training) if job.sharded else {}),
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process trains on one GPU; use more processes for more GPUs
    return arguments
