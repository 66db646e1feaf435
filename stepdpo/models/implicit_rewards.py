"""Implicit rewards, beta * (log pi - log pi_ref), of every token and step of responses.

In the token-level view of DPO (Rafailov et al. 2024, arXiv 2404.12358) the log-ratio of a token is an advantage: the
reward of the token plus how much the value rises by it. So a stretch's sum is what it gained, relative to the
reference, and the sums of a response's steps add up to its reward in the loss. They are
no probabilities of being right.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stepdpo.core.protocols import Template
from stepdpo.core.types import Pair
from stepdpo.models.loss_inputs import step_scores
from stepdpo.models.scorer import Scorer
from stepdpo.tokens.collator import collate
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.packing import balance
from stepdpo.tokens.step_scores import Squash, StepScores
from stepdpo.tokens.token_texts import token_texts
from stepdpo.tokens.token_tree import build_tree
from stepdpo.tokens.tokenization import tokenize

TOKENS = 8192
"""Most tokens a forward pass computes."""


@dataclass(frozen=True, slots=True)
class StepReward:
    """One step of a response."""

    tokens: tuple[str, ...]
    """The text of each scored token; empty where a letter is another token's."""
    rewards: tuple[float, ...]
    """One a token: beta times its log-ratio, in nats."""
    label: float | None
    """How right the data say the step is, in [0, 1]: 0 wrong, 1 right."""
    value: float | None = None
    """What the policy's value head says at its end; None where there is no head."""

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def sum(self) -> float:
        """The reward of the step."""
        return math.fsum(self.rewards)

    @property
    def mean(self) -> float:
        """The same a token."""
        return self.sum / len(self.rewards)


@dataclass(frozen=True, slots=True)
class ResponseRewards:
    """The steps of one response, which cover what is scored of it."""

    steps: tuple[StepReward, ...]
    first_error: int | None
    """Index of its first wrong step, where the data tell; None where it has none or nobody knows."""

    @property
    def sum(self) -> float:
        """Its reward in the loss."""
        return math.fsum(reward for step in self.steps for reward in step.rewards)


@torch.no_grad()
def implicit_rewards(
    pairs: Sequence[Pair],
    policy: Scorer,
    reference: Scorer,
    beta: float,
    template: Template,
    tokenizer: Any,
    device: torch.device,
    max_length: int,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[dict[int, list[ResponseRewards]], Counter[str]]:
    """Number of a pair -> the rewards of its sides, the chosen one first; and how many were left out, by reason.

    Both models were loaded with an attention on trees. With a value head in `policy` every step has its value.
    `advance` is told how many pairs are done.
    """
    tokenized = tokenize(pairs, template, tokenizer, Lengths(max_length), steps=True)
    left_out = tokenized.dropped + Counter(tokenized.refused.values())
    numbers = list(tokenized.sequences)
    trees = [build_tree(sequences, [number], [1.0]) for number, sequences in tokenized.sequences.items()]
    head: Any = policy.value_head
    squash = head.spec.squash if head is not None else None
    found: dict[int, list[ResponseRewards]] = {}
    for members in balance([len(tree) for tree in trees], TOKENS, 1) if trees else []:
        if not members:
            continue
        batch = collate([trees[member] for member in members]).to(device)
        known = reference(batch)
        batch = dataclasses.replace(batch, reference_logps_R=known.logps_R, reference_logps_T=known.logps_T)
        responses = _responses(step_scores(batch, policy(batch)), beta, squash)
        for member in members:
            number = numbers[member]
            texts = token_texts(pairs[number], tokenized.sequences[number], template, tokenizer)
            found[number] = [_with_texts(next(responses), text) for text in texts]
        advance(len(members))
    return {number: found[number] for number in numbers}, left_out


def _responses(scores: StepScores, beta: float, squash: Squash | None) -> Iterator[ResponseRewards]:
    """Response by response, their tokens without texts."""
    rewards: list[list[float]] = [[] for _ in scores.label_S]
    for reward, step in zip((beta * scores.logratios_E).tolist(), scores.step_E.tolist(), strict=True):
        rewards[step].append(reward)
    values = squash(scores.values_S).tolist() if squash is not None and scores.values_S is not None else None
    steps: list[list[StepReward]] = [[] for _ in scores.label_R]
    errors: list[int | None] = [None] * len(steps)
    labels, wrong = scores.label_S.tolist(), scores.first_error_S.tolist()
    for step, response in enumerate(scores.response_S.tolist()):
        if wrong[step]:
            errors[response] = len(steps[response])
        label = None if math.isnan(labels[step]) else labels[step]
        steps[response].append(StepReward((), tuple(rewards[step]), label, values[step] if values else None))
    return (ResponseRewards(tuple(own), error) for own, error in zip(steps, errors, strict=True))


def _with_texts(response: ResponseRewards, texts: Sequence[str]) -> ResponseRewards:
    steps, at = [], 0
    for step in response.steps:
        steps.append(dataclasses.replace(step, tokens=tuple(texts[at : at + len(step.rewards)])))
        at += len(step.rewards)
    assert at == len(texts)
    return dataclasses.replace(response, steps=tuple(steps))
