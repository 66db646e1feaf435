"""Long stories with the solutions that habits write: an endless stream, so that no text need be seen twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from random import Random

from stepdpo.core.types import Problem
from stepdpo.tinymath.habits import Demonstration, Habits
from stepdpo.tinymath.long_story import LongStory
from stepdpo.tinymath.problems import Stories, problem_of, stories


def demonstrations(split: str, count: int, seed: int, habits: Habits) -> Iterator[tuple[Problem, Demonstration]]:
    """The first `count` long problems of a split, each with one demonstration; the same every time."""
    told = stories(Stories.long, split, seed)
    for index in range(count):
        story = next(told)
        assert isinstance(story, LongStory)
        problem = problem_of(story, Stories.long, split, seed, index)
        # Of the question, not of the place in the stream: other stories before it leave its mistakes as they are.
        rng = Random(int.from_bytes(hashlib.sha256(f"{seed}/{story.question}".encode()).digest()[:8], "big"))
        yield problem, habits.demonstrate(story, rng)
