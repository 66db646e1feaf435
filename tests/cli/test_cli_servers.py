"""`stepdpo pairs` against real servers, as a user starts it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from support import commands
from support.commands import Done, environment, stepdpo
from support.constructions import composed
from support.scripted import ALL, spoil
from support.servers import RESET, Served, said, serving, texts, written_by

from stepdpo.core.package_data import conf
from stepdpo.core.steps import split_steps
from stepdpo.data.preference_file import from_row
from stepdpo.generation.transformers import LocalSampler, TransformersSampler
from stepdpo.pairs.build import build_pairs
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import problems

KEY = "sk-CANARY0123456789abcdef"
QUICK = ["server.retries=1", "server.backoff=0.01", "server.timeout=60"]


@pytest.fixture(scope="module")
def shipped() -> Iterator[LocalSampler]:
    with TransformersSampler(device="cpu", progress=False).open(composed().model) as sampler:
        yield sampler


def words(served: Served, part: str = "sampler") -> list[str]:
    return [f"{part}=openai", f"{part}.server.url={served.url}", *(f"{part}.{word}" for word in QUICK)]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def right(path: Path) -> int:
    """How many pairs there are; every one right by the exact checker."""
    known = {p.question: p for p in problems("preference", 60)}
    found = [from_row(row) for row in rows(path)]
    for preference in found:
        problem, step = known[preference.question], preference.meta["step"]
        sides = (
            preference.prefix + preference.chosen + preference.chosen_rest,
            preference.prefix + preference.rejected + preference.rejected_rest,
        )
        good, bad = (split_steps(side)[1] for side in sides)
        assert TinymathChecker().first_error(problem, good[: step + 1]) is None
        assert TinymathChecker().first_error(problem, bad) == step
    return len(found)


@pytest.mark.slow
def test_pairs_from_a_server_are_right_and_the_same_every_time(shipped: LocalSampler, tmp_path: Path) -> None:
    asked = ["limit=4", "n=6", "max_tokens=160", "pairs.resample=4", "seed=1"]
    with serving(written_by(shipped)) as served:
        done = stepdpo("pairs", *asked, *words(served), "run=x", cwd=tmp_path, OPENAI_API_KEY=KEY)
        assert done.code == 0, done.said
        build_pairs(composed(*asked, *words(served)), tmp_path / "again")
    made = tmp_path / "runs" / "x" / "preferences.jsonl"
    assert right(made) > 2
    assert made.read_bytes() == (tmp_path / "again" / "preferences.jsonl").read_bytes()
    summary = json.loads((made.parent / "summary.json").read_text())
    assert (summary["sampler"], summary["model"], summary["endpoint"]) == ("openai", "tiny", "completions")
    assert summary["requests"]["completion_tokens"] == summary["counts"]["tokens"]
    assert "CANARY" not in done.said
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"CANARY" in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_wrong_key_is_one_line(tmp_path: Path) -> None:
    with serving(lambda *_: texts("x"), key="another") as served:
        done = stepdpo("pairs", "limit=2", *words(served), "run=x", cwd=tmp_path, OPENAI_API_KEY=KEY)
    assert done.code == 2
    assert "refuses the key in OPENAI_API_KEY" in done.err
    assert done.err.count("\n") == 1
    assert "CANARY" not in done.said
    assert not (tmp_path / "runs" / "x").exists()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_server_that_dies_and_is_started_again(shipped: LocalSampler, tmp_path: Path) -> None:
    """After the fourth request. What was finished stays; the rest is made by a resumed run, as if nothing had been."""
    asked = ["limit=6", "n=4", "max_tokens=160", "pairs.resample=4", "live=1"]
    answer = written_by(shipped)
    with serving(answer) as served:
        port = int(re.findall(r":(\d+)/", served.url)[0])
        build_pairs(composed(*asked, *words(served)), tmp_path / "whole")

    def dying(endpoint: str, request: dict[str, Any]) -> dict[str, Any]:
        if len(served.asked) >= 4:
            served.always = RESET
        return answer(endpoint, request)

    with serving(dying, port=port) as served:
        done = stepdpo("pairs", *asked, *words(served), "run=x", cwd=tmp_path)
    assert done.code == 1
    assert "no connection (tried 2 times); what is finished is kept, resume=true goes on" in done.err
    assert "no connection; trying again" in done.out
    assert "Traceback" not in done.said
    folder = tmp_path / "runs" / "x"
    before = len(rows(folder / "finished.jsonl"))
    assert 0 < before < 6
    with serving(answer, port=port):
        done = stepdpo("pairs", "resume=true", "run=x", *asked, *words(served), cwd=tmp_path)
    assert done.code == 0, done.said
    assert f"{before} of them finished before" in done.out
    whole, later = (rows(f / "preferences.jsonl") for f in (tmp_path / "whole", folder))
    assert whole == later


def both(nonsense: bool) -> Any:
    """A model that gets second steps wrong unless asked for them, and a judge that sees it, or talks nonsense once."""

    def answer(endpoint: str, request: dict[str, Any]) -> dict[str, Any]:
        text = request["prompt"] if endpoint == "completions" else request["messages"][0]["content"]
        (problem,) = (p for p in ALL if p.question in text)
        if endpoint == "completions":
            _, label, rest = problem.solution.partition("Step 2:")
            written = rest if text.endswith(label) else spoil(problem, 1)
            return texts(*[written] * request.get("n", 1))
        return said("Hm." if nonsense and problem is ALL[0] else "Final decision: Step 1: correct; Step 2: incorrect")

    return answer


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_judge_that_is_asked_again(tmp_path: Path) -> None:
    """Nonsense of one problem: the run ends well with counts, and a resumed one asks about that problem only."""

    def run(*more: str) -> Done:
        given = ["pairs=localise", "pairs.rectify=2", "limit=4", "n=1", "run=x", *words(served)]
        return stepdpo("pairs", *given, *words(served, "judge"), *more, cwd=tmp_path)

    with serving(both(nonsense=True)) as served:
        done = run()
        assert done.code == 0, done.said
    assert "1 problems are in runs/x/quarantine.jsonl: resume=true tries them again" in done.out
    folder = tmp_path / "runs" / "x"
    before = rows(folder / "preferences.jsonl")
    (kept,) = rows(folder / "quarantine.jsonl")
    assert (kept["problem"], kept["answer"]) == (ALL[0].id, "Hm.")
    with serving(both(nonsense=False)) as served:  # elsewhere
        done = run("resume=true")
        assert done.code == 0, done.said
        assert [endpoint for endpoint, _ in served.asked] == ["completions", "chat/completions", "completions"]
    after = rows(folder / "preferences.jsonl")
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1
    assert (folder / "summary.json").exists()


@contextmanager
def transformers_serve(model: Path, home: Path) -> Iterator[str]:
    """`transformers serve MODEL`, ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model), "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], env=environment(HF_HOME=str(home)), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def healthy() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    try:
        commands.until(healthy, process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_transformers_serve(tmp_path: Path) -> None:
    """The shipped miniature behind transformers' own server: right pairs; as a judge it talks nonsense.

    It knows no `n`, so responses are asked for one by one, and lists no local model, so the name must be given.
    """
    import shutil

    model = tmp_path / "model"
    shutil.copytree(conf().parent / "stepdpo" / "tinymath" / "model", model)
    card = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps({**card, "do_sample": True}))
    with transformers_serve(model, tmp_path / "home") as url:
        here = [f"server.url={url}", f"server.model={model}", "server.concurrency=1"]
        asked = ["limit=4", "n=8", "max_tokens=160", "pairs.resample=6"]
        done = stepdpo("pairs", *asked, "sampler=openai", *(f"sampler.{w}" for w in here), "run=x", cwd=tmp_path)
        assert done.code == 0, done.said
        folder = tmp_path / "runs" / "x"
        assert right(folder / "preferences.jsonl") > 0
        counts = json.loads((folder / "summary.json").read_text())["requests"]
        assert counts["requests"] >= 32
        judged = ["pairs=localise", "limit=2", "n=4", "max_tokens=160", "sampler.progress=false"]
        judge = ["judge=openai", *(f"judge.{w}" for w in here), "judge.max_tokens=60"]
        done = stepdpo("pairs", *judged, *judge, "run=y", cwd=tmp_path)
        assert done.code == 1, done.said
        assert "no pair came of it, and the judge's word is missing for" in done.err
        kept = rows(tmp_path / "runs" / "y" / "quarantine.jsonl")
        assert {row["reason"] for row in kept} == {"judge: no decision"}
        assert all(row["answer"] for row in kept)
