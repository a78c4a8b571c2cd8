"""The model behind lm-eval's interface: log-likelihoods and greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import resolve_max_length
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria

from prosparse.inference.text import continuation, end_tokens, generate_greedily, special_prefix
from prosparse.measure.batches import TokenBudget

GENERATION_OPTIONS = {"until", "max_gen_toks", "do_sample", "temperature"}
MOST_NEW_TOKENS = 256  # lm-eval's default


class LanguageModel(TemplateLM):
    """Language model that differs from lm-eval's ``HFLM`` in three ways.

    - A log-likelihood is the mean per token, not the sum.
    - Every context starts with ``<s>``, even one cut on the left to fit the model, regardless of the tokenizer's
      default. Exceptions: tokenizers without such a token or with an explicit ``add_bos_token: false``.
    - Batches hold at most ``batch_tokens`` tokens, or fewer if memory cannot hold as many.

    ``truncated`` holds the contexts that were cut.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int) -> None:
        super().__init__()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length: int = resolve_max_length(model.config, tokenizer)
        self.beginning = _beginning(tokenizer)
        self.truncated: set[str] = set()
        self._budget = TokenBudget.for_model(model, batch_tokens)
        self._ends = end_tokens(model, tokenizer)
        generate_greedily(model, tokenizer)

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int | None:
        """The token that starts an empty context; None if the tokenizer has none."""
        return self.beginning[-1] if self.beginning else self.eot_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of ``string`` only; ``<s>`` is added once a context is complete.

        As in lm-eval, a special token spelled out in the text becomes that token, if the model has it.
        """
        ids = self.tokenizer.encode(string, add_special_tokens=False)
        if max(ids, default=0) >= self.model.config.get_text_config().vocab_size:
            ids = self.tokenizer.encode(string, add_special_tokens=False, split_special_tokens=True)
        return ids

    # ------------------------------------------------------------------------- log-likelihoods

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Mean log-likelihood per token of each (context, continuation), and whether every token is the likeliest.

        An empty continuation gets 0 and True.
        """
        pairs = [request.args for request in requests]
        return self._loglikelihood_tokens(
            [(pair, *self._encode_pair(*pair)) for pair in pairs], disable_tqdm=disable_tqdm
        )

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of a context, with its prefix and cut to fit, and of its continuation."""
        prompt, answer = super()._encode_pair(context, continuation) if context else ([], self.tok_encode(continuation))
        if not answer:  # merged into a token of the context
            answer = self.tok_encode(continuation)
        head = self.beginning
        if not head and not prompt and answer:  # nothing predicts the first token
            head, answer = ([self.eot_token_id], answer) if self.eot_token_id is not None else (answer[:1], answer[1:])
        # the last token of an answer is predicted, never read
        room = max(self.max_length + 1 - len(head) - len(answer), 0)
        most = self.max_length + 1 - len(head)
        if len(prompt) > room or len(answer) > most:
            self.truncated.add(context)
            prompt, answer = prompt[len(prompt) - min(room, len(prompt)) :], answer[:most]
        if not head and not prompt:
            prompt, answer = answer[:1], answer[1:]
        return [*head, *prompt], answer

    def answer_tokens(self, context: str, continuation: str) -> int:
        """Return how many tokens of a continuation a log-likelihood is the mean of; 1 if there are none."""
        return max(len(self._encode_pair(context, continuation)[1]), 1)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihoods of (name, context, continuation).

        HFLM's values divided by the number of tokens, but without logits and softmax at every position of every row,
        which take as long as the layers if the vocabulary is large. In float32, regardless of the model's precision.
        """
        asked: dict[tuple[int, ...], list[int]] = {}  # tokens the model reads -> indices of their requests
        found: dict[int, tuple[float, bool]] = {}
        for index, (_name, context, answer) in enumerate(requests):
            if answer:
                asked.setdefault((*context, *answer[:-1]), []).append(index)
            else:
                found[index] = 0.0, True

        def score(rows: list[tuple[int, ...]]) -> dict[int, tuple[float, bool]]:
            answers = {index: requests[index][2] for row in rows for index in asked[row]}
            counts = [max(len(answers[index]) for index in asked[row]) for row in rows]
            made = {}
            for row, logits in zip(rows, self._last_logits(rows, counts), strict=True):
                scores = logits.float().log_softmax(-1)
                for index in asked[row]:
                    answer = torch.tensor(answers[index], device=scores.device)
                    own = scores[-len(answer) :]
                    mean = own.gather(1, answer[:, None]).mean().item()
                    made[index] = mean, torch.equal(own.argmax(1), answer)
            return made

        # None: only on a terminal
        with tqdm(total=len(requests), disable=disable_tqdm or None, desc="Log-likelihoods") as progress:
            for _rows, scores in self._budget.batches(asked, len, score):
                found |= scores
                progress.update(len(scores))
        return [found[index] for index in range(len(requests))]

    def _last_logits(self, rows: Sequence[Sequence[int]], counts: Sequence[int]) -> Sequence[torch.Tensor]:
        """Next-token logits [counts[row], vocabulary] at each row's last ``counts[row]`` positions."""
        ids = [torch.tensor(row) for row in rows]
        # causal attention keeps right padding away from scored positions
        batch = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(self.model.device)
        length = torch.tensor([len(row) for row in rows], device=batch.device)[:, None]
        count = torch.tensor(counts, device=batch.device)[:, None]
        place = torch.arange(batch.shape[1], device=batch.device)
        wanted = (place >= length - count) & (place < length)

        def choose(head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return inputs[0][wanted]

        hook = self.model.get_output_embeddings().register_forward_pre_hook(choose)
        try:
            with torch.inference_mode():
                logits = self.model(input_ids=batch, use_cache=False).logits
        finally:
            hook.remove()
        return logits.split(list(counts))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Not implemented: no benchmark of the paper needs it."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------ generation

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, each up to its first stop string."""
        groups: dict[tuple[int, tuple[str, ...]], dict[tuple[int, ...], list[int]]] = {}
        for index, request in enumerate(requests):
            context, options = request.args
            if options.keys() - GENERATION_OPTIONS or options.get("do_sample") or options.get("temperature"):
                raise NotImplementedError(f"generation by {options}")
            until = options.get("until") or []
            stop = tuple(filter(None, [until] if isinstance(until, str) else until))
            new_tokens = options.get("max_gen_toks", MOST_NEW_TOKENS)
            prompt = tuple(self._prompt(context, new_tokens))
            groups.setdefault((new_tokens, stop), {}).setdefault(prompt, []).append(index)
        found: dict[int, str] = {}
        with tqdm(total=len(requests), disable=disable_tqdm or None, desc="Answers") as progress:
            for (new_tokens, stop), asked in groups.items():
                for prompts, answers in self._budget.batches(
                    asked,
                    lambda prompt, new_tokens=new_tokens: len(prompt) + new_tokens,  # type: ignore[misc]
                    lambda prompts, new_tokens=new_tokens, stop=stop: self._generate(prompts, new_tokens, stop),  # type: ignore[misc]
                ):
                    for prompt, answer in zip(prompts, answers, strict=True):
                        text = continuation(self.tokenizer, prompt, answer)
                        text = min((text.partition(string)[0] for string in stop), key=len, default=text)
                        found |= dict.fromkeys(asked[prompt], text)
                        progress.update(len(asked[prompt]))
        return [found[index] for index in range(len(requests))]

    def _prompt(self, context: str, new_tokens: int) -> list[int]:
        """A context's tokens with its prefix, cut to leave room for an answer."""
        prompt = self.tok_encode(context)
        room = max(self.max_length - new_tokens - len(self.beginning), 1)
        if len(prompt) > room:
            self.truncated.add(context)
            prompt = prompt[-room:]
        head = self.beginning
        if not head and not prompt:
            head = [self.eot_token_id or 0]  # the model needs at least one token to continue
        return [*head, *prompt]

    def _generate(self, prompts: Sequence[Sequence[int]], new_tokens: int, stop: Sequence[str]) -> list[list[int]]:
        """Each prompt's greedy continuation, up to the end of text or slightly past its first stop string."""
        length = max(map(len, prompts))
        ids = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            rows = self.model.generate(  # type: ignore[operator]
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=new_tokens,
                use_cache=True,
                stopping_criteria=[_StopStrings(self.tokenizer, stop, length)] if stop else [],
            )
        return [self._up_to_the_end(row) for row in rows[:, length:].tolist()]

    def _up_to_the_end(self, answer: list[int]) -> list[int]:
        place = next((place for place, token in enumerate(answer) if token in self._ends), len(answer))
        return answer[:place]


def _beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The prefix of every context: without ``<s>``, LLaMA's models score abnormally (the authors' model card)."""
    if tokenizer.init_kwargs.get("add_bos_token") is False:
        return []
    return special_prefix(tokenizer) or ([] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id])


class _StopStrings(StoppingCriteria):
    """Detects rows that have just generated any of ``strings`` after the ``prompt`` tokens they started with.

    HFLM continues until all rows have generated the same string: with several strings, usually to the last token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: Sequence[str], prompt: int) -> None:
        self._tokenizer, self._strings, self._prompt = tokenizer, strings, prompt
        # two more, since the model may split text into other tokens than the tokenizer does
        self._reach = 2 + max(len(tokenizer.encode(string, add_special_tokens=False)) for string in strings)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # type: ignore[override]
        ends = self._tokenizer.batch_decode(input_ids[:, self._prompt :][:, -self._reach :])
        said = [any(string in end for string in self._strings) for end in ends]
        return torch.tensor(said, device=input_ids.device)
