"""Rows of token ids for every side: drawn ids, with lengths from a stated distribution or from real rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

PREFIX = (150, 600)
"""Tokens of problem and earlier steps together, uniform."""
QUESTION = (50, 150)
"""Of which the problem, uniform: matters where earlier steps are scored (instance level) and for chains."""
STEP = (20, 60)
"""Tokens of the step that differs, uniform, each side for itself."""
REST = (100, 300)
"""Tokens from that step to the end of a whole solution, uniform, each side for itself (instance level)."""
CHAIN_QUESTION = (100, 200)
CHARACTERS_A_TOKEN = 3.3
"""Mathematics in English under the tokenizers of current models."""
SEED = 20_240


@dataclass(frozen=True)
class Row:
    """One pair. The prompt is read, both sides are scored; a chain's rows begin with the same tokens."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True)
class Lengths:
    """Tokens of each part of a row."""

    question: int
    steps: int
    chosen: int
    rejected: int
    chosen_rest: int
    rejected_rest: int


def uniform(count: int, seed: int = SEED) -> list[Lengths]:
    """The default distribution of `make bench`."""
    random = Random(seed)
    drawn = []
    for _ in range(count):
        prefix, question = random.randint(*PREFIX), random.randint(*QUESTION)
        sides = [random.randint(*bounds) for bounds in (STEP, STEP, REST, REST)]
        drawn.append(Lengths(question, prefix - question, *sides))
    return drawn


def recorded(path: Path, count: int, seed: int = SEED) -> list[Lengths]:
    """Lengths of rows drawn from a file in Step-DPO's columns."""
    lines = path.read_text(encoding="utf-8").splitlines()
    drawn = []
    for line in Random(seed).sample(lines, count):
        row = json.loads(line)
        # In characters, as no tokenizer is at hand; two at least, one to differ in and one to go on with.
        parts = {k: max(2, round(len(v) / CHARACTERS_A_TOKEN)) for k, v in row.items() if isinstance(v, str)}
        rests = [max(0, parts[f"full_{side}"] - parts[side]) for side in ("chosen", "rejected")]
        drawn.append(
            Lengths(parts["prompt"], parts["initial_reason_steps"], parts["chosen"], parts["rejected"], *rests)
        )
    return drawn


def step_rows(lengths: Sequence[Lengths], vocab: int, seed: int = SEED) -> list[Row]:
    """Step level: problem and earlier steps are read, one step a side is scored."""
    ids = _Ids(vocab, seed)
    return [Row(ids(n.question + n.steps), *ids.apart(n.chosen, n.rejected)) for n in lengths]


def instance_rows(lengths: Sequence[Lengths], vocab: int, seed: int = SEED) -> list[Row]:
    """Instance level: the problem is read; the shared steps, the step that differs and the rest are scored."""
    ids = _Ids(vocab, seed)
    rows = []
    for n in lengths:
        question, shared = ids(n.question), ids(n.steps)
        chosen, rejected = ids.apart(n.chosen + n.chosen_rest, n.rejected + n.rejected_rest)
        rows.append(Row(question, shared + chosen, shared + rejected))
    return rows


def chain_rows(pairs: int, vocab: int, seed: int = SEED) -> list[Row]:
    """All pairs of one problem: pair k reads the problem and the k chosen steps before it."""
    random, ids = Random(seed), _Ids(vocab, seed)
    trunk, rows = ids(random.randint(*CHAIN_QUESTION)), []
    for _ in range(pairs):
        chosen, rejected = ids.apart(random.randint(*STEP), random.randint(*STEP))
        rows.append(Row(list(trunk), chosen, rejected))
        trunk = trunk + chosen
    return rows


class _Ids:
    """Drawn token ids; 0 is left to padding."""

    def __init__(self, vocab: int, seed: int) -> None:
        self.random, self.vocab = Random(f"{seed}/{vocab}"), vocab

    def __call__(self, length: int) -> list[int]:
        return [self.random.randrange(1, self.vocab) for _ in range(length)]

    def apart(self, one: int, other: int) -> tuple[list[int], list[int]]:
        """Two sequences whose first tokens differ, so that sharing ends exactly where the sides part."""
        first, second = self(one), self(other)
        while second[0] == first[0]:
            second[0] = self.random.randrange(1, self.vocab)
        return first, second
