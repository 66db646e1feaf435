"""Runs through the real command line: from words to a run folder, stopped, resumed, refused, with one's own parts."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from support.commands import Done, metrics, signalled, start, stepdpo, tree, until

from stepdpo.data.template_card import resolve
from stepdpo.data.templates import NativeTemplate
from stepdpo.runtime.run_lock import LOCKS

STRANGE = ("yaml.py", "json.py", "numpy.py")
"""What lies in the current folder by the names of libraries."""
LONG = ("epochs=900", "log_every=1", "save_every=3", "eval_every=0")


@pytest.fixture(scope="module")
def words(preferences: Path, tiny_model: Path) -> list[str]:
    return [
        "train", f"model={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "dataset.heldout=4",
        "batch.pairs=8", "epochs=2", "optim.lr=1e-3", "log_every=4", "save_every=3", "eval_every=3",
        "template=alpaca", "engine=local", "guard=none",  # which at this rate would have lines of its own
    ]  # fmt: skip


@pytest.fixture(scope="module")
def said(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, Path]:
    """What `runs/whole` printed, and its root: six updates."""
    root = tmp_path_factory.mktemp("cli")
    for library in STRANGE:  # neither the command nor a worker may take it
        (root / library).write_text("raise SystemExit('ran what lies in the current folder')")
    ended = stepdpo(*words, "run=whole", cwd=root)
    assert ended.code == 0, ended.said
    return ended, root


@pytest.fixture(scope="module")
def done(said: tuple[Done, Path]) -> Path:
    """The root of `runs/whole`."""
    return said[1]


def test_plain_lines(said: tuple[Done, Path]) -> None:
    """Where there is no terminal: no bar, no colour, a line where the log has one."""
    assert said[0].err == ""
    out = said[0].out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("update ")] == ["4/6", "6/6"]
    assert [line for line in out.splitlines() if line.startswith("held-out after 6  loss ")]
    assert "\x1b" not in out
    assert "\r" not in out


def test_what_a_run_leaves(done: Path) -> None:
    run = done / "runs" / "whole"
    assert sorted(path.name for path in run.iterdir()) == [
        ".lock", ".workers", "checkpoints", "config.yaml", "data.json", "manifest.json", "metrics.jsonl", "model",
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
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name not in LOCKS and path.is_file()}
    ended = stepdpo("train", "run=whole", "resume=true", cwd=done)
    assert ended.code == 0
    assert "has finished: nothing to resume" in ended.out
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name not in LOCKS and path.is_file()}
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
        "from stepdpo.tokens.pair_scores import LossOutput, PairScores\n\n"
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        "    scale: float = 1.0\n"
        "    needs: ClassVar[frozenset[str]] = DPO().needs\n\n"
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


@pytest.mark.slow
@pytest.mark.exhaustive
def test_force_keeps_the_old_run_until_the_new_one_has_begun(done: Path, words: list[str]) -> None:
    """The worker finds no data: what was there is there again, to the byte, and can be gone on with."""
    run = done / "runs" / "replaced"
    shutil.copytree(done / "runs" / "whole", run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name not in LOCKS}
    missing = [word if "dataset.path" not in word else "dataset.path=nowhere.jsonl" for word in words]
    ended = stepdpo(*missing, "run=replaced", "force=true", cwd=done)
    assert ended.code == 2, ended.said
    assert "nowhere.jsonl" in ended.err
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name not in LOCKS}
    assert after == before
    ended = stepdpo(*words, "max_steps=1", "run=replaced", "force=true", cwd=done)
    assert ended.code == 0, ended.said
    assert metrics(run)[-1]["step"] == 1
    assert not list(run.glob(".replaced*"))


def test_where_nothing_began_nothing_is_left(done: Path, words: list[str], tmp_path: Path) -> None:
    """Of a training and of an evaluation; and a misspelt run is not trained anew by resume=true."""
    missing = [word if "dataset.path" not in word else "dataset.path=nowhere.jsonl" for word in words]
    assert stepdpo(*missing, "run=deep/er", cwd=tmp_path).code == 2
    assert tree(tmp_path) == set()
    before = tree(done / "runs" / "whole")
    ended = stepdpo("eval", "run=whole", "task=gsm8k", "task.path=nowhere.jsonl", cwd=done)
    assert ended.code == 2, ended.said
    assert tree(done / "runs" / "whole") == before
    ended = stepdpo(*words, "run=whloe", "resume=true", cwd=done)
    assert ended.code == 2, ended.said
    assert "resume=true: there is no run runs/whloe; did you mean 'whole'?" in ended.err
    assert not (done / "runs" / "whloe").exists()


TRIPS = """
from dataclasses import dataclass
from pathlib import Path
from stepdpo.algo.dpo import DPO
from stepdpo.core.errors import UserError

CALLS = []


@dataclass(frozen=True)
class Trips:
    trap: str
    needs = DPO().needs

    def __call__(self, scores):
        CALLS.append(1)
        if len(CALLS) > 3 and Path(self.trap).exists():
            raise UserError("tripped")
        return DPO(beta=0.4)(scores)
"""


@pytest.mark.slow
@pytest.mark.exhaustive
def test_an_error_in_the_midst_keeps_what_was_begun(words: list[str], tmp_path: Path) -> None:
    """Checkpoints, configuration and log; damaged tokens are noticed when it goes on, and made again."""
    (tmp_path / "conf" / "algo").mkdir(parents=True)
    (tmp_path / "conf" / "algo" / "trips.yaml").write_text(f"_target_: trips.Trips\ntrap: {tmp_path / 'trap'}\n")
    (tmp_path / "trips.py").write_text(TRIPS)
    (tmp_path / "trap").touch()
    own = ("--config-dir", tmp_path / "conf", "algo=trips", "save_every=1", "log_every=1", "run=x")
    kept = [word for word in words[1:] if not word.startswith(("save_every", "log_every"))]
    home = {"STEPDPO_HOME": str(tmp_path / "home")}
    ended = stepdpo("train", *own, *kept, cwd=tmp_path, **home)
    assert ended.code == 2, ended.said
    assert ended.err == "error: tripped\n"
    run = tmp_path / "runs" / "x"
    assert tree(run) >= {"config.yaml", "manifest.json", "metrics.jsonl", "checkpoints/step-000001/MANIFEST.json"}
    (tokens,) = (tmp_path / "home").glob("tokens/*/train.tokens")
    tokens.write_bytes(b"x" * tokens.stat().st_size)
    (tmp_path / "trap").unlink()
    ended = stepdpo("train", "--config-dir", tmp_path / "conf", "run=x", "resume=true", cwd=tmp_path, **home)
    assert ended.code == 0, ended.said
    assert "the data are tokenised again" in ended.out
    assert "resuming after update" in ended.out
    assert [line["step"] for line in metrics(run) if "loss" in line] == list(range(1, 7))


@pytest.mark.slow
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
    assert "algo._target_: 'evil.Evil' is no part of stepdpo" in ended.err
    assert "--config-dir FOLDER" in ended.err
    assert not list(done.rglob("ran"))
    (done / "evil.py").unlink()


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.exhaustive)],
)
@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.exhaustive
def test_settings_of_the_template_are_remembered(tmp_path: Path) -> None:
    ended = stepdpo(
        "train", "model=tinymath", "engine=local", "algo=sft", "dataset=tinymath_solutions", "dataset.count=8",
        "dataset.heldout=0", "batch.pairs=8", "max_steps=1", "save_every=0", "template.system=Be brief.",
        "save_dtype=bfloat16", "run=brief", cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.said
    model = tmp_path / "runs" / "brief" / "model"
    assert resolve(NativeTemplate(), model) == (NativeTemplate(system="Be brief."), None)
    assert json.loads((model / "config.json").read_text())["torch_dtype"] == "bfloat16"
