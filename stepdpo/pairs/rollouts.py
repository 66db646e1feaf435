"""Step values by roll-outs from every prefix of wrong solutions, and the step that spoils them.

RL on incorrect synthetic data (Setlur et al. 2024, arXiv 2406.14532); the pit is of Self-Explore (Hwang et al. 2024,
arXiv 2404.10346).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from stepdpo.core.ranges import at_least, positive, within
from stepdpo.core.types import Preference, Problem, Prompt
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, Request, Requests, Result
from stepdpo.pairs.first_pit import Pit, candidates, find_pits, from_the_start, remainder, same_prefix, shortest
from stepdpo.pairs.solutions import SampledBatch, Solution, distinct, read_solutions
from stepdpo.pairs.tree.tree import Tree
from stepdpo.pairs.tree.values import PrefixStats, RolloutStart, rollout_starts


class Rule(Enum):
    """What is chosen over what."""

    SAME_PREFIX = "same_prefix"
    """The pit against the best measured step of a successful roll-out, after the same prefix."""
    PAPER = "paper"
    """A right solution against the wrong one up to and with its pit (Setlur et al.)."""
    SELF_EXPLORE = "self_explore"
    """The shortest successful roll-out from before the pit against the pit (Hwang et al.)."""


@dataclass(frozen=True)
class Rollouts:
    """Pairs at the pits of wrong solutions.

    Q_i is the share of roll-outs from the first i steps that end right (with `best_of` = K > 1, the chance that one of
    K does), A_i = Q_i - Q_(i-1), and the pit is the first step after which Q is lowest.
    """

    rule: Rule = Rule.SAME_PREFIX
    rollouts: int = 8
    """From each prefix, and from each step that may be chosen."""
    temperature: float = 0.7
    """Of the roll-outs; the solutions have the run's own."""
    best_of: int = 1
    """K of the roll-out policy; the paper takes the best of 5."""
    min_drop: float = 0.25
    """same_prefix: how much Q must fall at the pit, and by how much the chosen step's Q must be the higher one."""
    max_wrong: int = 4
    """Different wrong solutions a problem that are measured."""
    candidates: int = 4
    """same_prefix: different steps that are measured at a pit, the most frequent ones first."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        at_least(1, max_wrong=self.max_wrong, candidates=self.candidates, rollouts=self.rollouts, best_of=self.best_of)
        if self.best_of > self.rollouts:
            raise ValueError("best_of lies between 1 and rollouts: with fewer roll-outs it cannot be estimated")
        positive(min_drop=self.min_drop, temperature=self.temperature)
        within(0, 1, min_drop=self.min_drop)

    def __call__(self, problem: Problem, context: Context) -> Requests:
        """Sample; roll out from every prefix of the wrong solutions; roll out from what may be chosen; pair up."""
        counts: Counter[str] = Counter()
        prompt = context.prompt(problem)
        (completions,) = yield Generate((prompt.text,), context.sampling.n)
        (solutions,) = yield from read_solutions([SampledBatch("s", "", prompt.joint, completions)], counts)
        wrong = distinct([s for s in solutions if not s.correct])[: self.max_wrong]
        right = [s for s in solutions if s.correct]
        counts.update({"samples": len(completions), "right": len(right), "wrong solutions measured": len(wrong)})
        if not wrong:
            return Result(outcome="no wrong sample" if solutions else "no usable sample", counts=counts)
        stats = PrefixStats()
        paths = [stats.add(solution, self.rollouts) for solution in wrong]
        starts = [start for both in zip(wrong, paths, strict=True) for start in rollout_starts(*both)]
        yield from self._roll_out(stats, prompt, starts, counts)
        pits = find_pits(stats, wrong, paths, self.best_of, counts)
        if self.rule is Rule.SAME_PREFIX:
            pits = [pit for pit in pits if pit.advantage <= -self.min_drop + 1e-9]  # 0.4 - 0.7 is -0.29999...
            more = [start for pit in pits for start in candidates(stats, pit, self.candidates)]
            yield from self._roll_out(stats, prompt, more, counts)
        counts["pits"] += len(pits)
        tree = stats.tree(problem, solutions)
        pairs = self._pairs(tree, stats, pits, right)
        return Result(pairs, "pairs" if pairs else _why_none(stats, pits), counts, tree.to_row())

    def _roll_out(
        self, stats: PrefixStats, prompt: Prompt, starts: Sequence[RolloutStart], counts: Counter[str]
    ) -> Generator[Request, Any, None]:
        """Roll-outs from every prefix that was not measured, in one request."""
        # One start a node: a prefix that wrong solutions share is rolled out from once.
        fresh = list({start.node: start for start in reversed(starts) if not stats.measured(start.node)}.values())[::-1]
        if not fresh:
            return
        texts = tuple(prompt.text + (prompt.joint + start.prefix if start.prefix else "") for start in fresh)
        # `again=1`: the bare prompt was sampled from before, and Q of the empty prefix must come from fresh samples.
        completions = yield Generate(texts, self.rollouts, again=1, temperature=self.temperature)
        batches = [
            SampledBatch(f"n{start.node}-", start.prefix, "" if start.prefix else prompt.joint, some)
            for start, some in zip(fresh, completions, strict=True)
        ]
        unused: Counter[str] = Counter()
        found = yield from read_solutions(batches, unused)
        for start, some in zip(fresh, found, strict=True):
            right = sum(solution.correct for solution in some)
            stats.record(start.node, self.rollouts, right, some)
            counts.update({"beginnings": 1, "roll-outs": self.rollouts, "right roll-outs": right})
        counts.update({f"roll-outs {why}": number for why, number in unused.items()})

    def _pairs(
        self, tree: Tree, stats: PrefixStats, pits: Sequence[Pit], right: Sequence[Solution]
    ) -> tuple[Preference, ...]:
        """What the rule makes of every pit; right samples take turns."""
        found: list[Preference | None] = []
        for number, pit in enumerate(pits):
            sample = right[number % len(right)] if right else None
            if self.rule is Rule.SAME_PREFIX:
                found.append(same_prefix(tree, stats, pit, self.best_of, self.min_drop))
            elif self.rule is Rule.SELF_EXPLORE:
                found.append(remainder(tree, stats, pit, sample))
            elif (whole := sample or shortest(stats, 0)) is not None:
                found.append(from_the_start(tree, pit, whole))
        return tuple(preference for preference in found if preference is not None)


def _why_none(stats: PrefixStats, pits: Sequence[Pit]) -> str:
    if stats.q(0) == 0:
        return "never solved from the start"
    return "no better step found" if pits else "no pit"
