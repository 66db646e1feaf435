"""Evaluations that ask where solutions go wrong: files, thresholds, and the truth on the miniature."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Sampler
from stepdpo.data.processbench import ProcessBench
from stepdpo.data.templates import NativeTemplate
from stepdpo.evaluation.evaluate import Evaluation, evaluate, refuse_unasked_scorer
from stepdpo.evaluation.first_error import held_out
from stepdpo.evaluation.tinymath_steps import TinymathSteps
from stepdpo.generation.answering import ScoreAll
from stepdpo.generation.decoding.greedy import Greedy
from stepdpo.generation.decoding.vote import Vote
from stepdpo.generation.requests import Beginning, JudgeFailed, Scored
from stepdpo.generation.scorers.none import NoScorer
from stepdpo.generation.transformers import TransformersSampler
from stepdpo.models.load import ModelSpec, Pretrained
from stepdpo.report.make import report
from stepdpo.tinymath.checker import TinymathChecker

MODEL = Pretrained("pkg://tinymath/model")


@dataclass(frozen=True)
class Worded:
    """Says of a step what stands in it: `good`, `odd` or `bad`; cannot read `torn`."""

    log: ClassVar[bool] = False
    threshold: ClassVar[float | None] = None

    @contextmanager
    def open(self, model: ModelSpec, sampler: Sampler) -> Iterator[ScoreAll]:
        yield self._score

    def must_fit(self, model: ModelSpec) -> None:
        """Any."""

    def _score(self, items: Sequence[tuple[str, Beginning]]) -> list[Any]:
        said = {"good": 0.9, "odd": 0.6, "bad": 0.1}
        found: list[Any] = []
        for _, beginning in items:
            if "torn" in beginning.text:
                found.append(JudgeFailed("not read"))
                continue
            scores = tuple(next(v for word, v in said.items() if word in step) for step in beginning.steps)
            found.append(Scored(scores[-1], scores, False, len(scores)))
        return found


@dataclass(frozen=True)
class Sure(Worded):
    """The same, sure of itself."""

    threshold: ClassVar[float | None] = 0.5


def bench(path: Path, rows: Sequence[tuple[str, str, int]], **settings: Any) -> ProcessBench:
    """Rows of (question, words of the steps, label)."""
    made = [
        {"id": f"gsm8k-{n}", "problem": question, "steps": words.split(), "label": label, "final_answer_correct": True}
        for n, (question, words, label) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return ProcessBench(path=str(path), **settings)


def run(task: Any, scorer: Any, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    spec = Evaluation(MODEL, task, NativeTemplate(), Greedy(), TransformersSampler(progress=False), scorer)
    summary = evaluate(spec, folder)
    rows = [json.loads(line) for line in (folder / "judged.jsonl").read_text().splitlines()]
    assert json.loads((folder / "summary.json").read_text()) == summary
    return summary, rows


def test_a_threshold_that_is_given(tmp_path: Path) -> None:
    """Below .5: the bad step is named, the odd one is not; what cannot be read is wrong."""
    rows = [("Q1", "good bad", 1), ("Q2", "good odd", 1), ("Q3", "good good", -1), ("Q4", "torn", -1)]
    task = bench(tmp_path / "x.jsonl", rows, threshold=0.5)
    summary, judged = run(task, Worded(), tmp_path / "run" / "eval" / "processbench-worded")
    assert [(row["named"], row["first_error"], row["held_out"]) for row in judged] == [
        (1, 1, False), (-1, 1, False), (-1, -1, False), (-2, -1, False),
    ]  # fmt: skip
    assert judged[3]["failed"] == "not read"
    # named 1 of 2, passed 1 of 2
    assert (summary["named"], summary["passed"], summary["f1"], summary["accuracy"]) == (0.5, 0.5, 0.5, 0.5)
    assert (summary["n"], summary["untold"], summary["scored_tokens"]) == (4, 1, 6)
    assert summary["threshold"] == {"value": 0.5, "from": "task.threshold", "held_out": 0}
    report([tmp_path / "run"], None, tmp_path / "report")
    written = (tmp_path / "report" / "report.md").read_text()
    assert "## processbench: the first wrong step" in written
    assert "| 4 | 50.0 | 50.0 | 50.0 |" in written


def test_a_threshold_is_chosen_on_other_problems_than_are_measured(tmp_path: Path) -> None:
    """On the held-out problems an odd step is wrong, on the others it is right: so the figures are as bad as can be."""
    questions = [f"Question {n}" for n in range(40)]
    held = [held_out(question, 0.5, 0) for question in questions]
    rows = [(q, "good odd", 1 if h else -1) for q, h in zip(questions, held, strict=True)]
    rows += [(q, "good good", -1) for q, h in zip(questions, held, strict=True) if h]
    task = bench(tmp_path / "x.jsonl", rows, heldout=0.5)
    summary, judged = run(task, Worded(), tmp_path / "run")
    assert summary["threshold"] == {
        "value": 0.9, "from": "the largest F1 on held-out problems", "held_out": 2 * sum(held),
    }  # fmt: skip
    assert summary["n"] == held.count(False)
    assert (summary["passed"], summary["f1"]) == (0.0, 0.0)
    assert [row["held_out"] for row in judged[:40]] == held


def test_a_scorer_that_is_sure_of_itself_needs_no_solutions_held_out(tmp_path: Path) -> None:
    task = bench(tmp_path / "x.jsonl", [("Q1", "good bad", 1), ("Q2", "odd", -1)])
    summary, _ = run(task, Sure(), tmp_path / "run")
    assert (summary["n"], summary["f1"], summary["threshold"]["value"]) == (2, 1.0, 0.5)


def test_too_few_to_choose_a_threshold_on(tmp_path: Path) -> None:
    task = bench(tmp_path / "x.jsonl", [("Q1", "good bad", 1)])
    with pytest.raises(UserError, match="no threshold can be chosen on 0 held-out solutions"):
        run(task, Worded(), tmp_path / "run")


def test_what_does_not_go_together_is_refused_before_anything_runs() -> None:
    spec = Evaluation(MODEL, ProcessBench(), NativeTemplate(), Greedy(), TransformersSampler())
    with pytest.raises(UserError, match="task=processbench asks which step is wrong: add scorer=value_head"):
        refuse_unasked_scorer(spec)
    refuse_unasked_scorer(replace(spec, scorer=Worded()))
    with pytest.raises(UserError, match="decode=vote: task=processbench has its solutions already"):
        refuse_unasked_scorer(replace(spec, scorer=Worded(), decode=Vote()))
    assert isinstance(spec.scorer, NoScorer)


def test_the_miniature_knows_the_truth() -> None:
    task = TinymathSteps(count=4, max_tokens=120)
    found = task.solutions()
    assert found == task.solutions()  # whoever is asked, and whenever, is asked about the same
    assert len({(one.problem.id, one.steps) for one in found}) == len(found) > 4
    checker = TinymathChecker()
    for one in found:
        error = checker.first_error(one.problem, one.steps)
        assert one.first_error == (-1 if error is None else error)
    assert {one.first_error >= 0 for one in found} == {True, False}
