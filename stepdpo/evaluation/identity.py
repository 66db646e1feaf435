"""What the attempts of an evaluation depend on: those that are kept are gone on with by the same evaluation alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.core.types import Problem, Prompt
from stepdpo.data.shots import Shots
from stepdpo.runtime.secrets import redact_text

Identity = Mapping[str, Sequence[str]]
"""By what a user calls it (task, template, decode, ...): how it is shown, and a hash of all that counts of it."""


def option(part: Any) -> str:
    """The config option that a part comes from: the last word of its module's name."""
    return type(part).__module__.rpartition(".")[2]


def settings(part: Any) -> dict[str, Any]:
    """The fields of a part, which is a dataclass as everything is that a configuration builds, as JSON has them."""
    return {one.name: _plain(getattr(part, one.name)) for one in fields(part)}


def _plain(value: Any) -> Any:
    """A part within a part has its option beside its settings, as `name`."""
    if isinstance(value, Enum):
        return value.value
    return {"name": option(value), **settings(value)} if is_dataclass(value) else value


def identity(
    *, task: str, problems: Sequence[Problem], template: str, prompts: Sequence[Prompt], decode: Any, scorer: Any,
    shots: Shots | None, seeds: Sequence[int | None], model: Any,
) -> Identity:  # fmt: skip
    """Of an evaluation of `problems`, as the `prompts` that a template makes of them."""
    asked = [(one.id, one.question, one.answers) for one in problems]
    return {
        "task": [task, _hash(asked)],
        "shots": [f"{shots.count} from {shots.source}" if shots else "none", _hash(shots)],
        "template": [template, _hash([prompt.text for prompt in prompts])],
        "decode": [_shown(decode), _hash(_counting(decode))],
        "scorer": [_shown(scorer), _hash(_counting(scorer))],
        "seeds": [", ".join(map(str, seeds)), _hash(list(seeds))],
        "model": [redact_text(str(getattr(model, "path", model.source))), str(model.fingerprint())],
    }


def must_be_same(before: Any, now: Identity, folder: Path) -> None:
    """UserError for an evaluation in `folder` that was begun as another one."""
    if not isinstance(before, Mapping) or set(before) != set(now):
        raise UserError(f"{folder} was begun by another version: force=true replaces it")
    for name, (shown, content) in now.items():
        then, content_then = before[name]
        if then == shown and content_then != content:
            raise UserError(f"{folder} was begun with another content of {name} {shown}: force=true replaces it")
        if content_then != content:
            raise UserError(f"{folder} was begun with {name} {then}; this one has {shown}: force=true replaces it")


def _shown(part: Any) -> str:
    values = ", ".join(f"{name}={value}" for name, value in _counting(part)[1].items())
    return redact_text(f"{option(part)} ({values})" if values else option(part))


def _counting(part: Any) -> tuple[str, dict[str, Any]]:
    """What counts of a part: of a server which model it has, not where it is by now."""
    values = settings(part)
    for place in (values, values.get("judge")):
        if isinstance(place, dict) and isinstance(server := place.get("server"), Mapping):
            place["server"] = server.get("model")
    return option(part), values


def _hash(value: Any) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest()[:32]
