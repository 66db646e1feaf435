"""The flags that may stand among the words of a verb, looked at before Hydra sees them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from stepdpo.core.errors import UserError, nearest

SHORT = {
    "-c": "--cfg", "-p": "--package", "-r": "--run", "-m": "--multirun", "-sc": "--shell-completion",
    "-cd": "--config-dir", "-i": "--info",
}  # fmt: skip
CONFIG_FOLDER, PACKAGE, SWEEP = "--config-dir", "--package", "--multirun"
CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
TAKE_A_VALUE = {
    CONFIG_FOLDER: "a folder",
    PACKAGE: "a group",
    "--experimental-rerun": "a file",
    **dict.fromkeys(CHOICES, "a word"),
}
PRINTING = {"--cfg", "--info", "--hydra-help", "--version", "--shell-completion"}
"""Those that print, and start nothing."""
KNOWN = {*SHORT.values(), *TAKE_A_VALUE, *PRINTING, "--resolve"}


def full(word: str) -> str:
    """A flag's long name, without a value."""
    name = word.partition("=")[0]
    return SHORT.get(name, name)


def takes_next(word: str) -> bool:
    """Whether the word after this flag is its value."""
    return "=" not in word and full(word) in TAKE_A_VALUE


def check(flags: Sequence[str]) -> None:
    """UserError for a flag that means nothing, or a value that it cannot have."""
    values = iter(flags)
    for flag in values:
        name = full(flag)
        if name not in KNOWN:
            raise UserError(_unknown(flag))
        if name not in TAKE_A_VALUE:
            continue
        value = next(values, "") if takes_next(flag) else flag.partition("=")[2]
        if not value and name == "--info":
            continue  # all of it
        if not value:
            raise UserError(f"{name}: {TAKE_A_VALUE[name]} must follow")
        if name in CHOICES and value not in CHOICES[name]:
            raise UserError(f"{name} {value}: there is no such choice; {nearest(value, CHOICES[name])}")
        if name == CONFIG_FOLDER:
            check_folder(value)


def check_folder(name: str | Path) -> None:
    """UserError for a folder of options that is not there."""
    folder = Path(name)
    if folder.is_dir():
        return
    beside = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
    raise UserError(f"{CONFIG_FOLDER} {name}: there is no such folder; {nearest(folder.name, beside)}")


def value_of(wanted: str, flags: Sequence[str]) -> str:
    """What a flag is given; empty where it is not there."""
    for flag, following in zip_longest(flags, flags[1:], fillvalue=""):
        if full(flag) == wanted:
            return following if takes_next(flag) else flag.partition("=")[2]
    return ""


def _unknown(flag: str) -> str:
    name, equals, value = flag.partition("=")
    if name in ("--config-name", "-cn", "--config-path", "-cp"):
        return f"{name}: a verb has one configuration; options of your own are found by {CONFIG_FOLDER} FOLDER"
    key = name.lstrip("-").replace("-", "_")
    return f"{name}: there is no such flag; settings are written without dashes: {key}={value if equals else '...'}"
