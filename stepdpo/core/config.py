"""From a YAML node to an object: the only place where configuration becomes code."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from stepdpo.core.errors import UserError, nearest
from stepdpo.core.moved import MOVED

TARGET = "_target_"
MISSING = "???"
PACKAGE = __name__.partition(".")[0]
_folders: ContextVar[tuple[Path, ...]] = ContextVar("folders", default=())


@contextmanager
def config_folders(folders: Sequence[Path]) -> Iterator[None]:
    """Within the block, options lie in these folders too (those of `--config-dir`), and their parts beside them.

    A configuration names code that runs: of `mine/conf`, what lies below `mine`, and nothing else but this package.
    """
    # A global of the process, as sys.path is, which must hold them: behind all else, so that they hide no library.
    found = tuple(dict.fromkeys(folder.absolute() for folder in folders))
    places = [str(place) for folder in found for place in (folder.parent, folder.parent.parent)]
    added = [place for place in dict.fromkeys(places) if place not in sys.path]
    sys.path += added
    before = _folders.set(found)
    try:
        yield
    finally:
        _folders.reset(before)
        for place in added:
            sys.path.remove(place)


def own_folders() -> tuple[Path, ...]:
    """Those of `config_folders`, absolute."""
    return _folders.get()


def build(node: Any, where: str = "") -> Any:
    """Construct the frozen dataclass that `node["_target_"]` names, nested parts first.

    A target must be a dataclass (so a YAML file cannot call arbitrary code), every key must be one of its
    fields, and OmegaConf checks the types of plain fields. Raises UserError naming the key at fault.
    """
    if isinstance(node, DictConfig | ListConfig):
        node = resolved(node)
    return _build(node, where)


def resolved(node: DictConfig | ListConfig) -> Any:
    """Plain values, with what they refer to. Raises UserError for a reference to nothing."""
    try:
        return OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        where = getattr(error, "full_key", None)
        first = re.sub(r"^\w+ raised while resolving interpolation: ", "", str(error).strip().splitlines()[0])
        raise UserError(f"{where}: {first}" if where else first) from error


def typed(value: Any, hint: Any, where: str) -> Any:
    """A plain value as what `hint` says, by the rules of `build`: `no` and `off` are False where a bool is meant.

    Raises UserError for a value that is not one.
    """
    if isinstance(value, DictConfig | ListConfig):
        value = resolved(value)
    return _coerce(value, hint, where)


def _build(node: Any, where: str) -> Any:
    if isinstance(node, list):
        return [_build(item, f"{where}[{i}]") for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if TARGET not in node:  # a section such as `batch`: its class is told by the field that holds it
        return {key: _build(value, f"{_at(where, key)}") for key, value in node.items()}
    kind = part_class(node[TARGET], where)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in node.items():
        if key == TARGET:
            continue
        if key not in fields:
            raise UserError(f"{_at(where, key)}: {node[TARGET]} has no such setting; {nearest(key, fields)}")
        if value == MISSING:
            raise UserError(f"{_at(where, key)}: must be given")
        values[key] = _coerce(_build(value, f"{_at(where, key)}"), hints[key], f"{_at(where, key)}")
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{_at(where, missing[0])}: not given, and {node[TARGET]} has no default for it")
    try:
        return kind(**values)
    # A part checks its own values, not knowing under which key it stands; only here both are known.
    except ValueError as error:
        at = _at(where, _at_fault(str(error), values, fields))
        raise UserError(f"{at}: {error}" if at else str(error)) from error


def _at(where: str, key: str) -> str:
    """The name of a setting as it is written on a command line."""
    return f"{where}.{key}" if where and key else where or key


def _at_fault(message: str, values: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    """The setting that a part's message is about: of those it names, the one that is not as it is by default."""
    first = message.partition(" ")[0].rstrip(":")
    if first in fields:  # that is how parts begin that speak of one setting
        return first
    named = [name for name in fields if re.search(rf"\b{re.escape(name)}\b", message)]
    given = [name for name in named if name in values and values[name] != fields[name].default]
    return next((some[0] for some in (named, given) if len(some) == 1), "")


def part_class(target: str, where: str) -> Any:
    module_name, _, name = MOVED.get(str(target), str(target)).rpartition(".")
    if module_name.partition(".")[0] != PACKAGE:
        _must_be_own(module_name, target, where)
    try:
        kind = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{_at(where, TARGET)}: cannot import {target!r} ({error})") from error
    # A function would be called with whatever the file says; a dataclass only takes values for its fields.
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise UserError(f"{_at(where, TARGET)}: {target!r} is not a dataclass, so it cannot be built from a config")
    return kind


def _must_be_own(module: str, target: str, where: str) -> None:
    """UserError for code that lies outside the package and outside the user's folders, before any of it is run."""
    if not own_folders():
        raise UserError(
            f"{_at(where, TARGET)}: {target!r} is no part of {PACKAGE}; parts of your own are found beside the folder "
            "of their options: --config-dir FOLDER"
        )
    homes = [folder.parent.resolve() for folder in own_folders()]
    name = ""
    for part in module.split("."):  # outermost first, as finding what is within a package runs the package
        name = f"{name}.{part}" if name else part
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError) as error:
            raise UserError(f"{_at(where, TARGET)}: cannot import {target!r} ({error})") from error
        if spec is None:
            raise UserError(f"{_at(where, TARGET)}: cannot import {target!r} (no module {name!r} in {homes[0]})")
        for place in spec.submodule_search_locations or [spec.origin or ""]:
            if not any(Path(place).resolve().is_relative_to(home) for home in homes):
                raise UserError(f"{_at(where, TARGET)}: {name!r} is {place}, which lies outside {homes[0]}")


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """Check a plain value against its annotation by OmegaConf's own rules; parts pass through."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        rest = [a for a in arguments if a is not type(None)]
        # Of several kinds (`5` or `"5%"`) none is the right one to turn a value into: the part itself decides.
        if len(rest) == 1:
            return _coerce(value, rest[0], where)
        return value
    if origin in (tuple, list):
        if not isinstance(value, list):
            raise UserError(f"{where}: expected a list, got {value!r}")
        item = arguments[0] if arguments else Any
        items = [_coerce(v, item, f"{where}[{i}]") for i, v in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected names with values, as in {{name: value}}, got {value!r}")
        item = arguments[1] if len(arguments) > 1 else Any
        return {key: _coerce(one, item, f"{where}.{key}") for key, one in value.items()}
    if not isinstance(hint, type):
        return value
    if issubclass(hint, Enum) and not isinstance(value, hint):
        try:
            return hint(value)
        except ValueError:
            raise UserError(f"{where}: {nearest(str(value), [m.value for m in hint])} (got {value!r})") from None
    if hint is Path:
        return Path(value)
    # By OmegaConf, as the top level is: `1e-5` and `true` must not mean something else in a nested part.
    if hint in (int, float, bool, str):
        return _plain(value, hint, where)
    if dataclasses.is_dataclass(hint) and not isinstance(value, hint):
        if not isinstance(value, dict):
            names = ", ".join(f"{where}.{field.name}" for field in dataclasses.fields(hint))
            raise UserError(f"{where}: holds settings of its own, which are set one by one: {names}")
        return _build({TARGET: f"{hint.__module__}.{hint.__qualname__}", **value}, where)
    return value


def _plain(value: Any, hint: type, where: str) -> Any:
    @dataclasses.dataclass
    class Slot:
        value: hint  # type: ignore[valid-type]

    # The annotation above is a name to `from __future__ import annotations`; OmegaConf needs the type itself.
    Slot.__annotations__["value"] = hint
    try:
        if hint is bool and isinstance(value, int | float) and value not in (0, 1):  # to OmegaConf 2 is true
            raise ValidationError(str(value))
        return OmegaConf.merge(OmegaConf.structured(Slot), {"value": value}).value
    except OmegaConfBaseException:
        raise UserError(f"{where}: expected {hint.__name__}, got {value!r}") from None
