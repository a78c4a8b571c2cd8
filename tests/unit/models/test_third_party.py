"""Checkpoints and tokenizers as others released them, against a written-out model and its activation."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, processors
from transformers import AutoTokenizer

from prosparse.data.tokenizer import copy_tokenizer
from prosparse.data.tokens import pack
from prosparse.experiment.activation import Activation
from prosparse.experiment.model import PretrainedInit
from prosparse.models.load import load, own_activation, pretrained
from prosparse.models.third_party import configuration, tokenizer
from prosparse.system.errors import ConfigError

TOKENS = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(0))
T = 0.0625  # a threshold that floats hold exactly

#: What the released configs say, shrunk.
LLAMA = {
    "_name_or_path": "released",
    "architectures": ["SparseLlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_sparsellama.SparseLlamaConfig",
        "AutoModelForCausalLM": "modeling_sparsellama.SparseLlamaForCausalLM",
    },
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "fatrelu",
    "hidden_act_param": T,
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "model_type": "sparsellama",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 500.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.36.2",
    "use_cache": True,
    "vocab_size": 64,
}
MINICPM = {key: value for key, value in LLAMA.items() if key not in ("tie_word_embeddings", "rope_theta")} | {
    "architectures": ["MiniCPMForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_minicpm.MiniCPMConfig",
        "AutoModelForCausalLM": "modeling_minicpm.MiniCPMForCausalLM",
    },
    "model_type": "minicpm",
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 8,
}
PLAIN = {key: value for key, value in LLAMA.items() if key not in ("auto_map", "hidden_act_param")} | {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "relu",
    "model_type": "llama",
}


def weights(tied=False, seed=0):
    """Named as released; with the rotary frequencies that old versions saved."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return 0.2 * torch.randn(*shape, generator=generator)

    state = {"model.embed_tokens.weight": random(64, 32), "model.norm.weight": 1 + random(32)}
    if not tied:
        state["lm_head.weight"] = random(64, 32)
    shapes = {
        "self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32),
        "self_attn.o_proj": (32, 32), "mlp.gate_proj": (48, 32), "mlp.up_proj": (48, 32), "mlp.down_proj": (32, 48),
    }  # fmt: skip
    for layer in range(3):
        state |= {f"model.layers.{layer}.{name}.weight": random(*shape) for name, shape in shapes.items()}
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"model.layers.{layer}.{name}.weight"] = 1 + random(32)
        state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    return state


def written_out(state, config, act):
    """LLaMA, or MiniCPM with its scalings, in float64 from their publications."""
    state = {key: value.double() for key, value in state.items()}
    heads, kv, layers = 4, 2, 3
    head_dim, n = 8, TOKENS.shape[1]
    scale_emb, scale_depth = config.get("scale_emb", 1), config.get("scale_depth", math.sqrt(layers))
    width = 32 / config.get("dim_model_base", 32)
    frequencies = config.get("rope_theta", 10000.0) ** (-torch.arange(0, head_dim, 2).double() / head_dim)
    angles = torch.outer(torch.arange(n).double(), frequencies).repeat(1, 2)

    def norm(x, weight):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    def rotate(x):
        half = torch.cat([-x[..., head_dim // 2 :], x[..., : head_dim // 2]], -1)
        return x * angles.cos() + half * angles.sin()

    def split(x, count):
        return x.view(-1, n, count, head_dim).transpose(1, 2)

    x = scale_emb * state["model.embed_tokens.weight"][TOKENS]
    mask = torch.full((n, n), -math.inf).triu(1)
    for layer in range(layers):
        w = {k.split(f"layers.{layer}.")[1][:-7]: v for k, v in state.items() if f"layers.{layer}." in k}
        h = norm(x, w["input_layernorm"])
        q, k = rotate(split(h @ w["self_attn.q_proj"].T, heads)), rotate(split(h @ w["self_attn.k_proj"].T, kv))
        v = split(h @ w["self_attn.v_proj"].T, kv)
        k, v = k.repeat_interleave(heads // kv, 1), v.repeat_interleave(heads // kv, 1)
        attention = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(head_dim) + mask, -1) @ v
        x = x + scale_depth / math.sqrt(layers) * (attention.transpose(1, 2).flatten(2) @ w["self_attn.o_proj"].T)
        h = norm(x, w["post_attention_layernorm"])
        x1 = act(h @ w["mlp.gate_proj"].T) * (h @ w["mlp.up_proj"].T)
        x = x + scale_depth / math.sqrt(layers) * (x1 @ w["mlp.down_proj"].T)
    x = norm(x, state["model.norm.weight"]) / width
    return x @ state.get("lm_head.weight", state["model.embed_tokens.weight"]).T


ACTIVATIONS = {
    "silu": (None, lambda x: x * torch.sigmoid(x)),
    "relu": (None, lambda x: torch.where(x > 0, x, 0)),
    "shiftrelu": (T, lambda x: torch.where(x - T > 0, x - T, 0)),
    "fatrelu": (T, lambda x: torch.where(x >= T, x, 0)),
}


def released(directory, config, state, pickled=True):
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    if pickled:
        torch.save(state, directory / "pytorch_model.bin")
    else:
        save_file(state, directory / "model.safetensors")
    for name in ("configuration", "modeling"):  # never to be run
        (directory / f"{name}_{config.get('model_type', 'minicpm')}.py").write_text("raise SystemExit('code was run')")
    return directory


def with_activation(config, name):
    parameter = ACTIVATIONS[name][0]
    return config | {"hidden_act": name, "hidden_act_param": parameter}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(
    ("config", "pickled"),
    [
        (LLAMA, True),
        (LLAMA, False),
        (MINICPM, True),
        ({key: value for key, value in MINICPM.items() if key != "model_type"}, False),
    ],
    ids=["sparsellama", "sparsellama-safetensors", "minicpm", "minicpm-unnamed"],
)
def test_released_formats_against_a_written_out_model(tmp_path, config, pickled, name):
    tied = "scale_emb" in config
    config, state = with_activation(config, name), weights(tied)
    model = load(released(tmp_path / "released", config, state, pickled)).eval()
    logits = model(TOKENS).logits
    assert torch.allclose(logits.double(), written_out(state, config, ACTIVATIONS[name][1]), atol=2e-4, rtol=1e-4)
    # converted: an ordinary directory, of a model that transformers has
    model.save_pretrained(tmp_path / "converted")
    said = json.loads((tmp_path / "converted" / "config.json").read_text())
    assert said["model_type"] == ("granite" if tied else "llama")
    assert "auto_map" not in said
    again = load(tmp_path / "converted").eval()
    assert own_activation(again.config) == own_activation(model.config)
    assert torch.equal(again(TOKENS).logits, logits)


@pytest.mark.parametrize(("name", "at", "below"), [("relu", 0.0, -T), ("shiftrelu", T, 0.0), ("fatrelu", T, T / 2)])
def test_gates_exactly_at_the_threshold(tmp_path, name, at, below):
    """Layer 0's FFN reads nothing but the sign of the first token's embedding: its gates are known exactly."""
    model = load(released(tmp_path / "released", with_activation(LLAMA, name), weights()))
    mlp = model.model.layers[0].mlp
    with torch.no_grad():
        mlp.gate_proj.weight.zero_()
        mlp.gate_proj.weight[:, 0] = torch.tensor([at, below, 1.0]).repeat(16)
        mlp.up_proj.weight.zero_()
        mlp.up_proj.weight[:, 1] = 1
        seen = []
        mlp.down_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        mlp(torch.tensor([1.0, 2.0] + 30 * [0.0]))
    kept = {"relu": 0.0, "shiftrelu": 0.0, "fatrelu": T}[name]
    large = 1 - T if name == "shiftrelu" else 1.0
    assert torch.equal(seen[0], 2 * torch.tensor([kept, 0.0, large]).repeat(16))


@pytest.mark.parametrize("name", ["silu", "relu", "fatrelu"])
def test_plain_llama_and_the_llama_format_of_minicpm(tmp_path, name):
    config, state = with_activation(PLAIN, name), weights()
    model = load(released(tmp_path / "released", config, state)).eval()
    expected = written_out(state, config, ACTIVATIONS[name][1])
    assert torch.allclose(model(TOKENS).logits.double(), expected, atol=1e-4)


def test_a_parameter_beside_relu_is_not_read(tmp_path):
    config = configuration(released(tmp_path / "released", LLAMA | {"hidden_act": "relu", "hidden_act_param": 0.0}, {}))
    assert own_activation(config) == Activation(name="relu")


def test_dtype_of_the_checkpoint_where_asked_for(tmp_path):
    state = {key: value.bfloat16() for key, value in weights().items()}
    init = PretrainedInit(pretrained=str(released(tmp_path / "released", LLAMA, state)))
    own = pretrained(init, dtype="auto")
    assert own.dtype == torch.bfloat16
    assert pretrained(init).dtype == torch.float32
    own.save_pretrained(tmp_path / "converted")
    assert torch.equal(load(tmp_path / "converted")(TOKENS).logits, pretrained(init)(TOKENS).logits)


def test_llama2_generation_settings_do_not_keep_it_from_being_saved(tmp_path):
    directory = released(tmp_path / "released", PLAIN, weights())
    settings = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "temperature": 0.9, "top_p": 0.6}
    (directory / "generation_config.json").write_text(json.dumps(settings | {"transformers_version": "4.31.0"}))
    load(directory).save_pretrained(tmp_path / "converted")
    assert json.loads((tmp_path / "converted" / "generation_config.json").read_text())["temperature"] == 0.9


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (
            LLAMA,
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling is .* allowed for sparsellama: None",
        ),
        (MINICPM, {"rope_scaling": {"type": "longrope"}}, "rope_scaling is .* allowed for minicpm: None"),
        (LLAMA, {"attention_bias": True}, "attention_bias is True; allowed for sparsellama: False"),
        (MINICPM, {"num_experts": 8}, "num_experts is 8; a field of minicpm that is not carried over"),
        (MINICPM, {"use_mup": False}, "use_mup is False"),
        (MINICPM, {"scale_depth": None}, "config.json of minicpm lacks scale_depth"),
        (LLAMA, {"hidden_act_param": None}, "hidden_act 'fatrelu' of llama: allowed are"),
        (LLAMA, {"hidden_act": "gelu"}, "hidden_act 'gelu' of llama: allowed are"),
        (LLAMA, {"model_type": "else"}, "model_type is 'else'; allowed are sparsellama, minicpm"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(tmp_path, config, change, message):
    with pytest.raises(ConfigError, match=message):
        load(released(tmp_path / "released", config | change, {}))


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (LLAMA, {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}, "q_proj.bias is unexpected"),
        (LLAMA, {"lm_head.weight": None}, "lm_head.weight is missing"),
        (MINICPM, {}, "tie_word_embeddings is true, but there is a separate lm_head.weight"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path, config, change, message):
    state = {key: value for key, value in {**weights(), **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        load(released(tmp_path / "released", config, state))


def test_pickles_that_hold_more_than_tensors_are_refused(tmp_path):
    class Code:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code was run')",))

    with pytest.raises(ConfigError, match=r"[Ww]eights.only"):
        load(released(tmp_path / "released", LLAMA, {**weights(), "code": Code()}))


# -------------------------------------------------------------------------------------- tokenizers

PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "h", "e", "l", "o", "▁h", "ll"]


def released_tokenizer(directory, tokenizer_class, add_bos_token, begins, model_type):
    """LLaMA's, without sentencepiece: BPE with byte fallback, ``tokenizer.json`` that puts <s> first or does not."""
    made = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(PIECES)}, merges=[("▁", "h"), ("l", "l")],
            unk_token="<unk>", fuse_unk=True, byte_fallback=True,
        )
    )  # fmt: skip
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    if begins:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    directory.mkdir()
    made.save(str(directory / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": tokenizer_class}
    settings["add_bos_token"] = add_bos_token
    said = {key: value for key, value in settings.items() if value is not None}
    (directory / "tokenizer_config.json").write_text(json.dumps(said))
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    return directory


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("add_bos_token", [True, False, None])
@pytest.mark.parametrize("tokenizer_class", ["LlamaTokenizer", "LlamaTokenizerFast"])
@pytest.mark.parametrize("model_type", ["sparsellama", "minicpm", "llama"])
def test_llama_tokenizers_begin_every_text_unless_told_otherwise(
    tmp_path, model_type, tokenizer_class, add_bos_token, begins
):
    original = released_tokenizer(tmp_path / "released", tokenizer_class, add_bos_token, begins, model_type)
    copy_tokenizer(str(original), tmp_path / "copy")
    # beside weights that were converted: MiniCPM's are Granite's there
    converted = {"minicpm": "granite"}.get(model_type, "llama")
    (tmp_path / "copy" / "config.json").write_text(json.dumps({"model_type": converted}))
    head = [] if model_type == "llama" and add_bos_token is False else ["<s>"]
    copied = [opened(tmp_path / "copy") for opened in (tokenizer, AutoTokenizer.from_pretrained)]
    for found in (tokenizer(original), *copied):
        ids = found("hello")["input_ids"]
        assert found.convert_ids_to_tokens(ids) == [*head, "▁h", "e", "ll", "o"]
        assert found.decode(ids, skip_special_tokens=True) == "hello"
        assert found.encode("hello", add_special_tokens=False) == ids[len(head) :]
        assert found.pad_token is None


def test_tokenizers_of_other_models_stay_as_they_are(tmp_path):
    for begins in (True, False):
        original = released_tokenizer(tmp_path / str(begins), "PreTrainedTokenizerFast", None, begins, "llama")
        assert (tokenizer(original)("hello")["input_ids"][0] == 1) == begins


def test_packed_documents_begin_and_end(tmp_path):
    import datasets

    found = tokenizer(released_tokenizer(tmp_path / "released", "LlamaTokenizer", False, False, "minicpm"))
    rows = pack(datasets.Dataset.from_dict({"text": ["hello", "hello"]}), found, 6)
    expected = ["<s>", "▁h", "e", "ll", "o", "</s>"]
    assert [found.convert_ids_to_tokens(row) for row in rows["input_ids"]] == [expected, expected]


def test_a_tokenizer_that_needs_its_own_code_is_refused(tmp_path):
    directory = released_tokenizer(tmp_path / "released", "OwnTokenizer", None, True, "minicpm")
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["own.OwnTokenizer", None]}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="has no tokenizer that transformers can open"):
        copy_tokenizer(str(directory), tmp_path / "copy")


@pytest.mark.parametrize("add_bos_token", [True, False])
def test_benchmarks_with_a_llama_tokenizer_without_padding(tmp_path, monkeypatch, add_bos_token):
    from lm_eval.api.instance import Instance

    from prosparse.measure.language_model import LanguageModel

    found = tokenizer(
        released_tokenizer(tmp_path / "released", "LlamaTokenizer", add_bos_token, add_bos_token, "minicpm")
    )
    config = {**PLAIN, "vocab_size": len(found)}
    state = weights()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = 0.2 * torch.randn(len(found), 32, generator=torch.Generator().manual_seed(1))
    model = load(released(tmp_path / "model", config, state)).eval()
    lm = LanguageModel(model, found, batch_tokens=16)

    pieces = ["<s>", "▁h", "e", "ll", "o", "▁", "▁h"]  # "hello" goes on by "  h"
    ids = torch.tensor([found.convert_tokens_to_ids(pieces)])
    scores = model(ids).logits[0].log_softmax(-1)
    expected = (scores[4, ids[0, 5]] + scores[5, ids[0, 6]]).item() / 2
    ((mean, _),) = lm.loglikelihood([Instance("loglikelihood", {}, ("hello", "  h"), 0)])
    assert mean == pytest.approx(expected, abs=1e-5)

    seen = []

    def generate(self, prompts, new_tokens, stop):
        seen.extend(prompts)
        return [found.convert_tokens_to_ids(["▁", "▁h", "e"]) for _ in prompts]

    monkeypatch.setattr(LanguageModel, "_generate", generate)
    options = {"until": ["@"], "max_gen_toks": 4, "do_sample": False}
    prompts = ["hello", "hello hello"]
    answers = lm.generate_until([Instance("generate_until", {}, (prompt, options), 0) for prompt in prompts])
    assert answers == ["  he", "  he"]  # decoded alone, it would have lost a space
    assert found.decode(found.convert_tokens_to_ids(["▁", "▁h", "e"])) == " he"
    assert list(min(seen, key=len)) == found.convert_tokens_to_ids(pieces[:5])
    assert all(row.count(found.bos_token_id) == 1 for row in seen)


@pytest.mark.parametrize("activation", ["fatrelu-0.0625", "relu"])
def test_an_untrained_run_is_the_released_model(tmp_path, activation):
    """Converted as any run that is not trained, under its own activation or another; in the dtype it has."""
    from prosparse.experiment.specifications import StageSpecification
    from prosparse.experiment.training import Run
    from prosparse.training.job import StageJob
    from prosparse.training.stage import train_stage

    state = {key: value.bfloat16() for key, value in weights(tied=True).items()}
    directory = released(tmp_path / "released", MINICPM, state)
    copy_tokenizer(
        str(released_tokenizer(tmp_path / "tokenizer", "LlamaTokenizer", None, False, "minicpm")), tmp_path / "copy"
    )
    run = Run.model_validate(
        {
            "init": {"pretrained": str(directory)},
            "activation": activation,
            "mixture": "any",
            "stages": [{"until": 0}],
            "training": {"learning_rate": 1e-3, "batch_size": 1, "micro_batch_size": 1},
        }
    )
    specification = StageSpecification(
        seed=0, start=run.init, activation=run.activation, mixture={}, context_length=16, stages=run.stages,
        total_steps=0, training=run.training,
    )  # fmt: skip
    output = tmp_path / "stage0"
    train_stage(StageJob(specification, tmp_path, tmp_path / "copy", None, output))
    model = load(output).eval()
    assert str(own_activation(model.config)) == activation
    act = ACTIVATIONS[activation.partition("-")[0]][1]
    assert torch.allclose(model(TOKENS).logits.double(), written_out(state, MINICPM, act), atol=2e-4, rtol=1e-4)
    assert json.loads((output / "config.json").read_text())["dtype"] == "bfloat16"
    assert AutoTokenizer.from_pretrained(output)("hello")["input_ids"][0] == 1
    assert (output / "provenance.json").exists()


@pytest.mark.parametrize(("config", "name"), [(LLAMA, "fatrelu"), (LLAMA, "relu"), (MINICPM, "fatrelu")])
def test_vllms_minicpm_is_told_the_same_model(tmp_path, config, name):
    """Its scalings are those of the class's public source, here the written-out model's."""
    from prosparse.paper.release.loading import vllm_overrides

    config, state = with_activation(config, name), weights(tied=config is MINICPM)
    model = load(released(tmp_path / "released", config, state)).eval()
    overrides = vllm_overrides(model.config.to_dict(), own_activation(model.config))
    assert overrides["hidden_act"] == "fatrelu"
    threshold = overrides["hidden_act_param"]
    told = {"rope_theta": model.config.rope_parameters["rope_theta"], **overrides}
    expected = written_out(state, told, lambda x: torch.where(x > threshold, x, 0))
    assert torch.allclose(model(TOKENS).logits.double(), expected, atol=2e-4, rtol=1e-4)
