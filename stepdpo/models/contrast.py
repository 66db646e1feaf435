"""How a model of right and one of wrong solutions differ about every token (Lin et al. 2024, arXiv 2411.19943)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from stepdpo.core.errors import UserError
from stepdpo.models.load import ModelSpec


@dataclass(frozen=True)
class Contrast:
    """Two models on one device, and the tokens that both read."""

    positive: Any
    negative: Any
    tokenizer: Any
    device: torch.device

    @torch.no_grad()
    def __call__(self, ids: Sequence[int], first: int) -> list[float]:
        """s_t = softmax(2 z_positive - z_negative)[y_t] of every token from `first` (at least 1) on, in (0, 1).

        It is P_positive^2 / P_negative, normalised over the vocabulary: small where a model of mistakes would write the
        token and a model of right solutions would not.
        """
        row = torch.tensor([list(ids)], device=self.device)
        # Of the positions that predict, in fp32: twice a logit less another loses two digits in a half format.
        both = [
            model(input_ids=row, use_cache=False).logits[0, first - 1 : -1].float()
            for model in (self.positive, self.negative)
        ]
        probs = (2 * both[0] - both[1]).softmax(-1)
        found: list[float] = probs.gather(1, row[0, first:, None]).squeeze(1).tolist()
        return found


@contextmanager
def opened(positive: ModelSpec, negative: ModelSpec, bfloat16: bool = False) -> Iterator[Contrast]:
    """Both models loaded, on a GPU where there is one. UserError where they have different tokens."""
    tokenizer = positive.tokenizer()
    if tokenizer.get_vocab() != negative.tokenizer().get_vocab():
        raise UserError(f"pairs.negative: {negative.source!r} has other tokens than {positive.source!r}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    loaded = [spec.model("sdpa", dtype).to(device).eval() for spec in (positive, negative)]
    yield Contrast(loaded[0], loaded[1], tokenizer, device)
