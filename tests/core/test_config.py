"""From a node to an object: what is built, what is refused, and that the message names the key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from stepdpo.core.config import build, config_folders
from stepdpo.core.config_file import with_later_settings
from stepdpo.core.errors import UserError

HERE = __name__


@pytest.fixture(autouse=True)
def _own() -> Iterator[None]:
    """The parts of this file are a user's own, beside a folder of options."""
    with config_folders([Path(__file__).with_name("conf")]):
        yield


class Colour(Enum):
    red = "red"
    blue = "blue"


@dataclass(frozen=True)
class Leaf:
    size: int = 1
    share: float = 0.5
    on: bool = False
    name: str = "leaf"
    colour: Colour = Colour.red

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size must not be negative")


@dataclass(frozen=True)
class Branch:
    leaf: Leaf
    part: Any = None
    path: Path = Path()
    limit: int | None = None
    words: tuple[str, ...] = ()
    numbers: list[int] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    amount: float | str = 0
    fixed: ClassVar[int] = 3


@dataclass(frozen=True)
class Required:
    must: int


def of(kind: type, **values: Any) -> Any:
    return build({"_target_": f"{HERE}.{kind.__name__}", **values})


def test_defaults() -> None:
    assert of(Leaf) == Leaf()


def test_nested_parts_and_sections() -> None:
    """A section without a target takes the class of its field; a free field takes any part, also within lists."""
    leaf = {"_target_": f"{HERE}.Leaf", "size": 2}
    branch = of(Branch, leaf={"size": 7, "colour": "blue"}, part=[leaf, {"inner": leaf}], path="a/b", limit=None)
    assert branch == Branch(
        leaf=Leaf(size=7, colour=Colour.blue), part=[Leaf(size=2), {"inner": Leaf(size=2)}], path=Path("a/b")
    )


def test_lists_keep_the_kind_of_their_field() -> None:
    branch = of(Branch, leaf={}, words=["a", "b"], numbers=[1, 2], more={"a": [1]}, amount="5%", limit=3)
    assert (branch.words, branch.numbers, branch.more, branch.amount, branch.limit) == (
        ("a", "b"),
        [1, 2],
        {"a": [1]},
        "5%",
        3,
    )


def test_nodes_of_omegaconf_are_resolved() -> None:
    node = OmegaConf.create({"n": 4, "leaf": {"_target_": f"{HERE}.Leaf", "size": "${n}"}})
    assert build(node)["leaf"] == Leaf(size=4)


@pytest.mark.parametrize(("given_", "kept"), [("3", 3), (3, 3)])
def test_whole_numbers(given_: Any, kept: int) -> None:
    assert of(Leaf, size=given_).size == kept


@pytest.mark.parametrize(("given_", "kept"), [(1, 1.0), ("1e-3", 0.001), (0.25, 0.25)])
def test_numbers(given_: Any, kept: float) -> None:
    assert of(Leaf, share=given_).share == kept


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 1.5}, "size: expected int"),
        ({"size": "many"}, "size: expected int"),
        ({"share": "half"}, "share: expected float"),
        ({"on": "perhaps"}, "on: expected bool"),
        ({"colour": "read"}, "colour: did you mean 'red'"),
        ({"colour": "green"}, "colour: "),
        ({"size": None}, "size"),
        ({"siez": 1}, "siez: .*has no such setting; did you mean 'size'"),
        ({"size": "???"}, "size: must be given"),
        ({"size": -1}, "size must not be negative"),
    ],
)
def test_mistakes_name_the_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        of(Leaf, **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "leaf: not given"),
        ({"leaf": {"sise": 1}}, "leaf.sise"),
        ({"leaf": {"_target_": f"{HERE}.Leaf", "size": "x"}}, "leaf.size"),
        ({"leaf": {}, "words": "abc"}, "words: expected a list"),
        ({"leaf": {}, "numbers": [1, "x"]}, r"numbers\[1\]: expected int"),
        ({"leaf": {}, "limit": "x"}, "limit: expected int"),
        ({"leaf": {}, "part": [{"_target_": f"{HERE}.Leaf", "no": 1}]}, r"part\[0\].no"),
        ({"leaf": {}, "fixed": 4}, "fixed: .*no such setting"),
    ],
)
def test_mistakes_within_parts_name_the_whole_path(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        of(Branch, **values)


def test_a_field_without_a_default_must_be_given() -> None:
    with pytest.raises(UserError, match=r"must: not given"):
        of(Required)


@pytest.mark.parametrize(
    "target", ["os.system", "builtins.eval", "subprocess.run", "pathlib.Path", "stepdpo.core.config.build", "json"]
)
def test_only_dataclasses_are_built(target: str) -> None:
    """A configuration can name no function that does something."""
    with pytest.raises(UserError, match="_target_"):
        build({"_target_": target, "command": "true"})


@pytest.mark.parametrize("target", ["no.such.module.Thing", "stepdpo.algo.dpo.DPA", "", "DPO", "stepdpo.", 5])
def test_targets_that_are_not_there(target: Any) -> None:
    with pytest.raises(UserError, match=r"_target_: cannot import"):
        build({"_target_": target})


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3), max_leaves=5)
)
def test_any_value_is_kept_or_refused(value: Any) -> None:
    """No value whatever ends in anything but an object or a UserError."""
    for name in ("size", "share", "on", "name", "colour"):
        with contextlib.suppress(UserError):
            assert isinstance(of(Leaf, **{name: value}), Leaf)


def test_settings_that_a_part_did_not_have_yet() -> None:
    """They are as they always were at their default; at another value the part is another one."""
    target = {"_target_": "stepdpo.data.templates.TextTemplate", "name": "x", "prompt": "{question}"}
    mixed = {"_target_": "stepdpo.data.templates.MixedTemplate", "name": "m", "parts": [target]}
    now = {**mixed, "parts": [{**target, "joint_alone": True}]}
    assert with_later_settings(mixed, now) == now
    other = {**mixed, "parts": [{**target, "joint_alone": False}]}
    assert with_later_settings(mixed, other) == mixed


def test_a_part_that_a_configuration_did_not_have_yet() -> None:
    """An evaluation from before there were scorers is one without a scorer, and none by another."""
    before = {"_target_": "stepdpo.evaluation.evaluate.Evaluation", "sampler": None}
    now = {**before, "scorer": {"_target_": "stepdpo.generation.scorers.none.NoScorer"}}
    assert with_later_settings(before, now) == now
    other = {**before, "scorer": {"_target_": "stepdpo.generation.scorers.logprob.Logprob", "aggregate": "product"}}
    assert with_later_settings(before, other) == before
