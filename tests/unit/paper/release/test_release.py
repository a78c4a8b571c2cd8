"""Model cards of made-up results, and the configs beside them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.synthetic_results import CONFIG, Synthetic
from huggingface_hub import ModelCard
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.activations import ACT2FN

from prosparse.experiment.activation import Activation
from prosparse.method.activations import substitute
from prosparse.paper.release import card
from prosparse.paper.release.folder import portable_config
from prosparse.paper.release.loading import loading, vllm_overrides
from prosparse.paper.results.reader import Results

SETTINGS = {
    "dtype": "bfloat16", "hidden_act": "relu", "hidden_size": 128, "intermediate_size": 352, "model_type": "llama",
    "num_hidden_layers": 6, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}, "use_cache": False,
    "vocab_size": 4096,
}  # fmt: skip
FATRELU = Activation(name="fatrelu", parameter=0.01)


@pytest.fixture(autouse=True)
def _stages_before_those_of_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Synthetic.write

    def write(self: Synthetic) -> Synthetic:
        for run, stage in card.needs(self.experiment, "progressive").stages:
            for seed in self.experiment.seeds:
                self.trained(run, stage, seed)
        return written(self)

    monkeypatch.setattr(Synthetic, "write", write)


def rendered(results: Results, run: str = "progressive", activation: Activation = FATRELU) -> str:
    return card.render(results, run, activation, portable_config(SETTINGS, activation))


def test_numbers_are_those_measured(several_seeds: Synthetic) -> None:
    """Of the first seed, whose weights are released, and not the mean."""
    results = several_seeds.results
    text = rendered(results)
    measured = json.loads(results.layout.sparsity("progressive", 1).read_text())["measurements"]
    entry = next(m for m in measured if m["activation"] == "fatrelu-0.01")
    assert f"**{100 * entry['sparsity']:.2f}%** of the intermediate neurons" in text
    assert f"held-out loss {entry['loss']:.4f} nats" in text
    answered = json.loads(results.layout.benchmarks("progressive", "fatrelu-0.01", 1).read_text())["benchmarks"]
    piqa = answered["piqa"]
    assert f"| PIQA | {100 * piqa['score']:.2f} ± {100 * piqa['standard_error']:.2f} | {piqa['n']} |" in text
    predicted = json.loads(results.layout.prediction("progressive", "fatrelu-0.01", 1).read_text())["kinds"]["nonzero"]
    assert f"finds {100 * predicted['activation_recall']:.2f}% of the active neurons" in text
    decoded = json.loads(results.layout.decoding().read_text())["models"]
    exact = next(m for m in decoded if m["pair"] == "progressive@fatrelu-0.01")["modes"]["exact"]
    assert f"| ours, exact | {exact['tokens_per_second']['median']:.2f} |" in text
    for name in ("sparsity", "benchmarks/fatrelu-0.01", "prediction/fatrelu-0.01"):
        assert f"`measurements/progressive/seed1/{name}.json`" in text


def test_stages_and_their_tokens(synthetic: Synthetic) -> None:
    rows = [line for line in rendered(synthetic.results).splitlines() if line.startswith(("| base", "| progressive"))]
    tokens = [int(row.split("|")[6].replace(",", "")) for row in rows]
    sequence = 8 * 256
    assert tokens == [2000 * sequence, *(steps * sequence for steps in (40, 20, 40, 20, 40, 20))]
    assert rows[3].startswith("| progressive | 2 | relu | 0.1 (sine) | 100 |")


def test_metadata_of_a_stand_in_from_scratch(synthetic: Synthetic) -> None:
    found = ModelCard(rendered(synthetic.results))
    assert found.data.library_name == "prosparse"  # transformers refuses it
    assert found.data.license == "unknown"
    assert found.data.get("base_model") is None
    assert set(found.data.tags) >= {"fatrelu", "arxiv:2402.13516"}
    assert "FATReLU, x where x ≥ 0.01, else 0" in found.text
    assert (
        "`ProSparse-7B`, `ProSparse 34.60`, `7B ProSparse`, `7B 0.01` in the paper's tables: stand-in: llama"
        in found.text
    )
    assert "License**: unspecified" in found.text
    assert "stand-in for Wikipedia" in found.text


@pytest.mark.parametrize(
    ("pretrained", "license", "language"),
    [
        ("SparseLLM/prosparse-llama-2-7b", "llama2", ["en"]),
        ("SparseLLM/ReluLLaMA-7B", "llama2", ["en"]),
        ("meta-llama/Llama-2-13b-hf", "llama2", ["en"]),
        ("openbmb/MiniCPM-S-1B-sft", "apache-2.0", ["en", "zh"]),
        ("openbmb/MiniCPM-1B-sft-bf16", "unknown", ["en", "zh"]),
    ],
)
def test_metadata_of_a_released_model(tmp_path, pretrained, license, language) -> None:
    base = {**CONFIG["runs"]["base"], "init": {"pretrained": pretrained}, "stages": [{"until": 0}]}
    made = Synthetic(tmp_path, {**CONFIG, "runs": {**CONFIG["runs"], "base": base}}).write()
    data = ModelCard(rendered(made.results, "progressive", Activation(name="relu"))).data
    assert (data.base_model, data.license, data.language) == (pretrained, license, language)
    assert data.library_name == "transformers"


def test_a_directory_is_no_base_model_on_a_hub(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    base = {**CONFIG["runs"]["base"], "init": {"pretrained": "models/mine"}}
    made = Synthetic(tmp_path, {**CONFIG, "runs": {**CONFIG["runs"], "base": base}}).write()
    assert ModelCard(rendered(made.results)).data.get("base_model") is None


def test_what_was_not_measured_is_missing(synthetic: Synthetic) -> None:
    results = synthetic.results
    results.layout.sparsity("progressive", 1).unlink()
    results.layout.benchmarks("progressive", "fatrelu-0.01", 1).unlink()
    text = rendered(results)
    for file in ("sparsity.json", "fatrelu-0.01.json"):
        assert f"{file}: no such result_" in text
    assert str(synthetic.directory) not in text
    unpredicted = rendered(synthetic.results, "constant-0.4", Activation(name="relu"))
    assert "_missing: this experiment has no predictors of this model._" in unpredicted
    assert "_missing: this experiment does not time the decoding of this model._" in unpredicted
    assert "activation relu not measured" not in unpredicted


def test_a_benchmark_that_was_not_run_is_missing(synthetic: Synthetic) -> None:
    path = synthetic.layout.benchmarks("progressive", "fatrelu-0.01", 1)
    synthetic.edit(path, lambda value: value["benchmarks"].pop("copa"))
    assert "| COPA | missing | " in rendered(synthetic.results)


def test_the_config_names_what_was_measured() -> None:
    found = portable_config({**SETTINGS, "hidden_act": "fatrelu", "hidden_act_param": 0.3}, FATRELU)
    assert (found["hidden_act"], found["hidden_act_param"]) == ("fatrelu", 0.01)
    plain = portable_config({**SETTINGS, "hidden_act": "fatrelu", "hidden_act_param": 0.3}, Activation(name="relu"))
    assert plain["hidden_act"] == "relu"
    assert "hidden_act_param" not in plain
    assert (found["use_cache"], found["rope_theta"]) == (True, 500.0)


def test_only_what_it_can_compute_is_said_of_vllm(synthetic: Synthetic) -> None:
    overrides = vllm_overrides(portable_config(SETTINGS, FATRELU), FATRELU)
    assert overrides is not None
    assert f"--hf-overrides '{json.dumps(overrides)}'" in rendered(synthetic.results)
    assert vllm_overrides(SETTINGS, Activation(name="shiftrelu", parameter=0.1)) is None
    assert vllm_overrides({**SETTINGS, "model_type": "qwen2"}, FATRELU) is None


@pytest.mark.parametrize("activation", ["silu", "relu2", "drelu", "fatrelu-0.3", "shiftrelu-0.1"])
def test_transformers_loads_the_folder_as_the_card_says(
    activation: str, tiny_llama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path)
    vocabulary = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, "<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=vocabulary).save_pretrained(tmp_path)
    chosen = Activation.parse(activation)
    settings = portable_config(json.loads((tmp_path / "config.json").read_text()), chosen)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    code = re.search("```python\n(.*?)```", "\n".join(loading(chosen, settings)), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    known = set(ACT2FN)
    try:
        exec(code[1], names)
    finally:
        for name in set(ACT2FN) - known:
            del ACT2FN[name]
    substitute(model, chosen)
    tokens = torch.arange(24).reshape(2, 12)
    assert torch.equal(names["model"].eval()(tokens).logits, model.eval()(tokens).logits)


@pytest.mark.parametrize(("activation", "exported"), [("fatrelu-0.3", True), ("relu2", False), ("drelu", False)])
def test_only_what_powerinfer_computes_is_exported(activation: str, exported: bool) -> None:
    text = "\n".join(loading(Activation.parse(activation), SETTINGS))
    assert ("prosparse export" in text) == exported
    assert ("so there is no export. llama.cpp's own converter" in text) == (not exported)


def test_a_card_needs_no_torch() -> None:
    program = (
        "import sys; from prosparse.paper.release import folder; print({'torch', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"
