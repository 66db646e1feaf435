"""Building a worker's parts before any worker starts, without the libraries that take seconds to import.

The parts of a configuration are plain dataclasses in modules that import torch and its like for what they do later. In
a process of its own, in which those libraries are stand-ins, every value is checked as the worker would check it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

from omegaconf import DictConfig

from stepdpo.core.config import TARGET, build, resolved
from stepdpo.core.errors import UserError

HEAVY = {
    "torch",
    "transformers",
    "deepspeed",
    "peft",
    "datasets",
    "safetensors",
    "tokenizers",
    "scipy",
    "sympy",
    "pyarrow",
}
"""What no part needs in order to say whether its settings are right."""
OURS = "stepdpo."


def rehearse(configs: Sequence[tuple[str, DictConfig]]) -> None:
    """UserError for a value that a part refuses, or for what a part needs and has not: files, packages, a GPU.

    Before each configuration stands what its errors begin with.

    Whatever else goes wrong is for the worker to find: this is only a look ahead.
    """
    if "torch" in sys.modules:  # then there is nothing to save
        _look(configs)
        return
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        _answer(configs, theirs)
    os.close(theirs)
    with os.fdopen(ours, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    if said:
        raise UserError(said)


def _answer(configs: Sequence[tuple[str, DictConfig]], pipe: int) -> None:
    """The child's whole life."""
    said = ""
    try:
        sys.meta_path.insert(0, _StandIns())
        _look(configs)
    except UserError as error:
        said = str(error)
    except BaseException:
        said = ""  # of the stand-ins' making, or the worker's to tell
    with os.fdopen(pipe, "w", encoding="utf-8", errors="replace") as file:
        file.write(said)
    os._exit(0)  # nothing that the command has open is to be closed here


def _look(configs: Sequence[tuple[str, DictConfig]]) -> None:
    for before, config in configs:
        try:
            _look_at(resolved(config))
        except UserError as error:
            raise UserError(f"{before}{error}") from error


def _look_at(plain: dict[str, Any]) -> None:
    from stepdpo.cli.needs import look

    if _is_ours(plain):
        look(build(plain))
        return
    # A part of the user's own may do anything when it is imported, and rightly expect the real libraries.
    look(SimpleNamespace(**{name: build(part, name) for name, part in plain.items() if _is_ours(part)}))


def _is_ours(node: Any) -> bool:
    """Whether no part below this node is from outside the package."""
    if isinstance(node, list):
        return all(map(_is_ours, node))
    if not isinstance(node, Mapping):
        return True
    return str(node.get(TARGET, OURS)).startswith(OURS) and all(map(_is_ours, node.values()))


class _Kind(type):
    """Of a name in a stand-in: itself a class, since modules derive from such names, decorate with and index them."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything

    def __getitem__(cls, key: object) -> Any:
        return cls

    def __or__(cls, other: object) -> Any:
        return cls

    __ror__ = __or__


class _Anything(metaclass=_Kind):
    def __new__(cls, *values: Any, **options: Any) -> Any:
        decorated = values[0] if len(values) == 1 and callable(values[0]) and not options else None
        return decorated if cls is _Anything and decorated is not None else object.__new__(cls)

    def __init__(self, *values: Any, **options: Any) -> None: ...

    def __call__(self, *values: Any, **options: Any) -> Any:
        return values[0] if values else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


class _StandIns(MetaPathFinder, Loader):
    """Finds an empty module for every name below a heavy library."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in HEAVY else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _Module(spec.name)
        module.__path__ = []  # a package, so that its submodules are looked for
        return module

    def exec_module(self, module: ModuleType) -> None: ...
