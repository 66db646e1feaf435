"""The run folder comes to be, and is never lost by accident."""

import json
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from stepdpo.core.errors import UserError
from stepdpo.runtime.atomic_io import write_json
from stepdpo.runtime.manifest import _git, manifest
from stepdpo.runtime.run_folder import REPLACED, claim, create, has_begun, keep_new, keep_old, run_path
from stepdpo.runtime.run_lock import LOCKS


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = create(tmp_path / "runs" / "mine")
    write_json(folder / "manifest.json", manifest(["stepdpo"], seed=0))
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_text("precious")
    return folder


def test_new_and_empty(tmp_path: Path) -> None:
    folder = create(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert create(folder) == folder
    assert create(tmp_path / "never seen", resume=True).is_dir()


def test_existing_is_refused_and_says_how(run: Path) -> None:
    with pytest.raises(UserError, match=r"resume=true .* force=true"):
        create(run)
    assert (run / "model" / "weights").read_text() == "precious"


def test_resume_keeps_and_force_puts_aside(run: Path) -> None:
    create(run, resume=True)
    assert (run / "model" / "weights").exists()
    create(run, force=True)
    assert [path.name for path in run.iterdir()] == [REPLACED]
    keep_new(run)
    assert not list(run.iterdir())
    with pytest.raises(UserError, match="one of them"):
        create(run, force=True, resume=True)


@pytest.mark.parametrize("how", ["force", "resume"])
def test_another_users_run_is_left_alone(run: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "config.yaml").write_text("mine: true")
    with claim(run, resume=True):
        pass
    other = run.stat().st_uid + 1
    monkeypatch.setattr("os.getuid", lambda: other)
    with pytest.raises(UserError, match="or another user's"), claim(run, **{how: True}):
        pass
    monkeypatch.undo()
    (run / "config.yaml").rename(run.parent / "elsewhere.yaml")
    (run / "config.yaml").symlink_to(run.parent / "elsewhere.yaml")
    with pytest.raises(UserError, match="not a run of stepdpo"), claim(run, **{how: True}):
        pass
    assert names(run) == {*WHOLE, "config.yaml"}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name not in LOCKS}


WHOLE = {"manifest.json", "model", "model/weights"}


def begin(run: Path) -> None:
    """What a command writes into a folder before its work starts."""
    write_json(run / "manifest.json", manifest(["stepdpo"], seed=1))
    (run / "config.yaml").write_text("new: true")


def test_a_new_run_that_never_began_gives_way(run: Path) -> None:
    before = (run / "manifest.json").read_text()
    with claim(run, force=True):
        begin(run)
        (run / "quarantine.jsonl").write_text("{}")
        (run / "wandb").mkdir()
        assert not has_begun(run)
        keep_old(run)
    assert names(run) == {*WHOLE, "quarantine.jsonl"}
    assert (run / "manifest.json").read_text() == before


@pytest.mark.parametrize(
    "sign",
    ["model/config.json", "summary.json", "checkpoints/step-000003/MANIFEST.json", "finished.jsonl", "metrics.jsonl",
     "attempts.partial.jsonl", "round-1/pairs/finished.jsonl"],
)  # fmt: skip
def test_signs_of_a_beginning(run: Path, sign: str) -> None:
    assert not has_begun(run)
    (run / sign).parent.mkdir(parents=True, exist_ok=True)
    (run / sign).write_text('{"step": 0, "heldout/loss": 1.0}\n' if sign == "metrics.jsonl" else "{}")
    if sign == "metrics.jsonl":
        assert not has_begun(run)
        (run / sign).write_text('{"step": 0}\n{"step": 1, "loss": 0.5}\n{"st')
    assert has_begun(run)


def test_force_again_before_the_new_run_began_keeps_the_old_one(run: Path) -> None:
    """Killed twice: the run that was worth something is still what is put back."""
    for _ in range(2):
        with claim(run, force=True):
            begin(run)
    with claim(run, force=True):
        begin(run)
        keep_old(run)
    assert names(run) == WHOLE


def test_force_after_the_new_run_began_replaces_that_one(run: Path) -> None:
    with claim(run, force=True):
        begin(run)
        (run / "summary.json").write_text("{}")
    with claim(run, force=True):
        begin(run)
        keep_old(run)
    assert names(run) == {"manifest.json", "config.yaml", "summary.json"}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moves", range(8))
@pytest.mark.parametrize("then", ["force", "resume"])
def test_killed_while_moving_aside_or_back_nothing_is_lost(
    run: Path, moves: int, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any number of moves; whoever comes next finds the old run, whole."""
    rename, done = Path.rename, [0]

    def some(path: Path, target: Path) -> Path:
        if done[0] == moves:
            raise Killed
        done[0] += 1
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", some)
    with suppress(Killed), claim(run, force=True):
        begin(run)
        keep_old(run)
    monkeypatch.undo()
    with claim(run, **{then: True}):
        if then == "force":
            keep_old(run)
    assert names(run) == WHOLE


@pytest.mark.parametrize("text", [None, "{}", "[]", "3", "null", "garbage", '{"name": "an app", "icons": []}'])
@pytest.mark.parametrize("how", ["force", "resume"])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, text: str | None, how: str) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(UserError, match="not a run of stepdpo"), claim(tmp_path, **{how: True}):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_force_never_leaves_the_folder(run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "data").write_text("precious")
    (run / "link").symlink_to(outside)
    (run / "model" / "link").symlink_to(outside)
    create(run, force=True)
    assert (outside / "data").read_text() == "precious"


def test_a_linked_run_is_not_deleted_but_resumed(run: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(run)
    with pytest.raises(UserError, match="link"), claim(link, force=True):
        pass
    assert (run / "model" / "weights").exists()
    assert create(link, resume=True) == link
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="link to nothing"):
        create(tmp_path / "nowhere")


def test_a_linked_manifest_does_not_make_it_ours(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").symlink_to(run / "manifest.json")
    with pytest.raises(UserError, match="not a run"):
        create(other, force=True)


def test_half_a_deleted_run_is_never_put_back(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with claim(run, force=True):
        begin(run)
        (run / "summary.json").write_text("{}")
        with monkeypatch.context() as patch:
            patch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if killed before anything was deleted
            keep_new(run)
    assert REPLACED not in names(run)
    with claim(run, force=True):
        begin(run)
        keep_old(run)
    assert names(run) == {"manifest.json", "config.yaml", "summary.json"}


def test_claim_holds_and_second_is_refused(run: Path) -> None:
    with claim(run, resume=True) as held:
        assert held == run
        with pytest.raises(UserError, match="in use by pid"), claim(run, resume=True):
            pass
    with claim(run, force=True):
        assert {path.name for path in run.iterdir()} == {".lock", REPLACED}


def test_claim_of_a_new_run_can_be_refused_later(tmp_path: Path) -> None:
    with claim(tmp_path / "new") as folder:
        write_json(folder / "manifest.json", manifest([], seed=1))
    with pytest.raises(UserError, match="already exists"), claim(tmp_path / "new"):
        pass


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../../x", "/etc", "a//b", "a/", "~", "a\x00b", "a\nb", "-rf", ".hidden", "a\\b",
     "C:x", "a\u202eb", "[red]x", "<b>", "x" * 201, "a b", "$HOME", "a;b"],
)  # fmt: skip
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="run name"):
        run_path(tmp_path, name)


@pytest.mark.parametrize("name", ["base", "tdpo-step_s1", "sweep/algo=tdpo,level=step", "β0.4", "v1.2", "a+b@c"])
def test_names_that_are_fine(tmp_path: Path, name: str) -> None:
    assert run_path(tmp_path, name) == tmp_path / name


def test_name_through_a_link(tmp_path: Path) -> None:
    root, outside = tmp_path / "runs", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "way").symlink_to(outside)
    with pytest.raises(UserError, match="leads outside"):
        run_path(root, "way/out")


def test_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2hunter2")
    found = manifest(["stepdpo", "train", "judge.api_key=CANARY", "x=hunter2hunter2"], seed=7, choices={"algo": "tdpo"})
    text = json.dumps(found)
    assert "CANARY" not in text
    assert "hunter2" not in text
    assert (found["seed"], found["choices"]) == (7, {"algo": "tdpo"})
    assert found["started"].endswith("+00:00")
    assert found["versions"]["omegaconf"][0].isdigit()
    assert {"stepdpo", "host", "git", "python", "platform", "cpus"} <= found.keys()


def test_git_of_a_source_tree_and_of_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert _git(tmp_path) is None
    (tmp_path / "__init__.py").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "m"]):
        subprocess.run([*git, *words], check=True)
    found = _git(tmp_path)
    assert found is not None
    assert len(found["sha"]) == 40
    assert found["dirty"] is False
    (tmp_path / "__init__.py").write_text("x = 1")
    assert _git(tmp_path) == {**found, "dirty": True}
