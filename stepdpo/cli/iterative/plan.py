"""The folders and the configurations of the stages of every round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from stepdpo.cli import overrides as words_of
from stepdpo.cli.iterative.config import Iterations, Reference, key_of
from stepdpo.cli.jobs import CONFIG, LAUNCH_KEYS
from stepdpo.cli.post_training import pretrained


@dataclass(frozen=True)
class IterationPlan:
    """Rounds of one run, and what follows each."""

    folder: Path
    config: DictConfig
    """Of a training on its own."""
    choices: Mapping[str, str]
    rounds: Iterations
    tasks: Sequence[str]
    """To evaluate every round on."""
    task_words: Sequence[str]
    root: Path
    """Where run folders live."""

    def pairs(self, number: int) -> Path:
        """The folder of a round's pairs."""
        return self.folder / f"round-{number}" / "pairs"

    def train(self, number: int) -> Path:
        """The folder of a round's training."""
        return self.folder / f"round-{number}" / "train"


def pairs_config(plan: IterationPlan, number: int) -> DictConfig:
    """Pairs by the model before, from problems that no earlier round has seen."""
    words = plan.rounds.words
    config = words_of.composed("pairs", words)
    skip = 0
    if number > 1:
        before = OmegaConf.load(plan.pairs(number - 1) / CONFIG)
        skip = int(before.skip) + int(before.limit)
    with open_dict(config):
        for key in LAUNCH_KEYS:
            config.pop(key, None)
        config.model, config.template = _model(plan, number), plan.config.template
        config.limit, config.skip = plan.rounds.problems, skip
        if not any(key_of(word) == "seed" for word in words):
            config.seed = plan.config.seed
    return config


def pairs_choices(plan: IterationPlan) -> dict[str, str]:
    """The options of a round's pairs that were chosen by a word."""
    shared = {key: value for key, value in plan.choices.items() if key in ("model", "template")}
    return {**shared, **{k: v for k, _, v in (word.partition("=") for word in plan.rounds.words) if "." not in k}}


def train_config(plan: IterationPlan, number: int) -> DictConfig:
    """A training on the pairs of this round, from the model before it."""
    config = OmegaConf.create(OmegaConf.to_container(plan.config, resolve=False))
    assert isinstance(config, DictConfig)
    path = plan.pairs(number) / "preferences.jsonl"
    data = words_of.composed("train", ["dataset=jsonl", f"dataset.path='{path}'"]).dataset
    data.heldout, data.seed = (plan.config.dataset.get(key, 0) for key in ("heldout", "seed"))
    with open_dict(config):
        config.dataset, config.model = data, _model(plan, number)
        if number > 1 and plan.rounds.reference is Reference.sft and config.reference_model is None:
            config.reference_model = plan.config.model
    return config


def _model(plan: IterationPlan, number: int) -> DictConfig:
    """What a round starts from."""
    model: DictConfig = plan.config.model if number == 1 else pretrained(plan.train(number - 1) / "model")
    return model
