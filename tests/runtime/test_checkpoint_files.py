"""A checkpoint counts when it is whole: killed, torn and flipped ones are named and passed over."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stepdpo.runtime import checkpoint_files as checkpoints
from stepdpo.runtime.checkpoint_files import (
    MANIFEST,
    begin_checkpoint,
    checkpoint,
    checkpoint_path,
    commit_checkpoint,
    committed,
    newest_whole,
    prune,
    step_of,
    verify,
)

FILES = {"model.safetensors": b"\x00\x01weights" * 9, "state/rank0.pt": b"optimiser", "state/empty": b""}


def save(folder: Path, step: int, files: dict[str, bytes] = FILES) -> Path:
    with checkpoint(folder, step) as scratch:
        fill(scratch, files)
    return checkpoint_path(folder, step)


def fill(scratch: Path, files: dict[str, bytes] = FILES) -> None:
    for name, data in files.items():
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).write_bytes(data)


def whole_checkpoints(folder: Path) -> list[Path]:
    """Every checkpoint of a run that verifies, newest first."""
    return [path for path in committed(folder) if not verify(path)]


def test_saved_is_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    assert path.name == "step-000100"
    assert verify(path) == []
    assert [p.name for p in path.parent.iterdir()] == ["step-000100"]
    listed = json.loads((path / MANIFEST).read_text())
    assert listed["step"] == 100
    assert {name: it["bytes"] for name, it in listed["files"].items()} == {n: len(d) for n, d in FILES.items()}


def test_newest_first_by_number(tmp_path: Path) -> None:
    for step in (2_000_000, 0, 999_999, 100):
        save(tmp_path, step)
    assert [step_of(path) for path in whole_checkpoints(tmp_path)] == [2_000_000, 999_999, 100, 0]
    assert newest_whole(tmp_path) == (checkpoint_path(tmp_path, 2_000_000), [])


def test_no_run_no_checkpoint(tmp_path: Path) -> None:
    assert whole_checkpoints(tmp_path / "gone") == []
    assert newest_whole(tmp_path) == (None, [])


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_flipped_bit_in_any_byte_is_found(tmp_path: Path, name: str) -> None:
    """Stride 9 visits every byte, each time another of its bits."""
    path = save(tmp_path, 100)
    data = (path / name).read_bytes()
    for position in range(0, 8 * len(data), 9):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        (path / name).write_bytes(flipped)
        assert verify(path), f"bit {position} of {name}"
    (path / name).write_bytes(data)
    assert verify(path) == []


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_byte_more_or_less_is_found(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 100)
    data = (path / name).read_bytes()
    for other in (data[:-1], data + b"\n", data + data, b"")[(not data) :]:
        if other != data:
            (path / name).write_bytes(other)
            assert any(problem.startswith(name) for problem in verify(path))


def test_missing_extra_and_linked_files(tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    (path / "state" / "rank1.pt").write_bytes(b"a stranger's pickle")
    assert verify(path) == ["state/rank1.pt: not in the manifest"]
    (path / "state" / "rank1.pt").unlink()
    (path / "model.safetensors").unlink()
    assert verify(path) == ["model.safetensors: missing"]
    (path / "model.safetensors").symlink_to(tmp_path)
    assert "not a plain file" in verify(path)[0]


def test_names_of_another_step_or_format(tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    renamed = path.rename(checkpoint_path(tmp_path, 900))
    assert verify(renamed) == [f"{MANIFEST}: damaged"]
    (renamed / MANIFEST).write_text('{"format": 2, "files": {}, "step": 900}')
    assert "format 2" in verify(renamed)[0]


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"files": [1], "format": 1}', '{"files": 3, "format": 1, "step": 100}']
)
def test_manifests_that_are_none(tmp_path: Path, text: str) -> None:
    path = save(tmp_path, 100)
    (path / MANIFEST).write_text(text)
    assert len(verify(path)) == 1


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    (tmp_path / "secret").write_bytes(b"x")
    entry = {"../../secret": checkpoints._describe(tmp_path / "secret")}
    (path / MANIFEST).write_text(checkpoints._manifest(100, entry))
    assert "../../secret: missing" in verify(path)


def test_the_newest_whole_one_is_chosen_and_the_skipped_are_named(tmp_path: Path) -> None:
    for step in (100, 200, 300, 400):
        save(tmp_path, step)
    (checkpoint_path(tmp_path, 400) / MANIFEST).unlink()
    (checkpoint_path(tmp_path, 300) / "state/rank0.pt").write_bytes(b"opt")
    chosen, skipped = newest_whole(tmp_path)
    assert chosen == checkpoint_path(tmp_path, 200)
    assert [(step_of(s.path), s.problems) for s in skipped] == [
        (400, (f"{MANIFEST}: missing, so it was never committed",)),
        (300, ("state/rank0.pt: 3 bytes instead of 9",)),
    ]


def test_without_hashes_only_sizes_are_read(tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    (path / "state/rank0.pt").write_bytes(b"OPTIMISER")
    assert verify(path, hashes=False) == []
    assert verify(path) == ["state/rank0.pt: contents changed (sha256 differs)"]


def test_full_disc_removes_the_partial_and_keeps_the_old(tmp_path: Path) -> None:
    save(tmp_path, 100)

    def write_half(scratch: Path) -> None:
        (scratch / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), checkpoint(tmp_path, 200) as scratch:
        write_half(scratch)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000100"]


def test_nothing_written_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing was written"), checkpoint(tmp_path, 100):
        pass
    with pytest.raises(ValueError, match="not named like a checkpoint"):
        step_of(tmp_path)
    with pytest.raises(ValueError, match="not negative"):
        checkpoint_path(tmp_path, -1)


def test_left_overs_of_an_interrupted_attempt_do_not_mix_in(tmp_path: Path) -> None:
    (begin_checkpoint(tmp_path, 100) / "stale.pt").write_bytes(b"x")
    scratch = begin_checkpoint(tmp_path, 100)
    assert not list(scratch.iterdir())
    fill(scratch)
    commit_checkpoint(scratch, checkpoint_path(tmp_path, 100))
    assert verify(checkpoint_path(tmp_path, 100)) == []


def test_the_same_step_again_replaces(tmp_path: Path) -> None:
    save(tmp_path, 100, {"model": b"old"})
    path = save(tmp_path, 100, {"model": b"new"})
    assert (path / "model").read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["step-000100"]


KILLED = """
import os, pathlib, shutil, sys
from pathlib import Path
from stepdpo.runtime import checkpoint_files as checkpoints
from stepdpo.runtime import atomic_io as files
countdown = int(sys.argv[2])
def deadly(function):
    def call(*args, **kwargs):
        global countdown
        countdown -= 1
        if countdown < 0:
            os.kill(os.getpid(), 9)
        return function(*args, **kwargs)
    return call
for owner, name in [(os, "fsync"), (os, "replace"), (shutil, "rmtree"), (pathlib.Path, "rename"),
                    (pathlib.Path, "mkdir"), (pathlib.Path, "write_bytes")]:
    setattr(owner, name, deadly(getattr(owner, name)))
with checkpoints.checkpoint(Path(sys.argv[1]), int(sys.argv[3])) as scratch:
    for name in ("model", "state/rank0.pt"):
        (scratch / name).parent.mkdir(exist_ok=True)
        (scratch / name).write_bytes(b"new")
"""


@pytest.mark.parametrize("step", [100, 200], ids=["same step again", "next step"])
def test_killed_at_every_point_of_a_save(tmp_path: Path, step: int) -> None:
    """Whenever the process dies, the newest whole checkpoint is the old one or the new one, never a mixture."""
    seen = set()
    for countdown in range(40):
        run = tmp_path / str(countdown)
        save(run, 100, {"model": b"old", "state/rank0.pt": b"old"})
        done = subprocess.run([sys.executable, "-c", KILLED, str(run), str(countdown), str(step)], check=False)
        chosen, skipped = newest_whole(run)
        assert chosen is not None
        assert skipped == []
        texts = {(chosen / name).read_bytes() for name in ("model", "state/rank0.pt")}
        assert len(texts) == 1
        seen |= texts
        save(run, step, FILES)  # the run goes on
        prune(run, keep=1)
        assert [p.name for p in (run / "checkpoints").iterdir()] == [f"step-{step:06d}"]
        if done.returncode == 0:
            assert texts == {b"new"}
            break
        assert done.returncode == -9
    else:
        pytest.fail("never finished")
    assert countdown > 8
    assert seen == {b"old", b"new"}


def test_one_rank_dies_before_its_shard(tmp_path: Path) -> None:
    """Nothing is committed before every rank has written: without the commit there is nothing to choose."""
    save(tmp_path, 100)
    fill(begin_checkpoint(tmp_path, 200), {"state/rank0.pt": b"only mine"})
    assert newest_whole(tmp_path) == (checkpoint_path(tmp_path, 100), [])


def test_prune_keeps_whole_ones(tmp_path: Path) -> None:
    for step in (100, 200, 300, 400, 500):
        save(tmp_path, step)
    (checkpoint_path(tmp_path, 500) / MANIFEST).unlink()
    begin_checkpoint(tmp_path, 150)
    begin_checkpoint(tmp_path, 600)
    gone = prune(tmp_path, keep=2)
    assert [step_of(path) for path in gone] == [200, 100]
    left = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert left == [".step-000600.tmp", "step-000300", "step-000400", "step-000500"]


def test_prune_never_deletes_for_want_of_whole_ones(tmp_path: Path) -> None:
    for step in (100, 200):
        save(tmp_path, step)
    (checkpoint_path(tmp_path, 200) / MANIFEST).unlink()
    assert prune(tmp_path, keep=2) == []
    assert [step_of(path) for path in whole_checkpoints(tmp_path)] == [100]
    with pytest.raises(ValueError, match="at least one"):
        prune(tmp_path, keep=0)


def test_foreign_folders_are_no_checkpoints(tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    (path.parent / "step-best").mkdir()
    (path.parent / "step-000300").symlink_to(path)
    (path.parent / "step-000400").write_text("a file")
    assert whole_checkpoints(tmp_path) == [path]
    prune(tmp_path, keep=1)
    assert (path.parent / "step-best").is_dir()


def test_unreadable_file_is_a_problem_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, 100)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("hashlib.file_digest", fail)
    assert "model.safetensors: unreadable (Input/output error)" in verify(path)


def test_moved_run_is_still_whole(tmp_path: Path) -> None:
    save(tmp_path / "a", 100)
    shutil.move(tmp_path / "a", tmp_path / "b")
    os.utime(checkpoint_path(tmp_path / "b", 100) / MANIFEST, (0, 0))
    assert len(whole_checkpoints(tmp_path / "b")) == 1
