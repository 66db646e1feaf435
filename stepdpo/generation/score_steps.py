"""What a model thinks of the steps of texts: log-probabilities of each step, the hidden state at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf
from typing import Any

import torch
from torch import Tensor

from stepdpo.generation.requests import Beginning
from stepdpo.generation.score_text import batches, padded
from stepdpo.tokens.tokenization import encode

UNREADABLE = -1e9
"""Nats of a step that a model has no positions for: below all others, and a number that JSON can write."""


@dataclass(frozen=True, slots=True)
class StepText:
    """A prompt and a beginning of its response as tokens."""

    ids: tuple[int, ...]
    first: int
    """The first token of the response: of those that end after the prompt does."""
    ends: tuple[int, ...]
    """Of each step the first token that no longer belongs to it. A token belongs to the step that it ends in; an end of
    text belongs to the last one, as in training."""


def step_texts(items: Sequence[tuple[str, Beginning]], tokenizer: Any) -> list[StepText]:
    """Each prompt and beginning, tokenised as one text."""
    found = []
    texts = [prompt + beginning.text + beginning.following for prompt, beginning in items]
    for (prompt, beginning), (ids, ends) in zip(items, encode(texts, tokenizer), strict=True):
        stops = list(accumulate(map(len, beginning.steps), initial=len(prompt)))
        # How many tokens end within each beginning: none of several that one character takes is left out of it.
        first, *bounds = (sum(end <= stop for end in ends) for stop in stops)
        ids = ids[: bounds[-1]]
        if beginning.ended and tokenizer.eos_token_id is not None:
            ids = [*ids, tokenizer.eos_token_id]
        found.append(StepText(tuple(ids), first, (*bounds[:-1], len(ids))))
    return found


@torch.inference_mode()
def step_logps(model: Any, texts: Sequence[StepText], budget: int) -> list[list[float]]:
    """Of each text, nats of each step's tokens, summed in fp64; UNREADABLE where the model has no positions left.

    The very first token of a text is given. A pass holds `budget` tokens at most, but for a text that is longer.
    """
    by_row = _by_row([text for text in texts if _fits(model, text)])
    lasts = {ids: len(ids) - max(1, min(text.first for text in some)) + 1 for ids, some in by_row.items()}
    sums: dict[StepText, list[float]] = {}
    for batch in batches(lasts, budget, model.config.get_text_config().vocab_size):
        last = max(lasts[ids] for ids in batch)
        logits_RLV: Tensor = model(**padded(batch, model.device), logits_to_keep=last).logits
        logps_RLV = torch.log_softmax(logits_RLV.float(), -1)
        for row, ids in enumerate(batch):
            first = max(1, len(ids) - last + 1)  # the first token whose prediction is there
            target_T = torch.tensor(ids[first:], device=logps_RLV.device)
            picked_T = logps_RLV[row, last - len(target_T) - 1 : -1].gather(-1, target_T[:, None])[:, 0].double().cpu()
            for text in by_row[ids]:
                bounds = [max(1, bound) for bound in (text.first, *text.ends)]
                sums[text] = [float(picked_T[a - first : b - first].sum()) for a, b in pairwise(bounds)]
    return [sums.get(text, [UNREADABLE] * len(text.ends)) for text in texts]


@torch.inference_mode()
def step_hidden(model: Any, texts: Sequence[StepText], budget: int) -> list[Tensor | None]:
    """Of each text, the final hidden state at the last token of each step: (steps, H) in fp32, on the CPU.

    None where the model has no positions left.
    """
    backbone = getattr(model, model.base_model_prefix)
    found: dict[StepText, Tensor] = {}
    by_row = _by_row([text for text in texts if _fits(model, text)])
    for batch in batches(dict.fromkeys(by_row, 0), budget, 0):
        hidden_RLH = backbone(**padded(batch, model.device)).last_hidden_state
        width = hidden_RLH.shape[1]
        for row, ids in enumerate(batch):
            for text in by_row[ids]:
                places = [width - len(ids) + max(end, 1) - 1 for end in text.ends]
                found[text] = hidden_RLH[row, places].float().cpu()
    return [found.get(text) for text in texts]


def _fits(model: Any, text: StepText) -> bool:
    return len(text.ids) <= (getattr(model.config, "max_position_embeddings", None) or inf)


def _by_row(texts: Sequence[StepText]) -> dict[tuple[int, ...], list[StepText]]:
    """Texts with the same tokens are read once."""
    rows: dict[tuple[int, ...], list[StepText]] = {}
    for text in texts:
        rows.setdefault(text.ids, []).append(text)
    return rows
