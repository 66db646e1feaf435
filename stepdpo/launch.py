"""From the words of a command to a run folder and the processes that work in it; the owner of Hydra."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from stepdpo import overrides as words_of
from stepdpo import runs, workers
from stepdpo.afterwards import afterwards, evaluate_tasks, report_sweep
from stepdpo.errors import UserError
from stepdpo.jobs import LAUNCH_KEYS, run_in
from stepdpo.package import conf


@dataclass
class Outcome:
    """What the jobs of one command came to."""

    codes: list[int] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    sweep: Path | None = None


def launch(verb: str, words: Sequence[str]) -> int:
    """Run a verb; returns the exit code. Raises UserError for words that must be mended."""
    flags, given, folders = words_of.split(words)
    given = words_of.normalise(verb, given, words_of.groups(folders))
    sweep = any(flag in ("-m", "--multirun") for flag in flags)
    if not any(flag.startswith(("--cfg", "-c", "--info", "--hydra-help")) for flag in flags):
        words_of.check(verb, given, folders, sweep)
    outcome = Outcome()

    def job(config: DictConfig) -> float | None:
        return _job(verb, config, outcome)

    sys.argv = [f"stepdpo {verb}", *flags, *given]
    hydra.main(version_base="1.3", config_path=str(conf()), config_name=verb)(job)()
    if outcome.sweep and verb == "train":
        report_sweep(outcome.sweep, outcome.folders)
    return max(outcome.codes, default=workers.OK)


def _job(verb: str, config: DictConfig, outcome: Outcome) -> float | None:
    """One job; its mistakes are printed and counted, so that the other jobs of a sweep go on."""
    state = HydraConfig.get()
    sweep = state.mode is RunMode.MULTIRUN
    choices = {k: str(v) for k, v in state.runtime.choices.items() if "/" not in k and v is not None}
    with open_dict(config):
        settings = {key: config.pop(key, None) for key in LAUNCH_KEYS}
    folder = Path(state.runtime.output_dir) if sweep else _folder(verb, settings, config, choices)
    if sweep:
        outcome.sweep = Path(str(state.sweep.dir))
        print(f"\n{folder.name}: {' '.join(state.overrides.task)}", flush=True)
    try:
        answer = _work(verb, folder, config, settings, choices, list(state.overrides.task))
        if answer["code"] == workers.OK and verb == "train":
            outcome.folders.append(folder)
    except UserError as error:
        answer = {"code": workers.MEND, "message": str(error), "outcome": {}}
    if answer["message"]:
        print(f"error: {answer['message']}", file=sys.stderr, flush=True)
    outcome.codes.append(answer["code"])
    return _objective(answer["outcome"])


def _work(
    verb: str,
    folder: Path,
    config: DictConfig,
    settings: Mapping[str, Any],
    choices: Mapping[str, str],
    given: Sequence[str],
) -> dict[str, Any]:
    if verb == "eval":
        return evaluate_tasks(folder, config, choices, settings)
    force, resume = bool(settings.get("force")), bool(settings.get("resume"))
    answer = run_in(folder, verb, config, choices, force=force, resume=resume, given=given)
    if answer["code"] == workers.OK and verb == "train" and settings["then"]:
        tasks, words = list(settings["then"]), str(settings["then_with"] or "").split()
        afterwards(folder, config, choices, tasks, words, Path(str(settings["runs"])))
    return answer


def _folder(verb: str, settings: Mapping[str, Any], config: DictConfig, choices: Mapping[str, str]) -> Path:
    root = Path(str(settings["runs"]))
    if settings["run"]:
        return runs.run_folder(root, str(settings["run"]))
    model = choices.get("model", "model")
    if model == "pretrained":
        model = Path(str(config.model.path)).name
    parts = {
        "train": [choices.get("algo", ""), choices.get("level", ""), choices.get("template", ""), model],
        "pairs": ["pairs", choices.get("pairs", ""), choices.get("task", ""), model],
        "eval": ["eval", model, choices.get("template", "")],
    }[verb]
    if verb != "eval":
        parts.append(f"s{config.get('seed', 0)}")
    return runs.run_folder(root, re.sub(r"[^\w=,+.@-]+", "-", "-".join(parts)))


def _objective(outcome: Mapping[str, Any]) -> float | None:
    """The one number a sweeper may optimise: held-out accuracy, else the negative loss."""
    for key in ("heldout/rewards/accuracies", "accuracy"):
        if key in outcome:
            return float(outcome[key])
    loss = outcome.get("heldout/loss", outcome.get("loss"))
    return -float(loss) if loss is not None else None
