"""Contamination: which training questions are, or nearly are, evaluation problems."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from stepdpo.core.types import Problem
from stepdpo.data.validation import question_key

# Two measures by n-grams of words. A word problem is a few sentences: by its 8-grams it is still found when a word in
# twenty was replaced, but stock phrases share some of them too, hence a least number and a share. One 13-gram in common
# is the usual rule for documents; here it is told, never an error.
GRAM = 8
"""Words in a row that are compared."""
SHARE = 0.5
"""Overlap from which two questions count as one: shared 8-grams over those of the shorter question."""
LEAST = 3
"""Shared 8-grams below which an overlap is put down to stock phrases."""
LONG = 13
"""Words in a row that two questions do not share by chance, as contamination is usually told (arXiv 2005.14165, C)."""
Gram = tuple[str, ...]
_WORD = re.compile(r"\w+")
_DIGITS = re.compile(r"\d+")


class Likeness(Enum):
    """How a training question resembles an evaluation problem, the closest first."""

    EXACT = "the same but for white space and case"
    OVERLAP = "half or more of its 8-grams in common"
    RUN = "13 words in a row in common"
    NUMBERS = "the same but for its numbers"


@dataclass(frozen=True, slots=True)
class SharedQuestion:
    """One training question and the evaluation problem it resembles most."""

    question: str
    task: str
    problem_id: str
    likeness: Likeness
    share: float = 0.0
    """Of the training question's 13-grams, those that occur in any problem of the tasks."""


def shared_questions(questions: Iterable[str], tasks: Mapping[str, Sequence[Problem]]) -> Iterator[SharedQuestion]:
    """For every distinct training question that resembles a problem of a task, its closest likeness."""
    known = [(name, problem) for name, problems in tasks.items() for problem in problems]
    index = _Index([problem.question for _, problem in known])
    for question in dict.fromkeys(questions):
        found = index.find(question)
        if found:
            likeness, i = found
            name, problem = known[i]
            share = index.share(question)
            yield SharedQuestion(question=question, task=name, problem_id=problem.id, likeness=likeness, share=share)


class _Index:
    """Evaluation questions by their text, by their text without numbers, by their 8-grams and their 13-grams.

    A question of 8 to 12 words is one n-gram of all its words: it is shared where the other question holds it whole.
    One of fewer words is told by the exact rule alone.
    """

    def __init__(self, questions: Sequence[str]) -> None:
        # Reversed, so that of two problems with one text the first is named.
        self.exact = {question_key(q): i for i, q in reversed(list(enumerate(questions)))}
        self.numbers = {_without_numbers(q): i for i, q in reversed(list(enumerate(questions)))}
        self.grams = [_grams(q) for q in questions]
        self.by_gram: defaultdict[Gram, list[int]] = defaultdict(list)
        for i, grams in enumerate(self.grams):
            for gram in grams:
                self.by_gram[gram].append(i)
        self.words = [_words(q) for q in questions]
        self.long_grams: dict[Gram, int] = {}
        for i, words in enumerate(self.words):
            for gram in _ngrams(words, min(LONG, len(words))):
                self.long_grams.setdefault(gram, i)
        self.lengths = sorted({min(LONG, len(words)) for words in self.words if len(words) >= GRAM})

    def share(self, question: str) -> float:
        """Of the question's 13-grams, those that occur in an evaluation question."""
        words = _words(question)
        own = _ngrams(words, LONG)
        if not own:
            return float(self._sharing_a_long_gram(words) is not None)
        return sum(gram in self.long_grams for gram in own) / len(own)

    def find(self, question: str) -> tuple[Likeness, int] | None:
        """The closest likeness, and which question it is with."""
        # In the order of closeness: the first that applies is told.
        found = {
            Likeness.EXACT: self.exact.get(question_key(question)),
            Likeness.OVERLAP: self._overlapping(_grams(question)),
            Likeness.RUN: self._sharing_a_long_gram(_words(question)),
            Likeness.NUMBERS: self.numbers.get(_without_numbers(question)),
        }
        return next(((likeness, i) for likeness, i in found.items() if i is not None), None)

    def _sharing_a_long_gram(self, words: Sequence[str]) -> int | None:
        """An evaluation question that shares a 13-gram with this one; of short ones, one that holds the other whole."""
        held = (
            self.long_grams[gram] for size in self.lengths for gram in _ngrams(words, size) if gram in self.long_grams
        )
        first = min(held, default=None)  # n-grams come in no order of their own: of several questions, the first
        if first is not None or not GRAM <= len(words) < LONG:
            return first
        # A short question within a longer one: any that holds it whole holds its first 8 words.
        candidates = self.by_gram.get(tuple(words[:GRAM]), ())
        return next((i for i in candidates if tuple(words) in _ngrams(self.words[i], len(words))), None)

    def _overlapping(self, grams: set[Gram]) -> int | None:
        hits = Counter(i for gram in grams for i in self.by_gram.get(gram, ()))
        shares = {i: n / min(len(grams), len(self.grams[i])) for i, n in hits.items() if n >= LEAST}
        best = max(shares, key=lambda i: (shares[i], -i), default=None)
        return best if best is not None and shares[best] >= SHARE else None


def _words(question: str) -> list[str]:
    return _WORD.findall(question.casefold())


def _ngrams(words: Sequence[str], size: int) -> set[Gram]:
    """All n-grams of so many words; of fewer than 8 there are none that would say anything."""
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)} if size >= GRAM else set()


def _grams(question: str) -> set[Gram]:
    return _ngrams(_words(question), GRAM)


def _without_numbers(question: str) -> str:
    return _DIGITS.sub("0", question_key(question))
