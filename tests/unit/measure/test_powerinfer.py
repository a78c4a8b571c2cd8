"""PowerInfer against transformers on small random models; skipped where it is not installed."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.engines import NEW_TOKENS, PROMPTS, byte_level, compared, predictors, tiny

from prosparse.inference.export import export_powerinfer
from prosparse.inference.predictors import Predictor
from prosparse.inference.rounded import round_weights
from prosparse.measure import powerinfer
from prosparse.operators import quantized
from prosparse.operators.quantized import Q4_0
from prosparse.system.errors import EngineMissing, UserError


def check_numbers(result, precision, threads):
    assert (result["precision"], result["threads"]) == (precision, threads)
    assert result["version"]
    assert "AVX" in result["build"] or "NEON" in result["build"]
    for key in ("tokens_per_second", "first_token_milliseconds"):
        assert 0 < result[key]["lower_quartile"] <= result[key]["median"] <= result[key]["upper_quartile"]


def test_prompts_need_two_tokens(tmp_path):
    with pytest.raises(UserError, match="prompts of at least two tokens"):
        powerinfer.powerinfer(tmp_path / "main", tmp_path / "model.gguf", [[1]], 8, threads=1)


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
    result = powerinfer.powerinfer(program, tmp_path / "model", PROMPTS, NEW_TOKENS, threads=1)
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
    result = powerinfer.powerinfer(program, tmp_path / "model", PROMPTS, NEW_TOKENS, threads=1)
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
    powerinfer.powerinfer(program, tmp_path / "model", [prompt], 2, threads=1)  # it refuses a prompt read otherwise


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
    result = powerinfer.powerinfer(fake, tmp_path / "model", [[3, 55]], 4, threads=1)
    assert result["tokens"] == [[9, 8, 7, 6]]
    assert result["tokens_per_second"]["median"] == pytest.approx(20)
    assert result["first_token_milliseconds"]["median"] == pytest.approx(50)
    assert result["version"] == "1590 (d3ebd7c)"
    arguments = (tmp_path / "arguments").read_text().splitlines()
    options = dict(itertools.pairwise(arguments))
    assert (options["--prompt"], options["--n-predict"], options["--threads"]) == ("<|3|><|55|>", "4", "1")
    assert (options["--temp"], options["--repeat-penalty"]) == ("0", "1")  # the default penalty is not greedy
    with pytest.raises(UserError, match=r"reads the prompt \[3, 56\] as \[3, 55\]"):
        powerinfer.powerinfer(fake, tmp_path / "model", [[3, 56]], 4, threads=1)
    with pytest.raises(
        UserError, match=r"prompt \[3, 599\] does not decode to text"
    ):  # a byte that is no character of its own
        powerinfer.powerinfer(fake, tmp_path / "model", [[3, 599]], 4, threads=1)
    with pytest.raises(UserError, match="generated 4 tokens, not 5"):
        powerinfer.powerinfer(fake, tmp_path / "model", [[3, 55]], 5, threads=1)
    failing = fake_powerinfer(tmp_path, [], [], status=1)
    with pytest.raises(UserError, match="PowerInfer failed on"):
        powerinfer.powerinfer(failing, tmp_path / "model", [[3, 55]], 4, threads=1)
    with pytest.raises(EngineMissing, match="nothing does not exist"):
        powerinfer.powerinfer(tmp_path / "nothing", tmp_path / "model", [[3, 55]], 4, threads=1)


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
    program = powerinfer.build_powerinfer(f"file://{directory}", first, tmp_path / "target")
    assert says(program) == "1"
    assert says(powerinfer.build_powerinfer(f"file://{directory}", second, tmp_path / "target")) == "2"
    with pytest.raises(EngineMissing, match="checkout --quiet 0123456 failed"):
        powerinfer.build_powerinfer(f"file://{directory}", "0123456", tmp_path / "target")


@pytest.mark.commands("git", "cmake", "c++")
def test_a_clone_is_reused_only_whole_and_of_the_same_source(source, tmp_path):
    directory, (first, _) = source
    (tmp_path / "target" / ".source.partial" / ".git").mkdir(parents=True)  # a clone that was stopped
    assert says(powerinfer.build_powerinfer(f"file://{directory}", first, tmp_path / "target")) == "1"
    fork = tmp_path / "fork"
    subprocess.run(["git", "clone", "--quiet", directory, fork], check=True)
    (fork / "main.cpp").write_text('#include <cstdio>\nint main() { std::puts("fork"); }\n')
    subprocess.run(["git", "-C", fork, *IDENTITY, "commit", "--quiet", "-am", "fork"], check=True)
    assert says(powerinfer.build_powerinfer(f"file://{fork}", None, tmp_path / "target")) == "fork"


@pytest.mark.commands("git", "cmake", "c++")
def test_builds_a_directory_and_leaves_it_as_it_was(source, tmp_path):
    directory, (first, second) = source
    assert says(powerinfer.build_powerinfer(str(directory), second[:12], tmp_path / "target")) == "2"
    status = subprocess.run(
        ["git", "-C", directory, "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    assert status.stdout == ""
    with pytest.raises(EngineMissing, match=f"is at {second}, not at revision {first}"):
        powerinfer.build_powerinfer(str(directory), first, tmp_path / "target")
    (directory / "main.cpp").write_text("not a program")
    with pytest.raises(EngineMissing, match=r"cmake --build .* failed \(.*build.log\)"):
        powerinfer.build_powerinfer(str(directory), None, tmp_path / "target")


@pytest.mark.commands("git", "cmake", "c++")
def test_says_what_the_build_needs(tmp_path, monkeypatch):
    with pytest.raises(EngineMissing, match=r"has no CMakeLists.txt"):
        powerinfer.build_powerinfer(str(tmp_path), None, tmp_path / "target")
    with pytest.raises(EngineMissing, match="git clone"):
        powerinfer.build_powerinfer(str(tmp_path / "nothing"), None, tmp_path / "target")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissing, match="cmake is not installed"):
        powerinfer.build_powerinfer(str(tmp_path), None, tmp_path / "target")
