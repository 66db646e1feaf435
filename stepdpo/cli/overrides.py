"""The configuration of a verb from its words, checked before anything starts: every mistake names what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stepdpo.cli.shorthands import VERBS, defaults, groups, key_of
from stepdpo.core.config import own_folders
from stepdpo.core.errors import UserError, nearest
from stepdpo.core.package_data import conf
from stepdpo.runtime.secrets import from_environment, holding, redact_argv, redact_text


def composed(verb: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a verb that another verb starts, also from within a job of Hydra's."""
    with _composing():
        return _without_secrets(compose(verb, overrides=[*overrides, *_search()]))


def known_folders() -> list[Path]:
    """Our own, and those of the command."""
    return [conf(), *own_folders()]


def _search() -> list[str]:
    places = ",".join(f"file://{folder}" for folder in own_folders())
    return [f"hydra.searchpath=[{places}]"] if places else []


def check(verb: str, overrides: Sequence[str], sweep: bool) -> DictConfig:
    """The configuration of a verb (of its first job in a sweep), composed as a rehearsal.

    Raises UserError for a word that is not `key=value`, an unknown group option, key, or a value that does not fit.
    """
    # Hydra would say so only once it runs, job by job, in words about its own insides, and exit with code 1.
    known = groups(known_folders())
    first_job: list[str] = []
    for word, override in _parse(overrides):
        _check_choice(verb, override, known)
        if override.is_sweep_override():
            if not sweep:
                key = override.key_or_group
                raise UserError(f"{word}: several values make a sweep; write `stepdpo {verb} -m {key}=...`")
            word = f"{word.partition('=')[0]}={next(iter(override.sweep_string_iterator()))}"
        first_job.append(word)
    extra = _search()
    with _composing():
        # Options first, as they bring the keys against which all other words are checked.
        options = [word for word in first_job if key_of(word).partition("@")[0] in known]
        shape = compose(verb, overrides=[*options, *extra])
        if len(options) == len(first_job):
            return _without_secrets(shape)
        for word in first_job:
            if word not in options:
                _check_key(verb, word, shape)
        return _without_secrets(compose(verb, overrides=[*first_job, *extra]))


def variants(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Words of single jobs: every value of a sweep is in one of them, the other words at their first values."""
    values = [
        [f"{word.partition('=')[0]}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [word]
        for word, override in _parse(overrides)
    ]
    first = [some[0] for some in values]
    yield first
    for place, some in enumerate(values):
        for other in some[1:]:
            yield [*first[:place], other, *first[place + 1 :]]


@contextmanager
def _composing() -> Iterator[None]:
    """Hydra set up for our folder, and afterwards as it was; its errors are the user's."""
    # Hydra is a global of the process, and within a job it is in use: it is put aside for as long.
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
            if not key_of(word):
                raise HydraException("no key")
            parsed.append((word, parser.parse_override(word)))
        except HydraException as error:
            hint = "settings are written key=value" if "=" not in word else "quote values with special characters"
            raise UserError(f"{word!r}: not understood; {hint}") from error
    return parsed


def _check_choice(verb: str, override: Override, known: Mapping[str, Sequence[str]]) -> None:
    group = override.key_or_group
    if group not in known:
        return
    if override.package is not None:
        raise UserError(f"{override.input_line}: a part has one place; write {group}=...")
    own = set(defaults(verb))
    if group not in own and (others := [other for other in VERBS if group in defaults(other)]):
        raise UserError(_of_others(verb, group, others, str(override.input_line)))
    if override.is_delete():
        return
    if override.is_add() and group in own:
        raise UserError(f"{override.input_line}: {group} is there already; write it without the +")
    values = override.sweep_string_iterator() if override.is_sweep_override() else [override.value()]
    for value in values:
        options = value if isinstance(value, list) else [value]
        for option in options:
            if option is not None and str(option) not in known[group]:
                raise UserError(f"{group}={option}: there is no such {group}; {nearest(str(option), known[group])}")


def _check_key(verb: str, word: str, shape: DictConfig) -> None:
    key = key_of(word)
    sign = word[: word.index(key)]
    part = key.partition(".")[0]
    if part.partition("/")[0] == "hydra":
        return
    names = set(_names(OmegaConf.to_container(shape, resolve=False)))
    there = OmegaConf.select(shape, key, throw_on_missing=False) if key in names else None
    if key in names and not (sign == "+" and not isinstance(there, DictConfig)):
        if isinstance(there, DictConfig) and not there and not sign and "=" in word:
            raise UserError(f"{key}: is empty, and takes new keys with a + in front: +{word}")
        return
    if key in names:
        raise UserError(f"{word}: {key} is there already; write it without the +")
    if sign in ("+", "++") and part in names:
        return  # a new key within a part: the part itself knows whether it has it
    raise UserError(_unknown(verb, key, word, names))


def check_package(package: str, config: DictConfig) -> None:
    """UserError for a part of the configuration that is not there to be printed."""
    names = set(_names(OmegaConf.to_container(config, resolve=False)))
    if package not in names | {"_global_"} and package.partition(".")[0] != "hydra":
        raise UserError(f"--package {package}: there is no such part; {_near(package, names)}")


def _unknown(verb: str, key: str, word: str, names: set[str]) -> str:
    """What to say of a key that the verb does not have."""
    part = key.partition(".")[0]
    if part not in names:
        theirs = {other: set(_names(_settings(other))) | set(defaults(other)) for other in VERBS if other != verb}
        if others := [other for other, known in theirs.items() if key in known or part in defaults(other)]:
            near = [name for name in names if name.rpartition(".")[2] == key]
            hint = f"; did you mean {near[0]!r}?" if len(near) == 1 else ""
            return _of_others(verb, key, others, word) + hint
        known = {name: other for other, some in theirs.items() for name in some}
        close = get_close_matches(key, known, n=1, cutoff=0.75)
        if close and not get_close_matches(key, names, n=1, cutoff=_likeness(key, close[0])):
            return f"{key}: there is no such setting; `stepdpo {known[close[0]]}` has {close[0]!r}"
    return f"{key}: there is no such setting; {_near(key, names)}"


def _of_others(verb: str, key: str, others: Sequence[str], word: str) -> str:
    """What to say of a setting that other verbs have; a training can be given words for what it starts."""
    said = f"{key}: a setting of {' and '.join(f'`stepdpo {other}`' for other in others)}, not of `stepdpo {verb}`"
    for_whom = {
        "eval": ("then_with", "the evaluations after it"),
        "pairs": ("rounds.pairs_with", "the pairs of a round"),
    }
    if verb == "train":
        where = [
            f'words for {what} go into {place}="{word}"' for other, (place, what) in for_whom.items() if other in others
        ]
        said += "".join(f"; {one}" for one in where)
    return said


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, other, one).ratio()


def _settings(verb: str) -> Any:
    return OmegaConf.to_container(compose(verb, overrides=_search()), resolve=False)


def refuse_secrets(words: Sequence[str]) -> None:
    """Command lines are seen by others and words are written down: a secret is named, not given."""
    for given, clean in zip(words, redact_argv(words), strict=True):
        if given != clean:
            key = redact_text(given.partition("=")[0]) if "=" in given else "KEY"
            where = key if "=" in given else "the command line"
            raise UserError(f"{where}: holds a secret; put it into the environment and write '{key}=${{oc.env:NAME}}'")


def _without_secrets(config: DictConfig) -> DictConfig:
    """The same; refused where an option's file gives a secret, as configurations are written down."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    if key := holding(plain):
        raise UserError(f"{key}: holds a secret; put it into the environment and write '${{oc.env:NAME}}' in its place")
    # A model's card holds its template whole, and folders are named after tasks: there, references do not stay ones.
    task = plain.get("task")
    written = {"template": plain.get("template"), "task.name": task.get("name") if isinstance(task, dict) else None}
    for where, value in written.items():
        if key := from_environment(value, where):
            raise UserError(f"{key}: is written down with what comes of it, so it cannot be taken from the environment")
    return config


def _near(key: str, names: set[str]) -> str:
    """The name meant: one that ends alike, one of the same part, or any."""
    part, _, last = key.rpartition(".")
    same = [n for n in names if n.rpartition(".")[2] == last]
    if same and part:
        # Many parts have a `path` or a `seed`: of several, only a nearly right one is named alone.
        same = get_close_matches(key, same, n=1, cutoff=0.8) or same
    if same:
        return "did you mean " + " or ".join(repr(n) for n in sorted(same)) + "?"
    siblings = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == part}
    close = get_close_matches(last, siblings, n=1, cutoff=0.5) if part else []
    if close:
        return f"did you mean {siblings[close[0]]!r}?"
    if having := _options_with(part, last):
        return f"it belongs to {' and '.join(f'{part}={option}' for option in having)}"
    if part and siblings:
        return f"known in {part}: {', '.join(sorted(siblings))}"
    if part in names:
        return f"there are none in {part}"
    top = {name for name in names if "." not in name}
    return nearest(key, names if get_close_matches(key, names, n=1, cutoff=0.5) else top)


def _options_with(group: str, key: str) -> list[str]:
    """Options of a group that have a setting, as their files tell."""
    files = [file for folder in known_folders() for file in sorted((folder / group).glob("*.yaml"))] if group else []
    return [
        file.stem for file in files if re.search(rf"^{re.escape(key)}:", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]


def _names(node: Any, prefix: str = "") -> Iterator[str]:
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "_target_":
            continue
        yield f"{prefix}{key}"
        yield from _names(value, f"{prefix}{key}.")


def _plain(error: Exception) -> str:
    """Hydra's message in our words; of one that we do not know, its first line."""
    text = str(error)
    if found := re.search(r"Could not find '([\w/]+)/(\w+)'", text):
        options = [line.strip() for line in text.partition("Available options in")[2].splitlines()[1:]]
        return f"{found[1]}={found[2]}: there is no such option; {nearest(found[2], filter(None, options))}"
    if found := re.search(r"Error merging override (.+)", text):
        why = str(error.__cause__ or "").strip().splitlines()[:1]
        return f"{found[1]}: does not fit" + (f" ({why[0]})" if why else "")
    if found := re.search(r"Could not override '(.+?)'", text):
        return f"{found[1]}: there is no such setting"
    if found := re.search(r"Could not delete (?:from config. )?'(.+?)'", text):
        return f"~{found[1]}: is not there, so it cannot be left out"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
