"""StepScores from plain lists, and the plain lists again: what a formula is written out on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stepdpo.tokens.step_scores import StepScores


@dataclass(frozen=True)
class Step:
    """Tokens of a step, each (policy's logp, reference's logp, weight), and how right the step is."""

    tokens: list[tuple[float, float, float]]
    label: float = float("nan")
    value: float = 0.0
    """What the value head says, not yet squashed."""


@dataclass(frozen=True)
class Response:
    steps: list[Step]
    label: float

    def logratios(self) -> list[float]:
        return [p - r for step in self.steps for p, r, _ in step.tokens]

    def delta(self) -> float:
        return sum(self.logratios())


Example = list[Response]


def step_scores(
    examples: Sequence[Example], confidence: Sequence[float] | None = None, point: float | None = None
) -> StepScores:
    """In fp64, with a gradient on the policy's numbers."""
    responses = [response for example in examples for response in example]
    steps = [(number, step) for number, response in enumerate(responses) for step in response.steps]
    terms = [(number, token) for number, (_, step) in enumerate(steps) for token in step.tokens]

    def numbers(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    return StepScores(
        logps_E=numbers([p for _, (p, _, _) in terms]).requires_grad_(),
        step_E=torch.tensor([number for number, _ in terms]),
        weight_E=numbers([w for _, (_, _, w) in terms]),
        response_S=torch.tensor([number for number, _ in steps]),
        label_S=numbers([step.label for _, step in steps]),
        label_R=numbers([response.label for response in responses]),
        example_R=torch.tensor([number for number, example in enumerate(examples) for _ in example]),
        confidence_B=numbers(confidence or [1.0] * len(examples)),
        reference_logps_E=numbers([r for _, (_, r, _) in terms]),
        values_S=numbers([step.value for _, step in steps]).requires_grad_(),
        reference_point=None if point is None else numbers([point])[0],
    )


def drawn(seed: int, responses: Sequence[int], labels: Sequence[float] = (0.0, 1.0, 0.25, 0.75)) -> list[Example]:
    """Examples of so many responses, each of a few steps; some steps have no label."""
    rng = random.Random(seed)
    return [
        [
            Response(
                [
                    Step(
                        [
                            (-rng.uniform(0.1, 3), -rng.uniform(0.1, 3), rng.choice([1.0, 0.0, 0.5]))
                            for _ in range(rng.randint(1, 4))
                        ],
                        rng.choice([float("nan"), 0.0, 0.2, 0.5, 0.9, 1.0]),
                        rng.uniform(-2, 2),
                    )
                    for _ in range(rng.randint(1, 4))
                ],
                labels[number % len(labels)],
            )
            for number in range(count)
        ]
        for count in responses
    ]


def pair_of(responses: Sequence[Response]) -> Example:
    """Two responses as a pair: the chosen one first, labelled so."""
    chosen, rejected = responses
    return [Response(chosen.steps, 1.0), Response(rejected.steps, 0.0)]
