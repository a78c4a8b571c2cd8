"""The metadata block of a model card."""

from __future__ import annotations

from huggingface_hub import ModelCardData

from prosparse.experiment import lineage
from prosparse.experiment.activation import Activation
from prosparse.experiment.data import HubSource, is_local
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.model import PretrainedInit
from prosparse.paper.release.loading import MODULES
from prosparse.paper.results.origins import origin

#: Part of a base model's name, letters and digits only -> its license as the hub spells it.
LICENSES = {
    "prosparsellama2": "llama2",
    "relullama": "llama2",
    "llama27b": "llama2",
    "llama213b": "llama2",
    "minicpms1b": "apache-2.0",
    "prosparseminicpm1b": "apache-2.0",
    "smollm2": "apache-2.0",
}


def metadata(experiment: Experiment, run: str, activation: Activation) -> ModelCardData:
    _, name = origin(experiment, run)
    _, start = lineage.start(experiment, run)
    hubs = {
        corpus.source.hub: None
        for lineage, _ in lineage.lineage(experiment, run)
        for corpus in (experiment.data.corpora[c] for c in experiment.data.mixtures[experiment.runs[lineage].mixture])
        if isinstance(corpus.source, HubSource) and experiment.runs[lineage].stages[-1].until > 0
    }
    base = start.pretrained if isinstance(start, PretrainedInit) and not is_local(start.pretrained) else None
    return ModelCardData(
        language=["en", "zh"] if "minicpm" in name else ["en"],
        license=license_of(name) or "unknown",
        library_name="prosparse" if activation.name in MODULES else "transformers",
        pipeline_tag="text-generation",
        base_model=base,
        base_model_relation="finetune" if base else None,
        datasets=list(hubs) or None,
        tags=["activation-sparsity", "prosparse", activation.name, "arxiv:2402.13516"],
    )


def license_of(name: str) -> str | None:
    return next((license for part, license in LICENSES.items() if part in name), None)
