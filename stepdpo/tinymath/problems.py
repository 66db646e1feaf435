"""An endless supply of small word problems with worked solutions, in splits that never share a question."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from random import Random

from stepdpo.core.errors import nearest
from stepdpo.core.types import Problem
from stepdpo.data.dedup import HashSet
from stepdpo.tinymath.long_story import LongStory
from stepdpo.tinymath.long_teller import LongTeller
from stepdpo.tinymath.mistakes import MISTAKABLE
from stepdpo.tinymath.story import Story, Teller

AnyStory = Story | LongStory
SPLITS = ("train", "preference", "heldout", "test")


class Stories(StrEnum):
    """Which stories are told."""

    short = "short"
    """2 to 6 operations on numbers to 300."""
    long = "long"
    """5 to 8 operations on numbers to 99, with events that are easily taken for others: see `habits`."""


OPERATIONS = {Stories.short: (2, 2, 2, 3, 3, 3, 4, 4, 5, 6), Stories.long: (5, 6, 7, 8)}
"""How many operations a story has: one of these, each as likely as the next."""
TELLERS: dict[Stories, type[Teller] | type[LongTeller]] = {Stories.short: Teller, Stories.long: LongTeller}


def problems(split: str, count: int, seed: int = 0, kind: Stories = Stories.short) -> list[Problem]:
    """The first `count` problems of a split; a longer list begins with the shorter one.

    A question belongs to the one split its text hashes to, so no two splits share a question, whatever the
    seeds. Within a list no question occurs twice. Raises ValueError for an unknown split or a negative count.
    """
    return list(stream(split, count, seed, kind))


def check_split(split: str) -> None:
    """ValueError for one that there is not."""
    if split not in SPLITS:
        raise ValueError(f"split: tinymath has none of the name {split!r}; {nearest(split, SPLITS)}")


def stream(split: str, count: int, seed: int = 0, kind: Stories = Stories.short) -> Iterator[Problem]:
    """The same, each made when it is asked for."""
    check_split(split)
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    told = islice(stories(kind, split, seed), count)
    return (problem_of(story, kind, split, seed, index) for index, story in enumerate(told))


def owner(question: str) -> str:
    """The split that a question belongs to."""
    return SPLITS[_digest(f"owner/{question}") % len(SPLITS)]


def stories(kind: Stories, split: str, seed: int) -> Iterator[AnyStory]:
    """Stories of a split without end, none of them told twice."""
    # The short ones keep the stream that they have always had.
    rng = Random(_digest(f"stream/{split}/{seed}" if kind is Stories.short else f"stream/{kind}/{split}/{seed}"))
    told = HashSet()
    while True:
        story = TELLERS[kind](rng).tell(rng.choice(OPERATIONS[kind]))
        # Most stories belong to another split and are thrown away: that is what keeps the splits apart without a list.
        if owner(story.question) == split and told.add(story.question):
            yield story


def problem_of(story: AnyStory, kind: Stories, split: str, seed: int, index: int) -> Problem:
    """A story as the problem of this number in its split."""
    parts = ["tinymath", kind if kind is not Stories.short else "", split, f"seed{seed}" if seed else ""]
    operations = "".join(equation.operation for equation in story.equations)
    # A list, as it comes back from attempts.jsonl.
    mistakable = {MISTAKABLE: list(story.mistakable)} if isinstance(story, LongStory) else {}
    return Problem(
        id="-".join([part for part in parts if part] + [f"{index:06d}"]),
        question=story.question,
        answers=(str(story.answer),),
        solution=story.solution,
        meta={"split": split, "steps": len(story.steps), "operations": operations, **mistakable},
    )


def _digest(text: str) -> int:
    # Not `hash`, which differs from process to process for texts.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
