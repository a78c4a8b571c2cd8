"""Which neurons a decoded token needs, and the bytes it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from prosparse.inference.attention import cache
from prosparse.inference.decoding import Decoder, dense_bytes
from prosparse.operators import MAX_BATCH, linear


def _share(chosen: Tensor) -> float:
    """Share of active elements per row, summed over the rows."""
    return float(chosen.count_nonzero()) / chosen.shape[1]


class _Counter:
    """Counts shares of active and predicted neurons over the tokens that a decoder reads."""

    def __init__(self, decoder: Decoder) -> None:
        self.ffns = decoder.ffns
        self.totals = torch.zeros(len(self.ffns), 6, dtype=torch.float64)  # per layer, as count_shares returns them
        self.tokens = torch.zeros(len(self.ffns), 1, dtype=torch.float64)

    @contextmanager
    def counting(self) -> Iterator[None]:
        hooks = [ffn.register_forward_pre_hook(self._hook(layer)) for layer, ffn in enumerate(self.ffns)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            ffn = self.ffns[layer]
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])
            open_gate = ffn.activation(linear(rows, ffn.gate_weight)) != 0
            active = open_gate & (linear(rows, ffn.up_weight) > 0) if ffn.relu_up else open_gate
            counts = [_share(active), _share(open_gate), 0.0, 0.0, 0.0, 0.0]
            if ffn.fc1_weight is not None:
                assert ffn.residual is not None
                residual = ffn.residual.reshape(rows.shape)
                hidden = torch.relu(linear(residual, ffn.fc1_weight)) != 0
                predicted = ffn.scores(residual) >= ffn.decision_threshold
                counts[2:] = [_share(each) for each in (predicted, active & predicted, open_gate & predicted, hidden)]
            self.totals[layer] += torch.tensor(counts, dtype=torch.float64)
            self.tokens[layer] += len(rows)

        return count


def count_shares(decoder: Decoder, texts: Sequence[Sequence[int]]) -> Tensor:
    """Shares over the tokens of some texts, as decoding reads each, in float64.

    Returns:
        [layers, 6]: neurons that are active (x1 is not 0); whose gate is not 0, which differs under dReLU; predicted
        active; both predicted and active; predicted, with a gate that is not 0; and the predictor's hidden neurons
        that are not 0.
    """
    counter = _Counter(decoder)
    decoder.mode = decoder.modes[min(1, len(decoder.modes) - 1)]
    with torch.inference_mode(), counter.counting():
        for text in texts:
            past = cache(decoder.model)
            for part in torch.tensor([list(text)]).split(MAX_BATCH, dim=1):
                decoder.model(input_ids=part, past_key_values=past, use_cache=True)
    return counter.totals / counter.tokens


def bytes_of_a_token(decoder: Decoder, mode: str, shares: Tensor, context: float) -> dict[str, int]:
    """Bytes that a token must read, by part.

    Args:
        shares: [layers, 6], from ``count_shares``.
        context: number of earlier tokens whose keys and values it reads.
    """
    ffns, config = decoder.ffns, decoder.model.config
    size = ffns[0].gate_weight.element_size()
    intermediate, _, columns = ffns[0].neurons.shape
    row = columns * size
    active, open_gate, predicted, both, predicted_open, used = shares.sum(0).tolist()
    layers = len(ffns)
    gate, up, down = {
        "dense": (layers, layers, layers),
        "exact": (layers, open_gate, active),
        "predicted": (predicted, predicted_open, both),
    }[mode]
    predictor = 0.0
    if mode == "predicted":
        fc1, fc2 = ffns[0].fc1_weight, ffns[0].fc2_weight_transposed
        assert fc1 is not None
        predictor = size * (layers * fc1.numel() + used * fc2.numel())
    heads = config.num_key_value_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    parts = {
        **dense_bytes(decoder),
        "gate": round(gate * intermediate * row),
        "active_rows": round((up + down) * intermediate * row),
        "predictor": round(predictor),
        "kv_cache": round(2 * layers * heads * decoder.model.dtype.itemsize * context),
    }
    return {**parts, "all": sum(parts.values())}
