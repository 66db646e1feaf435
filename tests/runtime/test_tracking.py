"""metrics.jsonl always; wandb where asked, offline here; neither can stop a training or give a key away."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stepdpo.core.config import build
from stepdpo.core.errors import UserError
from stepdpo.runtime.tracking import MetricsLog, Mode, NoTracking, Wandb

CANARY = "sk-CANARY0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_lines(tmp_path: Path) -> None:
    with NoTracking().open(tmp_path, "run", {}) as tracker:
        tracker.log({"loss": 0.5, "n": 3}, step=1)
        assert lines(tmp_path) == [{"step": 1, "loss": 0.5, "n": 3}]
        tracker.log({"loss": float("nan"), "kl": float("inf"), "lr": float("-inf")}, step=2)
    last = lines(tmp_path)[-1]
    assert last == {"step": 2, "loss": "NaN", "kl": "Infinity", "lr": "-Infinity"}
    assert str(float(last["kl"])) == "inf"


@pytest.mark.parametrize("torn", ["", '{"step": 4, "lo', '{"step": 4, "loss": 1.0}', "\x00\x00", "é"])
@pytest.mark.parametrize(("resumed", "kept"), [(None, [1, 2, 3]), (3, [1, 2, 3]), (2, [1, 2]), (0, []), (9, [1, 2, 3])])
def test_resuming_drops_what_comes_again(tmp_path: Path, torn: str, resumed: int | None, kept: list[int]) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsLog(path)
    for step in (1, 2, 3):
        first.log({"loss": step / 10}, step)
    with path.open("ab") as file:
        file.write(torn.encode()[:-1] if torn == "é" else torn.encode())
    MetricsLog(path, resumed).log({"loss": 1.0}, 10)
    assert [line["step"] for line in lines(tmp_path)] == [*kept, 10]


def test_a_disc_that_fails_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = MetricsLog(tmp_path / "no such folder" / "metrics.jsonl")
    for step in range(3):
        metrics.log({"loss": 1.0}, step)
    assert len(caplog.records) == 1
    assert "training goes on" in caplog.text


def test_conf_files_are_the_dataclasses() -> None:
    from omegaconf import OmegaConf

    folder = Path(__file__).parents[2] / "conf" / "track"
    assert build(OmegaConf.load(folder / "none.yaml")) == NoTracking()
    assert build(OmegaConf.load(folder / "wandb.yaml")) == Wandb()
    node = {"_target_": "stepdpo.runtime.tracking.Wandb", "mode": "offline", "tags": ["a"]}
    assert build(node) == Wandb(mode=Mode.offline, tags=("a",))
    with pytest.raises(UserError, match="did you mean 'offline'"):
        build({**node, "mode": "offlin"})


def test_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Wandb()._mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    assert Wandb()._mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert Wandb()._mode() == "disabled"
    assert Wandb(mode=Mode.offline)._mode() == "offline"


def test_a_netrc_is_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "netrc"
    path.write_text("machine wandb.example.org login user password 0123456789\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    assert Wandb()._mode() == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert Wandb()._mode() == "online"


RUN = """
import sys, warnings
warnings.simplefilter("error")
from pathlib import Path
from stepdpo.runtime.tracking import Wandb
config = {"judge": {"api_key": sys.argv[2], "model": "m"}, "note": "token: " + sys.argv[2], "beta": 0.1}
with Wandb(tags=("t",), group="g").open(Path(sys.argv[1]), "my run", config) as tracker:
    for step in (1, 2):
        tracker.log({"loss": 0.5, "kl": float("nan")}, step)
    print(sys.argv[2])
assert "wandb" in sys.modules
"""


def test_no_secret_reaches_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary is in the config, on the command line, in the environment and printed: in no file."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    run = tmp_path / "run"
    run.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(run), CANARY, f"judge.api_key={CANARY}"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    written = [path for path in files if path.suffix == ".wandb"]
    assert len(written) == 1
    assert b"my run" in written[0].read_bytes()
    assert b"loss" in written[0].read_bytes()
    assert [path for path in files if b"CANARY" in path.read_bytes()] == []
    assert [line["step"] for line in lines(run)] == [1, 2]


def test_a_resumed_run_keeps_its_id(tmp_path: Path) -> None:
    spec = Wandb(mode=Mode.offline)
    for start in (1, 2):
        with spec.open(tmp_path, "run", {"lr": start / 10}, resumed=start - 1) as tracker:
            tracker.log({"loss": 1.0}, start)
    name = (tmp_path / "wandb" / "stepdpo-id").read_text()
    found = list((tmp_path / "wandb").glob(f"offline-run-*/run-{name}.wandb"))
    assert found
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


class Failing:
    """A wandb run whose every method raises."""

    def log(self, *_: object, **__: object) -> None:
        raise ConnectionError(f"server says no to {CANARY}")

    def finish(self, *_: object, **__: object) -> None:
        raise AssertionError("left alone after the first failure")


def test_wandb_failing_midway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Wandb, "_init", lambda *_: Failing())  # opened, then every call raises
    with Wandb().open(tmp_path, "run", {}) as tracker:
        for step in range(5):
            tracker.log({"loss": 1.0}, step)
    assert len(lines(tmp_path)) == 5
    assert len(caplog.records) == 1
    assert "CANARY" not in caplog.text


def test_wandb_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with Wandb().open(tmp_path, "run", {}) as tracker:
        tracker.log({"loss": 1.0}, 1)
    assert len(lines(tmp_path)) == 1
    assert len(caplog.records) == 1


UNREACHABLE = """
import logging, sys, time
from pathlib import Path
from stepdpo.runtime.tracking import Wandb
import wandb
logging.basicConfig(format="%(name)s %(message)s")
start = time.monotonic()
with Wandb().open(Path(sys.argv[1]), "run", {}) as tracker:
    tracker.log({"loss": 1.0}, 1)
assert time.monotonic() - start < 10, time.monotonic() - start
"""


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "bad", "0123456789012345678901234567890123456789"])
def test_online_without_a_network(tmp_path: Path, key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, a malformed key, or a server that cannot be reached: within 10 s it goes on offline.

    In a process of its own, because wandb reads the environment once.
    """
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE, str(tmp_path)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stepdpo.runtime.tracking wandb (online) did not start") == 1
    assert done.stderr.count("stepdpo.runtime.tracking") == 1
    assert [line["step"] for line in lines(tmp_path)] == [1]
    assert len(list(tmp_path.glob("wandb/offline-run-*/*-offline.wandb"))) == 1


def test_an_exception_passes_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Wandb(mode=Mode.offline).open(tmp_path, "run", {}):
        raise ZeroDivisionError
