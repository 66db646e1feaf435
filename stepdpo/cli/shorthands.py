"""The words after a verb as people write them: flags told from settings, shorthands written out in full."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stepdpo.cli import flags
from stepdpo.core.config import own_folders
from stepdpo.core.package_data import conf

VERBS = ("train", "eval", "pairs")
"""Those that are composed from groups."""
HOLD_WORDS = ("then_with", "rounds.pairs_with")
"""Settings whose value is words for another verb."""
OF_ROUNDS = {"rounds": "rounds.count", "pairs": "rounds.pairs"}
"""`stepdpo train`: short and full keys."""


def key_of(word: str) -> str:
    """The setting or group that a word is about: `algo.beta` of `+algo.beta=1`."""
    return word.partition("=")[0].lstrip("+~")


def defaults(verb: str) -> dict[str, str]:
    """The groups of a verb, and the option that is used of each when none is given."""
    found = {}
    for line in (conf() / f"{verb}.yaml").read_text(encoding="utf-8").splitlines():
        word = line.strip().removeprefix("- ").partition("#")[0].strip().removeprefix("optional ")
        if line.startswith("  - ") and ":" in word and not word.startswith("override"):
            group, _, option = word.partition(":")
            found[group.strip()] = option.strip()
    return found


def known_folders() -> list[Path]:
    """Our own, and those of the command."""
    return [conf(), *own_folders()]


def groups(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Config groups and their options, over all config folders."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("*/*.yaml"):
            found.setdefault(file.parent.name, set()).add(file.stem)
    return {name: sorted(options) for name, options in sorted(found.items())}


def split(words: Sequence[str]) -> tuple[list[str], list[str], list[Path]]:
    """(flags for Hydra, overrides, config folders)."""
    given: list[str] = []
    overrides: list[str] = []
    folders = [conf()]
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        given.append(word)
        value = word.partition("=")[2]
        # `--info` may stand alone, and no setting begins with a dash.
        if flags.takes_next(word) and rest and not (flags.full(word) == "--info" and "=" in rest[0]):
            value = rest.pop(0)
            given.append(value)
        if flags.full(word) == flags.CONFIG_FOLDER:
            folders.append(Path(value).absolute())
    return given, overrides, folders


def normalise(verb: str, overrides: Sequence[str], known: Mapping[str, Sequence[str]]) -> list[str]:
    """Shorthands: `model=PATH` is `model=pretrained model.path=PATH`, `eval task=a,b` evaluates one by one.

    `dataset=PATH` is `dataset=jsonl dataset.path=PATH`.

    `sampler.workers=ray` is `crew=ray`, as those who sample are the crew. `eval judge=rollouts` asks it as a scorer.

    `eval task=lm_eval:a,b lm_eval.python=PYTHON` is one evaluation by lm-evaluation-harness, of its tasks a and b.
    """
    return [full for word in overrides for full in _in_full(verb, word, known)]


def _in_full(verb: str, word: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    key, _, value = word.partition("=")
    bare = value.strip("'\"")
    if verb == "pairs" and key == "sampler.workers":
        return [f"crew={value}"]
    if key == "model" and bare not in known.get("model", []) and "," not in bare and _is_place(bare):
        return ["model=pretrained", f"model.path='{bare}'"]
    if key == "dataset" and bare not in known.get("dataset", []) and "," not in bare and _is_file(bare):
        return ["dataset=jsonl", f"dataset.path='{bare}'"]
    if verb == "eval" and key_of(word).partition(".")[0] == "judge":
        return [_of_judge(word, bare)]
    if verb == "train":
        word, key = _of_rounds(word)
    if key in known and bare == "null":
        return [f"~{key}"]  # Hydra lets a group be deleted, but not be set to nothing
    if verb == "eval" and key_of(word).partition(".")[0] == "lm_eval":
        return [word.replace("lm_eval.", "task.", 1)]
    if verb == "eval" and key == "task" and bare.startswith("lm_eval:"):
        names = bare.removeprefix("lm_eval:")
        return ["task=lm_eval", f"task.tasks=[{names}]", f"task.name='lm_eval-{re.sub(r'[^a-zA-Z0-9_]+', '-', names)}'"]
    if verb == "eval" and key == "task" and "," in bare:
        return [f"task={bare.partition(',')[0]}", f"tasks=[{bare}]"]
    if key in HOLD_WORDS and "=" in value and value == bare:
        return [f"{key}='{value}'"]  # to Hydra's grammar a second = is a mistake, unless it is quoted
    return [word]


def _is_place(text: str) -> bool:
    """Whether a model is named by its folder, or by a hub id `owner/name`."""
    return "/" in text or (bool(text) and Path(text).is_dir())


def _is_file(text: str) -> bool:
    """Whether data are named by their file or folder, be it there or not: no option has a dot in its name."""
    return "/" in text or "." in text or (bool(text) and Path(text).exists())


def _of_judge(word: str, option: str) -> str:
    """Of an evaluation, where a judge is asked as a scorer: `judge=openai` is `scorer=judge_openai`."""
    if key_of(word) != "judge":
        return word.replace("judge.", "scorer.judge.", 1)
    return "scorer=judge" if option == "exact" else f"scorer=judge_{option}"


def _of_rounds(word: str) -> tuple[str, str]:
    """(word, key): `rounds=3` is `rounds.count=3`, `pairs=mcts` is `rounds.pairs=mcts`."""
    key, equals, value = word.partition("=")
    if key in OF_ROUNDS and not value.startswith("{"):
        return f"{OF_ROUNDS[key]}{equals}{value}", OF_ROUNDS[key]
    return word, key
