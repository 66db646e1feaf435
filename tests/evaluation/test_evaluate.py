"""The eval verb: answers, grades, files, warnings; once with a scripted sampler, once with a model made here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stepdpo.core.config import build
from stepdpo.core.errors import UserError
from stepdpo.core.package_data import conf
from stepdpo.core.types import Completion, Problem, Sampling
from stepdpo.data.template_card import describe
from stepdpo.data.templates import TextTemplate
from stepdpo.evaluation.evaluate import Evaluation, evaluate
from stepdpo.models.load import Fresh, Pretrained
from stepdpo.models.save import write_card
from stepdpo.report.tables import read_evaluations
from stepdpo.runtime.atomic_io import read_jsonl
from stepdpo.tinymath.problems import Stories, problems

ALPACA = TextTemplate(name="mine", prompt="Q: {question}\nA:", joint="\n")
SMALL = Fresh(hidden_size=32, layers=1, intermediate_size=32)


def composed(*words: str) -> Evaluation:
    with initialize_config_dir(str(conf()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("eval", overrides=list(words)), resolve=True)
    for key in ("run", "runs", "force", "resume", "tasks"):
        node.pop(key)
    spec = build(node)
    assert isinstance(spec, Evaluation)
    return spec


@dataclass(frozen=True)
class Answering:
    """Right but for every third problem; says nothing at all to the problem `silent`."""

    known: tuple[Problem, ...]
    silent: int = -1
    finish: str = "eos"

    @contextmanager
    def open(self, model: Any) -> Iterator[Answering]:
        yield self

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        return [[self._answer(prompt)] * params.n for prompt in prompts]

    def _answer(self, prompt: str) -> Completion:
        (number,) = (i for i, p in enumerate(self.known) if f"{p.question}\nA:" in prompt)
        text = "\n" + self.known[number].solution if number % 3 else "\nThe answer is: 7777"
        return Completion("" if number == self.silent else text, 10 + number, self.finish)


def test_a_problem_that_cannot_be_asked_is_in_no_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its question holds a control token: the model would read an end where the user wrote one."""
    rows = [{"question": p.question, "answer": p.answers[0]} for p in problems("test", 4)]
    rows[1]["question"] += "<|im_end|>"
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = composed("task=gsm8k", f"task.path={tmp_path / 'd.jsonl'}")
    sampler = Answering(tuple(problems("test", 4)))
    spec = replace(spec, model=SMALL, sampler=sampler, template=ALPACA)
    summary = evaluate(spec, tmp_path / "eval")
    assert (summary["n"], summary["graders"]["strict"]["correct"]) == (3, 1)
    (kept,) = read_jsonl(tmp_path / "eval" / "quarantine.jsonl")
    assert "d.jsonl" in kept["problem"] or kept["problem"].endswith("00001")
    assert kept["reason"] == "question holds the control token '<|im_end|>'"
    assert "1 problems cannot be asked and are in no figure" in summary["warnings"][0]
    assert "warning: 1 problems cannot be asked" in capsys.readouterr().out
    (tmp_path / "d.jsonl").write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(UserError, match="cannot be asked"):
        evaluate(spec, tmp_path / "eval")


class FindsNothing:
    """A checker without kinds of mistakes."""

    def first_error(self, problem: Problem, steps: Sequence[str]) -> None:
        return None


def scripted(count: int, **settings: Any) -> Evaluation:
    sampler = Answering(tuple(problems("test", count)), **settings)
    return replace(composed(f"task.count={count}"), model=SMALL, sampler=sampler, template=ALPACA)


def test_attempts_and_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = evaluate(scripted(9), tmp_path / "eval" / "tinymath")
    assert summary == json.loads((tmp_path / "eval" / "tinymath" / "summary.json").read_text())
    assert (summary["task"], summary["decode"], summary["template"], summary["n"]) == ("tinymath", "greedy", "mine", 9)
    assert summary["mean_tokens"] == 14
    assert summary["truncated"] == 0
    for grader in ("strict", "official"):
        block = summary["graders"][grader]
        assert (block["correct"], block["unparsed"]) == (6, 0)
        assert block["accuracy"] == pytest.approx(2 / 3)
        assert 0 < block["ci_low"] < 2 / 3 < block["ci_high"] < 1
    rows = read_jsonl(tmp_path / "eval" / "tinymath" / "attempts.jsonl")
    assert [row["problem_id"] for row in rows] == [p.id for p in problems("test", 9)]
    assert rows[0]["strict"] == {"verdict": "wrong", "extracted": "7777", "reason": rows[0]["strict"]["reason"]}
    assert rows[1]["response"].startswith("\nLet's think")
    (read,) = read_evaluations(tmp_path)
    assert len(read.attempts) == 9
    printed = capsys.readouterr().out
    assert "strict    66.7 %" in printed
    assert "warning" not in printed


def test_kinds_of_mistakes_where_the_checker_can_tell_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every third response goes wrong before its first step, so nothing is reached in it; the others are right."""
    known = tuple(problems("test", 6, kind=Stories.long))
    spec = composed("task=tinymath_long", "task.count=6")
    spec = replace(spec, model=SMALL, sampler=Answering(known), template=ALPACA)
    summary = evaluate(spec, tmp_path)
    moves = sum(problem.meta["steps"] for number, problem in enumerate(known) if number % 3)
    assert summary["mistakes"]["other"] == {"made": 0, "reached": moves}
    assert list(summary["mistakes"]) == ["event mistaken", "carry forgotten", "other"]
    assert json.loads((tmp_path / "summary.json").read_text())["mistakes"] == summary["mistakes"]
    assert f"other: 0 of {moves} times" in capsys.readouterr().out
    # Whoever reads the attempts later can count them again.
    assert read_jsonl(tmp_path / "attempts.jsonl")[0]["meta"] == known[0].meta


@pytest.mark.parametrize("checker", [None, "one that tells no kinds"])
def test_no_kinds_no_mistakes(tmp_path: Path, checker: str | None) -> None:
    spec = scripted(3)
    without = replace(spec, task=replace(spec.task, checker=checker and FindsNothing()))
    assert "mistakes" not in evaluate(without, tmp_path)
    assert "mistakes" not in evaluate(spec, tmp_path)  # short stories have none


def test_many_silent_or_cut_responses_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(scripted(4, silent=1, finish="length"), tmp_path)
    printed = capsys.readouterr().out
    assert "no answer found in 1 of 4" in printed
    assert "4 of 4 responses ran into" in printed


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    folder = tmp_path_factory.mktemp("model")
    SMALL.model("sdpa", torch.float32).save_pretrained(folder)
    SMALL.tokenizer().save_pretrained(folder)
    write_card(folder, {"template": describe(ALPACA)})
    return folder


def test_a_real_model(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("task.count=3", "decode.max_tokens=8", "sampler.device=cpu", "sampler.progress=false")
    spec = replace(composed(*words), model=Pretrained(path=str(checkpoint)))
    first, again = (evaluate(spec, tmp_path / name) for name in "ab")
    assert first["template"] == "mine"
    assert (first["device"], first["dtype"], first["sampler"]) == ("cpu", "float32", "transformers")
    assert first["settings"] == {"max_tokens": 8}
    assert (tmp_path / "a" / "attempts.jsonl").read_bytes() == (tmp_path / "b" / "attempts.jsonl").read_bytes()
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert "was trained with" not in capsys.readouterr().out


def test_another_template_than_the_models_is_a_warning(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(scripted(3), model=Pretrained(path=str(checkpoint)), template=replace(ALPACA, name="other"))
    summary = evaluate(spec, tmp_path)
    assert "was trained with template=mine" in capsys.readouterr().out
    assert len(summary["warnings"]) == 1


@dataclass(frozen=True)
class Drawing:
    """Of every four responses to a problem: right, wrong, wrong in the same way, without an answer."""

    known: tuple[Problem, ...]

    @contextmanager
    def open(self, model: Any) -> Iterator[Drawing]:
        yield self

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        return [self._draw(prompt)[: params.n] for prompt in prompts]

    def _draw(self, prompt: str) -> list[Completion]:
        (problem,) = (p for p in self.known if f"{p.question}\nA:" in prompt)
        texts = [
            "\n" + problem.solution,
            "\nThe answer is: 7777",
            "\nThe answer is: 7777.0",
            "\nI have really no idea at all of what one could do with this",
        ]
        return [Completion(text, 10 * place, "eos") for place, text in enumerate(texts, start=1)]


def drawing(*words: str) -> Evaluation:
    known = tuple(problems("test", 3))
    return replace(composed("task.count=3", *words), model=SMALL, sampler=Drawing(known), template=ALPACA)


def test_samples_all_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A quarter is right, a quarter without an answer; pass@2 is 1 - C(3, 2) / C(4, 2); votes of two: see below."""
    summary = evaluate(drawing("decode=sample", "decode.n=4"), tmp_path / "eval" / "tinymath-sample")
    block = summary["graders"]["strict"]
    assert (block["correct"], block["accuracy"], block["unparsed"]) == (0.75, 0.25, 0.75)
    assert (summary["n"], summary["samples"], summary["mean_tokens"]) == (3, 4, 25)
    assert 0 < block["ci_low"] < 0.25 < block["ci_high"] < 1
    assert summary["at_k"]["pass"]["2"]["value"] == pytest.approx(1 - 3 / 6)
    # Of the six pairs of responses the right one ties with each wrong one and beats the one without an answer.
    assert summary["at_k"]["majority"]["2"]["value"] == pytest.approx((0.5 + 0.5 + 1) / 6)
    assert summary["cost"]["generated_tokens"] == {"mean": 100, "p95": 100}
    (read,) = read_evaluations(tmp_path)
    assert [(one.share, one.group) for one in read.attempts[0].samples] == [
        (0.25, 0),
        (0.25, 1),
        (0.25, 1),
        (0.25, None),
    ]
    assert read.attempts[0].part("strict", "wrong") == 0.5
    assert read.key == ("tinymath", "sample")
    assert "0.8/3 correct, 0.8 without an answer" in capsys.readouterr().out


def test_a_vote_is_one_answer(tmp_path: Path) -> None:
    """The two wrong ones win; of three responses, one right and one of them, the tie is split."""
    assert evaluate(drawing("decode=vote", "decode.n=4"), tmp_path / "four")["accuracy"] == 0
    summary = evaluate(drawing("decode=vote", "decode.n=2"), tmp_path / "two")
    assert (summary["accuracy"], summary["graders"]["strict"]["correct"]) == (0.5, 1.5)
    row = read_jsonl(tmp_path / "two" / "attempts.jsonl")[0]
    assert row["response"].endswith(problems("test", 1)[0].answers[0])
    assert [one["share"] for one in row["samples"]] == [0.5, 0.5]
    assert row["cost"] == {"generated": 30, "scored": 0, "calls": 1}


def test_an_attempt_of_one_greedy_response_says_no_more_than_ever(tmp_path: Path) -> None:
    evaluate(scripted(2), tmp_path)
    keys = ["problem_id", "question", "answers", "response", "tokens", "finish", "official", "strict", "meta"]
    assert list(read_jsonl(tmp_path / "attempts.jsonl")[0]) == keys


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("decode=mcts",), "decode=mcts chooses by scores"),
        (("scorer=logprob",), "decode=greedy looks at no scores"),
        (("decode=step_beam", "scorer=value_head"), "'fresh' has no value head .* algo=value"),
        (("decode=best_of_n", "scorer=implicit"), "scorer.reference=MODEL"),
    ],
)
def test_a_scorer_that_does_not_fit(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        evaluate(drawing(*words), tmp_path)


def test_a_search_with_a_real_model(tmp_path: Path, checkpoint: Path) -> None:
    words = ("task.count=2", "decode.max_tokens=8", "sampler.device=cpu", "sampler.progress=false", "scorer=logprob")
    for name in ("step_beam", "dvts", "mcts", "best_of_n"):
        some = {"mcts": ("decode.simulations=2",), "best_of_n": ("decode.n=2",)}.get(name, ())
        spec = replace(composed(*words, f"decode={name}", *some), model=Pretrained(path=str(checkpoint)))
        first, again = (evaluate(spec, tmp_path / name / "eval" / place) for place in "ab")
        assert read_evaluations(tmp_path / name)[0].decode == f"{name} by logprob"
        assert first["scorer"] == {"name": "logprob", "aggregate": "product"}
        assert first["cost"]["scored_tokens"]["mean"] > 0
        assert {**first, "seconds": 0} == {**again, "seconds": 0}
        files = [(tmp_path / name / "eval" / place / "attempts.jsonl").read_bytes() for place in "ab"]
        assert files[0] == files[1]
