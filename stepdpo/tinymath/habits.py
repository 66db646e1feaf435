"""How demonstrations of long stories go wrong: the same mistakes in the same contexts, carried on to the end.

A model trained on them makes them too, as surely as it makes right steps: they are what preferences have to mend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from stepdpo.core.ranges import within
from stepdpo.tinymath.long_story import WORDINGS, LongStory, solution_of


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A solution with the mistakes that were made in it."""

    text: str
    mistaken: tuple[int, ...]
    """Moves (from 0) whose event was taken for another one."""
    forgotten: tuple[int, ...]
    """Moves whose carry or borrow was forgotten."""
    nats: float
    """Entropy of all choices made on the way: what no model of these texts can do without."""

    @property
    def first_error(self) -> int | None:
        """The first move, so the first step, with a mistake."""
        return min((*self.mistaken, *self.forgotten), default=None)


@dataclass(frozen=True)
class Habits:
    """How often a demonstration goes wrong where it can; probabilities in [0, 1]."""

    mistaken: float = 0.4
    """An event of a family is taken for another one, in the first steps."""
    mistaken_late: float = 0.65
    """The same from `late` on: above one half, so that a greedy answer of the base makes the mistake."""
    late: int = 4
    """The first late move, from 0."""
    forgotten: float = 0.45
    """A carry or borrow is forgotten."""
    forgotten_from: int = 1
    """The first move, from 0, where it is."""

    def __post_init__(self) -> None:
        within(0, 1, mistaken=self.mistaken, mistaken_late=self.mistaken_late, forgotten=self.forgotten)

    def demonstrate(self, story: LongStory, rng: Random) -> Demonstration:
        """Work the story move by move; a mistake that would leave the bounds later on is not made."""
        mistaken: list[int] = []
        forgotten: list[int] = []
        nats = 0.0
        for number, move in enumerate(story.moves):
            if move.family is not None:
                chance = self.mistaken_late if number >= self.late else self.mistaken
                if story.work({*mistaken, number}, forgotten) is not None:
                    nats += entropy(chance)
                    mistaken += [number] * (rng.random() < chance)
            equations = story.work(mistaken, forgotten)
            assert equations is not None, "every mistake so far was tried before it was made"
            can_forget = number >= self.forgotten_from and equations[number].carries
            if can_forget and story.work(mistaken, {*forgotten, number}) is not None:
                nats += entropy(self.forgotten)
                forgotten += [number] * (rng.random() < self.forgotten)
        equations = story.work(mistaken, forgotten)
        assert equations is not None, "every mistake was tried before it was made"
        steps = story.say(equations, [rng.choice(WORDINGS) for _ in equations])
        text = solution_of(steps, equations[-1].result)
        return Demonstration(text, tuple(mistaken), tuple(forgotten), nats + len(steps) * math.log(len(WORDINGS)))


def entropy(chance: float) -> float:
    """Of a choice that is made with this probability, in nats."""
    return -sum(p * math.log(p) for p in (chance, 1 - chance) if p > 0)
