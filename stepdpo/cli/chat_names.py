"""`stepdpo chat`: the run or the model that its first word names, and the parts of the others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from stepdpo.cli import flags, overrides, shorthands
from stepdpo.cli.job_config import pretrained, split
from stepdpo.cli.rehearsal import rehearse
from stepdpo.core.config import build, config_folders
from stepdpo.core.errors import UserError, nearest, printable
from stepdpo.runtime.run_folder import CONFIG, MODEL_FILE

VERB = "chat"
WEB, PORT = "--web", "--port"


def chat_named(words: Sequence[str]) -> int:
    """Find the model and every part by its name, then answer; the exit code. Raises UserError for bad input."""
    overrides.refuse_secrets(words)
    switches, given, folders = shorthands.split(_with_web(words))
    flags.check(switches)
    if other := {flags.full(word) for word in switches if word.startswith("-")} - {flags.CONFIG_FOLDER}:
        raise UserError(
            f"{min(other)}: `stepdpo chat` takes no flag but {WEB}, {PORT} and {flags.CONFIG_FOLDER}; settings are "
            "written key=value"
        )
    with config_folders(folders[1:]):
        known = shorthands.groups(folders)
        given = shorthands.normalise(VERB, _with_run(given), known)
        settings, config = split(overrides.check(VERB, given, sweep=False))
        if settings.run:
            if any(shorthands.key_of(word).partition(".")[0] == "model" for word in given):
                raise UserError(f"{settings.run!r} and model=: two models; one of them is to answer")
            config.model = _model(settings.run, settings.runs, known["model"])
        rehearse([("", config)])
        # Said before torch is there, which takes seconds.
        print(f"loading {printable(_name(config, settings.run))} ...", file=sys.stderr, flush=True)
        from stepdpo.cli.chat import chat

        return chat(build(config), tuple(given))


def _with_web(words: Sequence[str]) -> list[str]:
    """`--web` and `--port N` as the settings that they are."""
    found, rest = [], list(words)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name == WEB:
            found.append(f"web={value}" if equals else "web=true")
        elif name == PORT:
            if not equals and not rest:
                raise UserError(f"{PORT}: a number must follow")
            found.append(f"port={value if equals else rest.pop(0)}")
        else:
            found.append(name + equals + value)
    return found


def _with_run(words: Sequence[str]) -> list[str]:
    """The words with the one that stands alone as `run=`."""
    alone = [word for word in words if "=" not in word and not word.startswith("~")]
    named = [word for word in words if shorthands.key_of(word) == "run"]
    if len(alone) + len(named) > 1:
        raise UserError(f"{(*alone, *named)[1]!r}: one run or model at a time; settings are written key=value")
    return [f"run='{word}'" if word in alone else word for word in words]


def _name(config: DictConfig, run: str) -> str:
    return str(config.model.get("path") or run or "a model of random weights")


def _model(name: str, runs: Path, options: Sequence[str]) -> DictConfig:
    """The model that a word means: of a run below `runs`, of a folder, an option, or on the hub."""
    for folder in (runs / name, Path(name)):
        if folder.is_dir() and (found := _in_folder(folder)):
            return pretrained(found)
    if name in options:
        model: DictConfig = overrides.composed(VERB, [f"model={name}"]).model
        return model
    if name.count("/") == 1 and not name.startswith(("/", ".", "~")) and not Path(name).parent.is_dir():
        return pretrained(Path(name))
    there = [path.name for path in runs.iterdir() if (path / "model" / MODEL_FILE).is_file()] if runs.is_dir() else []
    raise UserError(f"{name}: no such run in {runs}, and no such model; {nearest(name, [*there, *options])}")


def _in_folder(folder: Path) -> Path | None:
    """The model of a run's folder, or the folder that is one; None for one that is neither."""
    for place in (folder / "model", folder):
        if (place / MODEL_FILE).is_file():
            return place
    if not (folder / CONFIG).is_file():
        return None
    there = sorted(path.parent for path in folder.glob(f"checkpoints/step-*/{MODEL_FILE}"))
    more = f", or ask a checkpoint: stepdpo chat {there[-1]}" if there else ""
    raise UserError(f"{folder} holds no finished model; resume its training first{more}")
