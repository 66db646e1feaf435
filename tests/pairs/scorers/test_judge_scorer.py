"""Judges as scorers of beginnings: verdicts, rates of roll-outs, failures, what a judge is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from omegaconf import OmegaConf
from support.scripted import LONG, OTHER, TEMPLATE, TOKENIZER, Scripted, opened, spoil

from stepdpo.cli.shorthands import normalise
from stepdpo.core.errors import UserError
from stepdpo.core.package_data import conf
from stepdpo.core.steps import split_steps, step_ends
from stepdpo.core.types import Problem
from stepdpo.data.templates import NativeTemplate
from stepdpo.evaluation.evaluate import Evaluation, evaluate
from stepdpo.evaluation.tinymath_steps import TinymathSteps
from stepdpo.generation.decoding.greedy import Greedy
from stepdpo.generation.requests import AskJudge, Beginning, JudgeFailed, Scored
from stepdpo.generation.step_scorer import Asked, knowing
from stepdpo.generation.transformers import TransformersSampler
from stepdpo.models.load import Pretrained
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.judges.exact import Exact
from stepdpo.pairs.judges.openai import judge_message
from stepdpo.pairs.judges.rollouts import Rollouts
from stepdpo.pairs.judges.verdict import JudgeRequests, Verdict
from stepdpo.pairs.scorers.judge import JudgeScorer
from stepdpo.pairs.solutions import Solution
from stepdpo.tinymath.checker import TinymathChecker

MODEL = Pretrained("pkg://tinymath/model")


@dataclass(frozen=True)
class Asking:
    """A judge with a model of its own, which names a step or says nothing that can be read."""

    said: dict[str, str]
    shown: list[Problem] = field(default_factory=list)

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, problem: Problem, solution: Solution, context: Context) -> JudgeRequests:
        self.shown.append(problem)
        reply = yield AskJudge(solution.text)
        if not reply.isdecimal():
            raise JudgeFailed("judge: no decision", reply)
        return Verdict(int(reply))

    @contextmanager
    def open(self, folder: Path) -> Iterator[Callable[[Sequence[str]], list[Any]]]:
        assert folder.is_dir()
        yield lambda messages: [
            JudgeFailed("judge: no answer") if "lost" in text else self.said.get(text, "mumble") for text in messages
        ]


def asked(folder: Path, *problems: Problem, checker: Any = None) -> Asked:
    return Asked({opened(problem): problem for problem in problems}, TEMPLATE, TOKENIZER, checker, folder)


def scored(scorer: JudgeScorer, known: Asked, items: Sequence[tuple[str, Beginning]], sampler: Any = None) -> list[Any]:
    with knowing(scorer, known).open(MODEL, sampler) as score:
        return list(score(items))


def beginning(text: str, steps: int | None = None) -> Beginning:
    """The first steps of a response as searches cut them: a line break belongs to the step after it."""
    head, labelled = split_steps(text)
    ends = [0, *step_ends(head, labelled)]
    cut = [text[a:b] for a, b in pairwise(ends)]
    return Beginning(("\n" + cut[0], *cut[1:steps]), ended=steps is None)


def test_the_truth_of_a_beginning_and_of_a_whole_response(tmp_path: Path) -> None:
    size, known = len(split_steps(LONG.solution)[1]), asked(tmp_path, LONG, OTHER, checker=TinymathChecker())
    items = [
        (opened(LONG), beginning(LONG.solution)),
        (opened(LONG), beginning(LONG.solution, 2)),
        (opened(LONG), beginning(spoil(LONG, 1), 3)),
        (opened(OTHER), beginning(spoil(OTHER, 0), 1)),
        (opened(OTHER), beginning(LONG.solution, 1)),  # it is the problem of the prompt that is judged
    ]
    found = scored(JudgeScorer(), known, items)
    assert [one.by_step for one in found] == [(1.0,) * size, (1.0, 1.0), (1.0, 0.0, 0.0), (0.0,), (0.0,)]
    assert [(one.score, one.log) for one in found] == [
        (1.0, False),
        (1.0, False),
        (0.0, False),
        (0.0, False),
        (0.0, False),
    ]


def test_steps_without_labels_are_judged_as_they_were_cut(tmp_path: Path) -> None:
    judge = Asking({"One. Two.": "1"})
    (found,) = scored(
        JudgeScorer(judge), asked(tmp_path, LONG), [(opened(LONG), Beginning(("\nOne.", " Two."), ended=False))]
    )
    assert found.by_step == (1.0, 0.0)


def test_a_judge_that_fails_on_one_beginning_scores_the_others(tmp_path: Path) -> None:
    judge = Asking({"right": "1", "wrong": "0"})
    texts = ["right", "lost", "wrong", "odd"]
    items = [(opened(LONG), Beginning((text,), ended=True)) for text in texts]
    found = scored(JudgeScorer(judge), asked(tmp_path / "new", LONG), items)
    assert [one.by_step if isinstance(one, Scored) else one.reason for one in found] == [
        (1.0,), "judge: no answer", (0.0,), "judge: no decision",
    ]  # fmt: skip


@pytest.mark.parametrize("gold", [False, True])
def test_the_gold_answer_is_kept_from_the_judge_unless_it_is_given(tmp_path: Path, gold: bool) -> None:
    judge = Asking({"right": "1"})
    scored(JudgeScorer(judge, gold=gold), asked(tmp_path, LONG), [(opened(LONG), Beginning(("right",), ended=True))])
    (shown,) = judge.shown
    assert shown.question == LONG.question
    assert (shown.answers, shown.solution) == ((LONG.answers, LONG.solution) if gold else ((), ""))


def test_no_judge_is_told_that_there_is_a_mistake() -> None:
    said = {
        right: judge_message(LONG, Solution("", "", ("Step 1: 2",), correct=right), show_reference=False)
        for right in (True, False)
    }
    assert "which arrives at a wrong answer. Find its first wrong step.\n" in said[False]
    assert "wrong answer" not in said[True]
    assert "Find its first wrong step, if it has one.\n" in said[True]


def test_a_beginning_is_rated_by_roll_outs_and_only_once(tmp_path: Path) -> None:
    """Of four roll-outs from the first step three are right, from the second one none."""
    right = f"\nThe answer is: {LONG.answers[0]}"
    first, second = "Step 1: a", "Step 1: a\nStep 2: b"
    sampler = Scripted({
        f"{opened(LONG)}\n{first}": [right, right, "\nThe answer is: -7", right],
        f"{opened(LONG)}\n{second}": ["\nThe answer is: -7"],
    })  # fmt: skip
    scorer = JudgeScorer(Rollouts(rollouts=4), max_tokens=99)
    one = Beginning(("\nStep 1: a",), ended=False)
    both = Beginning(("\nStep 1: a", "\nStep 2: b"), ended=False)
    with knowing(scorer, asked(tmp_path, LONG)).open(MODEL, sampler) as score:
        (found,) = score([(opened(LONG), one)])
        assert isinstance(found, Scored)
        assert (found.by_step, found.score, found.tokens) == ((0.75,), 0.75, 4 * 9)
        (found,) = score([(opened(LONG), both)])
        assert isinstance(found, Scored)
        assert (found.by_step, found.score, found.tokens) == ((0.75, 0.0), 0.0, 4 * 9)
    assert [prompts for prompts, _ in sampler.asked] == [[f"{opened(LONG)}\n{first}"], [f"{opened(LONG)}\n{second}"]]


def test_roll_outs_go_by_the_answer_of_a_whole_response(tmp_path: Path) -> None:
    (found,) = scored(
        JudgeScorer(Rollouts()), asked(tmp_path, LONG), [(opened(LONG), beginning(LONG.solution))], Scripted({})
    )
    assert set(found.by_step) == {1.0}


def test_what_a_judge_needs_of_problems(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no exact step checker, which judge=exact needs"):
        knowing(JudgeScorer(Exact()), asked(tmp_path, LONG))
    bare = Problem("b", LONG.question, ())
    with pytest.raises(UserError, match="no gold answers, which roll-outs are held against"):
        knowing(JudgeScorer(Rollouts()), asked(tmp_path, bare))
    with pytest.raises(UserError, match="judges problems"):
        JudgeScorer().open(MODEL, Scripted({}))


def test_the_exact_judge_names_every_first_error_of_the_miniature(tmp_path: Path) -> None:
    task = TinymathSteps(count=3, max_tokens=120)
    spec = Evaluation(MODEL, task, NativeTemplate(), Greedy(), TransformersSampler(progress=False), JudgeScorer())
    summary = evaluate(spec, tmp_path)
    assert (summary["f1"], summary["threshold"]["held_out"]) == (1.0, 0)
    assert summary["scorer"]["judge"] == {"name": "exact"}


@pytest.mark.parametrize(
    ("words", "full"),
    [
        (["judge=openai", "judge.server.model=m"], ["scorer=judge_openai", "scorer.judge.server.model=m"]),
        (["judge=exact"], ["scorer=judge"]),
        (["+judge.extra={effort: low}"], ["+scorer.judge.extra={effort: low}"]),
    ],
)
def test_a_judge_of_an_evaluation_is_a_scorer(words: list[str], full: list[str]) -> None:
    assert normalise("eval", words, {}) == full
    assert normalise("pairs", words, {}) == words


@pytest.mark.parametrize("judge", [path.stem for path in sorted((conf() / "judge").glob("*.yaml"))])
def test_every_shipped_judge_is_a_scorer_with_the_same_settings(judge: str) -> None:
    (word,) = normalise("eval", [f"judge={judge}"], {})
    scorer = OmegaConf.load(conf() / "scorer" / f"{word.partition('=')[2]}.yaml")
    assert scorer.judge == OmegaConf.load(conf() / "judge" / f"{judge}.yaml")
