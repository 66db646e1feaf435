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
    index = [(name, problem) for name, problems in tasks.items() for problem in problems]
    exact, numbers = {}, {}
    by_gram: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes = []
    for i, (_, problem) in enumerate(index):
        exact.setdefault(question_key(problem.question), i)
        numbers.setdefault(_without_numbers(problem.question), i)
        grams = _grams(problem.question)
        sizes.append(len(grams))
        for gram in grams:
            by_gram[gram].append(i)
    for question in dict.fromkeys(questions):
        likeness, i = Likeness.EXACT, exact.get(question_key(question))
        if i is None:
            likeness, i = Likeness.OVERLAP, _most_overlapping(_grams(question), by_gram, sizes)
        if i is None:
            likeness, i = Likeness.NUMBERS, numbers.get(_without_numbers(question))
        if i is not None:
            name, problem = index[i]
            yield Shared(question=question, task=name, problem_id=problem.id, likeness=likeness)


def _most_overlapping(
    grams: set[tuple[str, ...]], by_gram: Mapping[tuple[str, ...], list[int]], sizes: Sequence[int]
) -> int | None:
    hits = Counter(i for gram in grams for i in by_gram.get(gram, ()))
    shares = {i: count / min(len(grams), sizes[i]) for i, count in hits.items() if count >= LEAST}
    best = max(shares, key=lambda i: (shares[i], -i), default=None)
    return best if best is not None and shares[best] >= SHARE else None


def _grams(question: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(question.casefold())
    return {tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)}


def _without_numbers(question: str) -> str:
    return _DIGITS.sub("0", question_key(question))
