"""Held-out loss and sparsity of trained models with weights in each precision of decoding."""

from __future__ import annotations

from typing import Any

import torch

from prosparse.experiment.timings import PrecisionSpecification
from prosparse.inference.rounded import round_weights
from prosparse.measure.sparsity import measure_corpora
from prosparse.models.load import load
from prosparse.operators.quantized import FORMATS
from prosparse.system import devices
from prosparse.system.errors import UserError


def measure(specification: PrecisionSpecification) -> dict[str, Any]:
    """Measure every model in every precision; only weights are rounded, and all else is computed in float32.

    Q8_0 and Q4_0 are rounded from 16 bits, as in decoding. What a format cannot hold has ``missing`` in place of loss
    and sparsity.
    """
    device, found = devices.fastest(), []
    for described in specification.models:
        for precision in specification.precisions:
            print(f"{described.pair}, {precision}", end=": ", flush=True)
            form = FORMATS.get(precision)
            dtype = torch.bfloat16 if form is not None else getattr(torch, precision)
            model = load(described.checkpoint, described.activation, dtype=dtype).float().eval()
            about = {"pair": described.pair, "precision": precision}
            try:
                if form is not None:
                    round_weights(model, form)
            except UserError as error:
                print(error, flush=True)
                found.append({**about, "missing": str(error)})
                continue
            model.to(device)  # type: ignore[arg-type]
            (measured,) = measure_corpora(model, [described.activation], specification.corpora, described.tokens)
            found.append({**about, **{key: measured[key] for key in ("sparsity", "loss", "bits_per_byte", "tokens")}})
    return {"device": devices.name(device), "models": found}
