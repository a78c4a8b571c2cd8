"""Open checkpoints: Hugging Face directories, hub ids and GGUF files."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel

from prosparse.experiment import bases
from prosparse.experiment.activation import Activation
from prosparse.experiment.model import PretrainedInit
from prosparse.experiment.section import Precision
from prosparse.method import whole_ffn
from prosparse.method.activations import UnsupportedArchitecture, activation_key, gated_ffns, substitute
from prosparse.models.third_party import configuration as configuration_of
from prosparse.system import devices
from prosparse.system.allocator import keep_freed_memory
from prosparse.system.errors import ConfigError

SAFETENSORS_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def pretrained(
    init: PretrainedInit,
    activation: Activation | None = None,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
) -> PreTrainedModel:
    """Open a model from the hub, a local directory or a GGUF file, with its own activation or another one.

    Args:
        dtype: ``auto`` keeps the dtype it was saved in. Ignored for GGUF, which is always float32.

    Raises:
        ConfigError: as :func:`load` does, or the directory is not the one that ``init.sha256`` pins.
    """
    if init.gguf_file is None:
        bases.verify(init)
        return load(init.pretrained, activation, init.revision, dtype)
    loaded = AutoModelForCausalLM.from_pretrained(
        init.pretrained, gguf_file=init.gguf_file, revision=init.revision, dtype=torch.float32
    )
    # a dequantized model keeps its quantization config, which makes save_pretrained fail
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    model = AutoModelForCausalLM.from_config(type(loaded.config).from_dict(settings), dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    check(model)
    if activation is not None:
        substitute(model, activation)
    return model


def own_activation(config: PretrainedConfig) -> Activation:
    """Return the activation that a checkpoint was saved with.

    Raises:
        ConfigError: the activation is unsupported (GELU, for example).
    """
    key = activation_key(config)
    try:
        parameter = getattr(config, "hidden_act_param", None)
        return Activation(name=getattr(config, key), parameter=parameter)
    except (AttributeError, ValueError):
        raise ConfigError(
            f"{key} {getattr(config, key, None)!r} of {config.model_type}: "
            "allowed are silu, relu, relu2, drelu, shiftrelu, fatrelu (the last two with hidden_act_param)"
        ) from None


def load(
    directory: str | Path,
    activation: Activation | None = None,
    revision: str | None = None,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
) -> PreTrainedModel:
    """Load a checkpoint with its own activation, or with another one over the same weights.

    Args:
        dtype: ``auto`` keeps the dtype of the stored weights, regardless of the config; if they differ, the dtype that
            represents all of them.

    Raises:
        ConfigError: it is not a model directory, the activation is unsupported, or the weights do not match the
            architecture.
        UnsupportedArchitecture: the activation would not reach all of the model's FFN computation.
    """
    config = configuration_of(directory, revision)
    activation = activation or own_activation(config)
    setattr(config, activation_key(config), "silu")  # any that transformers knows; replaced below
    try:
        if dtype == "auto":
            dtype = _stored_dtype(Path(directory)) or "auto"
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory, config=config, revision=revision, dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # transformers raises anything on broken files
        raise ConfigError(f"{directory} is not a checkpoint that transformers can open: {error}") from error
    model, loading = loaded
    if wrong := [f"{name} is {kind}" for kind in ("missing", "unexpected") for name in sorted(loading[f"{kind}_keys"])]:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ConfigError(f"{directory}: the weights do not match {type(model).__name__}: {wrong[0]}{more}")
    if config.tie_word_embeddings and model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        raise ConfigError(f"{directory}: tie_word_embeddings is true, but there is a separate lm_head.weight")
    check(model)
    substitute(model, activation)
    if activation.name == "drelu":  # whose second ReLU is in a module that the FFN might not call
        for ffn in gated_ffns(model):
            whole_ffn.check_formula(ffn)
    return model


def _stored_dtype(directory: Path) -> torch.dtype | None:
    """Return the dtype that represents all weights in a folder's safetensors headers, or None if there are none."""
    names = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a dict
    dtypes = [SAFETENSORS_DTYPES[name] for name in names if name in SAFETENSORS_DTYPES]
    return functools.reduce(torch.promote_types, dtypes) if dtypes else None


def check(model: PreTrainedModel) -> None:
    """Raise UnsupportedArchitecture unless ``substitute`` reaches all of the FFN computation, and nothing else.

    A checkpoint's config names one activation for the whole model, so another module that reads the same field, as
    most hybrids' mixers do, would change when the checkpoint is loaded.
    """
    whole_ffn.check(model)
    config = copy.deepcopy(model.config)
    built = []
    for activation in ("silu", "relu"):
        setattr(config, activation_key(config), activation)
        with torch.device("meta"):
            built.append(AutoModelForCausalLM.from_config(config))
    ffns = {ffn.name: ffn for ffn in gated_ffns(built[1])}
    for ffn in ffns.values():
        if not isinstance(ffn.activation, nn.ReLU):
            raise UnsupportedArchitecture(
                f"{ffn.name} ({type(ffn.module).__name__}) does not take its activation from {activation_key(config)}"
            )
    for (name, silu), (_, relu) in zip(built[0].named_modules(), built[1].named_modules(), strict=True):
        of_ffn = name in ffns or name.rpartition(".")[0] in ffns
        if not of_ffn and _described(silu) != _described(relu):
            raise UnsupportedArchitecture(
                f"{name} ({type(silu).__name__}) takes its activation from {activation_key(config)} as the FFNs do: "
                "a checkpoint with another one would change it too"
            )


def _described(module: nn.Module) -> dict[str, Any]:
    """Return a module's class, and those of its attributes that may name or be an activation."""
    kept = {key: value for key, value in vars(module).items() if isinstance(value, str) or callable(value)}
    return {"class": type(module).__name__, **{k: getattr(v, "__name__", v) for k, v in kept.items() if k[0] != "_"}}


def load_to_measure(
    directory: str | Path, activation: Activation | None = None, precision: Precision = "float32"
) -> PreTrainedModel:
    """``load`` a model in evaluation mode on the fastest device, and keep freed memory in the process.

    The model ignores the checkpoint's ``generation_config.json``, so that greedy decoding is the argmax.
    """
    keep_freed_memory()
    model = load(directory, activation, dtype=getattr(torch, precision)).eval()
    forget_generation_settings(model)
    return model.to(devices.fastest())  # type: ignore[arg-type]


def forget_generation_settings(model: PreTrainedModel) -> None:
    """Make ``generate`` ignore all of the checkpoint's generation settings except its special tokens.

    Repetition penalties, forbidden or forced tokens and minimum lengths change greedy decoding too, even with
    ``do_sample=False``.
    """
    own: Any = model.generation_config
    tokens = {key: getattr(own, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**tokens)
