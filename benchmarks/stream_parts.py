"""Parts of the stream benchmark: a data set, a loss and a tracker, as anyone may bring their own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, ClassVar

import numpy as np
import psutil
from torch.nn.functional import logsigmoid

from stepdpo.core.errors import UserError
from stepdpo.data.validation import Loaded
from stepdpo.tokens.pair_scores import LossOutput, PairScores
from stepdpo.tokens.token_tree import TokenSequence

CHAIN = 4
"""Pairs of one problem."""
PREFIX, STEP = (150, 600), (20, 60)
"""Tokens of the shared beginning and of a step, drawn evenly."""
Row = tuple[int, list[TokenSequence], float, int]


@dataclass(frozen=True)
class Synthetic:
    """Random pairs, known by their settings; they exist as tokens only."""

    pairs: int = 1_000_000
    seed: int = 0

    def fingerprint(self) -> str:
        return f"{self.pairs} {self.seed} {CHAIN} {PREFIX} {STEP}"

    def load(self) -> Loaded:
        raise UserError("these pairs have no text: `python -m benchmarks.stream` writes their tokens first")

    def rows(self, vocabulary: int) -> Iterator[Row]:
        """(number, both sequences, confidence, problem): the pairs of a problem follow one chosen solution."""
        rng = np.random.default_rng(self.seed)
        for problem in range(-(-self.pairs // CHAIN)):
            base = rng.integers(3, vocabulary, PREFIX[1] + STEP[1], dtype=np.int32)
            for number, prefix in enumerate(sorted(rng.integers(*PREFIX, CHAIN).tolist()), start=problem * CHAIN):
                if number < self.pairs:
                    right, wrong = rng.integers(*STEP, 2).tolist()
                    rejected = rng.integers(3, vocabulary, wrong, dtype=np.int32)
                    rejected[0] = base[prefix] - 1  # another token than the chosen side's, so that the sides part here
                    sequences = [base[: prefix + right], np.concatenate([base[:prefix], rejected])]
                    yield (
                        number,
                        [TokenSequence(tokens, prefix, side) for side, tokens in enumerate(sequences)],
                        1.0,
                        problem,
                    )


@dataclass(frozen=True)
class ReferenceFree:
    """loss = -log sigmoid(beta * (mean chosen log-probability - mean rejected one))."""

    beta: float = 2.0
    needs: ClassVar[frozenset[str]] = frozenset({"rejected"})

    def __call__(self, scores: PairScores) -> LossOutput:
        chosen_B = self.beta * scores.chosen_logps_B / scores.chosen_tokens_B
        rejected_B = self.beta * scores.rejected_logps_B / scores.rejected_tokens_B
        return LossOutput(-logsigmoid(chosen_B - rejected_B), chosen_B.detach(), rejected_B.detach())


@dataclass(frozen=True)
class Memory:
    """Writes {"step", "time", "rss", ...} lines to a file."""

    path: str

    @contextmanager
    def open(self, folder: FilePath, name: str, config: Mapping[str, Any], resumed: int | None) -> Iterator[Memory]:
        yield self

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        line = {"step": step, "time": time.time(), "rss": psutil.Process().memory_info().rss, **metrics}
        with FilePath(self.path).open("a") as file:
            file.write(json.dumps(line) + "\n")
