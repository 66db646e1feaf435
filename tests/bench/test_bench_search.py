"""What the benchmark of the search counts, on a tree whose right and wrong steps are known."""

from __future__ import annotations

from dataclasses import replace

from support.scripted import LONG, spoil

from benchmarks.search import SOLVED, UNSOLVED, WELL, ranked, rightness, share, verdict
from stepdpo.core.steps import split_steps
from stepdpo.pairs.tree.step_pair import preference
from stepdpo.pairs.tree.tree import Node, Tree

HEAD, STEPS = split_steps(LONG.solution)
FIRST, SECOND = HEAD + STEPS[0].removesuffix("\n"), "\n" + STEPS[1].removesuffix("\n")
WRONG, WRONG_SECOND = (
    HEAD + split_steps(spoil(LONG, 0))[1][0].removesuffix("\n"),
    "\n" + split_steps(spoil(LONG, 1))[1][1].removesuffix("\n"),
)


def tree(*q: float, visits: int = 4) -> Tree:
    """A right and a wrong first step; after the right one again; after the wrong one both."""
    texts = ((0, FIRST), (0, WRONG), (1, SECOND), (1, WRONG_SECOND), (2, SECOND), (2, WRONG_SECOND))
    nodes = [Node(parent, text, visits=visits, q=value) for (parent, text), value in zip(texts, q, strict=True)]
    return Tree(LONG.id, LONG.question, LONG.answers[0], (Node(-1), *nodes))


def test_only_siblings_after_right_steps_are_ranked() -> None:
    assert rightness(tree(*[0.0] * 6), LONG) == [True, True, False, True, False, False, False]
    assert list(ranked(tree(0.5, 0.4, 1.0, -1.0, 0.0, 0.0), LONG)) == [WELL, WELL]
    assert list(ranked(tree(0.5, 0.4, 1.0, -1.0, 0.0, 0.0, visits=3), LONG)) == []


def test_why_siblings_are_ranked_badly() -> None:
    """A tie is not ranked well."""
    found = tree(-1.0, -1.0, 0.2, 0.5, 0.0, 0.0)
    assert list(ranked(found, LONG)) == [UNSOLVED, UNSOLVED]
    nodes = [*found.nodes[:6], replace(found.nodes[6], correct=True)]
    assert list(ranked(replace(found, nodes=tuple(nodes)), LONG)) == [SOLVED, UNSOLVED]


def test_verdicts_on_pairs() -> None:
    found = tree(*[0.0] * 6)
    sides = {(1, 2): "correct", (2, 1): "reversed", (3, 4): "correct", (5, 6): "after a wrong step"}
    assert {both: verdict(preference(found, *both), LONG) for both in sides} == sides
    same = replace(preference(found, 3, 4), rejected=preference(found, 3, 4).chosen)
    assert verdict(same, LONG) == "both right"


def test_a_share_has_its_standard_error() -> None:
    """0.8 of 25: sqrt(0.8 * 0.2 / 25) = 0.08."""
    assert share(20, 25) == "80.0% ± 8.0% (n 25)"
    assert share(0, 0) == "-"
