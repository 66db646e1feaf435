"""An evaluation that was stopped, or whose scorer failed: what is finished is kept, and never asked for again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stepdpo.core.errors import Outage, UserError
from stepdpo.core.protocols import Grader
from stepdpo.core.types import CORRECT, WRONG, Completion, Grade, Problem, Sampling
from stepdpo.data.templates import TextTemplate
from stepdpo.evaluation import worker
from stepdpo.evaluation.evaluate import Evaluation, evaluate
from stepdpo.evaluation.identity import identity, must_be_same
from stepdpo.generation.client.config import Server
from stepdpo.generation.decoding.best_of_n import BestOfN
from stepdpo.generation.decoding.greedy import Greedy
from stepdpo.generation.decoding.sample import Sample
from stepdpo.generation.requests import Beginning, JudgeFailed, Scored
from stepdpo.models.load import Fresh
from stepdpo.pairs.judges.openai import OpenAIJudge
from stepdpo.report.tables import read_evaluations
from stepdpo.runtime.atomic_io import read_jsonl
from stepdpo.runtime.run_folder import has_begun
from stepdpo.tinymath.task import TinymathTask

KNOWN = TinymathTask(count=8).problems()
TEMPLATE = TextTemplate(name="mine", prompt="Q: {question}\nA:", joint="\n")


@contextmanager
def graders() -> Iterator[Any]:
    """Without processes: 7000 and 7001 are wrong."""

    def grade(items: Sequence[tuple[str, Problem]], grader: Grader) -> list[Grade]:
        return [Grade(WRONG if "The answer is: 700" in text else CORRECT, text[-9:], "") for text, _ in items]

    yield grade


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    tokenizer = Fresh().tokenizer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fresh, "tokenizer", lambda self: tokenizer)
        patch.setattr(worker, "graders", graders)
        yield


class Killed(BaseException):
    """As a signal that nothing can catch."""


@dataclass(frozen=True)
class Model:
    """Is asked several prompts at a time, and killed, or gone, at its `last` call. Every second answer is right."""

    last: int = 99
    how: type[BaseException] = Killed
    asked: list[str] = field(default_factory=list)

    @contextmanager
    def open(self, model: Any) -> Iterator[Model]:
        yield self

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        if self.asked.count("") == self.last:
            raise self.how("it is gone")
        self.asked.extend(["", *map(question, prompts)])
        return [[answer(prompt, n) for n in range(params.n)] for prompt in prompts]

    @property
    def questions(self) -> list[str]:
        return [one for one in self.asked if one]


def question(prompt: str) -> str:
    """The last one, where worked examples stand before it."""
    return prompt.rpartition("Q: ")[2].partition("\nA:")[0]


def answer(prompt: str, n: int) -> Completion:
    (number,) = (i for i, one in enumerate(KNOWN) if one.question == question(prompt))
    text = "\n" + KNOWN[number].solution if (number + n) % 2 else f"\nThe answer is: {7000 + n}"
    return Completion(text, 10 + number + n, "eos")


def evaluation(sampler: Model, **changes: Any) -> Evaluation:
    spec = Evaluation(Fresh(hidden_size=32, layers=1, intermediate_size=32), TinymathTask(count=8), TEMPLATE,
                      Greedy(64), sampler, live=3)  # fmt: skip
    return replace(spec, **changes)


def log_of(folder: Path) -> list[dict[str, Any]]:
    return read_jsonl(folder / "attempts.partial.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    evaluate(evaluation(Model()), folder)
    return folder


@pytest.mark.parametrize("calls", range(4))
def test_what_was_answered_is_not_asked_again(
    calls: int, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if calls < 3:
        with pytest.raises(Killed):
            evaluate(evaluation(Model(last=calls)), tmp_path)
    else:
        evaluate(evaluation(Model()), tmp_path)
        for name in ("summary.json", "attempts.jsonl"):
            (tmp_path / name).unlink()  # killed before it wrote these: the log alone is there
    kept = min(3 * calls, 8) if calls < 3 else 0
    assert has_begun(tmp_path) is (calls in (1, 2))
    before = (tmp_path / "attempts.partial.jsonl").read_bytes() if kept else b""
    assert [row["problem"] for row in log_of(tmp_path)[1:]] == [p.id for p in KNOWN[:kept]] if kept else True
    model = Model()
    summary = evaluate(evaluation(model), tmp_path, resume=True)
    assert model.questions == [p.question for p in KNOWN[kept:]]
    assert (f"{kept} of 8 problems were answered before" in capsys.readouterr().out) is bool(kept)
    assert (tmp_path / "attempts.jsonl").read_bytes() == (whole / "attempts.jsonl").read_bytes()
    assert not (tmp_path / "attempts.partial.jsonl").exists()
    assert {**summary, "seconds": 0} == {**json.loads((whole / "summary.json").read_text()), "seconds": 0}
    assert before.count(b"\n") == (kept + 1 if kept else 0)


def killed(folder: Path, calls: int = 2) -> Path:
    with pytest.raises(Killed):
        evaluate(evaluation(Model(last=calls)), folder)
    return folder / "attempts.partial.jsonl"


@pytest.mark.parametrize("cut", [1, 20, 400])
def test_a_torn_line_is_cut_off_and_its_problem_asked_again(cut: int, whole: Path, tmp_path: Path) -> None:
    path = killed(tmp_path)
    text = path.read_bytes()
    lines = text.splitlines(keepends=True)
    assert len(lines) == 7
    path.write_bytes(b"".join(lines[:5]) + lines[5][:cut])
    model = Model()
    evaluate(evaluation(model), tmp_path, resume=True)
    assert model.questions == [p.question for p in KNOWN[4:]]
    assert (tmp_path / "attempts.jsonl").read_bytes() == (whole / "attempts.jsonl").read_bytes()


def test_without_resume_it_begins_anew(tmp_path: Path) -> None:
    killed(tmp_path)
    model = Model()
    evaluate(evaluation(model), tmp_path)
    assert model.questions == [p.question for p in KNOWN]


def test_all_was_finished_and_nothing_is_opened(whole: Path, tmp_path: Path) -> None:
    """Killed after its last problem and before its summary."""
    evaluate(evaluation(Model(), live=8), tmp_path / "other")
    path = killed(tmp_path)
    rows = read_jsonl(tmp_path / "other" / "attempts.jsonl")[6:]
    lines = [json.dumps({"problem": row["problem_id"], "seconds": 1.0, "attempts": [row]}) + "\n" for row in rows]
    path.write_text(path.read_text() + "".join(lines))
    model = Model(last=0)
    assert evaluate(evaluation(model), tmp_path, resume=True)["n"] == 8
    assert (tmp_path / "attempts.jsonl").read_bytes() == (whole / "attempts.jsonl").read_bytes()


def test_a_line_of_something_else(tmp_path: Path) -> None:
    path = killed(tmp_path)
    path.write_text(path.read_text().replace('"attempts":', '"tries":', 1))
    with pytest.raises(UserError, match=r"attempts.partial.jsonl:2: not a line of this file .*force=true"):
        evaluate(evaluation(Model()), tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": TextTemplate("other", "{question}")}, "was begun with template mine; this one has other"),
        ({"template": replace(TEMPLATE, prompt="Q:  {question}\nA:")}, "with another content of template mine"),
        ({"task": TinymathTask(name="sums", count=8, seed=1)}, "was begun with task tinymath; this one has sums"),
        ({"task": TinymathTask(count=8, seed=1)}, "with another content of task tinymath"),
        ({"decode": Greedy(65)}, r"with decode greedy \(max_tokens=64\); this one has greedy \(max_tokens=65\)"),
        ({"model": Fresh(hidden_size=64, layers=1, intermediate_size=32)}, "with another content of model fresh"),
    ],
)  # fmt: skip
def test_attempts_of_another_evaluation_are_refused(changes: Any, said: str, tmp_path: Path) -> None:
    before = killed(tmp_path).read_bytes()
    with pytest.raises(UserError, match=f"{said}.*: force=true replaces it"):
        evaluate(evaluation(Model(), **changes), tmp_path, resume=True)
    assert (tmp_path / "attempts.partial.jsonl").read_bytes() == before


def test_a_sampler_that_dies_ends_it_and_what_is_finished_is_kept(tmp_path: Path) -> None:
    with pytest.raises(Outage, match="it is gone; what is finished is kept, resume=true goes on"):
        evaluate(evaluation(Model(last=1, how=Outage)), tmp_path)
    assert [row["problem"] for row in log_of(tmp_path)[1:]] == [p.id for p in KNOWN[:3]]


@dataclass(frozen=True)
class Scoring:
    """Likes long responses; of the problems in `failing` it says nothing, or takes the whole call down."""

    failing: ClassVar[tuple[int, ...]] = ()
    whole_call: ClassVar[bool] = False
    log: ClassVar[bool] = False

    @contextmanager
    def open(self, model: Any, sampler: Any) -> Iterator[Any]:
        yield self._score

    def must_fit(self, model: Any) -> None: ...

    def _score(self, items: Sequence[tuple[str, Beginning]]) -> list[Scored | JudgeFailed]:
        bad = {KNOWN[number].question for number in self.failing}
        if self.whole_call and any(question(prompt) in bad for prompt, _ in items):
            raise Outage("no connection (tried 5 times)")
        return [
            JudgeFailed("scorer: unreadable", "hm")
            if question(prompt) in bad
            else Scored(min(1.0, len(one.text) / 999), (0.5,), False, 10)
            for prompt, one in items
        ]


def best(sampler: Model | None = None) -> Evaluation:
    return evaluation(sampler or Model(), decode=BestOfN(n=2, max_tokens=64), scorer=Scoring())


@pytest.mark.parametrize(
    ("failing", "whole_call", "lost", "reason", "reply"),
    [
        ((1, 6), False, (1, 6), "scorer: unreadable", "hm"),
        ((4,), True, (3, 4, 5), "scorer: no answer", "no connection (tried 5 times)"),
    ],
)
def test_a_scorer_that_fails_costs_its_problems_alone(
    failing: tuple[int, ...], whole_call: bool, lost: tuple[int, ...], reason: str, reply: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    evaluate(best(), tmp_path / "whole")
    folder = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(Scoring, "failing", failing)
        patch.setattr(Scoring, "whole_call", whole_call)
        summary = evaluate(best(), folder)
    assert summary["n"] == 8 - len(lost)
    assert f"{len(lost)} of 8 problems have no answer and are in no figure" in capsys.readouterr().out
    left_out = [{"problem": KNOWN[i].id, "reason": reason, "answer": reply} for i in lost]
    assert read_jsonl(folder / "quarantine.jsonl") == left_out
    assert json.loads((folder / "summary.partial.json").read_text())["n"] == 8 - len(lost)
    assert not (folder / "summary.json").exists()  # nobody takes it for the benchmark
    again = Model()
    assert evaluate(best(again), folder, resume=True)["n"] == 8
    assert again.questions == [KNOWN[i].question for i in lost]
    assert (folder / "attempts.jsonl").read_bytes() == (tmp_path / "whole" / "attempts.jsonl").read_bytes()
    assert {path.name for path in folder.iterdir()} == {"attempts.jsonl", "summary.json"}


def test_a_scorer_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Scoring, "failing", tuple(range(8)))
        with pytest.raises(Outage, match=r"no problem was answered \(scorer: unreadable\): resume=true tries again"):
            evaluate(best(), tmp_path)
    assert evaluate(best(), tmp_path, resume=True)["n"] == 8


def test_worked_examples_stand_before_every_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts: list[str] = []

    @dataclass(frozen=True)
    class Reading(Model):
        def sample(self, asked: Sequence[str], *more: Any) -> list[list[Completion]]:
            prompts.extend(asked)
            return super().sample(asked, *more)

    task = TinymathTask(count=8, shots=2)
    summary = evaluate(evaluation(Reading(), task=task), tmp_path)
    shown = TinymathTask(split="train", count=3).problems()
    assert summary["shots"] == {"count": 2, "from": "train", "examples": [p.id for p in shown]}
    before = "".join(f"Q: {p.question}\nA:\n{p.solution.strip()}\n\n" for p in shown[:2])
    # The tokenizer may make one token of `:` and a line break, which is then given, too.
    assert [prompt.removesuffix("\n") for prompt in prompts] == [f"{before}Q: {p.question}\nA:" for p in KNOWN]
    assert "2 worked examples before each, from train" in capsys.readouterr().out
    assert "shots" not in evaluate(evaluation(Model()), tmp_path / "none")
    folder = tmp_path / "other"
    killed(folder)
    with pytest.raises(UserError, match="was begun with shots none; this one has 2 from train"):
        evaluate(evaluation(Model(), task=task), folder, resume=True)


def test_several_seeds_are_one_unit_of_work(tmp_path: Path) -> None:
    """A problem is finished once it has been attempted under each of them."""
    spec = evaluation(Model(), decode=Sample(n=2, max_tokens=64), seeds=[5, 1])
    summary = evaluate(spec, tmp_path / "whole")
    assert (summary["n"], summary["seeds"]) == (8, {"5": 0.5, "1": 0.5})  # this model hears of no seed
    rows = read_jsonl(tmp_path / "whole" / "attempts.jsonl")
    assert [(row["problem_id"], row["seed"]) for row in rows] == [(p.id, seed) for p in KNOWN for seed in (5, 1)]
    # Every second sample is right: of k = 1 a half, of two one of them surely; and problems are 8, not 16.
    assert summary["at_k"]["pass"] == {"1": {"value": 0.5, "stderr": 0}, "2": {"value": 1, "stderr": 0}}
    with pytest.raises(Killed):
        evaluate(replace(spec, sampler=Model(last=2)), tmp_path / "broken")
    model = Model()
    evaluate(replace(spec, sampler=model), tmp_path / "broken", resume=True)
    assert {*model.questions} == {p.question for p in KNOWN[3:]}
    files = [(tmp_path / name / "attempts.jsonl").read_bytes() for name in ("whole", "broken")]
    assert files[0] == files[1]
    (read,) = read_evaluations(_as_run(tmp_path / "whole", tmp_path / "run"))
    assert len(read.attempts) == 16
    with pytest.raises(UserError, match="was begun with seeds 5, 1; this one has 0, 1"):
        killed_under_seeds(spec, tmp_path / "other")


def killed_under_seeds(spec: Evaluation, folder: Path) -> None:
    with pytest.raises(Killed):
        evaluate(replace(spec, sampler=Model(last=2)), folder)
    evaluate(replace(spec, seeds=2), folder, resume=True)


def _as_run(evaluated: Path, run: Path) -> Path:
    (run / "eval").mkdir(parents=True)
    evaluated.rename(run / "eval" / "tinymath-sample")
    return run


def test_where_a_server_is_may_change(tmp_path: Path) -> None:
    """As resuming allows; which model it has may not."""

    def of(url: str, model: str) -> Any:
        part = OpenAIJudge(Server(url=url, model=model))  # a part that has a server
        fresh = Fresh(hidden_size=32)
        return identity(
            task="t", problems=[Problem("p", "1?", ("1",))], template="x", prompts=[], decode=Greedy(), scorer=part,
            shots=None, seeds=[None], model=fresh,
        )  # fmt: skip

    must_be_same(of("http://a/v1", "m"), of("http://b/v1", "m"), tmp_path)
    with pytest.raises(UserError, match=r"was begun with scorer openai .*server=m.* this one has openai .*server=n"):
        must_be_same(of("http://a/v1", "m"), of("http://a/v1", "n"), tmp_path)
