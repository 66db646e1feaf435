"""Runs through the real command line: from words to a run folder, stopped, resumed, refused, with one's own parts."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from support.commands import metrics, signalled, start, stepdpo, tree, until

STRANGE = ("yaml.py", "json.py", "numpy.py")
"""What lies in the current folder by the names of libraries."""
LONG = ("epochs=900", "log_every=1", "save_every=3", "eval_every=0")


@pytest.fixture(scope="module")
def words(preferences: Path, tiny_model: Path) -> list[str]:
    return [
        "train", f"model={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "dataset.heldout=4",
        "batch.pairs=8", "epochs=2", "optim.lr=1e-3", "log_every=4", "save_every=3", "eval_every=3",
        "template=alpaca", "engine=local",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of `runs/whole`: six updates."""
    root = tmp_path_factory.mktemp("cli")
    for library in STRANGE:  # neither the command nor a worker may take it
        (root / library).write_text("raise SystemExit('ran what lies in the current folder')")
    ended = stepdpo(*words, "run=whole", cwd=root)
    assert ended.code == 0, ended.said
    assert ended.err == ""
    return root


def test_what_a_run_leaves(done: Path) -> None:
    run = done / "runs" / "whole"
    assert sorted(path.name for path in run.iterdir()) == [
        ".lock", "checkpoints", "config.yaml", "manifest.json", "metrics.jsonl", "model",
    ]  # fmt: skip
    assert tree(done) - {"runs", "runs/whole", *STRANGE} == {f"runs/whole/{name}" for name in tree(run)}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["argv"][0] == "stepdpo train"
    assert manifest["choices"]["template"] == "alpaca"
    card = json.loads((run / "model" / "stepdpo.json").read_text())
    assert card["template"]["name"] == "alpaca"
    assert [line["step"] for line in metrics(run)] == [0, 3, 4, 6, 6]


def test_resuming_needs_no_words(done: Path) -> None:
    """The run goes on with its own configuration, whatever the defaults are."""
    run = done / "runs" / "again"
    shutil.copytree(done / "runs" / "whole", run)
    shutil.rmtree(run / "model")
    ended = stepdpo("train", "run=again", "resume=true", cwd=done)
    assert ended.code == 0, ended.said
    assert "resuming after update 3 (step-000003)" in ended.out
    whole = done / "runs" / "whole"
    assert metrics(run) == metrics(whole)
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, whole)]
    assert weights[0] == weights[1]


def test_a_finished_run_is_left_alone(done: Path) -> None:
    run = done / "runs" / "whole"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock" and path.is_file()}
    ended = stepdpo("train", "run=whole", "resume=true", cwd=done)
    assert ended.code == 0
    assert "has finished: nothing to resume" in ended.out
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock" and path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("algo=tdpo", "algo: stepdpo.algo.dpo.DPO then, stepdpo.algo.tdpo.TDPO now"),
        ("algo.beta=0.9", "algo.beta: 0.4 then, 0.9 now"),
        ("seed=7", "seed: 0 then, 7 now"),
        ("dataset.heldout=5", "dataset.heldout: 4 then, 5 now"),
        ("engine=zero", "engine: stepdpo.training.engine.local.Local then, stepdpo.training.engine.zero.Zero now"),
        ("max_steps=2", "max_steps: None then, 2 now"),
        ("level=instance", "level: stepdpo.data.level.Step then, stepdpo.data.level.Instance now"),
    ],
)
def test_another_configuration_is_refused(done: Path, words: list[str], change: str, named: str) -> None:
    own = [word for word in words if word.partition("=")[0] != change.partition("=")[0]]
    ended = stepdpo(*own, change, "run=whole", "resume=true", cwd=done)
    assert ended.code == 2, ended.said
    assert "was started with another configuration" in ended.err
    assert named in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_config_folder_of_ones_own(done: Path, words: list[str], tmp_path: Path) -> None:
    """A loss of one's own: one YAML file, one module, no change to the package."""
    (tmp_path / "conf" / "algo").mkdir(parents=True)
    (tmp_path / "conf" / "algo" / "mine.yaml").write_text("_target_: my_loss.Mine\nscale: 2.0\n")
    (tmp_path / "my_loss.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from stepdpo.algo.dpo import DPO\n"
        "from stepdpo.tokens.batch import LossOutput, PairScores\n\n"
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        "    scale: float = 1.0\n"
        "    needs: ClassVar[frozenset[str]] = DPO.needs\n\n"
        "    def __call__(self, s: PairScores) -> LossOutput:\n"
        "        out = DPO(beta=0.4)(s)\n"
        "        return LossOutput(self.scale * out.losses_B, out.chosen_rewards_B, out.rejected_rewards_B, {})\n"
    )
    own = ("--config-dir", tmp_path / "conf", *words[1:], "algo=mine", "max_steps=1", "run=mine")
    ended = stepdpo("train", *own, cwd=tmp_path)
    assert ended.code == 0, ended.said
    lines = [metrics(root)[0]["heldout/loss"] for root in (done / "runs" / "whole", tmp_path / "runs" / "mine")]
    assert lines[1] == pytest.approx(2 * lines[0])
    ended = stepdpo("train", *own, "algo.scael=3", cwd=tmp_path)
    assert ended.code == 2
    assert "did you mean 'algo.scale'?" in ended.err


def test_a_strangers_run_folder_runs_no_code(done: Path) -> None:
    """Its configuration names a part that lies in the current folder, and beside the run."""
    run = done / "runs" / "strange"
    shutil.copytree(done / "runs" / "whole", run)
    shutil.rmtree(run / "model")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("stepdpo.algo.dpo.DPO", "evil.Evil"))
    for place in (done, run):
        (place / "evil.py").write_text("open('ran', 'w').close()")
    ended = stepdpo("train", "run=strange", "resume=true", cwd=done)
    assert ended.code == 2, ended.said
    assert "config.algo._target_: 'evil.Evil' is no part of stepdpo" in ended.err
    assert "--config-dir FOLDER" in ended.err
    assert not list(done.rglob("ran"))
    (done / "evil.py").unlink()


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=[pytest.mark.slow, pytest.mark.exhaustive])],
)
def test_a_signal_saves_and_stops(words: list[str], tmp_path: Path, signum: int, code: int) -> None:
    run = tmp_path / "runs" / "x"
    ended = signalled(signum, *words, *LONG, "run=x", folder=run, after=2, cwd=tmp_path)
    assert ended.code == code, ended.out
    assert f"stopped by {signal.Signals(signum).name}; a checkpoint was saved, resume=true goes on" in ended.out
    assert "Traceback" not in ended.out
    last = metrics(run)[-1]["step"]
    assert (run / "checkpoints" / f"step-{last:06d}" / "MANIFEST.json").is_file()
    assert not list(run.rglob("*.tmp"))
    assert not (run / "exit.json").exists()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_two_at_once(words: list[str], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "x"
    first = start(*words, *LONG, "run=x", cwd=tmp_path)
    try:
        until(lambda: metrics(run), first)
        for word in ("resume=true", "force=true", "seed=0"):
            second = stepdpo(*words, *LONG, "run=x", word, cwd=tmp_path)
            assert second.code == 2
            assert "is in use by pid" in second.err
    finally:
        first.kill()
        first.wait()


@pytest.mark.slow
def test_workers_do_not_outlive_the_command(words: list[str], tmp_path: Path) -> None:
    """Killed outright, it takes its worker along, which still saves; the run then goes on."""
    import psutil

    run = tmp_path / "runs" / "x"
    process = start(*words, *LONG, "epochs=60", "run=x", cwd=tmp_path)
    until(lambda: any(line["step"] >= 2 for line in metrics(run)), process)
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive
    ended = stepdpo("train", "run=x", "resume=true", cwd=tmp_path)
    assert ended.code == 0, ended.said
    assert "resuming after update" in ended.out
