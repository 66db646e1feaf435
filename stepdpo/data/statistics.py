"""What is in a set of preferences: doubles, lengths, where in the solution the steps lie, values. Pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from stepdpo.core.protocols import Tokenizer
from stepdpo.core.steps import STEP_LABEL
from stepdpo.core.types import Preference

QUANTILES = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "longest": 1.0}


def duplicates(preferences: Sequence[Preference]) -> dict[str, int]:
    """Preferences that say again what another one says, and those that vary only one side of another."""
    whole: Counter[tuple[object, ...]] = Counter()
    chosen: defaultdict[tuple[object, ...], set[str]] = defaultdict(set)
    rejected: defaultdict[tuple[object, ...], set[str]] = defaultdict(set)
    for p in preferences:
        context = (p.question, p.prefix, p.history)
        whole[(*context, p.chosen, p.rejected)] += 1
        if p.rejected:  # single responses to one question vary nothing
            chosen[(*context, p.rejected)].add(p.chosen)
            rejected[(*context, p.chosen)].add(p.rejected)
    return {
        "the same preference again": sum(count - 1 for count in whole.values()),
        "the same rejected step after the same prefix, another chosen one": sum(len(s) - 1 for s in chosen.values()),
        "the same chosen step after the same prefix, another rejected one": sum(len(s) - 1 for s in rejected.values()),
    }


def step_of(preference: Preference) -> int:
    """Which step the two sides are, from 1: as `meta` says, else by the labels in the prefix."""
    said = preference.meta.get("step")
    if isinstance(said, int) and not isinstance(said, bool) and said >= 0:
        return said + 1
    labels = list(STEP_LABEL.finditer(preference.prefix))
    open_ended = bool(labels) and labels[-1].end() == len(preference.prefix.rstrip())
    return max(1, len(labels) + (not open_ended))


def steps(preferences: Sequence[Preference]) -> dict[int, int]:
    """How many preferences are about each step; whole responses are about none."""
    return dict(sorted(Counter(step_of(p) for p in preferences if not p.whole).items()))


def sizes(preferences: Sequence[Preference], tokenizer: Tokenizer | None) -> dict[str, list[int]]:
    """Lengths of the parts and of whole solutions, in tokens, else in characters."""
    parts = {
        "prefix": [p.prefix for p in preferences],
        "chosen": [p.chosen for p in preferences],
        "rejected": [p.rejected for p in preferences],
        "whole chosen": [p.prefix + p.chosen + p.chosen_rest for p in preferences],
        "whole rejected": [p.prefix + p.rejected + p.rejected_rest for p in preferences],
    }
    return {name: _sizes(texts, tokenizer) for name, texts in parts.items()}


def summary(values: Sequence[int]) -> dict[str, int]:
    """How many are 0, and the quantiles of some lengths."""
    ordered = sorted(values)
    return {"empty": sum(not n for n in ordered), **{k: int(quantile(ordered, q)) for k, q in QUANTILES.items()}}


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that a share of the values, which are in order and not none, lies below."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def value_summary(preferences: Sequence[Preference]) -> dict[str, Any]:
    """Means of the values and of the confidence, as far as there are any; empty where there is nothing to say."""
    found: dict[str, Any] = {}
    both = [
        (p.chosen_value, p.rejected_value)
        for p in preferences
        if p.chosen_value is not None and p.rejected_value is not None
    ]
    if both:
        found["pairs with values"] = len(both)
        found["chosen value"] = sum(c for c, _ in both) / len(both)
        found["rejected value"] = sum(r for _, r in both) / len(both)
        found["share with chosen above rejected"] = sum(c > r for c, r in both) / len(both)
    unsure = [p.confidence for p in preferences if p.confidence < 1]
    if unsure:
        found["pairs with a confidence below 1"] = len(unsure)
        found["mean confidence of these"] = sum(unsure) / len(unsure)
    return found


def label_summary(preferences: Sequence[Preference]) -> dict[str, int]:
    """How many steps and single responses have labels, and which; empty where there are none.

    Right are labels above one half, wrong those below. A step of a prefix counts on both sides of a pair.
    """
    steps = [mark.value for p in preferences for mark in (*p.chosen_steps, *p.rejected_steps)]
    wholes = [p.label for p in preferences if not p.rejected]
    found = {**_labels("steps", steps), **_labels("single responses", wholes)}
    return found if any(value is not None for value in (*steps, *wholes)) else {}


def _labels(name: str, values: Sequence[float | None]) -> dict[str, int]:
    known = [value for value in values if value is not None]
    right, wrong = sum(value > 0.5 for value in known), sum(value < 0.5 for value in known)
    if not known:
        return {}
    even = {f"{name} labelled one half": even} if (even := len(known) - right - wrong) else {}
    return {
        name: len(values), f"{name} labelled": len(known), f"{name} labelled right": right,
        f"{name} labelled wrong": wrong, **even,
    }  # fmt: skip


def _sizes(texts: list[str], tokenizer: Tokenizer | None) -> list[int]:
    if tokenizer is None or not texts:  # tokenizers trip over no texts at all
        return [len(text) for text in texts]
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
