"""A run that was stopped and resumed is the run that was never stopped, bit for bit, on one process."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from support import partial
from support.commands import metrics
from support.trainings import Runs

from stepdpo.runtime.prefetch import Prefetcher
from stepdpo.training.checkpointing import Checkpointer
from stepdpo.training.loop import Loop
from stepdpo.training.step import StepInputs

EARLIER = "model", "checkpoints/step-000004"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, pairs_words: list[str], tiny_model: Path) -> Runs:
    """Six updates; a line of the log every four, a checkpoint every two or by a signal."""
    words = [*pairs_words, "model=pretrained", f"model.path={tiny_model}", "algo=tdpo"]
    runs = Runs(tmp_path_factory.mktemp("resume"), [w for w in words if not w.startswith("log_every")])
    runs.local("whole", "log_every=4")
    return runs


def assert_same(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    assert weights(one) == weights(other)
    assert not (other / "reference").exists()
    assert not list(other.rglob("*.tmp"))


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def signals_at(monkeypatch: pytest.MonkeyPatch, update: int, *signums: int) -> None:
    """Send this process signals while it works on an update."""
    work = Loop._update

    def interrupted(self: Loop, step: int, ahead: Prefetcher[StepInputs]) -> dict[str, float]:
        for signum in signums if step + 1 == update else ():
            signal.raise_signal(signum)
        return work(self, step, ahead)

    monkeypatch.setattr(Loop, "_update", interrupted)


def test_from_a_checkpoint(runs: Runs) -> None:
    """The lines of the log average over updates on both sides of the checkpoint."""
    folder = runs.cut("cut", "whole", *EARLIER)
    assert runs.go_on(folder) == (0, "")
    assert_same(runs.root / "whole", folder)


def test_a_weighed_loss_goes_on_too(runs: Runs) -> None:
    """WPO, whose weights are of the policy as it is at each update; and it learns."""
    whole = runs.local("wpo", "log_every=4", "algo=wpo", "algo.beta=0.4")
    folder = runs.cut("wpo-cut", "wpo", *EARLIER)
    assert runs.go_on(folder) == (0, "")
    assert_same(whole, folder)
    losses = [line["loss"] for line in metrics(whole) if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("update", [1, 3, 6])
def test_stopped_by_a_signal(runs: Runs, monkeypatch: pytest.MonkeyPatch, update: int, signum: int, code: int) -> None:
    folder = runs.write(f"{code}-{update}", "engine=local", "log_every=4")
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        signals_at(patch, update, signum)
        ended, message = runs.go_on(folder, resume=False)
        signal.signal(signal.SIGTERM, before)
    assert ended == code
    assert "a checkpoint was saved" in message
    assert signal.Signals(signum).name in message
    assert (folder / "checkpoints" / f"step-{update:06d}" / "MANIFEST.json").is_file()
    assert not (folder / "model").exists()
    assert not (folder / "reference").exists()
    assert runs.go_on(folder) == (0, "")
    assert_same(runs.root / "whole", folder)


@pytest.mark.parametrize("kind", ["frozen", "lora"])
def test_what_is_frozen_is_no_part_of_the_state(runs: Runs, kind: str) -> None:
    """The state holds what learns; the rest comes from where it came from at first."""
    if kind == "lora":
        pytest.importorskip("peft")
    words = partial.WORDS if kind == "frozen" else ("adapter=lora", "adapter.rank=4", "adapter.head=true")
    whole = runs.local(kind, "log_every=4", *words)
    state = torch.load(whole / "checkpoints" / "step-000004" / "state" / "optimizer.pt", weights_only=True)
    named = state["model"]
    assert named
    assert all((".layers.1." if kind == "frozen" else ".lora_") in name for name in named)
    assert len(state["optimizer"]["state"]) == len(named)
    folder = runs.cut(f"{kind}-cut", kind, *EARLIER)
    assert runs.go_on(folder) == (0, "")
    assert_same(whole, folder)


def test_stopped_again_and_again(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = runs.write("often", "engine=local", "log_every=4")
    for update in (1, 2, 3, 5):
        with monkeypatch.context() as patch:
            signals_at(patch, update, signal.SIGINT)
            assert runs.go_on(folder, resume=update > 1)[0] == 130
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert runs.go_on(folder) == (0, "")
    assert_same(runs.root / "whole", folder)


def test_a_second_ctrl_c_does_not_wait(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = runs.write("twice", "engine=local", "log_every=4")
    signals_at(monkeypatch, 3, signal.SIGINT, signal.SIGINT)
    assert runs.go_on(folder, resume=False) == (130, "stopped at once")
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-000002"]


def test_the_first_signal_names_the_end(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, and then the SIGTERM of a launcher that tidies up."""
    folder = runs.write("both", "engine=local", "log_every=4")
    signals_at(monkeypatch, 3, signal.SIGINT, signal.SIGTERM)
    assert runs.go_on(folder, resume=False)[0] == 130
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_signal_does_not_spoil_the_finished_model(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Checkpointer.save_model

    def interrupted(self: Checkpointer, folder: Path) -> None:
        signal.raise_signal(signal.SIGTERM)
        save(self, folder)

    monkeypatch.setattr(Checkpointer, "save_model", interrupted)
    folder = runs.write("late", "engine=local", "log_every=4")
    assert runs.go_on(folder, resume=False) == (0, "")
    assert_same(runs.root / "whole", folder)


def test_without_a_checkpoint_it_starts_anew(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs.cut("none", "whole", "model", "checkpoints")
    assert runs.go_on(folder) == (0, "")
    assert "no checkpoint to resume from" in capsys.readouterr().out
    assert_same(runs.root / "whole", folder)


@pytest.mark.parametrize("where", ["state/optimizer.pt", "model.safetensors", "trainer.json", "MANIFEST.json"])
def test_a_damaged_checkpoint_is_passed_over(runs: Runs, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs.cut(f"flipped-{Path(where).stem}", "whole", "model")
    path = folder / "checkpoints" / "step-000004" / where
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert runs.go_on(folder) == (0, "")
    said = capsys.readouterr().out
    assert "skipped step-000004" in said
    assert where in said
    assert "resuming after update 2" in said
    assert_same(runs.root / "whole", folder)


def test_a_torn_checkpoint_is_passed_over(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs.cut("torn", "whole", "model")
    path = folder / "checkpoints" / "step-000004" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    (folder / "checkpoints" / ".step-000006.tmp").mkdir()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert runs.go_on(folder) == (0, "")
    assert "skipped step-000004: model.safetensors: " in capsys.readouterr().out
    assert metrics(runs.root / "whole") == metrics(folder)
    assert weights(runs.root / "whole") == weights(folder)


def test_other_data_are_refused(runs: Runs, tmp_path: Path) -> None:
    """The words are the same, the file is not."""
    folder = runs.cut("data", "whole", *EARLIER)
    config = (folder / "config.yaml").read_text()
    path = next(line.split()[1] for line in config.splitlines() if "preferences.jsonl" in line)
    rows = Path(path).read_text().splitlines()
    other = tmp_path / "preferences.jsonl"
    other.write_text("\n".join(rows[:-1]) + "\n")
    (folder / "config.yaml").write_text(config.replace(path, str(other)))
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, message = runs.go_on(folder)
    assert code == 2
    assert "other data" in message
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_killed_save_leaves_the_one_before(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a save had written when its process died, the run goes on from the checkpoint before it."""
    folder = runs.write("killed", "engine=local", "log_every=4")
    write = Checkpointer._write_model

    def dies(self: Checkpointer, into: Path) -> None:
        write(self, into)
        if into.name == ".step-000004.tmp":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "_write_model", dies)
        assert runs.go_on(folder, resume=False)[0] == 130
    assert runs.go_on(folder) == (0, "")
    assert_same(runs.root / "whole", folder)


def test_the_pairs_of_an_epoch_are_seen_once(runs: Runs) -> None:
    """The card of a checkpoint says how far it is, and the order depends on nothing else."""
    trainer = json.loads((runs.root / "whole" / "checkpoints" / "step-000004" / "trainer.json").read_text())
    assert trainer["step"] == 4
    assert trainer["world"] == 1
