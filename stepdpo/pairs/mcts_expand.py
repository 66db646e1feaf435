"""A tree search on one problem, in asks: the steps to write, the answers to grade, the opinions to weigh."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from stepdpo.core.types import CORRECT, Problem, Prompt
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, GradeAnswers, Request, Result, ScoreText
from stepdpo.pairs.tree.puct import PuctSearch, prior_of
from stepdpo.pairs.tree.self_evaluation import confidences, score_request
from stepdpo.pairs.tree.step_sampling import SampledStep, distinct, opening, parse_step, split_solution, stop_strings
from stepdpo.tokens.tokenization import encode

DEEP = 3
"""Opinions of steps below this depth are divided by their depth beyond it, as in the authors' code."""


class SelfEvaluation(Enum):
    """Whether the model's own opinion guides the search."""

    none = "none"
    confidence = "confidence"
    """v = P(this is on the right way) / max(depth of the parent - 3, 1)."""


@dataclass
class Expansion:
    """The search on one problem: what is asked, and what becomes of the answers."""

    rules: Any
    """An Mcts."""
    problem: Problem
    context: Context
    prompt: Prompt
    search: PuctSearch = field(init=False)
    counts: Counter[str] = field(default_factory=Counter)
    reference: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.search = PuctSearch(self.rules.weight, self.rules.gamma)
        self.reference = (
            split_solution(self.rules.delimiter, self.problem.solution) if self.rules.leak_reference else []
        )

    def walk(self, at: int) -> Generator[Request, Any, None]:
        """From a spot down to an end, with everything that has to be written on the way."""
        at = self.search.descend(at)
        while not self.search.nodes[at].ended:
            yield from self._expand(at)
            if not self.search.nodes[at].children:
                self.counts["steps after which nothing usable was written"] += 1
                self.search.end(at, -1.0)
            at = self.search.descend(at)
        self.search.back_up(at)
        self.counts["walks"] += 1

    def _expand(self, at: int) -> Generator[Request, Any, None]:
        """Children of a spot. Every kind of ask is made every time, so that the trees of all problems keep step."""
        rules, text, depth = self.rules, self.search.text(at), self.search.nodes[at].depth
        before = self.prompt.text + (self.prompt.joint + text + opening(rules.delimiter, depth) if depth else "")
        steps = yield from self._write(before, depth)
        steps = steps[: rules.breadth_limit]
        if gold := self._gold(text, depth, steps):
            steps = [*steps[: rules.breadth_limit - 1], gold]
        wholes = [text + step.text for step in steps]
        grades = yield GradeAnswers(tuple(whole for whole, step in zip(wholes, steps, strict=True) if step.ends))
        nats, opinions = yield from self._score(at, before, gold, wholes)
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

    def _write(self, before: str, depth: int) -> Generator[Request, Any, list[SampledStep]]:
        """Sampled steps: the usable ones, one of each."""
        rules = self.rules
        ((*drawn,),) = yield Generate(
            (before,),
            rules.n_actions if depth else rules.n_init_actions,
            temperature=rules.temperature if depth else rules.init_temperature,
            max_tokens=rules.step_tokens,
            stop=stop_strings(rules.delimiter, depth),
            logps=True,
        )
        self.counts["steps sampled"] += len(drawn)
        found = []
        for completion in drawn:
            step = parse_step(rules.delimiter, depth, completion, "" if depth else self.prompt.joint)
            if isinstance(step, SampledStep):
                found.append(step)
            else:
                self.counts[step] += 1
        new = distinct((step.text for step in found), rules.same)
        self.counts["equal steps"] += len(found) - len(new)
        return [found[i] for i in new]

    def _gold(self, text: str, depth: int, steps: Sequence[SampledStep]) -> SampledStep | None:
        """The gold solution's next step: leaked, after a path that followed it, and not written by the model."""
        if depth >= len(self.reference) or text != "".join(self.reference[:depth]):
            return None
        step = self.reference[depth]
        if step in (other.text for other in steps):
            return None
        ((tokens, _),) = encode([step], self.context.tokenizer)
        return SampledStep(step, depth + 1 == len(self.reference), len(tokens))

    def _score(
        self, at: int, before: str, gold: SampledStep | None, wholes: Sequence[str]
    ) -> Generator[Request, Any, tuple[float, list[float | None]]]:
        """Nats of the gold step, and v of new steps where the model is asked: its parent's where it is at a loss."""
        rules, depth = self.rules, self.search.nodes[at].depth
        evaluates = rules.self_evaluation is SelfEvaluation.confidence
        if not evaluates and not rules.leak_reference:
            return 0.0, [None] * len(wholes)
        asked = score_request(self.problem, wholes if evaluates else [], rules.leak_reference, self.context)
        if gold:
            joint = "" if depth else self.prompt.joint
            continuation = joint + gold.text[len(opening(rules.delimiter, depth)) :]
            asked = ScoreText((*asked.prompts, before), (*asked.continuations, continuation))
        nats = yield asked
        of_gold = nats[-1] if gold else 0.0
        if not evaluates:
            return of_gold, [None] * len(wholes)
        found = confidences(nats[: 2 * len(wholes)])
        return of_gold, [conf / max(depth - DEEP, 1) or self.search.nodes[at].value for conf in found]

    def _end(self, child: int, whole: str, correct: bool) -> None:
        copied = whole == self.problem.solution
        self.search.end(child, -1.0 if not correct else 1.0 if copied else self.rules.novelty, correct)
        self.counts["right solutions" if correct else "wrong solutions"] += 1

    def result(self) -> Result:
        """Pairs and tree."""
        self.counts["steps kept"] += len(self.search.nodes) - 1
        tree = self.search.tree(self.problem, search="mcts", self_evaluation=self.rules.self_evaluation.value)
        pairs = self.rules.cut(tree, self.counts)
        if pairs:
            return Result(pairs, "pairs", self.counts, tree.to_row())
        right, wrong = self.counts["right solutions"], self.counts["wrong solutions"]
        why = "no wrong solution" if right and not wrong else "no right solution" if not right else "no usable siblings"
        return Result((), why, self.counts, tree.to_row())
