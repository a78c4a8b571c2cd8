"""Open third-party models and tokenizers without running the code that ships with them.

ProSparse's authors released their models with custom modeling code: ``sparsellama`` is LLaMA with a parametrized
activation, ``minicpm`` is LLaMA with three scalings, which transformers implements as Granite. Each field of a config
is carried over, known not to change the computation, or refused.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoTokenizer,
    GraniteConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils.peft_utils import find_adapter_config_file

from prosparse.experiment.data import is_local
from prosparse.system.errors import ConfigError
from prosparse.system.failures import damaged
from prosparse.system.files import write_json

# otherwise transformers asks a service to open a pull request wherever it finds pickled weights
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "true")

#: Carried over under the same names. Missing fields take LLaMA's defaults, as in the authors' code.
CARRIED = {
    "attention_dropout", "bos_token_id", "dtype", "eos_token_id", "hidden_size", "initializer_range",
    "intermediate_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
    "pad_token_id", "rms_norm_eps", "rope_theta", "tie_word_embeddings", "vocab_size",
}  # fmt: skip
REQUIRED = {"hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size"}
SCALINGS = ("scale_emb", "scale_depth", "dim_model_base")

#: Describe where a model comes from or how it was run, not what it computes.
INERT = {
    "architectures", "auto_map", "model_type", "pretraining_tp", "transformers_version", "use_cache",
    # written by transformers for any model: names, labels, and legacy generation settings
    "attn_implementation", "begin_suppress_tokens", "do_sample", "finetuning_task", "id2label", "label2id",
    "length_penalty", "max_length", "min_length", "name_or_path", "num_beams", "num_return_sequences",
    "output_attentions", "output_hidden_states", "problem_type", "repetition_penalty", "return_dict",
    "task_specific_params", "temperature", "tokenizer_class", "top_k", "top_p", "use_return_dict",
}  # fmt: skip

#: Any other value would change the computation in a way that no released model of the two formats needs.
ONLY = {"attention_bias": False, "mlp_bias": False, "rope_scaling": None}

MODEL_TYPES = ("sparsellama", "minicpm")

NO_VOCABULARY = "has no tokenizer: no file holds a vocabulary (such as tokenizer.json)"


def configuration(directory: str | Path, revision: str | None = None) -> PretrainedConfig:
    """Read a checkpoint's config as that of a model in transformers; ``hidden_act`` is kept as written.

    Raises:
        ConfigError: there is no config, the model type has no implementation here, a field cannot be carried over, or
            the folder or config has something that would be ignored although it changes the model.
    """
    if found := damaged(Path(directory)):
        raise ConfigError(found)
    try:
        adapter = find_adapter_config_file(str(directory), revision=revision)
        settings, _ = ({}, {}) if adapter else PretrainedConfig.get_config_dict(directory, revision=revision)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{directory} is not a checkpoint that transformers can open: {error}") from None
    if adapter:
        raise ConfigError(
            f"{directory} holds an adapter (adapter_config.json), which is not applied: merge it into the weights "
            "(peft's merge_and_unload), or move it away"
        )
    model_type = _model_type(settings)
    quantized: Any = settings.get("quantization_config") or settings.get("compression_config")
    if quantized:
        raise ConfigError(
            f"{directory} is quantized ({quantized.get('quant_method', 'unknown method')}): weights in float32, "
            "bfloat16 or float16 are needed"
        )
    if model_type in MODEL_TYPES:
        return _carried_over(str(directory), model_type, settings)
    if model_type not in CONFIG_MAPPING:
        raise ConfigError(
            f"{directory} is not a checkpoint that transformers can open: model_type is {model_type!r}; allowed are "
            f"{', '.join(MODEL_TYPES)} and those of transformers, since code that ships with a model is not run"
        )
    try:
        config = AutoConfig.from_pretrained(directory, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers raises anything on a broken file
        raise ConfigError(f"{directory} is not a checkpoint that transformers can open: {error}") from error
    code = [value for key, value in (settings.get("auto_map") or {}).items() if key.startswith("AutoModel")]
    if code:
        raise ConfigError(
            f"{directory}: auto_map in config.json names code next to the weights ({code[0]}), which is not run; if "
            f"transformers' own {model_type} computes the same, remove auto_map"
        )
    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(f"{directory}: {model_type} is not a decoder-only language model")
    if config.sub_configs:
        raise ConfigError(
            f"{directory}: {model_type} is more than a language model ({', '.join(sorted(config.sub_configs))}): "
            "save its language model as a separate checkpoint"
        )
    return config


def _model_type(settings: dict[str, Any]) -> str | None:
    """Return the model type; MiniCPM's first configs name only the class, since their own code knew the type."""
    classes = settings.get("architectures") or []
    return settings.get("model_type") or ("minicpm" if "MiniCPMForCausalLM" in classes else None)


def _carried_over(name: str, model_type: str, settings: dict[str, Any]) -> PretrainedConfig:
    said = {key: value for key, value in settings.items() if value is not None and not key.startswith("_")}
    if "torch_dtype" in said:
        said.setdefault("dtype", said.pop("torch_dtype"))
    activation: dict[str, Any] = {key: said.pop(key) for key in ("hidden_act", "hidden_act_param") if key in said}
    if activation.get("hidden_act") not in ("shiftrelu", "fatrelu"):
        activation.pop("hidden_act_param", None)  # the authors' code reads it only for these two
    for key in ONLY.keys() & said.keys():
        if said.pop(key) != ONLY[key]:
            raise ConfigError(f"{name}: {key} is {settings[key]!r}; allowed for {model_type}: {ONLY[key]}")
    needed = REQUIRED | (set(SCALINGS) if model_type == "minicpm" else set())
    if missing := needed - said.keys():
        raise ConfigError(f"{name}: config.json of {model_type} lacks {', '.join(sorted(missing))}")
    if unknown := said.keys() - CARRIED - INERT - needed:
        raise ConfigError(
            f"{name}: {', '.join(f'{key} is {said[key]!r}' for key in sorted(unknown))}; a field of {model_type} that "
            "is not carried over may change what is computed, so this model cannot be opened"
        )
    common: dict[str, Any] = {**{key: said[key] for key in CARRIED & said.keys()}, **activation}
    if model_type == "sparsellama":
        return LlamaConfig(**common)
    common.setdefault("tie_word_embeddings", True)  # the default of the authors' code
    scaled = scalings(
        said["num_hidden_layers"], said["hidden_size"], said["num_attention_heads"], *(said[key] for key in SCALINGS)
    )
    return GraniteConfig(**common, **scaled)


def scalings(
    layers: int, hidden_size: int, heads: int, scale_emb: float, scale_depth: float, dim_model_base: float
) -> dict[str, Any]:
    """Convert MiniCPM's three scalings to Granite's; Granite divides the logits by ``logits_scaling``."""
    return {
        "embedding_multiplier": scale_emb,
        "residual_multiplier": scale_depth / layers**0.5,
        "logits_scaling": hidden_size / dim_model_base,
        "attention_multiplier": (hidden_size // heads) ** -0.5,
    }


def tokenizer(
    pretrained: str | Path, revision: str | None = None, gguf_file: str | None = None
) -> PreTrainedTokenizerBase:
    """Open a tokenizer. Those of the two formats start every text with ``<s>``, which these models need.

    For other models, an explicit ``add_bos_token`` is respected; without one, LLaMA's tokenizers start with ``<s>``, as
    they did before transformers 5, which ignores the setting and the class and follows ``tokenizer.json``.
    If either decides, the tokenizer's ``init_kwargs["add_bos_token"]`` records the decision.

    Raises:
        ConfigError: transformers cannot open a tokenizer without running code that ships with it, or the tokenizer
            does not belong to the model in the same folder.
    """
    try:
        found = AutoTokenizer.from_pretrained(
            pretrained, revision=revision, gguf_file=gguf_file, trust_remote_code=False
        )
        said = {} if gguf_file else get_tokenizer_config(str(pretrained), revision=revision)
        settings = {} if gguf_file else PretrainedConfig.get_config_dict(pretrained, revision=revision)[0]
    except Exception as error:  # a broken file raises anything: KeyError, AttributeError, the Rust library's errors
        raise ConfigError(_why_not_opened(pretrained, error)) from None
    if not found.get_vocab().keys() - found.all_special_tokens:
        raise ConfigError(f"{pretrained} {NO_VOCABULARY}")  # transformers creates an empty one for some families
    _check_size(pretrained, found, settings)
    of_llama = (said.get("tokenizer_class") or "").removesuffix("Fast") == "LlamaTokenizer"
    begins = said.get("add_bos_token", True if of_llama else None)
    if _model_type(settings) in MODEL_TYPES:
        begins = True
    if begins is not None and found.bos_token_id is not None:
        ids = found("a")["input_ids"]
        if (ids[:1] == [found.bos_token_id]) != begins:
            ends = found.eos_token_id is not None and ids[-1:] == [found.eos_token_id]
            found.add_eos_token = ends  # type: ignore[misc]  # its setter is defined twice
            found.add_bos_token = begins  # type: ignore[misc]
        found.init_kwargs["add_bos_token"] = begins
    return found


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Save a tokenizer with ``add_bos_token``, which transformers does not write, so that it reopens unchanged."""
    tokenizer.save_pretrained(directory)
    if (begins := tokenizer.init_kwargs.get("add_bos_token")) is not None:
        path = directory / "tokenizer_config.json"
        write_json(path, {**json.loads(path.read_text(encoding="utf-8")), "add_bos_token": begins})


def _why_not_opened(pretrained: str | Path, error: Exception) -> str:
    """Explain the failure in one line, naming the broken file if there is one."""
    if is_local(str(pretrained)) and not Path(pretrained).is_dir():
        return f"{pretrained} is not a directory"
    if Path(pretrained).is_dir():
        if found := damaged(Path(pretrained)):
            return found
        if (path := Path(pretrained) / "tokenizer.json").is_file():
            try:
                Tokenizer.from_file(str(path))
            except Exception as broken:  # the Rust library raises nothing more specific
                return f"{path} is not a tokenizer: {str(broken).partition(chr(10))[0]}"
    reason = str(error).partition("\n")[0]
    if reason.startswith("Couldn't instantiate the backend tokenizer"):
        return f"{pretrained} {NO_VOCABULARY}"
    if not isinstance(error, OSError | ValueError | ImportError):
        reason = f"{type(error).__name__}: {reason}"
    needs_reader = any(name in reason.lower() for name in ("sentencepiece", "tiktoken"))
    hint = "; without a tokenizer.json, sentencepiece must be installed" if needs_reader else ""
    return f"{pretrained} has no tokenizer that transformers can open: {reason}{hint}"


def _check_size(pretrained: str | Path, found: PreTrainedTokenizerBase, settings: dict[str, Any]) -> None:
    """Raise ConfigError unless every token has a row in the embedding; unused special tokens need none."""
    size = settings.get("vocab_size") or (settings.get("text_config") or {}).get("vocab_size")
    if not isinstance(size, int):
        return
    used = {found.eos_token_id, *found("a")["input_ids"]}
    if found.bos_token_id is not None and found.bos_token_id >= size and found.bos_token_id not in used:
        found.bos_token = None  # a default of its class, in neither the vocabulary nor the model
    unused = {index for index, token in found.added_tokens_decoder.items() if token.special and index not in used}
    over = {token: index for token, index in found.get_vocab().items() if index >= size and index not in unused}
    if over:
        token, index = min(over.items(), key=lambda item: item[1])
        raise ConfigError(
            f"{pretrained}: the tokenizer has token {token!r} with id {index}, but the model has {size} rows for "
            "tokens: the tokenizer belongs to another model, or the model was not resized"
        )
