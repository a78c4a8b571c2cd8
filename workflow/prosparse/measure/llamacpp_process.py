"""Greedy decoding with llama.cpp, as a separate program.

Reads one JSON object per line from standard input and answers each with one on standard output: first the path, the
number of threads and the number of tokens to make room for; then tokens to read, how many to write after them, and
whether they begin a text. Times are of ``time.perf_counter``.

Imports nothing from this package, which the interpreter with llama-cpp-python may not have.
"""

import ctypes
import json
import sys
import time

import llama_cpp
import numpy as np


def main() -> None:
    request = json.loads(input())
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(request["path"].encode(), llama_cpp.llama_model_default_params())
    if model is None:
        sys.exit(f"llama.cpp cannot load {request['path']}")
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = request["capacity"]
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

    build = llama_cpp.llama_print_system_info().decode().strip(" |")
    print(json.dumps({"version": llama_cpp.__version__, "build": build}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["begins"]:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        unread, tokens, times = request["tokens"], [], []
        for _ in range(request["new_tokens"]):
            tokens.append(next_token(unread))
            times.append(time.perf_counter())
            unread = tokens[-1:]
        print(json.dumps({"tokens": tokens, "times": times}), flush=True)


if __name__ == "__main__":
    main()
