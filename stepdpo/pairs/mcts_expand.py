"""The expansion of a tree search on one problem: requests for steps to sample, answers to grade, text to score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from stepdpo.core.types import CORRECT, Problem, Prompt
from stepdpo.generation.puct import Prior, prior_of
from stepdpo.generation.step_sampling import (
    Delimiter,
    SampledStep,
    StepEquality,
    distinct,
    opening,
    parse_step,
    split_solution,
    stop_strings,
)
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, GradeAnswers, Request, ScoreText
from stepdpo.pairs.tree.puct import PuctSearch
from stepdpo.pairs.tree.self_evaluation import confidences, score_request
from stepdpo.tokens.tokenization import encode

DEEP = 3
"""Self-evaluations of steps below this depth are divided by their depth beyond it, as in the authors' code."""


class SelfEvaluation(Enum):
    """Whether the model's own confidence guides the search."""

    none = "none"
    confidence = "confidence"
    """v = P(this is on the right way) / max(depth of the parent - 3, 1)."""


class ExpansionRules(Protocol):
    """The fields of `Mcts` that an expansion reads; they are explained there, and frozen as it is."""

    @property
    def depth_limit(self) -> int: ...
    @property
    def n_init_actions(self) -> int: ...
    @property
    def n_actions(self) -> int: ...
    @property
    def breadth_limit(self) -> int: ...
    @property
    def same(self) -> StepEquality: ...
    @property
    def step_tokens(self) -> int: ...
    @property
    def init_temperature(self) -> float | None: ...
    @property
    def temperature(self) -> float | None: ...
    @property
    def delimiter(self) -> Delimiter: ...
    @property
    def prior(self) -> Prior: ...
    @property
    def length_power(self) -> float: ...
    @property
    def self_evaluation(self) -> SelfEvaluation: ...
    @property
    def leak_reference(self) -> bool: ...
    @property
    def novelty(self) -> float: ...


@dataclass
class Expansion:
    """Walks through the search of one problem, and what it requests where nothing is written yet."""

    rules: ExpansionRules
    problem: Problem
    context: Context
    search: PuctSearch
    counts: Counter[str] = field(default_factory=Counter)
    prompt: Prompt = field(init=False)
    reference: list[str] = field(init=False)
    """Steps of the gold solution, where they may be leaked."""

    def __post_init__(self) -> None:
        self.prompt = self.context.prompt(self.problem)
        leaked = self.rules.leak_reference
        self.reference = split_solution(self.rules.delimiter, self.problem.solution) if leaked else []

    def walk(self, at: int) -> Generator[Request, Any, None]:
        """From a node down to a terminal one, with every expansion on the way; then back up."""
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
        """Children of a node."""
        # Every kind of request is made every time, an empty one too: so the expansions of all problems stay in step,
        # and each call to the model or the graders holds those of all trees.
        rules, text, depth = self.rules, self.search.text(at), self.search.nodes[at].depth
        before = self.prompt.text + (self.prompt.joint + text + opening(rules.delimiter, depth) if depth else "")
        steps = yield from self._sample(before, depth)
        steps = steps[: rules.breadth_limit]
        if gold := self._gold(text, depth, steps):
            steps = [*steps[: rules.breadth_limit - 1], gold]
        wholes = [text + step.text for step in steps]
        grades = yield GradeAnswers(tuple(whole for whole, step in zip(wholes, steps, strict=True) if step.ends))
        nats, evaluations = yield from self._score(at, before, gold, wholes)
        verdicts = iter(grades)
        for step, whole, evaluation in zip(steps, wholes, evaluations, strict=True):
            logp = nats if step is gold else step.logp
            prior = prior_of(logp, step.tokens, rules.length_power, rules.prior)
            child = self.search.add(at, step.text, prior, evaluation)
            if step.ends:
                self._end(child, whole, next(verdicts).verdict == CORRECT)
            elif depth + 1 == rules.depth_limit:
                self.counts["solutions cut at depth_limit"] += 1
                self.search.end(child, -1.0)

    def _sample(self, before: str, depth: int) -> Generator[Request, Any, list[SampledStep]]:
        """Sampled steps: the usable ones, one of each."""
        rules = self.rules
        ((*completions,),) = yield Generate(
            (before,),
            rules.n_actions if depth else rules.n_init_actions,
            temperature=rules.temperature if depth else rules.init_temperature,
            max_tokens=rules.step_tokens,
            stop=stop_strings(rules.delimiter, depth),
            logps=True,
        )
        self.counts["steps sampled"] += len(completions)
        found = []
        for completion in completions:
            step = parse_step(rules.delimiter, depth, completion, "" if depth else self.prompt.joint)
            if isinstance(step, SampledStep):
                found.append(step)
            else:
                self.counts[step] += 1
        new = distinct((step.text for step in found), rules.same)
        self.counts["equal steps"] += len(found) - len(new)
        return [found[i] for i in new]

    def _gold(self, text: str, depth: int, steps: Sequence[SampledStep]) -> SampledStep | None:
        """The gold solution's next step: leaked, after a path that followed it, and not sampled from the model."""
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
        """Nats of the gold step, and v of new steps by self-evaluation: their parent's where the model gives none."""
        rules, depth = self.rules, self.search.nodes[at].depth
        evaluates = rules.self_evaluation is SelfEvaluation.confidence
        if not evaluates and not rules.leak_reference:
            return 0.0, [None] * len(wholes)
        request = score_request(self.problem, wholes if evaluates else [], rules.leak_reference, self.context)
        if gold:
            joint = "" if depth else self.prompt.joint
            continuation = joint + gold.text[len(opening(rules.delimiter, depth)) :]
            request = ScoreText((*request.prompts, before), (*request.continuations, continuation))
        nats = yield request
        of_gold = nats[-1] if gold else 0.0
        if not evaluates:
            return of_gold, [None] * len(wholes)
        found = confidences(nats[: 2 * len(wholes)])
        return of_gold, [conf / max(depth - DEEP, 1) or self.search.nodes[at].value for conf in found]

    def _end(self, child: int, whole: str, correct: bool) -> None:
        copied = whole == self.problem.solution
        self.search.end(child, -1.0 if not correct else 1.0 if copied else self.rules.novelty, correct)
        self.counts["right solutions" if correct else "wrong solutions"] += 1
