"""Other engines against transformers on small random models; what is not installed here is skipped with its reason."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GraniteConfig, LlamaConfig, PreTrainedTokenizerFast

from prosparse.experiment.activation import Activation
from prosparse.inference.decoding import prepare
from prosparse.inference.export import export_llama_cpp, export_powerinfer
from prosparse.inference.generation import Text
from prosparse.inference.gguf_model import open_gguf
from prosparse.inference.predictors import Predictor
from prosparse.inference.rounded import round_weights
from prosparse.measure import engines
from prosparse.method.activations import substitute
from prosparse.operators import quantized
from prosparse.operators.quantized import FORMATS, Q4_0, Q8_0
from prosparse.system.errors import UserError

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


def check_numbers(result, precision, threads):
    assert (result["precision"], result["threads"]) == (precision, threads)
    assert result["version"]
    assert "AVX" in result["build"] or "NEON" in result["build"]
    for key in ("tokens_per_second", "first_token_milliseconds"):
        assert 0 < result[key]["lower_quartile"] <= result[key]["median"] <= result[key]["upper_quartile"]


# ----------------------------------------------------------------------------------- llama.cpp


@pytest.fixture(scope="module")
def llama_cpp():
    try:
        return engines.llama_cpp_interpreter()
    except engines.EngineMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 0.02), (torch.float16, 0.02), (torch.bfloat16, 0.2)],  # keys and values are float16 in all three
)
@pytest.mark.parametrize("name", ["llama", "granite"])
def test_llama_cpp_generates_the_tokens_of_transformers(name, dtype, tolerance, llama_cpp, tmp_path):
    model = tiny(name)
    export_llama_cpp(model, None, tmp_path / "model.gguf", dtype)
    result = engines.llama_cpp(tmp_path / "model.gguf", PROMPTS, NEW_TOKENS, threads=1)
    shortfall = compared(model, PROMPTS, result["tokens"])
    assert shortfall.max() < tolerance
    assert (shortfall == 0).float().mean() > 0.95
    assert {len(tokens) for tokens in result["tokens"]} == {NEW_TOKENS}
    assert len(set(result["tokens"][0])) > 10, "a model that repeats itself would show little"
    check_numbers(result, str(dtype).removeprefix("torch."), 1)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_llama_cpp_chooses_the_tokens_of_our_quantized_decoder(form, tied, llama_cpp, tmp_path):
    """Of the same file: after each of its tokens, its choice is ours, or one that we rank beside ours.

    More often that of transformers, which reads the down projection as it is, where we round its transpose again.
    """
    path = tmp_path / "model.gguf"
    export_llama_cpp(tiny(tie_word_embeddings=tied), None, path, form.dtype)
    result = engines.llama_cpp(path, PROMPTS, NEW_TOKENS, threads=1)
    found = open_gguf(path)
    of_file = compared(found.model, PROMPTS, result["tokens"])
    assert of_file.max() < 0.2
    assert (of_file == 0).float().mean() > 0.9
    decoder = prepare(found.model, form=found.rounding)
    shortfall = []
    for prompt, tokens in zip(PROMPTS, result["tokens"], strict=True):
        text = Text(decoder, len(prompt) + NEW_TOKENS)
        for token, read in zip(tokens, [prompt, *([token] for token in tokens)], strict=False):
            logits = text.read(read).clone()
            spread, logits[decoder.model.config.eos_token_id] = logits.std(), -torch.inf
            shortfall.append(float((logits.max() - logits[token]) / spread))
    assert result["precision"] == form.name.upper()
    assert max(shortfall) < (0.1 if form is Q8_0 else 0.6)
    assert statistics.fmean(each == 0 for each in shortfall) > (0.9 if form is Q8_0 else 0.7)
    assert len({*result["tokens"][0]}) > 10, "a model that repeats itself would show little"


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


@pytest.mark.parametrize("digits", [True, False])
def test_llama_cpp_reads_the_tokenizer_as_transformers_does(digits, llama_cpp, tmp_path):
    tokenizer = byte_level(digits)
    export_llama_cpp(tiny(), tokenizer, tmp_path / "model.gguf", torch.float16)
    script = (
        "import json, sys, llama_cpp; path, text = json.load(sys.stdin)\n"
        "model = llama_cpp.Llama(path, vocab_only=True, verbose=False)\n"
        "print(json.dumps(model.tokenize(text.encode(), add_bos=False)))"
    )
    for sentence in (TEXT, "then 7 cats sat 12345 times\n\n  end", "'s €"):
        request = json.dumps([str(tmp_path / "model.gguf"), sentence])
        answer = subprocess.run([llama_cpp, "-c", script], input=request, capture_output=True, text=True, check=True)
        assert json.loads(answer.stdout) == tokenizer(sentence)["input_ids"]


def test_llama_cpp_says_which_file_it_cannot_load(llama_cpp, tmp_path):
    model = tiny(activation="relu")
    export_powerinfer(model, predictors(model), 0.5, None, tmp_path / "model")
    with pytest.raises(UserError, match=r"llama.cpp failed on .*model"):
        engines.llama_cpp(tmp_path / "model", PROMPTS, NEW_TOKENS, threads=1)


def test_llama_cpp_missing(monkeypatch, tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'llama_cpp'\" >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv(engines.LLAMA_CPP_INTERPRETER, str(fake))
    with pytest.raises(engines.EngineMissing, match=r"No module named 'llama_cpp'\): pip install llama-cpp-python"):
        engines.llama_cpp(tmp_path / "model.gguf", PROMPTS, NEW_TOKENS, threads=1)
    monkeypatch.setenv(engines.LLAMA_CPP_INTERPRETER, str(tmp_path / "nothing"))
    with pytest.raises(engines.EngineMissing, match=r"PROSPARSE_LLAMA_CPP=.*nothing: .*No such file"):
        engines.llama_cpp(tmp_path / "model.gguf", PROMPTS, NEW_TOKENS, threads=1)


def test_speeds_are_of_the_tokens_after_the_first(monkeypatch, tmp_path):
    """Two prompts, 4 new tokens: 3 of them in 0.3 s and 0.6 s, the first after 0.5 s and 0.7 s."""
    export_llama_cpp(tiny(), None, tmp_path / "model.gguf", torch.float16)
    answer = {
        "version": "1", "build": "none", "tokens": [[1, 2, 3, 4]] * 2,
        "times": [[10, 10.5, 10.6, 10.7, 10.8], [20, 20.7, 20.8, 21.0, 21.3]],
    }  # fmt: skip
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\ncat > /dev/null\necho '{json.dumps(answer)}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv(engines.LLAMA_CPP_INTERPRETER, str(fake))
    result = engines.llama_cpp(tmp_path / "model.gguf", PROMPTS[:2], 4, threads=2)
    assert result["tokens_per_second"]["median"] == pytest.approx((3 / 0.3 + 3 / 0.6) / 2)
    assert result["first_token_milliseconds"]["median"] == pytest.approx(600)
    assert result["tokens"] == answer["tokens"]


def test_prompts_need_two_tokens(tmp_path):
    with pytest.raises(UserError, match="prompts of at least two tokens"):
        engines.llama_cpp(tmp_path / "model.gguf", [[1]], 8, threads=1)


# ---------------------------------------------------------------------------------- PowerInfer


def predictors(model):
    return [Predictor(128, 16, 1024) for _ in model.model.layers]


def masked(model, made, decision_threshold):
    """The same model, whose x1 is 0 where a neuron is not predicted."""
    shares, residuals = [], {}
    for layer, predictor in zip(model.model.layers, made, strict=True):

        def keep(module, inputs, predictor=predictor):
            residuals[predictor] = inputs[0]

        def mask(module, inputs, predictor=predictor):
            active = predictor.fc2(predictor.fc1(residuals[predictor]).relu()).sigmoid() >= decision_threshold
            shares.append(active.float().mean().item())
            return (inputs[0] * active,)

        layer.post_attention_layernorm.register_forward_pre_hook(keep)
        layer.mlp.down_proj.register_forward_pre_hook(mask)
    return shares


@pytest.fixture(scope="module")
def program():
    path = os.environ.get("PROSPARSE_POWERINFER")
    if path is None:
        pytest.skip("PROSPARSE_POWERINFER does not name PowerInfer's program (build_powerinfer makes it)")
    return Path(path)


@pytest.mark.parametrize("name", ["llama", "granite"])
def test_powerinfer_generates_the_tokens_of_the_masked_model(name, program, tmp_path):
    """With one thread: with more, PowerInfer loses additions to the FFN's output.

    Its activations are float16, so that now and then a neuron at the threshold is predicted otherwise.
    """
    torch.manual_seed(1)
    model = tiny(name, "relu")
    made = predictors(model)
    for predictor in made:
        predictor.half().float()
    export_powerinfer(model, made, 0.45, None, tmp_path / "model")
    result = engines.powerinfer(program, tmp_path / "model", PROMPTS, NEW_TOKENS, threads=1)
    without_predictors = compared(model, PROMPTS, result["tokens"])
    shares = masked(model, made, 0.45)
    shortfall = compared(model, PROMPTS, result["tokens"])
    assert shortfall.max() < 0.5
    assert (shortfall == 0).float().mean() > 0.9
    assert (without_predictors == 0).float().mean() < 0.5
    assert 0.2 < sum(shares) / len(shares) < 0.8
    assert len(set(result["tokens"][0])) > 10, "a model that repeats itself would show little"
    check_numbers(result, "float16", 1)


def test_powerinfer_skips_neurons_of_weights_in_4_bits(program, tmp_path):
    """The model holds what the file holds; PowerInfer also rounds activations to 8 bits."""
    torch.manual_seed(1)
    model = tiny("llama", "relu")
    round_weights(model, Q4_0)
    made = [Predictor(128, 32, 1024) for _ in model.model.layers]
    for weight in (model.model.embed_tokens.weight, *(p.data for each in made for p in each.parameters())):
        weight.data.copy_(quantized.dequantize(quantized.quantize(weight, Q4_0), torch.float32))
    export_powerinfer(model, made, 0.45, None, tmp_path / "model", Q4_0.dtype)
    result = engines.powerinfer(program, tmp_path / "model", PROMPTS, NEW_TOKENS, threads=1)
    without_predictors = compared(model, PROMPTS, result["tokens"])
    masked(model, made, 0.45)
    shortfall = compared(model, PROMPTS, result["tokens"])
    assert (shortfall == 0).float().mean() > 0.7
    assert (without_predictors == 0).float().mean() < 0.5
    assert len(set(result["tokens"][0])) > 10, "a model that repeats itself would show little"
    check_numbers(result, "Q4_0", 1)


@pytest.mark.parametrize("digits", [True, False])
def test_powerinfer_reads_the_tokenizer_as_transformers_does(digits, program, tmp_path):
    model, tokenizer = tiny(activation="relu"), byte_level(digits)
    export_powerinfer(model, predictors(model), 0.5, tokenizer, tmp_path / "model")
    prompt = tokenizer("<s>the cat's 7 hats, déjà vu 12")["input_ids"]
    assert prompt[0] == 0
    engines.powerinfer(program, tmp_path / "model", [prompt], 2, threads=1)  # it refuses a prompt read otherwise


LOG = """llama_print_timings:        load time =     100.00 ms
llama_print_timings:      sample time =       1.00 ms /     4 runs   (    0.02 ms per token, 1000.00 tokens per second)
llama_print_timings: prompt eval time =      50.00 ms /     2 tokens (   25.00 ms per token,    40.00 tokens per second)
llama_print_timings:        eval time =     150.00 ms /     3 runs   (   50.00 ms per token,    20.00 tokens per second)
main: build = 1590 (d3ebd7c)
system_info: n_threads = 1 / 2 | AVX = 1 | VSX = 0 | 
"""


def fake_powerinfer(directory, prompt_tokens, output_tokens, status=0):
    """A program that prints PowerInfer's timings and writes its log, with its own arguments beside it."""
    (directory / "stderr").write_text(LOG)
    (directory / "log").write_text(f"x: 1\nprompt_tokens: {prompt_tokens}\noutput_tokens: {output_tokens}\n")
    fake = directory / "main"
    fake.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {directory}/arguments\ncat {directory}/stderr >&2\n'
        f"cp {directory}/log now.yml\nexit {status}\n"
    )
    fake.chmod(0o755)
    return fake


def test_powerinfers_own_timings_are_taken(tmp_path):
    model = tiny(activation="relu")
    export_powerinfer(model, predictors(model), 0.5, None, tmp_path / "model")
    fake = fake_powerinfer(tmp_path, [3, 55], [9, 8, 7, 6])
    result = engines.powerinfer(fake, tmp_path / "model", [[3, 55]], 4, threads=1)
    assert result["tokens"] == [[9, 8, 7, 6]]
    assert result["tokens_per_second"]["median"] == pytest.approx(20)
    assert result["first_token_milliseconds"]["median"] == pytest.approx(50)
    assert result["version"] == "1590 (d3ebd7c)"
    arguments = (tmp_path / "arguments").read_text().splitlines()
    options = dict(itertools.pairwise(arguments))
    assert (options["--prompt"], options["--n-predict"], options["--threads"]) == ("<|3|><|55|>", "4", "1")
    assert (options["--temp"], options["--repeat-penalty"]) == ("0", "1")  # the default penalty is not greedy
    with pytest.raises(UserError, match=r"reads the prompt \[3, 56\] as \[3, 55\]"):
        engines.powerinfer(fake, tmp_path / "model", [[3, 56]], 4, threads=1)
    with pytest.raises(
        UserError, match=r"prompt \[3, 599\] does not decode to text"
    ):  # a byte that is no character of its own
        engines.powerinfer(fake, tmp_path / "model", [[3, 599]], 4, threads=1)
    with pytest.raises(UserError, match="generated 4 tokens, not 5"):
        engines.powerinfer(fake, tmp_path / "model", [[3, 55]], 5, threads=1)
    failing = fake_powerinfer(tmp_path, [], [], status=1)
    with pytest.raises(UserError, match="PowerInfer failed on"):
        engines.powerinfer(failing, tmp_path / "model", [[3, 55]], 4, threads=1)
    with pytest.raises(engines.EngineMissing, match="nothing does not exist"):
        engines.powerinfer(tmp_path / "nothing", tmp_path / "model", [[3, 55]], 4, threads=1)


# -------------------------------------------------------------------------------------- build

CMAKE = """cmake_minimum_required(VERSION 3.10)
project(fake CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_executable(main main.cpp)
"""
IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b"]


@pytest.fixture
def source(tmp_path):
    """A git repository with two revisions of a program that prints its number."""
    directory, revisions = tmp_path / "upstream", []
    directory.mkdir()
    subprocess.run(["git", "init", "--quiet", directory], check=True)
    (directory / "CMakeLists.txt").write_text(CMAKE)
    for number in (1, 2):
        (directory / "main.cpp").write_text(f'#include <cstdio>\nint main() {{ std::puts("{number}"); }}\n')
        subprocess.run(["git", "-C", directory, "add", "."], check=True)
        subprocess.run(["git", "-C", directory, *IDENTITY, "commit", "--quiet", "-m", str(number)], check=True)
        head = subprocess.run(["git", "-C", directory, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        revisions.append(head.stdout.strip())
    return directory, revisions


def says(program):
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.commands("git", "cmake", "c++")
def test_builds_a_revision_of_what_git_can_clone(source, tmp_path):
    directory, (first, second) = source
    program = engines.build_powerinfer(f"file://{directory}", first, tmp_path / "target")
    assert says(program) == "1"
    assert says(engines.build_powerinfer(f"file://{directory}", second, tmp_path / "target")) == "2"
    with pytest.raises(engines.EngineMissing, match="checkout --quiet 0123456 failed"):
        engines.build_powerinfer(f"file://{directory}", "0123456", tmp_path / "target")


@pytest.mark.commands("git", "cmake", "c++")
def test_a_clone_is_reused_only_whole_and_of_the_same_source(source, tmp_path):
    directory, (first, _) = source
    (tmp_path / "target" / ".source.partial" / ".git").mkdir(parents=True)  # a clone that was stopped
    assert says(engines.build_powerinfer(f"file://{directory}", first, tmp_path / "target")) == "1"
    fork = tmp_path / "fork"
    subprocess.run(["git", "clone", "--quiet", directory, fork], check=True)
    (fork / "main.cpp").write_text('#include <cstdio>\nint main() { std::puts("fork"); }\n')
    subprocess.run(["git", "-C", fork, *IDENTITY, "commit", "--quiet", "-am", "fork"], check=True)
    assert says(engines.build_powerinfer(f"file://{fork}", None, tmp_path / "target")) == "fork"


@pytest.mark.commands("git", "cmake", "c++")
def test_builds_a_directory_and_leaves_it_as_it_was(source, tmp_path):
    directory, (first, second) = source
    assert says(engines.build_powerinfer(str(directory), second[:12], tmp_path / "target")) == "2"
    status = subprocess.run(
        ["git", "-C", directory, "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    assert status.stdout == ""
    with pytest.raises(engines.EngineMissing, match=f"is at {second}, not at revision {first}"):
        engines.build_powerinfer(str(directory), first, tmp_path / "target")
    (directory / "main.cpp").write_text("not a program")
    with pytest.raises(engines.EngineMissing, match=r"cmake --build .* failed \(.*build.log\)"):
        engines.build_powerinfer(str(directory), None, tmp_path / "target")


@pytest.mark.commands("git", "cmake", "c++")
def test_says_what_the_build_needs(tmp_path, monkeypatch):
    with pytest.raises(engines.EngineMissing, match=r"has no CMakeLists.txt"):
        engines.build_powerinfer(str(tmp_path), None, tmp_path / "target")
    with pytest.raises(engines.EngineMissing, match="git clone"):
        engines.build_powerinfer(str(tmp_path / "nothing"), None, tmp_path / "target")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(engines.EngineMissing, match="cmake is not installed"):
        engines.build_powerinfer(str(tmp_path), None, tmp_path / "target")
