"""An endless supply of small word problems with worked solutions, in splits that never share a question."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from random import Random

from stepdpo.core.types import Problem
from stepdpo.data.dedup import HashSet
from stepdpo.tinymath.story import Story, Teller

SPLITS = ("train", "preference", "heldout", "test")
OPERATIONS = (2, 2, 2, 3, 3, 3, 4, 4, 5, 6)
"""How many operations a story has: one of these, each as likely as the next."""


def problems(split: str, count: int, seed: int = 0) -> list[Problem]:
    """The first `count` problems of a split; a longer list begins with the shorter one.

    A question belongs to the one split its text hashes to, so no two splits share a question, whatever the
    seeds. Within a list no question occurs twice. Raises ValueError for an unknown split or a negative count.
    """
    return list(stream(split, count, seed))


def stream(split: str, count: int, seed: int = 0) -> Iterator[Problem]:
    """The same, each made when it is asked for."""
    if split not in SPLITS:
        raise ValueError(f"tinymath has no split {split!r}; known: {', '.join(SPLITS)}")
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    label = split if seed == 0 else f"{split}-seed{seed}"
    stories = _stories(split, seed)
    return (_problem(next(stories), f"tinymath-{label}-{index:06d}", split) for index in range(count))


def owner(question: str) -> str:
    """The split that a question belongs to."""
    return SPLITS[_digest(f"owner/{question}") % len(SPLITS)]


def _stories(split: str, seed: int) -> Iterator[Story]:
    rng = Random(_digest(f"stream/{split}/{seed}"))
    told = HashSet()
    while True:
        story = Teller(rng).tell(rng.choice(OPERATIONS))
        # Most stories belong to another split and are thrown away: that is what keeps the splits apart without a list.
        if owner(story.question) == split and told.add(story.question):
            yield story


def _problem(story: Story, name: str, split: str) -> Problem:
    operations = "".join(equation.operation for equation in story.equations)
    return Problem(
        id=name,
        question=story.question,
        answers=(str(story.answer),),
        solution=story.solution,
        meta={"split": split, "steps": len(story.steps), "operations": operations},
    )


def _digest(text: str) -> int:
    # Not `hash`, which differs from process to process for texts.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
