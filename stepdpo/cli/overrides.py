"""The words after a verb, checked before anything starts: every mistake names what was meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stepdpo.core.errors import UserError, nearest
from stepdpo.core.package_data import conf
from stepdpo.runtime.secrets import redact_argv

WORDS_WITHIN = ("then_with", "rounds.pairs_with")
"""Settings that hold words for another verb."""


def groups(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Config groups and their options, over all config folders."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("*/*.yaml"):
            found.setdefault(file.parent.name, set()).add(file.stem)
    return {name: sorted(options) for name, options in sorted(found.items())}


def split(words: Sequence[str]) -> tuple[list[str], list[str], list[Path]]:
    """(flags for Hydra, overrides, config folders)."""
    flags: list[str] = []
    overrides: list[str] = []
    folders = [conf()]
    takes_value = ("--config-dir", "-cd", "--cfg", "-c", "--package", "-p", "--info", "-i", "--experimental-rerun")
    pending = ""
    for word in words:
        if pending:
            flags.append(word)
            if pending in ("--config-dir", "-cd"):
                folders.append(Path(word).absolute())
            pending = ""
        elif word.startswith("-") and "=" not in word:
            flags.append(word)
            pending = word if word in takes_value else ""
        elif word.startswith("-"):
            flags.append(word)
            if word.startswith("--config-dir="):
                folders.append(Path(word.partition("=")[2]).absolute())
        else:
            overrides.append(word)
    return flags, overrides, folders


def _is_place(text: str) -> bool:
    return "/" in text or Path(text).is_dir()


def normalise(verb: str, overrides: Sequence[str], known: dict[str, list[str]]) -> list[str]:
    """Shorthands: `model=PATH` is `model=pretrained model.path=PATH`, `eval task=a,b` evaluates one by one.

    `sampler.workers=ray` is `crew=ray`, as those who sample are the crew.
    """
    done: list[str] = []
    for word in overrides:
        key, _, value = word.partition("=")
        if verb == "pairs" and key == "sampler.workers":
            done.append(f"crew={value}")
            continue
        plain = value.strip("'\"")
        if key == "model" and plain not in known.get("model", []) and "," not in plain and _is_place(plain):
            done += ["model=pretrained", f"model.path='{plain}'"]
            continue
        if verb == "train":
            word, key = _of_rounds(word)
        if key in known and plain == "null":
            done.append(f"~{key}")
            continue
        if verb == "eval" and key == "task" and "," in plain:
            done += [f"task={plain.partition(',')[0]}", f"tasks=[{plain}]"]
            continue
        if key in WORDS_WITHIN and "=" in value and value == plain:
            word = f"{key}='{value}'"
        done.append(word)
    return done


def _of_rounds(word: str) -> tuple[str, str]:
    """(word, key): `rounds=3` is `rounds.count=3`, `pairs=mcts` is `rounds.pairs=mcts`."""
    key, equals, value = word.partition("=")
    short = {"rounds": "rounds.count", "pairs": "rounds.pairs"}
    if key in short and not value.startswith("{"):
        return f"{short[key]}{equals}{value}", short[key]
    if key.partition(".")[0] in ("pairs", "judge", "sampler", "task"):
        raise UserError(f"{key}: words for the pairs of a round go into rounds.pairs_with, as in {_within(word)}")
    return word, key


def _within(word: str) -> str:
    return f'rounds.pairs_with="{word}"'


def check(verb: str, overrides: Sequence[str], folders: Sequence[Path], sweep: bool) -> DictConfig:
    """The configuration of a verb (of its first job in a sweep), composed as a rehearsal.

    Raises UserError for a word that is not `key=value`, an unknown group option, key, or a value that does not fit.
    """
    known = groups(folders)
    for word in overrides:
        _check_secret(word)
    parsed = _parse(overrides)
    first: list[str] = []
    for word, override in parsed:
        _check_choice(word, override, known)
        if override.is_sweep_override():
            if not sweep:
                key = override.key_or_group
                raise UserError(f"{word}: several values make a sweep; write `stepdpo {verb} -m {key}=...`")
            value = next(iter(override.sweep_string_iterator()))
            first.append(f"{word.partition('=')[0]}={value}")
        else:
            first.append(word)
    searchpath = [f"file://{folder}" for folder in folders[1:]]
    extra = [f"hydra.searchpath=[{','.join(searchpath)}]"] if searchpath else []
    with _composing():
        plain = [w for w in first if w.partition("=")[0].lstrip("+~").partition("@")[0] in known]
        rest = [w for w in first if w not in plain]
        shape = compose(verb, overrides=[*plain, *extra])
        for word in rest:
            _check_key(word, shape)
        return compose(verb, overrides=[*first, *extra])


def composed(verb: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a verb that another verb starts, also from within a job of Hydra's."""
    with _composing():
        return compose(verb, overrides=list(overrides))


@contextmanager
def _composing() -> Iterator[None]:
    """Hydra's, set up for our folder and afterwards as it was; its errors are the user's."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf()), version_base="1.3"):
            yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_plain(error)) from error
    finally:
        GlobalHydra.instance().hydra = outer


def _parse(overrides: Sequence[str]) -> list[tuple[str, Override]]:
    parser = OverridesParser.create()
    parsed = []
    for word in overrides:
        try:
            parsed.append((word, parser.parse_override(word)))
        except HydraException as error:
            hint = "settings are written key=value" if "=" not in word else "quote values with special characters"
            raise UserError(f"{word!r}: not understood; {hint}") from error
    return parsed


def _check_choice(word: str, override: Override, known: dict[str, list[str]]) -> None:
    group = override.key_or_group
    if group not in known or override.is_delete():
        return
    values = override.sweep_string_iterator() if override.is_sweep_override() else [override.value()]
    for value in values:
        options = value if isinstance(value, list) else [value]
        for option in options:
            if option is not None and str(option) not in known[group]:
                raise UserError(f"{group}={option}: there is no such {group}; {nearest(str(option), known[group])}")


def _check_key(word: str, shape: DictConfig) -> None:
    key = word.partition("=")[0]
    if key[:1] in "+~" or key.partition(".")[0].partition("/")[0] == "hydra":
        return
    names = set(_names(OmegaConf.to_container(shape, resolve=False)))
    if key not in names:
        raise UserError(f"{key}: there is no such setting; {_near(key, names)}")


def _check_secret(word: str) -> None:
    """Command lines are seen by others and words are written down: a secret is named, not given."""
    if redact_argv([word]) != [word]:
        key = word.partition("=")[0]
        raise UserError(f"{key}: holds a secret; put it into the environment and write '{key}=${{oc.env:NAME}}'")


def _near(key: str, names: set[str]) -> str:
    """The name meant: one that ends alike, one of the same part, or any."""
    part, _, last = key.rpartition(".")
    same = [n for n in names if n.rpartition(".")[2] == last]
    if same and part:
        same = get_close_matches(key, same, n=1, cutoff=0.8) or same
    if same:
        return "did you mean " + " or ".join(repr(n) for n in sorted(same)) + "?"
    siblings = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == part}
    if part and siblings:
        close = get_close_matches(last, siblings, n=1, cutoff=0.5)
        return f"did you mean {siblings[close[0]]!r}?" if close else f"known in {part}: {', '.join(sorted(siblings))}"
    return nearest(key, names)


def _names(node: Any, prefix: str = "") -> Iterator[str]:
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "_target_":
            continue
        yield f"{prefix}{key}"
        yield from _names(value, f"{prefix}{key}.")


def _plain(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:2]) if lines else type(error).__name__
