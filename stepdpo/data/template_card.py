"""The card beside a checkpoint's weights: whatever rebuilds the template that it was trained with."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from stepdpo.core.config import PACKAGE, TARGET, build
from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Template
from stepdpo.data.templates import MixedTemplate, NativeTemplate
from stepdpo.runtime.secrets import without_environment

CARD = "stepdpo.json"
CODE = "code"
"""Key of a template of one's own: the name and hash of its source file, which is copied beside the card."""


def card(folder: str | Path) -> dict[str, Any]:
    """What stepdpo wrote beside the weights in `folder`; empty for other people's checkpoints.

    Raises UserError for one that is damaged: whoever made the model, it is not to end in a traceback.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error})") from error
    if not isinstance(content, dict):
        return {}
    if fault := _fault(content.get("template") or {}, "template"):
        raise UserError(f"{path}: damaged ({fault})")
    return content


def _fault(named: Any, where: str) -> str:
    """What is not as `describe` writes it, or as earlier versions did; empty when all is well."""
    if not isinstance(named, dict):
        return f"{where} is no mapping"
    kinds = {TARGET: str, "name": str, "date": str, "parts": list, "also": list}
    for key, kind in kinds.items():
        if not isinstance(named.get(key, kind()), kind | None):
            return f"{where}.{key} is {type(named[key]).__name__}"
    if not all(isinstance(name, str) for name in named.get("also") or ()):
        return f"{where}.also holds more than names"
    parts = enumerate(named.get("parts") or ())
    return next(filter(None, (_fault(part, f"{where}.parts[{place}]") for place, part in parts)), "")


def describe(template: Any) -> dict[str, Any]:
    """A template as the configuration it is built from, parts and all; of one that is no dataclass, its name."""
    if not dataclasses.is_dataclass(template):
        return {"name": template.name}
    kind = type(template)
    node: dict[str, Any] = {TARGET: f"{kind.__module__}.{kind.__qualname__}"}
    node |= {f.name: _plain(getattr(template, f.name)) for f in dataclasses.fields(template) if f.init}
    if file := _own_source(template):
        node[CODE] = {"file": _copied_as(template), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    return node


def card_entry(template: Template, tokenizer: Any) -> dict[str, Any]:
    """What the card says of a template: how it is rebuilt, and the chat template's hash where that is used.

    Raises UserError where a secret of the environment got into it: masked, it would rebuild another template.
    """
    used = {"chat_template": _chat_hash(tokenizer)} if _natives(template) else {}
    described = describe(template)
    for key, value in described.items():
        text = json.dumps(value, ensure_ascii=False)
        if without_environment(text) != text:
            raise UserError(f"template.{key}: holds a secret, and would be written into {CARD} beside the weights")
    return {"template": described, **used}


def own_sources(template: Any) -> dict[str, bytes]:
    """Name beside the card -> content, of every source file of a template that is not ours."""
    return {_copied_as(one): file.read_bytes() for one in _with_parts(template) if (file := _own_source(one))}


def resolve(
    template: Template, model: str | Path, tokenizer: Any = None, day: str | None = None
) -> tuple[Template, str | None]:
    """The template to use with a checkpoint, and a warning if it is not the one it was trained with.

    `native` without settings is the one of the card. A chat template that reads the clock is given the date of the
    card, else `day`. Raises UserError where the card names a class that is not to be found.
    """
    content = card(model)
    named = content.get("template") or {}
    if isinstance(template, NativeTemplate) and template == NativeTemplate():
        template = _remembered(named, f"{Path(model) / CARD}: template") or template
    template = _dated(template, tokenizer, _date_in(named) or day)
    warning = _difference(describe(template), named)
    if warning is None and tokenizer is not None and _natives(template) and "chat_template" in content:
        changed = content["chat_template"] != _chat_hash(tokenizer)
        warning = "was trained with another chat template than its tokenizer has now" if changed else None
    return template, f"{model} {warning}: scores will not be comparable" if warning else None


def _remembered(named: Mapping[str, Any], where: str) -> Template | None:
    """Built from the card; of a mixture its native part, where it has one: the model knows each."""
    if TARGET not in named and "prompt" not in named:
        return None  # cards of earlier versions say no more than a name
    node = {TARGET: "stepdpo.data.templates.TextTemplate", **named}
    built: Template = build(_without_code(node), where)
    if not hasattr(built, "render"):
        raise UserError(f"{where}: {node[TARGET]} is no template")
    if isinstance(built, MixedTemplate):
        return next((part for part in built.parts if isinstance(part, NativeTemplate)), built)
    return built


def _difference(own: Mapping[str, Any], named: Mapping[str, Any]) -> str | None:
    """How a template differs from the card's, in words that follow the model's name."""
    known = [named, *(named.get("parts") or ())]
    if not named or any(_same(own, one) for one in known):
        return None
    names = {one.get("name") for one in known} | set(named.get("also") or ())
    if own["name"] not in names:
        return f"was trained with template={named.get('name')} and is now used with template={own['name']}"
    if not any(len(one) > 1 and "also" not in one for one in known):
        return None  # a card that says no more than a name
    return f"was trained with another text or other settings under the name template={own['name']}"


def _same(own: Mapping[str, Any], named: Mapping[str, Any]) -> bool:
    # By the keys of the card: one that an earlier version wrote lacks some.
    return all(own.get(key) == value for key, value in named.items()) and len(named) > 1


def _dated(template: Any, tokenizer: Any, day: str | None) -> Any:
    """With the date fixed where the chat template reads the clock; without one elsewhere, so that no day counts."""
    if isinstance(template, NativeTemplate):
        reads = "strftime_now" in str(getattr(tokenizer, "chat_template", None))
        return dataclasses.replace(template, date=(template.date or day) if reads else None)
    if isinstance(template, MixedTemplate):
        return dataclasses.replace(template, parts=[_dated(part, tokenizer, day) for part in template.parts])
    return template


def date_of(template: Template) -> str | None:
    """The day that is written into its prompts."""
    return next((one.date for one in _natives(template) if one.date), None)


def _date_in(named: Mapping[str, Any]) -> str | None:
    return next((str(one["date"]) for one in (named, *(named.get("parts") or ())) if one.get("date")), None)


def _with_parts(template: Any) -> Iterator[Any]:
    yield template
    for part in getattr(template, "parts", ()):
        yield from _with_parts(part)


def _natives(template: Any) -> list[NativeTemplate]:
    return [one for one in _with_parts(template) if isinstance(one, NativeTemplate)]


def _chat_hash(tokenizer: Any) -> str:
    return hashlib.sha256(str(getattr(tokenizer, "chat_template", None)).encode("utf-8", "surrogatepass")).hexdigest()


def _own_source(template: Any) -> Path | None:
    """The file of a class that is no part of this package, where there is one."""
    if type(template).__module__.partition(".")[0] == PACKAGE:
        return None
    try:
        return Path(inspect.getfile(type(template)))
    except (TypeError, OSError):
        return None


def _copied_as(template: Any) -> str:
    return f"template_{type(template).__module__.replace('.', '_')}.py"


def _plain(value: Any) -> Any:
    """A field as YAML has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return describe(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _without_code(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_code(one) for one in node]
    if isinstance(node, dict):
        return {key: _without_code(value) for key, value in node.items() if key != CODE}
    return node
