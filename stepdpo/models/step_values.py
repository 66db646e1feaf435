"""The values that a trained value head gives to the steps of responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from stepdpo.core.protocols import Template
from stepdpo.core.types import Pair
from stepdpo.models.scorer import Scorer
from stepdpo.models.value_head import LoadedHead
from stepdpo.tokens.collator import collate
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.packing import balance
from stepdpo.tokens.token_tree import build_tree
from stepdpo.tokens.tokenization import tokenize

TOKENS = 8192
"""Most tokens a forward pass computes."""


@torch.no_grad()
def step_values(
    pairs: Sequence[Pair], model: Any, folder: Path, template: Template, tokenizer: Any, device: torch.device
) -> tuple[dict[int, list[float]], Counter[str]]:
    """Number of a pair -> the value of every step of its chosen side; and what was left out.

    `model` was loaded with an attention on trees, `folder` holds value_head.safetensors. In [-1, 1] or [0, 1], as the
    head was trained. UserError where there is no head.
    """
    head = LoadedHead.of(folder)
    scorer = Scorer(model, False, lambda _: nullcontext()).to(device).eval()
    tokenized = tokenize(pairs, template, tokenizer, Lengths(), steps=True)
    numbers = list(tokenized.sequences)
    trees = [build_tree(tokenized.sequences[number][:1], [number], [1.0]) for number in numbers]
    values: dict[int, list[float]] = {}
    for members in balance([len(tree) for tree in trees], TOKENS, 1) if trees else []:
        if not members:
            continue
        batch = collate([trees[member] for member in members]).to(device)
        assert batch.steps is not None
        found = head(scorer.step_hidden(batch).cpu()).tolist()
        for value, response in zip(found, batch.steps.response_S.tolist(), strict=True):
            values.setdefault(numbers[members[response]], []).append(value)
    return values, tokenized.dropped
