"""`stepdpo inspect`: the run, data and task that its words name, found as a training and an evaluation find them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stepdpo.cli import flags, overrides, shorthands
from stepdpo.cli.job_config import split
from stepdpo.core.config import build, config_folders
from stepdpo.core.config_file import load_config
from stepdpo.core.errors import UserError, nearest
from stepdpo.runtime.run_folder import CONFIG, INSPECT, MODEL_FILE, run_path

VERB = "inspect"


def inspect_named(words: Sequence[str]) -> None:
    """Find the run and every part by its name, then inspect. Raises UserError for a word that means nothing."""
    overrides.refuse_secrets(words)
    switches, given, folders = shorthands.split(words)
    flags.check(switches)
    if other := {flags.full(word) for word in switches if word.startswith("-")} - {flags.CONFIG_FOLDER}:
        raise UserError(
            f"{min(other)}: `stepdpo inspect` looks at one run, and takes no flag but {flags.CONFIG_FOLDER}"
        )
    with config_folders(folders[1:]):
        given = shorthands.normalise(VERB, _with_run(given), shorthands.groups(folders))
        settings, config = split(overrides.check(VERB, given, sweep=False))
        folder = _run_folder(settings.run, settings.runs)
        started = _config(folder)
        model = _model(folder, config.checkpoint)
        from stepdpo.cli.inspect import InspectedRun, inspect  # torch: a misspelt word is told without it

        run = InspectedRun(folder.name, model, **_parts(started, needs_data=not (config.dataset or config.task)))
        spec = build(config)
        name = _name(given, config)
        place = folder / INSPECT / "-".join(filter(None, (name, config.checkpoint)))
        inspect(spec, run, place, name)


def _with_run(words: Sequence[str]) -> list[str]:
    """The words with the one that stands alone as `run=`."""
    alone = [word for word in words if "=" not in word]
    named = [word for word in words if shorthands.key_of(word) == "run"]
    if not alone and not named:
        raise UserError("which run? `stepdpo inspect RUN task=tinymath`, RUN being a name below `runs`, or a folder")
    if len(alone) + len(named) > 1:
        raise UserError(f"{(*alone, *named)[1]!r}: one run at a time; settings are written key=value")
    return [f"run='{word}'" if word in alone else word for word in words]


def _run_folder(name: str, runs: Path) -> Path:
    """A run by its name, or its folder."""
    if Path(name).is_dir() and (Path(name) / CONFIG).is_file():
        return Path(name)
    folder = run_path(runs, name) if not Path(name).is_absolute() else Path(name)
    if not folder.is_dir():
        known = [path.name for path in runs.iterdir() if (path / CONFIG).is_file()] if runs.is_dir() else []
        raise UserError(f"{name}: no such run in {runs}; {nearest(folder.name, known)}")
    return folder


def _config(folder: Path) -> DictConfig:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: is no run of `stepdpo train`, it has no {CONFIG}")
    try:
        config = load_config(path)
    except (OSError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"{path}: not readable as YAML ({error})") from error
    if "algo" not in config or "model" not in config:
        raise UserError(f"{folder}: is no run of `stepdpo train`, whose model could be held against its start")
    return config


def _model(folder: Path, checkpoint: str | None) -> Path:
    """The finished model, or a checkpoint's."""
    place = folder / "checkpoints" / checkpoint if checkpoint else folder / "model"
    if (place / MODEL_FILE).is_file():
        return place
    there = sorted(path.parent.name for path in folder.glob(f"checkpoints/step-*/{MODEL_FILE}"))
    if checkpoint:
        raise UserError(f"checkpoint={checkpoint}: {folder} has no such checkpoint; {nearest(checkpoint, there)}")
    more = f", or look at checkpoint={there[-1]}" if there else ""
    raise UserError(f"{folder} holds no finished model; resume its training first{more}")


def _parts(config: DictConfig, needs_data: bool) -> Mapping[str, Any]:
    """What a training's configuration says, as far as it is wanted."""
    from stepdpo.models.load import Pretrained
    from stepdpo.models.lora import NoAdapter

    other = config.get("reference_model")
    where = "reference_model" if other else "model"
    start = Pretrained(path=other) if isinstance(other, str) else build(config[where], where)
    beta = OmegaConf.select(config, "algo.beta")
    return {
        "start": start,
        "adapter": build(config.adapter, "adapter") if config.get("adapter") else NoAdapter(),
        "dataset": build(config.dataset, "dataset") if needs_data and config.get("dataset") else None,
        "beta": float(beta) if isinstance(beta, int | float) else None,
        "max_length": int(OmegaConf.select(config, "lengths.max_length", default=2048)),
    }


def _name(words: Sequence[str], config: DictConfig) -> str:
    """Of what is looked at: a task's, a data set's option, or the name of its file."""
    if config.task:
        return str(config.task.name)
    if not config.dataset:
        return "own"
    option = next((word.partition("=")[2] for word in words if shorthands.key_of(word) == "dataset"), "dataset")
    path = str(config.dataset.get("path", ""))
    if option not in ("jsonl", "trees") or not path:
        return option
    stem = Path(path).name.removesuffix(".gz").removesuffix(".jsonl")
    # A run's preferences.jsonl tells nothing by its name; the run's folder does.
    return Path(path).absolute().parent.name if stem in ("preferences", "trees") else stem
