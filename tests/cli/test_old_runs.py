"""Run folders that were written before the package had rooms (tests/golden/before_rooms) go on as they are.

The folder holds what `stepdpo train ... run=old then=[gsm8k]` and `stepdpo pairs pairs=recut ... run=oldpairs` left
then, with the model, data and problems they used. Their configurations name modules that are no more.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support.commands import metrics, stepdpo

from stepdpo.core.config import TARGET, build
from stepdpo.core.config_file import load_config
from stepdpo.core.moved import MOVED

OLD = Path(__file__).parents[1] / "golden" / "before_rooms"
WORDS = [
    "algo=tdpo", "template=alpaca", "model=./start", "dataset=jsonl", "dataset.path=preferences.jsonl",
    "dataset.heldout=8", "engine=local",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to start from, with a copy of everything."""
    return Path(shutil.copytree(OLD, tmp_path / "place"))


def test_the_folder_is_old() -> None:
    assert "stepdpo.train.Training" in (OLD / "runs" / "old" / "config.yaml").read_text()
    assert "stepdpo.construct.Construction" in (OLD / "runs" / "oldpairs" / "config.yaml").read_text()


def test_every_old_name_is_a_part_of_today() -> None:
    for name in MOVED.values():
        module, _, kind = name.rpartition(".")
        assert hasattr(__import__(module, fromlist=[kind]), kind), name


def test_a_configuration_is_read_with_the_names_of_today(tmp_path: Path) -> None:
    """Also in nested parts and lists; interpolations stay as they are."""
    old = {
        TARGET: "stepdpo.template.MixedTemplate",
        "name": "${oc.env:SOME}",
        "parts": [{TARGET: "stepdpo.level.Step"}],
    }
    OmegaConf.save(OmegaConf.create(old), tmp_path / "config.yaml")
    node = OmegaConf.to_container(load_config(tmp_path / "config.yaml"), resolve=False)
    assert node == {
        TARGET: "stepdpo.data.templates.MixedTemplate",
        "name": "${oc.env:SOME}",
        "parts": [{TARGET: "stepdpo.data.level.Step"}],
    }


def test_a_users_own_configuration_may_use_the_old_names() -> None:
    assert type(build({TARGET: "stepdpo.level.Step"})) is type(build({TARGET: "stepdpo.data.level.Step"}))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_evaluate(place: Path) -> None:
    words = ["eval", "run=old", "task=gsm8k", "task.path=problems.jsonl", "template=alpaca", "decode.max_tokens=16"]
    done = stepdpo(*words, "force=true", cwd=place)
    assert done.code == 0, done.said
    folder = Path("runs") / "old" / "eval" / "gsm8k"
    then, now = (
        [json.loads(line) for line in (root / folder / "attempts.jsonl").read_text().splitlines()]
        for root in (OLD, place)
    )
    assert [row["question"] for row in now] == [row["question"] for row in then]
    assert [row["response"][:8] for row in now] == [row["response"][:8] for row in then]


def test_report(place: Path) -> None:
    (place / "runs" / "old" / "report.md").unlink()
    done = stepdpo("report", "old", cwd=place)
    assert done.code == 0, done.said
    # What it says today below the table is none of the old report's.
    texts = [(root / "runs" / "old" / "report.md").read_text() for root in (place, OLD)]
    now, then = ([line for line in text.splitlines() if line.startswith("|")] for text in texts)
    assert now == then


@pytest.mark.slow
def test_resume(place: Path) -> None:
    """Killed after its checkpoint, it goes on with the same words, to the same numbers, and to what was to follow.

    Also where a word names an option of the user's own, which still says where its part was then.
    """
    run = place / "runs" / "old"
    option = place / "conf" / "template" / "mine.yaml"
    option.parent.mkdir(parents=True)
    OmegaConf.save(OmegaConf.load(run / "config.yaml").template, option)
    assert "stepdpo.template." in option.read_text()
    words = ["--config-dir", "conf", *WORDS, "template=mine"]
    for name in ("model", "eval"):
        shutil.rmtree(run / name)
    (run / "report.json").unlink()
    done = stepdpo("train", *words, "run=old", "resume=true", cwd=place)
    assert done.code == 0, done.said
    assert "resuming after update 4" in done.out
    wanted, got = metrics(OLD / "runs" / "old"), metrics(run)
    assert [line["step"] for line in got] == [line["step"] for line in wanted]
    for before, after in zip(wanted, got, strict=True):
        known = {name: after[name] for name in before}  # today's lines say more
        assert known == pytest.approx(before, rel=1e-3, abs=1e-5)
    assert (run / "model" / "model.safetensors").is_file()
    assert json.loads((run / "eval" / "gsm8k" / "summary.json").read_text())["n"] == 6
    assert (run / "report.json").is_file()


def test_other_settings_are_refused_by_their_name(place: Path) -> None:
    shutil.rmtree(place / "runs" / "old" / "model")
    done = stepdpo("train", *WORDS, "algo=dpo", "run=old", "resume=true", cwd=place)
    assert done.code == 2
    assert "algo: stepdpo.algo.tdpo.TDPO then, stepdpo.algo.dpo.DPO now" in done.err
    assert "template" not in done.err


def rows(text: str) -> list[str]:
    """Pairs in any order, without what is known of their steps, which was not written then."""
    found = [json.loads(line) for line in text.splitlines()]
    return sorted(json.dumps({k: v for k, v in row.items() if not k.endswith("_steps")}) for row in found)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_pairs_resume(place: Path) -> None:
    """Killed after four problems: the others are worked on, and the same pairs come of it."""
    run = place / "runs" / "oldpairs"
    wanted = (run / "preferences.jsonl").read_text()
    finished = (run / "finished.jsonl").read_text().splitlines(keepends=True)
    (run / "finished.jsonl").write_text("".join(finished[:4]))
    (run / "preferences.jsonl").rename(run / "preferences.partial.jsonl")
    (run / "summary.json").unlink()
    done = stepdpo("pairs", "pairs=recut", "pairs.path=trees.jsonl", "run=oldpairs", "resume=true", cwd=place)
    assert done.code == 0, done.said
    assert rows((run / "preferences.jsonl").read_text()) == rows(wanted)
    assert json.loads((run / "summary.json").read_text())["counts"]["problems"] == len(finished)


def test_parts_of_crew_are_found_where_they_were(tmp_path: Path) -> None:
    """They were once in the room that makes pairs."""
    for old, new in (("local.LocalExecutor", "LocalExecutor"), ("ray.RayExecutor", "RayExecutor")):
        OmegaConf.save(OmegaConf.create({"crew": {TARGET: f"stepdpo.pairs.executors.{old}"}}), tmp_path / "config.yaml")
        part = build(load_config(tmp_path / "config.yaml"))["crew"]
        assert type(part).__name__ == new
