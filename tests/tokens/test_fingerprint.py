"""The key of the token cache: other code, as other data or settings, makes other entries."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from stepdpo.core.package_data import ROOT, sources
from stepdpo.data.level import Step
from stepdpo.data.templates import MixedTemplate, NativeTemplate
from stepdpo.tokens import fingerprint
from stepdpo.tokens.fingerprint import SOURCES


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of our sources."""
    return shutil.copytree(ROOT, tmp_path / "stepdpo", ignore=shutil.ignore_patterns("__pycache__", "model", "conf"))


@pytest.mark.parametrize("pattern", SOURCES)
def test_every_pattern_names_a_file(pattern: str) -> None:
    assert sources([pattern])


def test_each_named_file_is_in_the_key(package: Path) -> None:
    """Touched one after another, each makes a key that was not there before; set back, the first one again."""
    files = sources(SOURCES, package)
    assert {package / "data" / "level.py", package / "tokens" / "tokenization.py"} <= set(files)
    first = fingerprint._code_of([], package)
    keys = set()
    for file in files:
        text = file.read_bytes()
        file.write_bytes(text + b"\n# another version\n")
        keys.add(fingerprint._code_of([], package))
        file.write_bytes(text)
    assert len(keys) == len(files)
    assert first not in keys
    assert fingerprint._code_of([], package) == first


@pytest.mark.parametrize("pattern", SOURCES)
def test_a_moved_file_fails_loudly(pattern: str, package: Path) -> None:
    """It cannot leave the key in silence."""
    for file in package.glob(pattern):
        file.rename(package / f"moved_{file.name}")
    with pytest.raises(RuntimeError, match=pattern.replace("*", r"\*")):
        fingerprint._code_of([], package)


def test_what_does_not_make_tokens_is_not_in_the_key(package: Path) -> None:
    first = fingerprint._code_of([], package)
    for name in ("tokens/token_tree.py", "tokens/packing.py", "tokens/collator.py", "algo/dpo.py"):
        (package / name).write_text("")
    assert fingerprint._code_of([], package) == first


@dataclass(frozen=True)
class Own(NativeTemplate):
    """A template of somebody else's, in a file of theirs."""


def test_parts_that_others_wrote_are_in_the_key() -> None:
    """Theirs are known by the files they are in, within other parts too."""
    mixed = MixedTemplate("mixed", [NativeTemplate(), Own()])
    ours = fingerprint._code_of([Step(), NativeTemplate()])
    assert fingerprint._code_of([Step(), Own()]) != ours
    assert fingerprint._code_of([Step(), mixed]) == fingerprint._code_of([Step(), Own()])


def test_what_makes_an_entry_is_in_the_key_wherever_it_lies() -> None:
    """Of the rooms of tokens, all that making an entry imports, but for the trie and what shapes batches of it."""
    reached, left = set(), ["preprocess_worker"]
    while left:
        name = left.pop()
        reached.add(name)
        text = (ROOT / "tokens" / f"{name}.py").read_text(encoding="utf-8")
        left += set(re.findall(r"^from stepdpo\.tokens\.(\w+) import", text, re.MULTILINE)) - reached
    assert reached - {"token_tree", "batch"} == {Path(one).stem for one in SOURCES if one.startswith("tokens/")}
