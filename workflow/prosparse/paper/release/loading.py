"""How a model card tells readers to load the model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from prosparse.config import Activation

#: What transformers lacks, as its source.
MODULES = {
    "shiftrelu": ("ShiftedReLU", "torch.relu(x - {0!r})"),
    "fatrelu": ("FATReLU", "torch.where(x >= {0!r}, x, 0)"),
}


def loading(activation: Activation, settings: dict[str, Any]) -> Iterator[str]:
    yield (
        "Begin every context with the beginning-of-sequence token: without it such models score abnormally. lm-eval "
        "adds it with `add_bos_token=True` alone."
    )
    yield from ["", "**transformers**", ""]
    if activation.name in MODULES:
        name, body = MODULES[activation.name]
        yield (
            f"It has no `{activation.name}` and so refuses to load this folder, rather than compute another model. "
            "Tell it what that is, before you load; no code of others is run:"
        )
        yield from [
            "",
            "```python",
            "import torch",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "from transformers.activations import ACT2FN",
            "",
            "",
            f"class {name}(torch.nn.Module):",
            "    def forward(self, x):",
            f"        return {body.format(activation.parameter)}",
            "",
            "",
            f'ACT2FN["{activation.name}"] = {name}',
        ]
    else:
        yield from ["```python", "from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    yield from [
        'folder = "."  # this one, or its name on a hub',
        "model = AutoModelForCausalLM.from_pretrained(folder)",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "```",
        "",
        "**vLLM** (not tried)",
        "",
    ]
    overrides = vllm_overrides(settings, activation)
    if overrides is None:
        yield (
            f"Has no `{activation.name}` for this architecture." if activation.name != "silu" else "Loads it as it is."
        )
    else:
        yield (
            f"Its own `{settings['model_type']}` computes SiLU alone and refuses others. Its MiniCPM has FATReLU, of "
            "which ReLU is the case 0, and this model is a MiniCPM of other scalings. (There, a gate that equals the "
            "threshold is zero.)"
        )
        yield from ["", "```bash", f"vllm serve FOLDER --hf-overrides '{json.dumps(overrides)}'", "```"]
    yield from ["", "**llama.cpp, PowerInfer**", ""]
    if activation.name == "silu":
        yield "`prosparse export FOLDER --engine llama.cpp --output model.gguf`"
    else:
        relu = "" if activation.name == "relu" else " --activation relu"
        other = "" if activation.name == "relu" else f", which is not `{activation}` but the same weights"
        yield (
            "llama.cpp computes SiLU alone for these architectures, which would be another model: it is not exported. "
            f"PowerInfer computes ReLU alone{other}, and needs predictors:"
        )
        yield from [
            "",
            "```bash",
            f"prosparse predictors FOLDER --text 'corpus/*.txt'{relu} --output predictors",
            f"prosparse export FOLDER --engine powerinfer{relu} --predictors predictors/nonzero --output model.gguf",
            "```",
        ]
    yield from ["", "**This project**: exact decoding that reads active neurons alone", ""]
    yield from ["```bash", "prosparse generate FOLDER --prompt 'Once upon a time'", "```"]


def vllm_overrides(settings: dict[str, Any], activation: Activation) -> dict[str, Any] | None:
    """What makes vLLM compute this model by its MiniCPM class, the only one of its that has FATReLU; None if it can't.

    LLaMA is MiniCPM with scalings of one, and ReLU is FATReLU with the threshold 0.
    """
    if activation.name not in ("relu", "fatrelu") or settings["model_type"] not in ("llama", "granite"):
        return None
    hidden_size, depth = settings["hidden_size"], math.sqrt(settings["num_hidden_layers"])
    return {
        "architectures": ["MiniCPMForCausalLM"],
        "hidden_act": "fatrelu",
        "hidden_act_param": activation.parameter or 0.0,
        "scale_emb": settings.get("embedding_multiplier", 1),
        "scale_depth": settings.get("residual_multiplier", 1) * depth,
        "dim_model_base": hidden_size / settings.get("logits_scaling", 1),
    }
