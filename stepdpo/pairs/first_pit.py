"""The pits of wrong solutions, and what the rules of `pairs=rollouts` pair them with. No model is asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepdpo.core.steps import cut_step
from stepdpo.core.types import Mark, Preference
from stepdpo.pairs.solutions import Solution
from stepdpo.pairs.tree.step_marks import marks
from stepdpo.pairs.tree.step_pair import preference, shared_label
from stepdpo.pairs.tree.tree import Tree
from stepdpo.pairs.tree.values import PrefixStats, RolloutStart, advantages, lowest, step_texts

STATEMENT = re.compile(r"\s*\b(?:the )?(?:final )?answer is\b.*\Z", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Pit:
    """The first step of a wrong solution after which Q is lowest.

    A wrong end has Q = 0, so this is the first step from which no roll-out succeeded.
    """

    wrong: Solution
    path: tuple[int, ...]
    """The nodes of its prefixes, the empty one first."""
    step: int
    """From 1."""
    advantage: float
    """A of the step: by how much Q changes there, below 0."""

    @property
    def node(self) -> int:
        return self.path[self.step]

    @property
    def before(self) -> int:
        """The node that the step goes on from."""
        return self.path[self.step - 1]


def find_pits(
    stats: PrefixStats, wrong: Sequence[Solution], paths: Sequence[Sequence[int]], k: int, counts: Counter[str]
) -> list[Pit]:
    """One pit a solution, equal ones once. A problem of which no roll-out from the start succeeds has none."""
    if stats.q(0) == 0:
        return []  # no step can lower a Q of 0, so none is the one that spoilt it
    found: dict[int, Pit] = {}
    for solution, path in zip(wrong, paths, strict=True):
        q = [stats.q(node, k) for node in path]
        step = lowest(q)
        found.setdefault(path[step], Pit(solution, tuple(path), step, advantages(q)[step - 1]))
    counts["pits shared by two solutions"] += len(wrong) - len(found)
    return list(found.values())


def candidates(stats: PrefixStats, pit: Pit, most: int) -> list[RolloutStart]:
    """First steps of successful roll-outs from before the pit, the most frequent ones first, to be rolled out from.

    A step that ends its solution is known to be right. Steps with another label than the pit's are left out.
    """
    own, label, depth = _step(pit)
    found: dict[str, list[Solution]] = {}
    for solution in stats.solutions[pit.before]:
        text = step_texts(solution)[depth]
        if solution.correct and text.startswith(label) and text.split() not in (own.split(), label.split()):
            found.setdefault(text, []).append(solution)
    starts = []
    for text, some in sorted(found.items(), key=lambda item: -len(item[1]))[:most]:
        node = stats.child(pit.before, text)
        if len(some[0].steps) == depth + 1:
            stats.end(node, True, stats.nodes[pit.before].visits)
        else:
            starts.append(RolloutStart(node, some[0].prefix(depth + 1)))
    return starts


def same_prefix(tree: Tree, stats: PrefixStats, pit: Pit, k: int, gap: float) -> Preference | None:
    """The best measured step in the pit's place against the pit; None where none is better by `gap`."""
    own, label, _ = _step(pit)
    others = [
        i
        for i in tree.children[pit.before]
        if stats.measured(i) and tree.nodes[i].text.startswith(label) and tree.nodes[i].text.split() != own.split()
    ]
    if not others:
        return None
    best = max(others, key=lambda i: (stats.q(i, k), -i))
    if stats.q(best, k) - stats.q(pit.node, k) < gap - 1e-9:  # 7/10 - 4/10 comes out as 0.29999...
        return None
    return preference(tree, best, pit.node, **_meta(pit))


def from_the_start(tree: Tree, pit: Pit, right: Solution) -> Preference:
    """A right solution against the wrong one up to and with its pit."""
    return _pair(tree, pit, "", right.text, tree.text(pit.node))


def remainder(tree: Tree, stats: PrefixStats, pit: Pit, right: Solution | None) -> Preference | None:
    """All that follows in the shortest successful roll-out from before the pit against the pit.

    At the first step it is a right solution, `right` where there is one. The final answer is cut off the pit; None
    where nothing is left of it, or nothing succeeded from there.
    """
    prefix = pit.wrong.prefix(pit.step - 1) if pit.step > 1 else ""
    chosen = right if not prefix and right else shortest(stats, pit.before)
    step = cut_step(tree.text(pit.node)[len(prefix) :])[0] if prefix else tree.text(pit.node)
    # A wrong last step states a wrong answer; what is rejected is the working that led to it.
    step = STATEMENT.sub("", step)
    if chosen is None or not step.strip() or not chosen.text.startswith(prefix):
        return None
    return _pair(tree, pit, prefix, chosen.text[len(prefix) :], step)


def shortest(stats: PrefixStats, node: int) -> Solution | None:
    """The shortest successful roll-out from a node."""
    right = [solution for solution in stats.solutions[node] if solution.correct]
    return min(right, key=lambda solution: len(solution.text)) if right else None


def _pair(tree: Tree, pit: Pit, prefix: str, chosen: str, rejected: str) -> Preference:
    """A right solution, or all that is left of one, against an unfinished side, whose rest is not kept."""
    return Preference(
        question=tree.question,
        prefix=prefix,
        chosen=chosen,
        rejected=rejected,
        answer=tree.answer,
        chosen_value=1.0,
        rejected_value=tree.value(pit.node),
        chosen_steps=next((marks(tree, i) for i in tree.endings(0) if tree.text(i) == prefix + chosen), ()),
        rejected_steps=_cut(marks(tree, pit.node), len(prefix + rejected)),
        meta={"problem": tree.problem, **_meta(pit)},
    )


def _cut(found: tuple[Mark, ...], length: int) -> tuple[Mark, ...]:
    """The marks of a text of which the end was cut off, within its last step."""
    return (*found[:-1], replace(found[-1], end=min(found[-1].end, length))) if found else ()


def _step(pit: Pit) -> tuple[str, str, int]:
    """The pit's text with its label, the label, and how many steps come before it."""
    own = step_texts(pit.wrong)[pit.step - 1]
    return own, shared_label("".join(step_texts(pit.wrong)[: pit.step - 1]), own), pit.step - 1


def _meta(pit: Pit) -> dict[str, Any]:
    return {"step": pit.step - 1, "rejected_sample": pit.wrong.id, "advantage": round(pit.advantage, 6)}
