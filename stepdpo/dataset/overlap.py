"""Which training questions are, or nearly are, evaluation problems."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from stepdpo.dataset.loaded import question_key
from stepdpo.records import Problem

GRAM = 8
"""Words in a row that are compared."""
SHARE = 0.5
"""Overlap from which two questions count as one: shared 8-grams over those of the shorter question."""
LEAST = 3
"""Shared 8-grams below which an overlap is put down to stock phrases."""
Gram = tuple[str, ...]
_WORD = re.compile(r"\w+")
_DIGITS = re.compile(r"\d+")


class Likeness(Enum):
    """How a training question resembles an evaluation problem, the closest first."""

    EXACT = "the same but for white space and case"
    OVERLAP = "half or more of its 8-grams in common"
    NUMBERS = "the same but for its numbers"


@dataclass(frozen=True, slots=True)
class Shared:
    """One training question and the evaluation problem it resembles most."""

    question: str
    task: str
    problem_id: str
    likeness: Likeness


def shared_questions(questions: Iterable[str], tasks: Mapping[str, Sequence[Problem]]) -> Iterator[Shared]:
    """For every distinct training question that resembles a problem of a task, its closest likeness."""
    known = [(name, problem) for name, problems in tasks.items() for problem in problems]
    index = _Index([problem.question for _, problem in known])
    for question in dict.fromkeys(questions):
        found = index.find(question)
        if found:
            likeness, i = found
            name, problem = known[i]
            yield Shared(question=question, task=name, problem_id=problem.id, likeness=likeness)


class _Index:
    """Evaluation questions by their text, by their text without numbers, and by their 8-grams."""

    def __init__(self, questions: Sequence[str]) -> None:
        self.exact = {question_key(q): i for i, q in reversed(list(enumerate(questions)))}
        self.numbers = {_without_numbers(q): i for i, q in reversed(list(enumerate(questions)))}
        self.grams = [_grams(q) for q in questions]
        self.by_gram: defaultdict[Gram, list[int]] = defaultdict(list)
        for i, grams in enumerate(self.grams):
            for gram in grams:
                self.by_gram[gram].append(i)

    def find(self, question: str) -> tuple[Likeness, int] | None:
        """The closest likeness, and which question it is with."""
        found = {
            Likeness.EXACT: self.exact.get(question_key(question)),
            Likeness.OVERLAP: self._overlapping(_grams(question)),
            Likeness.NUMBERS: self.numbers.get(_without_numbers(question)),
        }
        return next(((likeness, i) for likeness, i in found.items() if i is not None), None)

    def _overlapping(self, grams: set[Gram]) -> int | None:
        hits = Counter(i for gram in grams for i in self.by_gram.get(gram, ()))
        shares = {i: n / min(len(grams), len(self.grams[i])) for i, n in hits.items() if n >= LEAST}
        best = max(shares, key=lambda i: (shares[i], -i), default=None)
        return best if best is not None and shares[best] >= SHARE else None


def _grams(question: str) -> set[Gram]:
    words = _WORD.findall(question.casefold())
    return {tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)}


def _without_numbers(question: str) -> str:
    return _DIGITS.sub("0", question_key(question))
