"""The configurations of jobs: the launch's own settings told from the worker's, and those that follow from another's.

Nowhere else is a configuration copied, or a key taken out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from stepdpo.cli.machine_defaults import for_this_machine
from stepdpo.cli.overrides import composed
from stepdpo.cli.shorthands import key_of
from stepdpo.core.config import typed
from stepdpo.core.config_file import current_config
from stepdpo.runtime.secrets import redact_argv

LAUNCH_KEYS = ("run", "runs", "force", "resume", "then", "then_with", "tasks", "experiment", "recipe", "rounds")
"""Settings of the launch itself; everything else is the worker's."""


@dataclass(frozen=True)
class FollowUp:
    """What follows a training: the tasks to evaluate it on, and further words for those evaluations."""

    tasks: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def to_manifest(self) -> dict[str, list[str]]:
        """As the manifest keeps it, without secrets."""
        return {"then": list(self.tasks), "then_with": redact_argv(self.words)}

    def or_as_started(self, manifest: Mapping[str, Any]) -> FollowUp:
        """This, or where it names no task, what the run of this manifest was started with."""
        return self if self.tasks else FollowUp(tuple(manifest.get("then", ())), tuple(manifest.get("then_with", ())))


@dataclass(frozen=True)
class LaunchSettings:
    """What a composed configuration says to the launch, and no worker reads."""

    run: str
    """The name of the run folder; empty to have it made from the options."""
    runs: Path
    """Where run folders live."""
    force: bool = False
    resume: bool = False
    follow_up: FollowUp = FollowUp()
    """`then` and `then_with`."""
    tasks: tuple[str, ...] = ()
    """Of `stepdpo eval`, one after another; empty for the one that the configuration holds."""
    rounds: DictConfig = field(default_factory=lambda: OmegaConf.create({}))
    """Of an iterative training, not yet checked; empty for the other verbs."""


def split(composed_config: DictConfig) -> tuple[LaunchSettings, DictConfig]:
    """(what the launch is told, the configuration of the worker)."""
    config = current_config(composed_config)  # options of users may still name parts as they were called
    given = _without_launch_keys(config)
    settings = LaunchSettings(
        run=typed(given["run"], str | None, "run") or "",
        runs=Path(typed(given["runs"], str, "runs")),
        force=typed(given["force"], bool | None, "force") or False,
        resume=typed(given["resume"], bool | None, "resume") or False,
        follow_up=FollowUp(_strings(given["then"], "then"), _words(given["then_with"], "then_with")),
        tasks=_strings(given["tasks"], "tasks"),
        rounds=given["rounds"] or OmegaConf.create({}),
    )
    return settings, config


def pretrained(path: Path) -> DictConfig:
    """The part of a configuration that is the model in a folder."""
    model: DictConfig = composed("eval", ["model=pretrained", f"model.path='{path}'"]).model
    return model


def with_model(config: DictConfig, path: Path) -> DictConfig:
    """The same configuration, of the model in a folder."""
    config = deepcopy(config)
    with open_dict(config):
        config.model = pretrained(path)
    return config


def with_task(config: DictConfig, task: str, words: Sequence[str] = ()) -> DictConfig:
    """The same evaluation, of another task; `words` may speak of tasks (`task.limit=5`), and do so of this one too."""
    config = deepcopy(config)
    with open_dict(config):
        config.task = composed("eval", [f"task={task}", *task_words(words)]).task
    return config


def task_words(words: Sequence[str]) -> list[str]:
    """Those that set something of the task, whichever it is."""
    return [word for word in words if key_of(word).startswith("task.")]


def evaluation_config(task: str, words: Sequence[str], training: DictConfig, model: Path | None = None) -> DictConfig:
    """Of an evaluation of `model` (else of what a training starts from), under the training's template."""
    config = composed("eval", [f"task={task}", *words])
    _without_launch_keys(config)
    with open_dict(config):
        config.template = training.template
        config.model = training.model if model is None else pretrained(model)
    return for_this_machine("eval", config, words)[0]


def iteration_pairs_config(
    words: Sequence[str], training: DictConfig, model: DictConfig, *, skip: int, limit: int
) -> DictConfig:
    """Of a round's pairs by `model` from `limit` problems after the first `skip`; template and seed as in training."""
    config = composed("pairs", words)
    _without_launch_keys(config)
    with open_dict(config):
        config.model, config.template = model, training.template
        config.limit, config.skip = limit, skip
        if not any(key_of(word) == "seed" for word in words):
            config.seed = training.seed
    return for_this_machine("pairs", config, words)[0]


def iteration_training_config(
    training: DictConfig, model: DictConfig, preferences: Path, reference: DictConfig | None
) -> DictConfig:
    """Of a round's training: of `model`, on the round's pairs, against `reference` unless the training names one."""
    dataset = composed("train", ["dataset=jsonl", f"dataset.path='{preferences}'"]).dataset
    dataset.heldout, dataset.seed = (training.dataset.get(key, 0) for key in ("heldout", "seed"))
    config = deepcopy(training)
    with open_dict(config):
        config.dataset, config.model = dataset, model
        if reference is not None and config.reference_model is None:
            config.reference_model = reference
    return config


def _without_launch_keys(config: DictConfig) -> dict[str, Any]:
    """Take the launch's settings out of a configuration; None where it has no such setting."""
    with open_dict(config):
        return {key: config.pop(key, None) for key in LAUNCH_KEYS}


def _words(value: Any, where: str) -> tuple[str, ...]:
    """One string of words, or a list of them."""
    return tuple(value.split()) if isinstance(value, str) else _strings(value, where)


def _strings(value: Any, where: str) -> tuple[str, ...]:
    """A list of names; one name alone is a list of it."""
    if value is None or value == "":
        return ()
    return (value,) if isinstance(value, str) else typed(value, tuple[str, ...], where)
