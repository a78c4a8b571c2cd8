"""Benchmark scores of a model through lm-eval, as the paper takes them (its evaluation section).

What lm-eval's defaults do differently is changed here and in ``tasks/*.yaml``:

- ``<s>`` heads every context, also one cut on the left: without it these models score abnormally (model card);
- an answer keeps the space it begins with, which LLaMA's tokenizers drop;
- "candidate of lowest perplexity" compares the mean log-likelihood a token, not its sum;
- rows are in memory, so nothing is fetched; programs run in ``sandbox``, not in the hub's metric.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import lm_eval.api.task
import lm_eval.utils
import pyarrow
import torch
from datasets import Dataset, disable_progress_bars
from lm_eval import evaluator
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria

from prosparse.config import Benchmarks, ConfigError
from prosparse.measure import benchmark_rows, sandbox, tasks
from prosparse.measure.benchmark_rows import Row, evenly
from prosparse.measure.tasks import Task
from prosparse.provenance import digest

# A progress bar for each of a hundred subtasks says nothing; those of the model's requests stay.
lm_eval.api.task.tqdm = partial(tqdm, disable=True)  # type: ignore[attr-defined]
disable_progress_bars()
# lm-eval compiles its prompt templates anew for every row, a fifth of the time of a small model.
lm_eval.utils.env.from_string = cache(lm_eval.utils.env.from_string)  # type: ignore[method-assign]


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, benchmarks: Benchmarks, rows_dir: Path
) -> dict[str, dict[str, Any]]:
    """Score ``model`` on every benchmark that has rows in ``rows_dir``.

    Returns:
        ``benchmarks``: by name, ``score`` and ``standard_error`` (fractions), ``n`` rows, ``chance``,
        ``shots``, ``metric``, ``task`` (how it differs from lm-eval), ``stand_in`` (text or None),
        ``truncated`` (fraction of rows whose prompt was cut to the model's context), and for
        generated answers ``max_new_tokens``; ``missing``: by name, the reason.

    Raises:
        ConfigError: for an unknown benchmark.
        ValueError: for a tokenizer without a beginning-of-sequence token.
    """
    if tokenizer.bos_token_id is None:
        raise ConfigError("the tokenizer has no beginning-of-sequence token; every context must begin with it")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    missing = benchmark_rows.missing(benchmarks, rows_dir)
    if not benchmarks.execute_code:
        no_programs: str | None = "benchmarks.execute_code is false: model-written programs are not run"
    else:
        no_programs = sandbox.available()
    language_model = BeginningOfSequenceLM(model, tokenizer, benchmarks.batch_size)

    chosen: dict[str, dict[str, ConfigurableTask]] = {}
    for task in map(tasks.load, benchmarks.tasks):
        if task.answer == "pass_at_1" and no_programs:
            missing.setdefault(task.name, no_programs)
        if task.name not in missing:
            limit = benchmarks.limits.get(task.name, benchmarks.limit)
            chosen[task.name] = _lm_eval_tasks(task, rows_dir, limit, language_model.max_length)
    if not chosen:
        return {"benchmarks": {}, "missing": missing}

    everything = {name: part for parts in chosen.values() for name, part in parts.items()}
    with torch.inference_mode():
        result = evaluator.evaluate(language_model, {"tasks": everything, "groups": {}}, bootstrap_iters=0)
    scores = {}
    for name, parts in chosen.items():
        task = tasks.load(name)
        samples = [sample for part in parts for sample in result["samples"][part]]
        scores[name] = _entry(task, samples, language_model)
        scores[name]["stand_in"] = benchmark_rows.stand_in(name, rows_dir)
        print(f"{name}: {scores[name]['score']:.4f}, {scores[name]['n']} rows", flush=True)
    return {"benchmarks": scores, "missing": missing}


def spread(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """``limit`` rows, as equally many a subtask as there are, at even distances in file order.

    The same rows for every model; all of them where ``limit`` is None or large.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    groups: dict[str | None, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.get("subtask"), []).append(row)
    quota = dict.fromkeys(groups, 0)
    left = limit
    while left:
        unfilled = [name for name in groups if quota[name] < len(groups[name])]
        for name in evenly(unfilled, left):
            quota[name] += 1
            left -= 1
    return [row for name, group in groups.items() for row in evenly(group, quota[name])]


def _entry(task: Task, samples: Sequence[Mapping[str, Any]], language_model: BeginningOfSequenceLM) -> dict[str, Any]:
    samples = [sample for sample in samples if sample["filter"] == task.score.filter]
    values = [float(sample[task.score.metric]) for sample in samples]
    contexts = [{arguments[0] for arguments in sample["arguments"]} for sample in samples]
    entry = {
        "score": statistics.fmean(values),
        # standard error of a mean, as lm-eval's mean_stderr; one row has none
        "standard_error": statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
        "n": len(values),
        "chance": task.chance,
        "shots": task.shots,
        "metric": task.metric,
        "task": task.protocol,
        "truncated": sum(bool(c & language_model.truncated) for c in contexts) / len(contexts),
    }
    if task.max_new_tokens is not None:
        entry["max_new_tokens"] = _new_tokens(task, language_model.max_length)
    return entry


# ---------------------------------------------------------------------------------- the tasks


def _lm_eval_tasks(task: Task, rows_dir: Path, limit: int | None, context: int) -> dict[str, ConfigurableTask]:
    """One lm-eval task a subtask that has rows, by a name unique to it."""
    file = rows_dir / f"{task.name}.jsonl"
    rows = spread(benchmark_rows.read(file), limit) if None not in task.bases() else benchmark_rows.read(file, limit)
    shots_file = rows_dir / f"{task.name}.shots.jsonl"
    shots = benchmark_rows.read(shots_file) if shots_file.exists() else []
    made = {}
    for subtask, base in task.bases().items():
        part = [row for row in rows if row.get("subtask") == subtask]
        if part:
            name = task.name if subtask is None else f"{task.name}_{subtask}"
            shown = [row for row in shots if row.get("subtask") == subtask]
            made[name] = ConfigurableTask(config=_lm_eval_config(task, name, base, part, shown, context))
    return made


def _lm_eval_config(
    task: Task, name: str, base: Path, rows: list[Row], shots: list[Row], context: int
) -> dict[str, Any]:
    runs_programs = task.answer == "pass_at_1"
    # the functions of lm-eval's code benchmarks fetch a metric from the hub when they are imported
    config = load_yaml(base, resolve_func=not runs_programs) | task.overrides
    splits = {
        # a given fingerprint spares the slow default; `map` caches by it
        split: Dataset(pyarrow.Table.from_pylist(part), fingerprint=digest(part))
        for split, part in (("test", rows), ("shots", shots))
        if part
    }
    config |= {
        "task": name,
        "custom_dataset": lambda **_: splits,
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
        "fewshot_split": "shots" if shots else None,
        "num_fewshot": task.shots,
    }
    if fixed := tasks.fixed_shots(base):
        config["fewshot_config"] = config["fewshot_config"] | {"samples": fixed}
    available = len(shots) or len(fixed)
    if available < task.shots:
        raise ValueError(f"{name}: {task.shots} shots are needed and {available} are there")
    if task.max_new_tokens is not None:
        config["generation_kwargs"] = config["generation_kwargs"] | {"max_gen_toks": _new_tokens(task, context)}
    if runs_programs:
        program = PROGRAMS[task.name]
        config |= {
            "unsafe_code": False,  # lm-eval runs nothing
            "filter_list": None,
            "metric_list": [{"metric": "pass_at_1", "aggregation": "mean", "higher_is_better": True}],
            "process_results": lambda row, answers: {"pass_at_1": sandbox.passes(program(row, answers[0]))},
        }
    return config


def _new_tokens(task: Task, context: int) -> int:
    """Tokens an answer may have: at most an eighth of the context, so that a short one keeps its prompt."""
    assert task.max_new_tokens is not None
    return min(task.max_new_tokens, max(1, context // 8))


def _humaneval_program(row: Row, answer: str) -> str:
    return f"{row['prompt']}{answer}\n{row['test']}\ncheck({row['entry_point']})\n"


def _mbpp_program(row: Row, answer: str) -> str:
    return "\n".join([row.get("test_setup_code") or "", answer, *row["test_list"]])


PROGRAMS: dict[str, Callable[[Row, str], str]] = {"humaneval": _humaneval_program, "mbpp": _mbpp_program}


# ---------------------------------------------------------------------------------- the model


class BeginningOfSequenceLM(HFLM):
    """lm-eval's Hugging Face model with ``<s>`` before every context and log-likelihoods a token.

    A prompt longer than the model's context loses tokens after ``<s>``; ``truncated`` holds such contexts.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, backend="causal")
        model.eval()
        self.beginning: int = tokenizer.bos_token_id  # type: ignore[assignment]
        self.truncated: set[str] = set()

    @property
    def prefix_token_id(self) -> int:
        """Heads an empty context."""
        return self.beginning

    def tok_encode(self, string: str, *_: Any, **__: Any) -> list[int]:
        """Tokens of ``string`` alone: ``<s>`` is added where a context is complete."""
        return self.tokenizer.encode(string, add_special_tokens=False)

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        """What ``tokens`` add to a text: LLaMA's tokenizers drop a text's first space, which indents code."""
        before = [] if isinstance(tokens, int) else self.tok_encode("a")
        tokens = [tokens] if isinstance(tokens, int) else [*before, *tokens]
        text = self.tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens)
        return text[len(self.tokenizer.decode(before)) :]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        prompt, answer = super()._encode_pair(context, continuation)
        # the last token of an answer is predicted, never read: <s>, prompt and answer may be one token longer
        room = max(self.max_length - len(answer), 0)
        if len(prompt) > room or len(answer) > self.max_length:
            self.truncated.add(context)
            prompt, answer = prompt[len(prompt) - min(room, len(prompt)) :], answer[: self.max_length]
        return [self.beginning, *prompt], answer

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """The mean log-likelihood a token, and whether each is the likeliest, of (name, context, continuation).

        HFLM's values over the number of tokens, without its logits and their softmax at every position of every row:
        over a large vocabulary these take as long as the layers. In float32, whatever the model's precision.
        """
        asked: dict[tuple[int, ...], list[int]] = {}  # which requests let the model read the same tokens
        for index, (_, context, continuation) in enumerate(requests):
            asked.setdefault((*context, *continuation[:-1]), []).append(index)
        found: dict[int, tuple[float, bool]] = {}
        longest_first = sorted(asked, key=len, reverse=True)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Log-likelihoods") as progress:
            for start in range(0, len(asked), self.batch_size):
                rows = longest_first[start : start + self.batch_size]
                scored = [max(len(requests[index][2]) for index in asked[row]) for row in rows]
                for row, scores in zip(rows, self._last_log_probabilities(rows, scored), strict=True):
                    for index in asked[row]:
                        answer = torch.tensor(requests[index][2], device=scores.device)
                        own = scores[-len(answer) :]
                        mean = own.gather(1, answer[:, None]).mean().item()
                        found[index] = mean, torch.equal(own.argmax(1), answer)
                        progress.update()
        return [found[index] for index in range(len(requests))]

    def _last_log_probabilities(self, rows: Sequence[Sequence[int]], counts: Sequence[int]) -> Sequence[torch.Tensor]:
        """Of each row's last ``counts[row]`` positions, what comes next: [counts[row], vocabulary] float32 a row."""
        ids = [torch.tensor(row) for row in rows]
        # causal attention keeps padding on the right from what is scored
        batch = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(self.device)
        length = torch.tensor([len(row) for row in rows], device=self.device)[:, None]
        count = torch.tensor(counts, device=self.device)[:, None]
        place = torch.arange(batch.shape[1], device=self.device)
        wanted = (place >= length - count) & (place < length)

        def choose(head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return inputs[0][wanted]

        hook = self.model.get_output_embeddings().register_forward_pre_hook(choose)
        try:
            logits = self._model_call(batch)
        finally:
            hook.remove()
        return logits.float().log_softmax(-1).split(list(counts))

    def tok_batch_encode(
        self, strings: Sequence[str], padding_side: str = "left", left_truncate_len: int | None = None, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask [batch, length], each row ``<s>`` and the end of its prompt."""
        room = (left_truncate_len or self.max_length) - 1
        rows = []
        for string in strings:
            prompt = self.tok_encode(string)
            if len(prompt) > room:
                self.truncated.add(string)
            rows.append([self.beginning, *prompt[max(len(prompt) - room, 0) :]])
        assert padding_side == "left"  # generation continues at the right end
        length = max(map(len, rows))
        ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        return ids, mask

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **options: Any) -> torch.Tensor:
        """Token ids of contexts and greedy answers [batch, length], as HFLM's up to an answer's first stop string.

        HFLM goes on until all rows have said the same one of them: where there are several, mostly to ``max_length``.
        """
        assert not options.get("do_sample")
        return self.model.generate(
            input_ids=context,
            attention_mask=options["attention_mask"],
            max_length=max_length,
            do_sample=False,
            use_cache=True,
            stopping_criteria=[_StopStrings(self.tokenizer, stop, context.shape[1])],
            pad_token_id=self.tokenizer.pad_token_id,
        )


class _StopStrings(StoppingCriteria):
    """Which rows have just said any of ``strings`` after the ``prompt`` tokens they began with."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: Sequence[str], prompt: int) -> None:
        self._tokenizer, self._strings, self._prompt = tokenizer, strings, prompt
        # two more: text can be cut into tokens in other ways than the tokenizer's
        self._reach = 2 + max(len(tokenizer.encode(string, add_special_tokens=False)) for string in strings)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # type: ignore[override]
        ends = self._tokenizer.batch_decode(input_ids[:, self._prompt :][:, -self._reach :])
        said = [any(string in end for string in self._strings) for end in ends]
        return torch.tensor(said, device=input_ids.device)
