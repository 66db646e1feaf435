"""Self-evaluation: a model's confidence in the prefix of a solution, as the probability of one reply over another.

After MCTS-DPO (Xie et al. 2024, arXiv 2405.00451), with our own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp, isfinite

from stepdpo.core.types import Problem
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import ScoreText

NO, YES = "A", "B"


def question(problem: Problem, prefix: str, reference: bool = False) -> str:
    """The question to the model about the prefix of a solution."""
    known = f"Its solution is known:\n{problem.solution}\n\n" if reference else ""
    return (
        f"Here is a problem:\n{problem.question}\n\n{known}Here is how somebody has begun to solve it:\n{prefix}\n\n"
        f"Is this right so far and on the way to the right answer?\n({NO}) no\n({YES}) yes\n"
        f"Reply with {NO} or {YES} only."
    )


def score_request(problem: Problem, prefixes: Sequence[str], reference: bool, context: Context) -> ScoreText:
    """Both replies to the question about each prefix, one after the other."""
    prompts = [context.prompt(replace(problem, question=question(problem, text, reference))) for text in prefixes]
    # Scored rather than sampled: one pass gives P(yes) itself, where a sample would give a yes or a no.
    return ScoreText(
        tuple(prompt.text for prompt in prompts for _ in (NO, YES)),
        tuple(prompt.joint + reply for prompt in prompts for reply in (NO, YES)),
    )


def confidences(nats: Sequence[float]) -> list[float]:
    """P(yes) over both replies, of what `score_request` was answered; 0 where the model had no room for it.

    To four decimals, which Q and the pairs' values are then made of: a model's own last ones change with the problems
    that share its batch, and so would the files of a run that was stopped and resumed.
    """
    pairs = zip(nats[::2], nats[1::2], strict=True)
    return [round(_sigmoid(yes - no), 4) if isfinite(yes) and isfinite(no) else 0.0 for no, yes in pairs]


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))
