"""The configuration of a verb from its words, checked before anything starts: every mistake names what was meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stepdpo.cli.advice import in_our_words, names_in, near_name, of_others, unknown
from stepdpo.cli.shorthands import VERBS, defaults, groups, key_of, known_folders
from stepdpo.core.config import own_folders
from stepdpo.core.errors import UserError, nearest
from stepdpo.core.package_data import conf
from stepdpo.runtime.secrets import from_environment, holding, redact_argv, redact_text


def composed(verb: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a verb that another verb starts, also from within a job of Hydra's."""
    with _composing():
        return _without_secrets(compose(verb, overrides=[*overrides, *_search()]))


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
        raise UserError(in_our_words(error)) from error
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
        raise UserError(of_others(verb, group, others, str(override.input_line)))
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
    names = set(names_in(OmegaConf.to_container(shape, resolve=False)))
    there = OmegaConf.select(shape, key, throw_on_missing=False) if key in names else None
    if key in names and not (sign == "+" and not isinstance(there, DictConfig)):
        if isinstance(there, DictConfig) and not there and not sign and "=" in word:
            raise UserError(f"{key}: is empty, and takes new keys with a + in front: +{word}")
        return
    if key in names:
        raise UserError(f"{word}: {key} is there already; write it without the +")
    if sign in ("+", "++") and part in names:
        return  # a new key within a part: the part itself knows whether it has it
    raise UserError(unknown(verb, key, word, names, _settings))


def check_package(package: str, config: DictConfig) -> None:
    """UserError for a part of the configuration that is not there to be printed."""
    names = set(names_in(OmegaConf.to_container(config, resolve=False)))
    if package not in names | {"_global_"} and package.partition(".")[0] != "hydra":
        raise UserError(f"--package {package}: there is no such part; {near_name(package, names)}")


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
