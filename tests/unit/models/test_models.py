"""Models against independent implementations, and round trips through the disk."""

import json
import math

import pytest
import torch
from torch.nn import functional as F
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

from prosparse.experiment.activation import Activation
from prosparse.experiment.model import Architecture, PretrainedInit
from prosparse.models.build import from_scratch
from prosparse.models.load import load, own_activation, pretrained
from prosparse.system.errors import ConfigError, UserError

TOKENS = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(0))
LLAMA = Architecture(hidden_size=32, intermediate_size=48, layers=2, heads=4, kv_heads=2)
MINICPM = Architecture(
    type="minicpm", hidden_size=32, intermediate_size=48, layers=3, heads=4, kv_heads=2,
    scale_emb=12, scale_depth=1.4, dim_model_base=8,
)  # fmt: skip


def minicpm_logits(state, tokens, a):
    """MiniCPM written out from its publication: LLaMA with scaled embeddings, residuals and logits."""
    d, heads, kv = a.hidden_size, a.heads, a.kv_heads
    head_dim, n = d // heads, tokens.shape[1]

    def norm(x, weight):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight

    positions = torch.arange(n).float()
    frequencies = 10000 ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.outer(positions, frequencies).repeat(1, 2)

    def rotate(x):
        half = torch.cat([-x[..., head_dim // 2 :], x[..., : head_dim // 2]], -1)
        return x * angles.cos() + half * angles.sin()

    x = a.scale_emb * state["model.embed_tokens.weight"][tokens]
    mask = torch.full((n, n), -math.inf).triu(1)
    for i in range(a.layers):
        w = {k.removeprefix(f"model.layers.{i}."): v for k, v in state.items() if k.startswith(f"model.layers.{i}.")}
        h = norm(x, w["input_layernorm.weight"])
        q = rotate((h @ w["self_attn.q_proj.weight"].T).view(-1, n, heads, head_dim).transpose(1, 2))
        k = rotate((h @ w["self_attn.k_proj.weight"].T).view(-1, n, kv, head_dim).transpose(1, 2))
        v = (h @ w["self_attn.v_proj.weight"].T).view(-1, n, kv, head_dim).transpose(1, 2)
        k, v = (t.repeat_interleave(heads // kv, 1) for t in (k, v))
        attention = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(head_dim) + mask, -1) @ v
        residual = a.scale_depth / math.sqrt(a.layers)
        x = x + residual * (attention.transpose(1, 2).flatten(2) @ w["self_attn.o_proj.weight"].T)
        h = norm(x, w["post_attention_layernorm.weight"])
        ffn = F.silu(h @ w["mlp.gate_proj.weight"].T) * (h @ w["mlp.up_proj.weight"].T)
        x = x + residual * (ffn @ w["mlp.down_proj.weight"].T)
    x = norm(x, state["model.norm.weight"]) / (d / a.dim_model_base)
    return x @ state["model.embed_tokens.weight"].T


def test_minicpm_against_a_written_out_implementation():
    model = from_scratch(MINICPM, 64, 32, seed=0).eval()
    with torch.no_grad():
        assert torch.allclose(model(TOKENS).logits, minicpm_logits(model.state_dict(), TOKENS, MINICPM), atol=2e-5)


def test_llama_is_minicpm_without_scalings():
    model = from_scratch(LLAMA, 64, 32, seed=0).eval()
    plain = LLAMA.model_copy(update={"scale_emb": 1.0, "scale_depth": math.sqrt(2), "dim_model_base": 32})
    with torch.no_grad():
        assert torch.allclose(model(TOKENS).logits, minicpm_logits(model.state_dict(), TOKENS, plain), atol=2e-5)


def test_the_seed_decides_the_weights():
    a, b, c = (from_scratch(LLAMA, 64, 32, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


@pytest.mark.parametrize("architecture", [LLAMA, MINICPM], ids=["llama", "minicpm"])
@pytest.mark.parametrize("activation", ["silu", "relu", "relu2", "drelu", "shiftrelu-0.1", "fatrelu-0.05"])
def test_save_and_load_keep_the_activation(tmp_path, architecture, activation):
    from prosparse.method.activations import substitute

    model = from_scratch(architecture, 64, 32, seed=0).eval()
    substitute(model, Activation.parse(activation))
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path).eval()
    assert str(own_activation(loaded.config)) == activation
    assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)


def test_loading_under_another_activation_keeps_the_weights(tmp_path):
    model = from_scratch(LLAMA, 64, 32, seed=0)
    model.save_pretrained(tmp_path)
    shifted = load(tmp_path, Activation.parse("fatrelu-0.1"))
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in shifted.state_dict().items())
    assert not torch.equal(shifted(TOKENS).logits, model(TOKENS).logits)


def test_an_ffn_that_does_not_call_its_up_projection_is_refused_under_drelu(tmp_path, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaMLP

    from_scratch(LLAMA, 64, 32, seed=0).save_pretrained(tmp_path)
    monkeypatch.setattr(
        LlamaMLP, "forward",
        lambda mlp, x: mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * F.linear(x, mlp.up_proj.weight)),
    )  # fmt: skip
    load(tmp_path, Activation.parse("relu"))
    with pytest.raises(UserError, match=r"mlp \(LlamaMLP\): the input of down_proj is not act\(gate\) \* up"):
        load(tmp_path, Activation.parse("drelu"))


def test_not_a_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match="not a checkpoint that transformers can open"):
        load(tmp_path)


def test_unsupported_activation(tmp_path):
    LlamaForCausalLM(
        LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                    hidden_act="gelu")
    ).save_pretrained(tmp_path)  # fmt: skip
    with pytest.raises(ConfigError, match="'gelu' of llama: allowed are silu, relu"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="of gpt2"):
        own_activation(GPT2Config())


def test_gguf_file_gives_the_weights_it_holds(tmp_path):
    import gguf

    model = from_scratch(Architecture(hidden_size=32, intermediate_size=64, layers=1, heads=1, kv_heads=1), 16, 32, 0)
    state = model.state_dict()
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_context_length(32)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(16)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(16)])
    writer.add_token_merges([])
    names = {
        "token_embd": "model.embed_tokens", "output_norm": "model.norm",
        "blk.0.attn_norm": "model.layers.0.input_layernorm",
        "blk.0.ffn_norm": "model.layers.0.post_attention_layernorm",
        "blk.0.attn_q": "model.layers.0.self_attn.q_proj", "blk.0.attn_k": "model.layers.0.self_attn.k_proj",
        "blk.0.attn_v": "model.layers.0.self_attn.v_proj", "blk.0.attn_output": "model.layers.0.self_attn.o_proj",
        "blk.0.ffn_gate": "model.layers.0.mlp.gate_proj", "blk.0.ffn_up": "model.layers.0.mlp.up_proj",
        "blk.0.ffn_down": "model.layers.0.mlp.down_proj",
    }  # fmt: skip
    for ours, theirs in names.items():
        weight = state[f"{theirs}.weight"]
        if "attn_q" in ours or "attn_k" in ours:  # GGUF interleaves the two halves of each rotary pair
            weight = weight.view(1, 2, 16, 32).transpose(1, 2).reshape(32, 32)
        writer.add_tensor(f"{ours}.weight", weight.numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = pretrained(PretrainedInit(pretrained=str(tmp_path), gguf_file="m.gguf"))
    assert torch.allclose(loaded(TOKENS % 16).logits, model(TOKENS % 16).logits, atol=1e-5)
    loaded.save_pretrained(tmp_path / "saved")  # raises while a quantization config is attached


# ------------------------------------------------------------------- what must not be ignored without a word


def change_config(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def quantized(method):
    return change_config(quantization_config={"quant_method": method, "bits": 4})


def adapter(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def change_weights(change):
    def changed(folder):
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", {"format": "pt"})

    return changed


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


AUTO_MAP = {"AutoConfig": "configuration_mine.Config", "AutoModelForCausalLM": "modeling_mine.Model"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((quantized(m), rf"quantized \({m}\)") for m in ("bitsandbytes", "gptq", "awq", "fp8", "bitnet")),
        (change_config(compression_config={"format": "pack"}), r"quantized \(unknown method\)"),
        (
            change_config(auto_map=AUTO_MAP),
            r"names code next to the weights \(modeling_mine\.Model\), which is not run",
        ),
        (change_config(auto_map={"AutoModel": "m.M"}), r"names code next to the weights \(m\.M\)"),
        (adapter, r"holds an adapter .*merge it into the weights"),
        (change_config(model_type="t5"), "t5 is not a decoder-only language model"),
        (change_config(model_type="vit"), "vit is not a decoder-only language model"),
        (change_config(model_type="gemma3"), r"gemma3 is more than a language model \(text_config, vision_config\)"),
        (change_config(model_type="mllama"), "mllama is more than a language model"),
        (
            change_config(tie_word_embeddings=True),
            "tie_word_embeddings is true, but there is a separate lm_head",
        ),
        (change_weights(lambda state: state.pop("lm_head.weight")), "lm_head.weight is missing"),
        (change_weights(lambda state: state.pop("model.layers.1.mlp.up_proj.weight")), "up_proj.weight is missing"),
        (change_weights(lambda state: state.update(more=torch.zeros(2))), "more is unexpected"),
        (change_config(intermediate_size=40), "not a checkpoint that transformers can open"),
        (truncated, r"model\.safetensors"),
        (pointer, r"model\.safetensors"),
        (change_config(num_attention_heads=0), "not a checkpoint that transformers can open"),
        (change_config(hidden_act="gelu"), "'gelu' of llama: allowed are silu, relu"),
    ],
)
def test_refused(tiny_llama, tmp_path, change, message):
    tiny_llama().save_pretrained(tmp_path)
    change(tmp_path)
    for dtype in (torch.float32, "auto"):
        with pytest.raises(UserError, match=message):
            load(tmp_path, dtype=dtype)


def test_code_for_the_tokenizer_only_is_no_code_of_the_model(tiny_llama, tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    change_config(auto_map={"AutoTokenizer": ["mine.Tokenizer", None]})(tmp_path)
    load(tmp_path)


def test_any_activation_can_be_replaced(tiny_llama, tmp_path):
    tiny_llama("gelu_pytorch_tanh").save_pretrained(tmp_path)
    with torch.no_grad():
        expected = tiny_llama("relu")(TOKENS).logits
        assert torch.equal(load(tmp_path, Activation.parse("relu")).eval()(TOKENS).logits, expected)
