"""Greedy decoding with llama.cpp, run as a separate program by ``engines.py``.

Reads one JSON object from standard input (path, prompts, new_tokens, threads) and writes one to standard output.
Imports nothing from this package, which the interpreter with llama-cpp-python may not have.
"""

import ctypes
import json
import sys
import time

import llama_cpp
import numpy as np


def main() -> None:
    request = json.load(sys.stdin)
    new_tokens = request["new_tokens"]
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(request["path"].encode(), llama_cpp.llama_model_default_params())
    if model is None:
        sys.exit(f"llama.cpp cannot load {request['path']}")
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = max(map(len, request["prompts"])) + new_tokens
    parameters.n_threads = parameters.n_threads_batch = request["threads"]
    context = llama_cpp.llama_init_from_model(model, parameters)
    if context is None:
        sys.exit("llama.cpp cannot make a context")
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    size, end = llama_cpp.llama_vocab_n_tokens(vocabulary), llama_cpp.llama_vocab_eos(vocabulary)

    def next_token(tokens: list[int]) -> int:
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)  # the batch points to it
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(tokens))):
            sys.exit("llama.cpp cannot decode")
        logits = np.ctypeslib.as_array(
            ctypes.cast(llama_cpp.llama_get_logits_ith(context, -1), ctypes.POINTER(ctypes.c_float)), (size,)
        )
        if end >= 0:
            logits[end] = -np.inf
        return int(logits.argmax())

    def decode(prompt: list[int], count: int) -> tuple[list[int], list[float]]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        tokens: list[int] = []
        times, fed = [time.perf_counter()], prompt
        while len(tokens) < count:
            tokens.append(next_token(fed))
            times.append(time.perf_counter())
            fed = tokens[-1:]
        return tokens, times

    decode(request["prompts"][0], min(new_tokens, 8))  # warm-up
    runs = [decode(prompt, new_tokens) for prompt in request["prompts"]]
    json.dump(
        {
            "version": llama_cpp.__version__,
            "build": llama_cpp.llama_print_system_info().decode().strip(" |"),
            "tokens": [tokens for tokens, _ in runs],
            "times": [times for _, times in runs],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
