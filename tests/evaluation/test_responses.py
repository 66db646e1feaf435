"""An evaluation that was stopped: what was answered is kept, and not asked for again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.commands import start, stepdpo, until

from stepdpo.core.types import Completion
from stepdpo.evaluation import responses
from stepdpo.evaluation.responses import answered
from stepdpo.generation.decoded import Cost, Decoded, Response

PROMPTS = [f"{n} + 1?" for n in range(10)]


class Killed(BaseException):
    pass


class Model:
    """Answers a chunk at a time, and is killed at its `last`."""

    def __init__(self, last: int = 99, prompts: Sequence[str] = PROMPTS) -> None:
        self.asked: list[str] = []
        self.last, self.prompts = last, prompts

    def __call__(self, numbers: Sequence[int]) -> list[Decoded]:
        self.last -= 1
        if self.last < 0:
            raise Killed
        self.asked += [self.prompts[number] for number in numbers]
        return [_two_responses(self.prompts[number]) for number in numbers]


def _two_responses(prompt: str) -> Decoded:
    first = Completion(f"answer to {prompt}", 3, "eos", logp=-0.1, stop="\n")
    second = Response(Completion("7", 1, "length"), share=0.25, score=0.5, group=1)
    return Decoded((Response(first, share=0.75), second), Cost(4, 2, 1))


@pytest.fixture(autouse=True)
def _chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "CHUNK", 4)


@pytest.mark.parametrize("chunks", range(4))
def test_what_was_answered_is_not_asked_again(chunks: int, tmp_path: Path) -> None:
    whole = answered(PROMPTS, "key", Model(), tmp_path / "whole", resume=False)
    if chunks < 3:
        with pytest.raises(Killed):
            answered(PROMPTS, "key", Model(last=chunks), tmp_path, resume=False)
    else:
        answered(PROMPTS, "key", Model(), tmp_path, resume=False)
    model = Model()
    assert answered(PROMPTS, "key", model, tmp_path, resume=True) == whole
    assert model.asked == PROMPTS[4 * chunks :]
    kept = [(folder / "responses.partial.jsonl").read_bytes() for folder in (tmp_path, tmp_path / "whole")]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("how", ["another key", "other prompts", "torn", "not resumed", "nonsense"])
def test_what_does_not_fit_is_asked_again(how: str, tmp_path: Path) -> None:
    answered(PROMPTS, "key", Model(), tmp_path, resume=False)
    path = tmp_path / "responses.partial.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    if how == "torn":
        path.write_text("".join(lines[:6]) + lines[6][:20])
    if how == "nonsense":
        path.write_text('[1]\n{"a": "b"}\n')
    prompts = [*PROMPTS[:5], "7 + 7?", *PROMPTS[6:]] if how == "other prompts" else PROMPTS
    model = Model(prompts=prompts)
    found = answered(prompts, "other" if how == "another key" else "key", model, tmp_path, resume=how != "not resumed")
    assert [decoded.answer.text for decoded in found] == [f"answer to {prompt}" for prompt in prompts]
    assert model.asked == (prompts[4:] if how in ("torn", "other prompts") else prompts)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on(tmp_path: Path) -> None:
    """Through the command line, to the attempts of one that was left alone; without resume=true it says how."""
    words = ["eval", "model=tinymath", "task.count=600", "template=alpaca", "run=x"]
    (tmp_path / "alone").mkdir()
    assert stepdpo(*words, cwd=tmp_path / "alone").code == 0
    place = tmp_path / "runs" / "x" / "eval" / "tinymath"
    process = start(*words, cwd=tmp_path)
    try:
        until(lambda: len(_lines(place / "responses.partial.jsonl")) > 256, process)
    finally:
        process.kill()
    process.wait()
    done = stepdpo(*words, cwd=tmp_path)
    assert done.code == 2
    assert "resume=true goes on with it" in done.err
    done = stepdpo(*words, "resume=true", cwd=tmp_path)
    assert done.code == 0, done.said
    assert " of 600 problems were answered before" in done.out
    alone = tmp_path / "alone" / "runs" / "x" / "eval" / "tinymath" / "attempts.jsonl"
    assert (place / "attempts.jsonl").read_bytes() == alone.read_bytes()
    assert not (place / "responses.partial.jsonl").exists()
    assert json.loads((place / "summary.json").read_text())["n"] == 600


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
