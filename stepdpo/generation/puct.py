"""The rule by which a tree search goes down (PUCT), and how a step's log-probability becomes its prior. Pure."""

from __future__ import annotations

from enum import Enum
from math import exp, sqrt


class Prior(Enum):
    """How a step's log-probability becomes its prior."""

    code = "code"
    """exp(logp / L^power), as the authors' code has it: near 1 for any step that the model finds likely."""
    paper = "paper"
    """exp(logp) / L^power."""


def prior_of(logp: float, tokens: int, power: float, kind: Prior = Prior.code) -> float:
    """How likely the policy finds a step of so many tokens, made comparable over lengths."""
    length = float(max(1, tokens)) ** power
    return exp(logp / length) if kind is Prior.code else exp(logp) / length


def puct(q: float, visits: int, prior: float, parent_visits: int, weight: float) -> float:
    """Q + w p sqrt(N_parent) / (1 + N): exploitation of what is known to be good, exploration of the likely and new."""
    return q + weight * prior * sqrt(parent_visits) / (1 + visits)
