"""Preferences as token trees: everything a training run reads, prepared once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdpo.dataset import enforce, write_quarantine
from stepdpo.errors import UserError
from stepdpo.records import Pair
from stepdpo.runs import QUARANTINE
from stepdpo.tokenise import Lengths, Tokenised, tokenise
from stepdpo.trees import TokenTree

Trees = Mapping[int, TokenTree]


@dataclass(frozen=True)
class Material:
    """Trees by pair number; numbers of dropped pairs are simply absent."""

    train: Trees
    heldout: Trees
    mismatched: Trees
    """Each question with another pair's chosen side, for losses that need a reference point; else empty."""
    fingerprint: str
    """Hash of the training trees: the same data under the same template and level."""


def prepare(
    dataset: Any,
    level: Any,
    template: Any,
    needs: frozenset[str],
    tokenizer: Any,
    lengths: Lengths,
    folder: Path,
    speaks: bool,
) -> Material:
    """Load, check, cut to the level and tokenise; counts are printed, bad rows go to quarantine.jsonl.

    Raises UserError when too many rows are bad or nothing is left to train on.
    """
    loaded = dataset.load()
    if speaks:
        (folder / QUARANTINE).unlink(missing_ok=True)
        if loaded.bad:
            write_quarantine(loaded.bad, folder / QUARANTINE)
        print("data: " + ", ".join(f"{count} {name}" for name, count in loaded.counts.items()), flush=True)
    enforce(loaded)
    both = "rejected" in needs
    train_pairs = [_sided(level(p), both) for p in loaded.preferences]
    train = tokenise(train_pairs, template, tokenizer, lengths)
    heldout = tokenise([_sided(level(p), both) for p in loaded.heldout], template, tokenizer, lengths)
    if speaks:
        _say(train, len(train_pairs))
    if not train.trees:
        raise UserError(f"dataset: no pair is left to train on ({dict(train.dropped) or 'it is empty'})")
    mismatched: Trees = {}
    if "reference_point" in needs:
        mismatched = tokenise(_mismatch(train_pairs), template, tokenizer, lengths).trees
    return Material(train.trees, heldout.trees, mismatched, _fingerprint(train.trees))


def _sided(pair: Pair, both: bool) -> Pair:
    """Without the rejected side, where the loss does not look at it."""
    if both and not pair.rejected:
        raise UserError("dataset: has no rejected sides, which this algo needs; train on it with algo=sft")
    if both:
        return pair
    return Pair(pair.question, pair.context, pair.chosen, "", pair.chosen_ends, False, 1.0, pair.history)


def _mismatch(pairs: list[Pair]) -> list[Pair]:
    """Each question answered with the chosen side of the next pair that asks another one (round the end)."""
    return [
        Pair(own.question, other.context, other.chosen, "", other.chosen_ends, False, 1.0, own.history)
        for own, other in zip(pairs, _following(pairs), strict=True)
    ]


def _following(pairs: list[Pair]) -> list[Pair]:
    """For each pair the next one with another question; simply the next one if there is no other question."""
    found: list[Pair] = []
    following = next((p for p in pairs if p.question != pairs[-1].question), None)
    for index in range(len(pairs) - 1, -1, -1):
        after = pairs[(index + 1) % len(pairs)]
        if after.question != pairs[index].question:
            following = after
        found.append(following or after)
    return found[::-1]


def _say(train: Tokenised, pairs: int) -> None:
    tokens = sum(len(t) for t in train.trees.values())
    line = f"training on {len(train.trees)} of {pairs} pairs, {tokens:,} tokens (shared ones counted once)"
    for reason, count in sorted(train.dropped.items()):
        line += f"; {count} left out: {reason}"
    print(line, flush=True)


def _fingerprint(trees: Trees) -> str:
    digest = hashlib.sha256()
    for number in sorted(trees):
        digest.update(trees[number].tokens.tobytes())
        digest.update(trees[number].targets.tobytes())
    return digest.hexdigest()
