"""Tokens are kept by what they depend on: the second run reads them, another text or setting makes others."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support import tiny

from stepdpo.algo.dpo import DPO
from stepdpo.algo.kto import KTO
from stepdpo.algo.sft import SFT
from stepdpo.core.errors import UserError
from stepdpo.data.dataset import Dataset
from stepdpo.data.level import AppendEos, Instance, Step
from stepdpo.data.preference_file import write_preferences
from stepdpo.runtime import artifact_cache
from stepdpo.runtime.processes import OneProcess
from stepdpo.tinymath.solutions import TinymathSolutions
from stepdpo.tokens.lengths import Lengths, Overlong
from stepdpo.tokens.preprocess import TokenizedDataset, prepare


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(artifact_cache.HOME, str(tmp_path / "home"))
    return tmp_path / "home" / "tokens"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_preferences(tiny.PREFERENCES, path)
    with path.open("a") as stream:
        stream.write('{"question": "torn"\n')
    return path


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """One entry a time a data set is read."""
    seen: list[str] = []
    load = Dataset.load

    def counted(self: Dataset) -> Any:
        seen.append(self.path)
        return load(self)

    monkeypatch.setattr(Dataset, "load", counted)
    return seen


def material(data: Any, folder: Path, **more: Any) -> TokenizedDataset:
    dataset = Dataset(str(data), max_bad="50%", heldout=1) if isinstance(data, Path) else data
    settings: dict[str, Any] = {
        "level": Step(), "template": tiny.CHAT, "needs": DPO().needs, "tokenizer": tiny.tokenizer(),
        "lengths": Lengths(),
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    return prepare(dataset=dataset, folder=folder, **(settings | more))


def entries(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir()) if home.exists() else []


def test_the_second_run_reads_no_data(
    file: Path, tmp_path: Path, loads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says the same, quarantines the same, and trains on the same."""
    said, quarantined, prints = [], [], []
    for name in ("one", "two"):
        done = material(file, tmp_path / name, needs=KTO().needs)
        said.append(capsys.readouterr().out)
        quarantined.append((tmp_path / name / "quarantine.jsonl").read_bytes())
        prints.append((done.fingerprint, len(done.train), len(done.heldout), len(done.mismatched)))
    assert loads == [str(file)]
    assert said[0] == said[1]
    assert "data: format preferences, 6 rows, 5 usable, 1 bad, 4 train, 1 heldout" in said[0]
    assert quarantined[0] == quarantined[1]
    assert b"broken JSON" in quarantined[0]
    assert prints[0] == prints[1]
    assert prints[0][1:] == (4, 1, 4)


def test_anything_that_tokens_depend_on_makes_another_entry(file: Path, tmp_path: Path, home: Path) -> None:
    other = copy.deepcopy(tiny.tokenizer())
    other.add_tokens(["pens"])
    own = copy.copy(tiny.tokenizer())
    own.chat_template = "{{ messages }}"
    changes: list[dict[str, Any]] = [
        {},
        {"template": replace(tiny.CHAT, prompt=tiny.CHAT.prompt + " ")},
        {"template": tiny.ALPACA},
        {"level": Instance()},
        {"level": Step(append_eos=AppendEos.on)},
        {"lengths": Lengths(max_length=511)},
        {"lengths": Lengths(overlong=Overlong.error)},
        {"needs": SFT().needs},
        {"needs": KTO().needs},
        {"tokenizer": other},
        {"tokenizer": own},
        {"tokenizer": tiny.with_bos(prepends=False)},
    ]
    for number, change in enumerate(changes, start=1):
        for _ in range(2):
            material(file, tmp_path / "run", **change)
        assert len(entries(home)) == number, change


def test_settings_of_the_data_make_another_entry(file: Path, tmp_path: Path, home: Path) -> None:
    plain = Dataset(str(file), max_bad="50%")
    others = [plain, replace(plain, heldout=1), replace(plain, heldout=1, seed=1), replace(plain, limit=3)]
    for number, dataset in enumerate(others, start=1):
        material(dataset, tmp_path / "run")
        assert len(entries(home)) == number, dataset


def test_one_character_of_the_file_makes_another_entry(file: Path, tmp_path: Path, loads: list[str]) -> None:
    before = material(file, tmp_path / "run")
    text = file.read_text()
    file.write_text(text.replace("7 pens", "8 pens"))
    after = material(file, tmp_path / "run")
    assert len(loads) == 2
    assert before.fingerprint != after.fingerprint
    file.write_text(text)
    assert material(file, tmp_path / "run").fingerprint == before.fingerprint
    assert len(loads) == 2


def test_a_folder_is_known_by_its_files(file: Path, tmp_path: Path, loads: list[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(file, folder / "a.jsonl")
    data = Dataset(str(folder), max_bad="50%")
    material(data, tmp_path / "run")
    material(data, tmp_path / "run")
    assert len(loads) == 1
    shutil.copy(file, folder / "b.jsonl")
    assert len(material(data, tmp_path / "run").train) == 2 * len(tiny.PREFERENCES)
    assert len(loads) == 2


@pytest.mark.parametrize("name", ["train.tokens", "heldout.index", "report.json"])
@pytest.mark.parametrize("how", ["torn", "gone", "flipped"])
def test_a_damaged_entry_is_made_again(
    name: str, how: str, file: Path, tmp_path: Path, home: Path, loads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = material(file, tmp_path / "run")
    path = home / entries(home)[0] / name
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-3] if how == "torn" else bytes([whole[0] ^ 1]) + whole[1:])
    capsys.readouterr()
    after = material(file, tmp_path / "run")
    assert f"{name}" in capsys.readouterr().out.split("tokenised again")[0]
    assert path.read_bytes() == whole
    assert after.fingerprint == before.fingerprint
    assert len(loads) == 2
    assert len(entries(home)) == 1


def test_data_that_cannot_tell_are_loaded_and_hashed(tmp_path: Path, home: Path) -> None:
    """A data set of the hub has no files here; parts that others wrote may not tell either."""

    @dataclass(frozen=True)
    class Rows:
        rows: tuple[Any, ...]

        def load(self) -> Any:
            from stepdpo.data.validation import Loaded

            return Loaded(self.rows, counts={"rows": len(self.rows)})

    assert Dataset("owner/name").fingerprint() is None
    for rows in (tiny.PREFERENCES, tiny.PREFERENCES[::-1], tiny.PREFERENCES):
        material(Rows(rows), tmp_path / "run")
    assert len(entries(home)) == 2


def test_generated_data_are_known_by_their_settings() -> None:
    prints = [TinymathSolutions(count=count, seed=seed).fingerprint() for count, seed in ((5, 0), (6, 0), (5, 1))]
    assert len(set(prints)) == 3
    assert TinymathSolutions(count=5).fingerprint() == prints[0]


def test_refused_data_leave_no_entry(file: Path, tmp_path: Path, home: Path) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="1 of 6 rows cannot be used"):
            material(Dataset(str(file)), tmp_path / "run")
        with pytest.raises(UserError, match="more than lengths"):
            material(file, tmp_path / "run", lengths=Lengths(max_length=20, overlong=Overlong.error))
    assert entries(home) == []


class Failing(OneProcess):
    """Another process could not."""

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        return [1.0 for _ in values]


def test_others_wait_and_then_read(file: Path, tmp_path: Path, loads: list[str]) -> None:
    """The process that makes nothing opens what another made while it waited; or learns that it could not."""
    made: list[TokenizedDataset] = []

    class Second(OneProcess):
        def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
            made.append(material(file, tmp_path / "one"))
            return list(values)

    done = material(file, tmp_path / "two", processes=Second(rank=1, local_rank=1, world_size=2))
    assert done.fingerprint == made[0].fingerprint
    assert len(loads) == 1
    assert not (tmp_path / "two" / "quarantine.jsonl").exists()
    with pytest.raises(UserError, match="could not"):
        material(file, tmp_path / "two", processes=Failing(rank=1, local_rank=1, world_size=2))
