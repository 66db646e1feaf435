"""A long arithmetic story: planned as moves, so that it can be worked rightly, or with mistakes that are carried on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from stepdpo.tinymath.story import OPENING, Equation

LARGEST = 99
"""No quantity of a long story is greater: two digits, so that carrying is the one hard thing about its sums."""
WORDINGS = ("", "Then ")
"""What a step may begin with; a worked solution takes the first."""


class Family(StrEnum):
    """Events that are easily taken for another one."""

    gives = "gives"
    gets = "gets"
    later = "later"
    people = "people"
    brings = "brings"
    away = "away"


@dataclass(frozen=True, slots=True)
class Move:
    """One operation to come, whose numbers may depend on the moves before."""

    operation: str
    right: int | None
    """The number told; None for the product that the move before gives."""
    left: int | None = None
    """None for the running total; boxes are counted on their own."""
    family: Family | None = None
    mistaken: tuple[str, int] | None = None
    """Operation and right number where the event is taken for another one."""
    boxes: str = ""
    of_friend: bool = False

    def step(self, equation: Equation, who: str, friend: str, things: str, wording: str = "") -> str:
        """The step that works it."""
        if self.boxes:
            return f"{wording}{'the' if wording else 'The'} {self.boxes} hold {equation} {things}"
        return f"{wording}{friend if self.of_friend else who} has {equation} {things}"


@dataclass(frozen=True, slots=True)
class LongStory:
    """What is told and asked, and the moves that answer it."""

    sentences: tuple[str, ...]
    moves: tuple[Move, ...]
    start: int
    who: str
    friend: str
    things: str

    @property
    def question(self) -> str:
        return " ".join(self.sentences)

    def work(self, mistaken: Collection[int] = (), forgotten: Collection[int] = ()) -> tuple[Equation, ...] | None:
        """The equations, with the event mistaken or the carry forgotten at the moves of these numbers, carried on.

        None where a quantity would not be whole or leave its bounds.
        """
        total, product = self.start, 0
        equations: list[Equation] = []
        for number, move in enumerate(self.moves):
            operation, told = move.operation, move.right
            if number in mistaken:
                assert move.mistaken is not None, "only events of a family are mistaken"
                operation, told = move.mistaken
            left = total if move.left is None else move.left
            equation = Equation(left, operation, product if told is None else told, number in forgotten)
            if not equation.whole or not 1 < equation.result <= LARGEST:
                return None
            equations.append(equation)
            if move.left is None:
                total = equation.result
            else:
                product = equation.result
        return tuple(equations)

    @property
    def equations(self) -> tuple[Equation, ...]:
        """The right ones."""
        equations = self.work()
        assert equations is not None, "a story is told only as far as its quantities stay whole and within bounds"
        return equations

    @property
    def mistakable(self) -> tuple[str | None, ...]:
        """For every move the sum ("40 - 15") that takes its event alone for another one, or None."""
        together = zip(self.moves, self.equations, strict=True)
        return tuple(move.mistaken and f"{one.left} {move.mistaken[0]} {move.mistaken[1]}" for move, one in together)

    @property
    def answer(self) -> int:
        return self.equations[-1].result

    @property
    def steps(self) -> tuple[str, ...]:
        return self.say(self.equations, [""] * len(self.moves))

    @property
    def solution(self) -> str:
        """The right working in the Step-DPO form."""
        return solution_of(self.steps, self.answer)

    def say(self, equations: Sequence[Equation], wordings: Sequence[str]) -> tuple[str, ...]:
        """The steps that state these equations."""
        together = zip(self.moves, equations, wordings, strict=True)
        return tuple(move.step(one, self.who, self.friend, self.things, wording) for move, one, wording in together)


def solution_of(steps: Sequence[str], answer: int) -> str:
    """Steps as a whole solution in the Step-DPO form."""
    lines = [f"Step {number}: {step}" for number, step in enumerate(steps, start=1)]
    return "\n".join([OPENING, *lines, f"The answer is: {answer}"])
