"""Step pairs from a tree search, after MCTS-DPO (Xie et al. 2024, arXiv 2405.00451).

What the search does is in workshop/search.py, how pairs are cut from its tree in workshop/cuts.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from stepdpo.records import CORRECT, Problem, Prompt
from stepdpo.tokenise import encode
from stepdpo.workshop.asks import Ask, Made, Mark, Sample, Weigh, Work
from stepdpo.workshop.chunks import Chunk, Delimiter, Same, chunk, chunks, distinct, opening, stops
from stepdpo.workshop.cuts import Cut
from stepdpo.workshop.opinions import confidences, weighing
from stepdpo.workshop.search import Prior, Search, prior_of
from stepdpo.workshop.tools import Tools

DEEP = 3
"""Opinions of steps below this depth are divided by their depth beyond it, as in the authors' code."""


class SelfEvaluation(Enum):
    """Whether the model's own opinion guides the search."""

    none = "none"
    confidence = "confidence"
    """v = P(this is on the right way) / max(depth of the parent - 3, 1)."""


@dataclass(frozen=True)
class Mcts:
    """Walk down a tree of steps by PUCT, write what is missing, look at the answer, back up; then pair siblings.

    argmax of Q + weight p sqrt(N_parent) / (1 + N), with p from a step's log-probability at temperature 1. A walk goes
    on to an answer (+1 right, -1 wrong) or to the depth limit (-1). N_root is the number of walks.
    """

    iterations: int = 32
    """Walks from every step the search commits to; `root_factor` times as many from the question."""
    root_factor: int = 4
    commit: bool = False
    """Go on from the best child, and from its best child, with fresh walks; the authors' way. Without it all walks
    begin at the question."""
    depth_limit: int = 10
    """Most steps; a solution without an answer by then counts as wrong, and its last step is in no pair."""
    n_init_actions: int = 4
    """First steps sampled."""
    n_actions: int = 4
    """Next steps sampled after every other step."""
    breadth_limit: int = 4
    """Most different steps kept after one another."""
    same: Same = Same.formulas
    """Which steps are one: `formulas`, those with the same numbers and signs whatever the words; or `text`."""
    step_tokens: int = 128
    """Longest step; longer ones are left out."""
    init_temperature: float | None = None
    """For first steps; null for the run's own."""
    temperature: float | None = None
    delimiter: Delimiter = Delimiter.step
    weight: float = 1.0
    """Of the exploring term."""
    gamma: float = 1.0
    prior: Prior = Prior.code
    length_power: float = 1.25
    """Log-probabilities are divided by length to this power."""
    self_evaluation: SelfEvaluation = SelfEvaluation.none
    leak_reference: bool = False
    """Show the gold solution to the self-evaluation, and offer its next step as a child; the authors' way."""
    novelty: float = 1.0
    """What a right answer counts if its solution is not the gold one word for word; 1.25 in the authors' code."""
    cut: Cut = field(default_factory=lambda: Cut(min_gap=0.5, most_visited_path=True, merge_chains=False))
    """Which siblings become pairs."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        counts = ("iterations", "root_factor", "depth_limit", "n_init_actions", "n_actions", "step_tokens")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.breadth_limit < 2:
            raise ValueError("breadth_limit must be at least 2: a pair needs two siblings")
        for name in ("init_temperature", "temperature"):
            if (given := getattr(self, name)) is not None and given <= 0:
                raise ValueError(f"{name} must be above 0, for steps to differ")

    def __call__(self, problem: Problem, tools: Tools) -> Work:
        """Walk, then cut the tree into pairs."""
        if self.leak_reference and not problem.solution:
            return Made(outcome="no gold solution to leak")
        climb = _Climb(self, problem, tools, tools.prompt(problem))
        at: int | None = 0
        walks = self.iterations * self.root_factor
        while at is not None and not climb.search.spots[at].ended:
            for _ in range(walks):
                yield from climb.walk(at)
            at, walks = climb.search.best(at) if self.commit else None, self.iterations
        return climb.made()


@dataclass
class _Climb:
    """The search on one problem."""

    rules: Mcts
    problem: Problem
    tools: Tools
    prompt: Prompt
    search: Search = field(init=False)
    counts: Counter[str] = field(default_factory=Counter)
    reference: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.search = Search(self.rules.weight, self.rules.gamma)
        self.reference = chunks(self.rules.delimiter, self.problem.solution) if self.rules.leak_reference else []

    def walk(self, at: int) -> Generator[Ask, Any, None]:
        """From a spot down to an end, with everything that has to be written on the way."""
        at = self.search.descend(at)
        while not self.search.spots[at].ended:
            yield from self._expand(at)
            if not self.search.spots[at].children:
                self.counts["steps after which nothing usable was written"] += 1
                self.search.end(at, -1.0)
            at = self.search.descend(at)
        self.search.back_up(at)
        self.counts["walks"] += 1

    def _expand(self, at: int) -> Generator[Ask, Any, None]:
        """Children of a spot. Every kind of ask is made every time, so that the trees of all problems keep step."""
        rules, text, depth = self.rules, self.search.text(at), self.search.spots[at].depth
        before = self.prompt.text + (self.prompt.joint + text + opening(rules.delimiter, depth) if depth else "")
        steps = yield from self._write(before, depth)
        steps = steps[: rules.breadth_limit]
        if gold := self._gold(text, depth, steps):
            steps = [*steps[: rules.breadth_limit - 1], gold]
        wholes = [text + step.text for step in steps]
        grades = yield Mark(tuple(whole for whole, step in zip(wholes, steps, strict=True) if step.ends))
        nats, opinions = yield from self._weigh(at, before, gold, wholes)
        verdicts = iter(grades)
        for step, whole, opinion in zip(steps, wholes, opinions, strict=True):
            logp = nats if step is gold else step.logp
            prior = prior_of(logp, step.tokens, rules.length_power, rules.prior)
            child = self.search.add(at, step.text, prior, opinion)
            if step.ends:
                self._end(child, whole, next(verdicts).verdict == CORRECT)
            elif depth + 1 == rules.depth_limit:
                self.counts["solutions cut at depth_limit"] += 1
                self.search.end(child, -1.0)

    def _write(self, before: str, depth: int) -> Generator[Ask, Any, list[Chunk]]:
        """Sampled steps: the usable ones, one of each."""
        rules = self.rules
        ((*drawn,),) = yield Sample(
            (before,),
            rules.n_actions if depth else rules.n_init_actions,
            temperature=rules.temperature if depth else rules.init_temperature,
            max_tokens=rules.step_tokens,
            stop=stops(rules.delimiter, depth),
            logps=True,
        )
        self.counts["steps sampled"] += len(drawn)
        found = []
        for completion in drawn:
            step = chunk(rules.delimiter, depth, completion, "" if depth else self.prompt.joint)
            if isinstance(step, Chunk):
                found.append(step)
            else:
                self.counts[step] += 1
        new = distinct((step.text for step in found), rules.same)
        self.counts["equal steps"] += len(found) - len(new)
        return [found[i] for i in new]

    def _gold(self, text: str, depth: int, steps: Sequence[Chunk]) -> Chunk | None:
        """The gold solution's next step, where it is leaked, the path has followed it, and the model did not write it."""
        if depth >= len(self.reference) or text != "".join(self.reference[:depth]):
            return None
        step = self.reference[depth]
        if step in (other.text for other in steps):
            return None
        ((tokens, _),) = encode([step], self.tools.tokenizer)
        return Chunk(step, depth + 1 == len(self.reference), len(tokens))

    def _weigh(
        self, at: int, before: str, gold: Chunk | None, wholes: Sequence[str]
    ) -> Generator[Ask, Any, tuple[float, list[float | None]]]:
        """Nats of the gold step, and v of every new step where the model is asked; its parent's where it is at a loss."""
        rules, depth = self.rules, self.search.spots[at].depth
        evaluates = rules.self_evaluation is SelfEvaluation.confidence
        if not evaluates and not rules.leak_reference:
            return 0.0, [None] * len(wholes)
        asked = weighing(self.problem, wholes if evaluates else [], rules.leak_reference, self.tools)
        if gold:
            joint = "" if depth else self.prompt.joint
            continuation = joint + gold.text[len(opening(rules.delimiter, depth)) :]
            asked = Weigh((*asked.prompts, before), (*asked.continuations, continuation))
        nats = yield asked
        of_gold = nats[-1] if gold else 0.0
        if not evaluates:
            return of_gold, [None] * len(wholes)
        found = confidences(nats[: 2 * len(wholes)])
        return of_gold, [conf / max(depth - DEEP, 1) or self.search.spots[at].value for conf in found]

    def _end(self, child: int, whole: str, correct: bool) -> None:
        copied = whole == self.problem.solution
        self.search.end(child, -1.0 if not correct else 1.0 if copied else self.rules.novelty, correct)
        self.counts["right solutions" if correct else "wrong solutions"] += 1

    def made(self) -> Made:
        """Pairs and tree."""
        self.counts["steps kept"] += len(self.search.spots) - 1
        tree = self.search.tree(self.problem, search="mcts", self_evaluation=self.rules.self_evaluation.value)
        pairs = self.rules.cut(tree, self.counts)
        if pairs:
            return Made(pairs, "pairs", self.counts, tree.to_row())
        right, wrong = self.counts["right solutions"], self.counts["wrong solutions"]
        why = "no wrong solution" if right and not wrong else "no right solution" if not right else "no usable siblings"
        return Made((), why, self.counts, tree.to_row())
