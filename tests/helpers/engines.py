"""Small random models for other engines, and how far an engine's tokens are from transformers' choice."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GraniteConfig, LlamaConfig, PreTrainedTokenizerFast

from prosparse.experiment.activation import Activation
from prosparse.inference.predictors import Predictor
from prosparse.method.activations import substitute

SIZES = {
    "vocab_size": 600, "hidden_size": 128, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SCALES = {
    "embedding_multiplier": 12.0, "residual_multiplier": 0.5, "logits_scaling": 6.0, "attention_multiplier": 0.1,
}  # fmt: skip
PROMPTS = [[3, 55, 300, 570, 20], [7, 8, 9, 10, 11], [400, 401, 402, 5, 6]]
NEW_TOKENS = 48


def tiny(name="llama", activation="silu", **changes):
    torch.manual_seed(0)
    config = GraniteConfig(**SIZES | SCALES) if name == "granite" else LlamaConfig(**SIZES | changes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(0.5, 1.5)  # norms, 1 by default
        parameter.data = parameter.data.half().float()
    substitute(model, Activation.parse(activation))
    return model


@torch.inference_mode()
def compared(model, prompts, generated):
    """Shortfall of each token against the model's own choice after the same tokens, but for the end token.

    In standard deviations of the logits, 0 where they choose alike: [prompts, new tokens].
    """
    rows = []
    for prompt, tokens in zip(prompts, generated, strict=True):
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        spread = logits.std(-1)
        logits[:, model.config.eos_token_id] = -torch.inf
        chosen = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        rows.append((logits.max(-1).values - chosen) / spread)
    return torch.stack(rows)


def predictors(model):
    return [Predictor(128, 16, 1024) for _ in model.model.layers]


TEXT = "the cat's 1984 hats, and 12 x = 345;\n\tdéjà vu   then end"


def byte_level(digits):
    splits = [pre_tokenizers.Digits(individual_digits=True)] * digits
    splits.append(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
