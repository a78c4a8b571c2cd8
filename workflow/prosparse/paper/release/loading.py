"""How a model card tells readers to load the model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from prosparse.experiment.activation import Activation

#: Source of what transformers lacks.
MODULES = {
    "shiftrelu": ("ShiftedReLU", "torch.relu(x - {0!r})"),
    "fatrelu": ("FATReLU", "torch.where(x >= {0!r}, x, 0)"),
    "drelu": ("GateReLU", "torch.relu(x)"),
}
#: The other ReLU of dReLU, after the up projection of any family.
SECOND_RELU = [
    "for name, module in model.named_modules():",
    '    if name.endswith(("up_proj", "input_linear")):',
    "        module.register_forward_hook(lambda module, inputs, output: torch.relu(output))",
]


def loading(activation: Activation, settings: dict[str, Any]) -> Iterator[str]:
    yield (
        "Begin every context with the beginning-of-sequence token: without it, such models score abnormally. lm-eval "
        "adds it only with `add_bos_token=True`."
    )
    yield from ["", "**transformers**", ""]
    if activation.name in MODULES:
        name, body = MODULES[activation.name]
        yield (
            f"The library has no `{activation.name}` and refuses to load this folder instead of computing a "
            "different model. Register the activation before you load the model; this runs no third-party code:"
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
        *(SECOND_RELU if activation.name == "drelu" else []),
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "```",
        "",
        "**vLLM**",
        "",
    ]
    overrides = vllm_overrides(settings, activation)
    if overrides is None:
        yield (
            f"vLLM has no `{activation.name}` for this architecture."
            if activation.name != "silu"
            else "vLLM loads the folder as it is."
        )
    else:
        yield (
            f"vLLM's own `{settings['model_type']}` supports only SiLU and refuses this folder. Its MiniCPM supports "
            "FATReLU (ReLU is threshold 0), and this model is a MiniCPM with different scalings. (In vLLM, a gate "
            "equal to the threshold becomes zero.)"
        )
        yield from ["", "```bash", f"vllm serve FOLDER --hf-overrides '{json.dumps(overrides)}'", "```"]
    yield from ["", "**llama.cpp, PowerInfer**", ""]
    if activation.name == "silu":
        yield "`prosparse export FOLDER --engine llama.cpp --output model.gguf`"
    elif activation.name in ("relu2", "drelu"):
        yield (
            "For these architectures, llama.cpp supports only SiLU and PowerInfer only ReLU, so there is no export. "
            "llama.cpp's own converter silently converts this folder to a different model, which computes SiLU."
        )
    else:
        relu = "" if activation.name == "relu" else " --activation relu"
        other = "" if activation.name == "relu" else f" (the same weights, but not `{activation}`)"
        yield (
            "llama.cpp supports only SiLU for these architectures, so there is no export. Its own converter silently "
            "converts this folder to a different model, which computes SiLU. PowerInfer supports only "
            f"ReLU{other}, and needs predictors:"
        )
        yield from [
            "",
            "```bash",
            f"prosparse predictors FOLDER --text 'corpus/*.txt'{relu} --output predictors",
            f"prosparse export FOLDER --engine powerinfer{relu} --predictors predictors/nonzero --output model.gguf",
            "```",
        ]
    yield from ["", "**This project**: exact decoding that reads only active neurons", ""]
    yield from ["```bash", "prosparse generate FOLDER --prompt 'Once upon a time'", "```"]


def vllm_overrides(settings: dict[str, Any], activation: Activation) -> dict[str, Any] | None:
    """Return the overrides that make vLLM use its MiniCPM class, the only one with FATReLU; None if it cannot.

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
