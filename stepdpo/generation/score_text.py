"""What a model thinks of texts it need not have written: sums of log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor

from stepdpo.tokens.tokenization import encode

LOGITS = 2**28
"""Most logits held at a time: 1 GiB in fp32."""


@dataclass(frozen=True, slots=True)
class ScoredText:
    """Tokens, of which those from `first` on count."""

    ids: list[int]
    first: int


def scored_texts(prompts: Sequence[str], continuations: Sequence[str], tokenizer: Any) -> list[ScoredText]:
    """Each prompt and its continuation tokenised as one text: a token counts if it ends after the prompt does."""
    whole = [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
    encoded = zip(prompts, encode(whole, tokenizer), strict=True)
    return [ScoredText(ids, sum(end <= len(prompt) for end in ends)) for prompt, (ids, ends) in encoded]


@torch.inference_mode()
def score_texts(model: Any, scored_texts: Sequence[ScoredText], budget: int) -> list[float]:
    """Nats of each text's tokens from `first` on, summed in fp64; the very first token of a text is given.

    Nobody needs what comes after the last token, so texts that differ in their last token only are read once.
    """
    by_row: dict[tuple[int, ...], list[int]] = {}
    sums = [0.0] * len(scored_texts)
    context = getattr(model.config, "max_position_embeddings", None) or inf
    for number, text in enumerate(scored_texts):
        if len(text.ids) - 1 > context:
            sums[number] = -inf  # the model has no positions for it, so would not write it
        elif max(1, text.first) < len(text.ids):
            by_row.setdefault(tuple(text.ids[:-1]), []).append(number)
    lasts = {
        ids: max(len(scored_texts[i].ids) - max(1, scored_texts[i].first) for i in numbers)
        for ids, numbers in by_row.items()
    }
    for batch in batches(lasts, budget, model.config.get_text_config().vocab_size):
        last = max(lasts[ids] for ids in batch)
        logps_RLV = torch.log_softmax(_logits(model, batch, last).float(), -1)
        for row, ids in enumerate(batch):
            for number in by_row[ids]:
                scored = torch.tensor(
                    scored_texts[number].ids[max(1, scored_texts[number].first) :], device=logps_RLV.device
                )
                picked_T = logps_RLV[row, last - len(scored) :].gather(-1, scored[:, None])
                # fp64, as in training: a comparison of two texts is a small difference of such sums.
                sums[number] = float(picked_T.double().sum())
    return sums


def batches(lasts: dict[tuple[int, ...], int], budget: int, vocabulary: int) -> Iterator[list[tuple[int, ...]]]:
    """Token rows of like length, as many as the budget holds, and as few logits as there may be."""
    batch: list[tuple[int, ...]] = []
    last = 0
    # The longest first: a batch is as wide as its first row, so later ones can only fit better.
    for ids in sorted(lasts, key=len, reverse=True):
        many, most = len(batch) + 1, max(last, lasts[ids])
        if batch and (many * len(batch[0]) > budget or many * most * vocabulary > LOGITS):
            yield batch
            batch, most = [], lasts[ids]
        batch.append(ids)
        last = most
    if batch:
        yield batch


def _logits(model: Any, rows: Sequence[tuple[int, ...]], last: int) -> Tensor:
    """Logits at the last so many positions of rows padded on the left."""
    logits_RLV: Tensor = model(**padded(rows, model.device), logits_to_keep=last).logits
    return logits_RLV


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> dict[str, Any]:
    """What a model is called with to read rows of tokens, padded on the left: their last columns are their ends."""
    width = max(map(len, rows))
    lengths_R = torch.tensor([len(ids) for ids in rows])
    ids_RL = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in rows])
    mask_RL = torch.arange(width) >= (width - lengths_R)[:, None]
    position_RL = (torch.arange(width) - (width - lengths_R)[:, None]).clamp(min=0)
    return {
        "input_ids": ids_RL.to(device),
        "attention_mask": mask_RL.to(device),
        "position_ids": position_RL.to(device),
        "use_cache": False,
    }
