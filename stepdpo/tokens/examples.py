"""What a loss looks at as one: a pair, a single response, or all responses to one problem."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum

from stepdpo.core.types import Pair, Preference, Turn
from stepdpo.tokens.token_tree import TokenSequence
from stepdpo.tokens.trie import sort_key


class Unit(Enum):
    """What an example of a loss is, by what it needs."""

    pairs = "pairs"
    """The chosen and the rejected side."""
    chosen = "chosen sides"
    """The chosen side alone, whatever else a row has."""
    responses = "responses"
    """Every side by itself."""
    problems = "problems"
    """All sides of all rows about one problem."""


UNLABELLED = "response without a label"
ALIKE = "problem whose responses are all equally right"


def unit_of(needs: frozenset[str]) -> Unit:
    """The examples of a loss."""
    if "rejected" in needs:
        return Unit.pairs
    if "group" in needs:
        return Unit.problems
    return Unit.responses if "unpaired" in needs else Unit.chosen


def problem_key(question: str, history: Sequence[Turn]) -> bytes:
    """What two rows about one problem have in common."""
    text = repr((question, [(turn.role, turn.content) for turn in history]))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def batches(preferences: Sequence[Preference], unit: Unit, size: int) -> Iterator[list[int]]:
    """Numbers of rows to be tokenised together, at least `size` of them, those of a problem never apart.

    In their order; for `Unit.problems` problem by problem.
    """
    if unit is not Unit.problems:
        yield from (
            list(range(first, min(first + size, len(preferences)))) for first in range(0, len(preferences), size)
        )
        return
    problems: dict[bytes, list[int]] = {}
    for number, preference in enumerate(preferences):
        problems.setdefault(problem_key(preference.question, preference.history), []).append(number)
    waiting: list[int] = []
    for numbers in problems.values():
        waiting += numbers
        if len(waiting) >= size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


TokenizedPair = tuple[int, Pair, list[TokenSequence]]
"""(number of the row, its pair, the sequences of its sides)."""
Example = tuple[int, list[TokenSequence], float, bytes]
"""(number, sequences, confidence, problem). Numbers rise, and no two examples have the same."""


def examples(
    rows: Sequence[TokenizedPair], unit: Unit, labelled: bool, dropped: Counter[str], given: Mapping[int, Pair]
) -> Iterator[Example]:
    """The examples of some rows; with `labelled` only responses whose label is known, the others counted.

    `given`: the rows before any was found too long, in their order. A problem is numbered as its first row, used or
    not: by the first that is used, numbers would not rise.
    """
    if unit is Unit.responses:
        for number, pair, sequences in rows:
            for side, sequence in enumerate(_labelled(sequences, dropped) if labelled else sequences):
                yield 2 * number + side, [replace(sequence, owner=0)], pair.confidence, _problem(pair)
        return
    if unit is not Unit.problems:
        yield from ((number, sequences, pair.confidence, _problem(pair)) for number, pair, sequences in rows)
        return
    problems: dict[bytes, list[TokenizedPair]] = {}
    firsts: dict[bytes, int] = {}
    for number, pair in given.items():
        firsts.setdefault(_problem(pair), number)
    for row in rows:
        problems.setdefault(_problem(row[1]), []).append(row)
    for key in filter(problems.__contains__, firsts):
        members = problems[key]
        every = [sequence for _, _, sequences in members for sequence in sequences]
        distinct = _distinct(_labelled(every, dropped) if labelled else every)
        if labelled and len({_label(sequence) for sequence in distinct}) < 2:
            dropped[ALIKE] += 1
            continue
        confidence = min(pair.confidence for _, pair, _ in members)
        yield firsts[key], [replace(one, owner=owner) for owner, one in enumerate(distinct)], confidence, key


def _problem(pair: Pair) -> bytes:
    return problem_key(pair.question, pair.history)


def _labelled(sequences: Sequence[TokenSequence], dropped: Counter[str]) -> list[TokenSequence]:
    known = [sequence for sequence in sequences if not math.isnan(_label(sequence))]
    dropped.update({UNLABELLED: len(sequences) - len(known)} if len(known) < len(sequences) else {})
    return known


def _distinct(sequences: Sequence[TokenSequence]) -> list[TokenSequence]:
    """Each text once, the first of equal ones, in the order of tokens: neighbours share most."""
    found: dict[tuple[bytes, int], TokenSequence] = {}
    for sequence in sequences:
        found.setdefault((sort_key(sequence.tokens), sequence.first_scored), sequence)
    return [found[key] for key in sorted(found)]


def _label(sequence: TokenSequence) -> float:
    assert sequence.steps is not None, "a loss that needs labels needs steps"
    return sequence.steps.label
