"""The folders and the configurations of the stages of every round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from stepdpo.cli.iterative.config import Iterations, Reference
from stepdpo.cli.job_config import FollowUp, iteration_pairs_config, iteration_training_config, pretrained
from stepdpo.core.config_file import load_config
from stepdpo.runtime.run_folder import CONFIG


@dataclass(frozen=True)
class IterationPlan:
    """Rounds of one run, and what follows each."""

    folder: Path
    config: DictConfig
    """Of a training on its own."""
    choices: Mapping[str, str]
    iterations: Iterations
    evaluations: FollowUp
    """Of the model of every round."""
    runs: Path
    """Where run folders live."""

    def pairs(self, number: int) -> Path:
        """The folder of a round's pairs."""
        return self.folder / f"round-{number}" / "pairs"

    def train(self, number: int) -> Path:
        """The folder of a round's training."""
        return self.folder / f"round-{number}" / "train"

    def model(self, number: int) -> DictConfig:
        """What a round starts from: the model of the round before."""
        if number > 1:
            return pretrained(self.train(number - 1) / "model")
        model: DictConfig = self.config.model
        return model


def pairs_config(plan: IterationPlan, number: int) -> DictConfig:
    """Pairs by the model before, from problems that no earlier round has seen."""
    skip = 0
    if number > 1:
        # From the round before as it was, as the number of problems may have been changed on the way.
        before = load_config(plan.pairs(number - 1) / CONFIG)
        skip = int(before.skip) + int(before.limit)
    words, problems = plan.iterations.words, plan.iterations.problems
    return iteration_pairs_config(words, plan.config, plan.model(number), skip=skip, limit=problems)


def pairs_choices(plan: IterationPlan) -> dict[str, str]:
    """The options of a round's pairs that were chosen by a word."""
    shared = {key: value for key, value in plan.choices.items() if key in ("model", "template")}
    words = (word.partition("=") for word in plan.iterations.words)
    return {**shared, **{key: value for key, _, value in words if "." not in key}}


def train_config(plan: IterationPlan, number: int) -> DictConfig:
    """A training on the pairs of this round, from the model before it."""
    # In the first round the two references are the same model, and the policy's own start needs no second one.
    sft = plan.config.model if number > 1 and plan.iterations.reference is Reference.sft else None
    return iteration_training_config(plan.config, plan.model(number), plan.pairs(number) / "preferences.jsonl", sft)


def train_choices(plan: IterationPlan, number: int) -> dict[str, str]:
    """The options of a round's training."""
    return {**plan.choices, "dataset": "jsonl", **({"model": "pretrained"} if number > 1 else {})}
