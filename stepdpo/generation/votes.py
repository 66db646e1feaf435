"""Votes over final answers, and weights that scores give them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, fsum

from stepdpo.generation.requests import Scored


def winners(groups: Sequence[int | None], weights: Sequence[float]) -> list[int]:
    """The answers with the largest sum of weights, in the order of their numbers; several where they tie.

    A response without an answer (None) votes for nothing, so the list is empty where nobody gives one.
    """
    # In lists and by numbers, never by the order of a set: the same votes elect the same answer in every process.
    totals = {
        group: fsum(weight for one, weight in zip(groups, weights, strict=True) if one == group)
        for group in sorted({group for group in groups if group is not None})
    }
    most = max(totals.values(), default=0.0)
    return [group for group, total in totals.items() if total == most]


def shares(groups: Sequence[int | None], weights: Sequence[float]) -> list[float]:
    """How much of the answer each response is: the first one of every winning answer has its equal part.

    Where nobody gives an answer it is the first response.
    """
    won = winners(groups, weights)
    first = [groups.index(group) for group in won] or [0]
    return [1 / len(first) if place in first else 0.0 for place in range(len(groups))]


def vote_weights(scores: Sequence[float], log: bool) -> list[float]:
    """Weights that may be added, not below 0: probabilities as they are, of logarithms exp(score - the largest)."""
    # A common factor changes no vote; without it all of a problem's weights might vanish.
    most = max(scores, default=0.0)
    return [exp(score - most) for score in scores] if log else list(scores)


def weights_of(scored: Sequence[Scored]) -> list[float]:
    """The weights of responses that a scorer has looked at."""
    return vote_weights([one.score for one in scored], any(one.log for one in scored))
