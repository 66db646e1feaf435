"""Pairs from a tree search over scripted steps, followed by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
from support.scripted import LONG, OTHER, context, counts, preferences, run

from stepdpo.core.steps import split_steps
from stepdpo.core.types import Completion, Problem, Sampling
from stepdpo.data.preference_file import from_row
from stepdpo.generation.step_sampling import Delimiter, StepEquality
from stepdpo.pairs.engine.requests import ProblemResult
from stepdpo.pairs.mcts import Mcts
from stepdpo.pairs.mcts_expand import SelfEvaluation
from stepdpo.pairs.tree.pair_selection import PairSelection, SelectBy
from stepdpo.pairs.tree.tree import Tree
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import problems

Texts = Mapping[str, Sequence[tuple[str, str]]]
HAND = Problem("p", "What is 2 + 3 * 4?", ("14",), "Think.\nStep 1: 3 * 4 = 12\nStep 2: 2 + 12 = 14. The answer is: 14")
START = f"Q: {HAND.question}\nA"
FIRST, WRONG = "Think.\nStep 1: 3 * 4 = 12", "Think.\nStep 1: 2 + 3 = 5"
TEXTS: Texts = {
    START: [("\n" + FIRST, "stop"), ("\n" + WRONG, "stop")],
    f"{START}\n{FIRST}\nStep 2:": [
        (" 2 + 12 = 14. The answer is: 14", "eos"),
        (" 2 + 12 = 15. The answer is: 15", "eos"),
    ],
    f"{START}\n{WRONG}\nStep 2:": [
        (" 5 * 4 = 20. The answer is: 20", "eos"),
        (" So 5 * 4 = 20. The answer is: 20", "eos"),
    ],
}
FEW = {"n_init_actions": 2, "n_actions": 2, "iterations": 4, "root_factor": 1}


@dataclass
class Writer:
    """Writes the texts of the test, and thinks of every text what the test says."""

    texts: Texts
    yes: Mapping[str, float] = field(default_factory=dict)
    """P(B), by what the question about a beginning ends with; 1/2 for others."""
    asked: list[tuple[list[str], Sampling]] = field(default_factory=list)
    weighed: list[tuple[str, str]] = field(default_factory=list)

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        self.asked.append((list(prompts), params))
        found = []
        for prompt in prompts:
            written = [self.texts[prompt][i % len(self.texts[prompt])] for i in range(params.n)]
            found.append([Completion(text, 4, finish, 0.0 if params.logps else None) for text, finish in written])
        return found

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        self.weighed += zip(prompts, continuations, strict=True)
        return [self._nats(*both) for both in zip(prompts, continuations, strict=True)]

    def _nats(self, prompt: str, continuation: str) -> float:
        if continuation.strip() not in ("A", "B"):
            return -4.0
        begun = prompt.partition("to solve it:\n")[2].partition("\n\nIs this right")[0]
        yes = next((p for text, p in self.yes.items() if begun.endswith(text)), 0.5)
        return log(yes if continuation.strip() == "B" else 1 - yes)


def search(
    texts: Texts = TEXTS, problem: Problem = HAND, writer: Writer | None = None, **settings: Any
) -> ProblemResult:
    (finished,) = run(Mcts(**{**FEW, **settings}), writer or Writer(texts), [problem], context())
    return finished


def writer_of(texts: Texts, problem: Problem, settings: Mcts) -> Writer:
    writer = Writer(texts)
    run(settings, writer, [problem], context())
    return writer


def tree_of(finished: ProblemResult) -> Tree:
    assert finished.result.tree is not None
    return Tree.from_row(json.loads(json.dumps(finished.result.tree)))


def test_four_walks_by_hand() -> None:
    """Every prior is exp(0) = 1, w = 1. Steps a (3 * 4 = 12), b (2 + 3 = 5); after a: c (14), d (15); after b: e (20).

    1. N = 0: a, the first. Its children c (+1) and d (-1) are written; c. Q_a = (1 - 1) / 2 = 0, root (0 + 0) / 2 = 0.
    2. a: 0 + 1 / 2, b: 0 + 1 / 1: b. Its children are one step in other words: e. Q_b = -1, root (0 - 1) / 2 = -1/2.
    3. a: 0 + 1.414 / 2 = .707, b: -1 + .707: a. c: 1 + 1 / 2, d: -1 + 1: c. Q_a = 1/3, root (2/3 - 1) / 3 = -1/9.
    4. a: 1/3 + 1.732 / 3, b: -1 + 1.732 / 2: a. c: 1 + 1.414 / 3, d: -1 + 1.414: c. Q_a = (3 - 1) / 4 = 1/2,
       root (3/2 - 1) / 4 = 1/8.
    """
    tree = tree_of(search())
    assert [node.text for node in tree.nodes] == [
        "", FIRST, WRONG, "\nStep 2: 2 + 12 = 14. The answer is: 14", "\nStep 2: 2 + 12 = 15. The answer is: 15",
        "\nStep 2: 5 * 4 = 20. The answer is: 20",
    ]  # fmt: skip
    assert [node.parent for node in tree.nodes] == [-1, 0, 0, 1, 1, 2]
    assert [node.visits for node in tree.nodes] == [4, 3, 1, 3, 0, 1]
    assert [node.q for node in tree.nodes] == [pytest.approx(q) for q in (0.125, 0.5, -1.0, 1.0, -1.0, -1.0)]
    assert [node.correct for node in tree.nodes] == [None, None, None, True, False, False]


def test_pairs_at_every_depth_with_their_label_smoothing() -> None:
    """N of 3 and 1: alpha = 1 / (3 + 1); N of 3 and 0: alpha = 0."""
    first, second = preferences([search()])
    assert (first.prefix, first.chosen, first.rejected) == ("Think.\nStep 1:", " 3 * 4 = 12", " 2 + 3 = 5")
    assert first.chosen_rest == "\nStep 2: 2 + 12 = 14. The answer is: 14"
    assert first.rejected_rest == "\nStep 2: 5 * 4 = 20. The answer is: 20"
    assert (first.confidence, first.chosen_value, first.rejected_value) == (0.75, pytest.approx(0.5), -1.0)
    assert (second.prefix, second.rejected) == (f"{FIRST}\nStep 2:", " 2 + 12 = 15. The answer is: 15")
    assert (second.confidence, second.meta) == (1.0, {"problem": "p", "step": 1})


def test_what_the_model_is_asked() -> None:
    """Every prompt ends with the label or the template's text, none with a blank; one step at a time, with its logp."""
    writer = Writer(TEXTS)
    found = search(writer=writer, temperature=0.5, step_tokens=40)
    assert writer.asked == [
        ([START], Sampling(2, 0.8, 1.0, 40, ("\nStep 2",), 4, logps=True)),
        ([f"{START}\n{FIRST}\nStep 2:"], Sampling(2, 0.5, 1.0, 40, ("\nStep ",), 4, logps=True)),
        ([f"{START}\n{WRONG}\nStep 2:"], Sampling(2, 0.5, 1.0, 40, ("\nStep ",), 4, logps=True)),
    ]
    assert (found.samples, found.tokens) == (6, 24)
    assert {name: found.result.counts[name] for name in ("walks", "steps sampled", "steps kept", "equal steps")} == {
        "walks": 4, "steps sampled": 6, "steps kept": 5, "equal steps": 1,
    }  # fmt: skip


def test_other_words_are_another_step_if_one_wants() -> None:
    """Then b has two children, and with 4 walks only one of them is seen."""
    found = search(same=StepEquality.text)
    assert len(tree_of(found).nodes) == 7
    assert found.result.counts["equal steps"] == 0


def test_pairs_by_visits() -> None:
    found = preferences([search(cut=PairSelection(select_by=SelectBy.VISITS))])
    assert [(pair.chosen, pair.confidence) for pair in found] == [
        (" 3 * 4 = 12", 0.75),
        (" 2 + 12 = 14. The answer is: 14", 1.0),
    ]


def test_no_answer_at_the_depth_limit_counts_as_wrong_and_is_in_no_pair() -> None:
    finished = search(depth_limit=1)
    tree = tree_of(finished)
    assert [node.q for node in tree.nodes] == [-1.0, None, None]
    assert [node.visits for node in tree.nodes] == [4, 2, 2]
    assert (finished.result.preferences, finished.result.outcome) == ((), "no right solution")
    assert finished.result.counts["solutions cut at depth_limit"] == 2


@pytest.mark.parametrize(
    ("odd", "count"),
    [
        (("\nStep 1: on and on", "length"), "steps cut at step_tokens"),
        (("\n ", "stop"), "empty steps"),
        (("Step 1: 3 * 4 = 12", "stop"), "not in the template's form"),
    ],
)
def test_what_cannot_be_used_is_counted(odd: tuple[str, str], count: str) -> None:
    finished = search({**TEXTS, START: [TEXTS[START][0], odd]})
    assert finished.result.counts[count] == 1
    assert len(tree_of(finished).children[0]) == 1
    nothing = search({START: [odd]})
    assert (nothing.result.outcome, nothing.result.counts[count]) == ("no right solution", 2)
    assert nothing.result.counts["walks"] == 4


def test_a_step_after_which_nothing_usable_comes_counts_as_wrong() -> None:
    texts = {**TEXTS, f"{START}\n{WRONG}\nStep 2:": [(" 5 and so on", "length")]}
    tree = tree_of(search(texts))
    assert (tree.nodes[2].q, tree.nodes[2].visits, tree.children[2]) == (None, 1, ())
    assert tree.nodes[0].q == pytest.approx(0.125)


def test_an_answer_in_the_middle_ends_a_solution() -> None:
    texts = {
        **TEXTS,
        f"{START}\n{FIRST}\nStep 2:": [(" 14. The answer is: 14", "stop"), (" 15. The answer is: 15", "stop")],
    }
    assert [node.correct for node in tree_of(search(texts)).nodes[3:]] == [True, False, False]


def test_going_on_from_the_best_child() -> None:
    """4 walks from the root, then 4 from a, the most visited (3 to 1); then from c, which has ended.

    Those from a are backed up to the root: N = 8, of which 7 through a. 5 to 8 at a, with N_a = 3, 4, 5, 6:
    c: 1 + sqrt(N_a) / (1 + N_c) against d: -1 + sqrt(N_a): 1.43, .73; 1.4, 1.0; 1.37, 1.24; 1.35, 1.45: c, c, c, d.
    """
    finished = search(commit=True)
    assert [node.visits for node in tree_of(finished).nodes] == [8, 7, 1, 6, 1, 1]
    assert finished.result.counts["walks"] == 8


def test_self_evaluation_of_every_step() -> None:
    """P(B) = .9 after a, .2 after b, 1/2 after the others; nothing is halved at depths up to 4.

    Q_c = r = .5 + 1 - .9 = .6, Q_d = .5 - 1 - .9 = -1.4, Q_a = .9 + V_a.
    """
    writer = Writer(TEXTS, {FIRST: 0.9, WRONG: 0.2})
    tree = tree_of(search(writer=writer, self_evaluation=SelfEvaluation.confidence, iterations=1))
    assert [node.q for node in tree.nodes[1:]] == [pytest.approx(q) for q in (0.9 + (0.6 - 1.4) / 2, 0.2, 0.6, -1.4)]
    assert len(writer.weighed) == 2 * 4
    assert {continuation for _, continuation in writer.weighed} == {"\nA", "\nB"}
    assert not any("Its solution is known" in prompt for prompt, _ in writer.weighed)


def test_self_evaluations_of_deep_steps_count_less() -> None:
    """Below depth d, v is divided by max(d - 3, 1): the fifth step's parent has depth 4, the sixth's 5."""
    texts: dict[str, list[tuple[str, str]]] = {START: [("\nStep 1: 1 = 1", "stop")]}
    text = "Step 1: 1 = 1"
    for k in range(2, 7):
        texts[f"{START}\n{text}\nStep {k}:"] = [(f" {k} = {k}", "stop")]
        text += f"\nStep {k}: {k} = {k}"
    texts[f"{START}\n{text}\nStep 7:"] = [(" The answer is: 14", "eos")]
    yes = {f" {k} = {k}": 0.8 for k in range(1, 7)}
    finished = search(texts, writer=Writer(texts, yes), self_evaluation=SelfEvaluation.confidence, iterations=1)
    tree = tree_of(finished)
    expected = [0.8, 0.8, 0.8, 0.8, 0.8 / 1, 0.8 / 2, 0.5 / 3 + 1]  # v; the path's rewards add up to the last
    assert tree.nodes[7].q == pytest.approx(expected[6] - expected[5])
    assert tree.nodes[6].q == pytest.approx(expected[6] - expected[4])
    assert tree.nodes[1].q == pytest.approx(expected[6])


def test_the_gold_solution_is_leaked_only_on_demand() -> None:
    """Where the model does not write its next step, it is offered; its prior is exp(-4 / L^1.25) of L tokens."""
    texts = {
        **TEXTS,
        START: [("\n" + WRONG, "stop")],
        f"{START}\n{FIRST}\nStep 2:": [(" 2 + 12 = 15. The answer is: 15", "eos")],
    }
    assert FIRST not in [node.text for node in tree_of(search(texts)).nodes]
    writer = Writer(texts)
    tree = tree_of(search(writer=writer, leak_reference=True))
    assert [tree.nodes[i].text for i in tree.children[0]] == [WRONG, FIRST]
    assert [node.text for node in tree.nodes if node.correct] == ["\nStep 2: 2 + 12 = 14. The answer is: 14"]
    assert writer.weighed == [(START, "\n" + FIRST), (f"{START}\n{FIRST}\nStep 2:", " 2 + 12 = 14. The answer is: 14")]
    (length,) = [len(ids) for ids in context().tokenizer([FIRST], add_special_tokens=False)["input_ids"]]
    assert tree.nodes[2].prior == pytest.approx(exp(-4 / length**1.25), rel=1e-4)
    seen = Writer(texts)
    search(writer=seen, leak_reference=True, self_evaluation=SelfEvaluation.confidence)
    known = f"Its solution is known:\n{HAND.solution}\n"
    assert all(known in prompt for prompt, reply in seen.weighed if reply in ("\nA", "\nB"))


@dataclass
class Noisy(Writer):
    """What it thinks differs in the seventh digit, as it does with the other problems in a batch."""

    noise: float = 0.0

    def sample(self, *given: Any) -> list[list[Completion]]:
        return [[replace(one, logp=-1 - self.noise) for one in some] for some in super().sample(*given)]

    def score(self, *given: Any) -> list[float]:
        return [nats * (1 + self.noise) for nats in super().score(*given)]


def test_rounding_in_the_model_does_not_reach_trees_and_pairs() -> None:
    """Priors and confidences keep four digits, and values are made of those."""
    yes = {FIRST: 0.7, WRONG: 0.2}
    settings = {"self_evaluation": SelfEvaluation.confidence, "cut": PairSelection(min_gap=0.1)}
    first, again = (search(writer=Noisy(TEXTS, yes, noise=noise), **settings) for noise in (0.0, 2e-7))
    assert first.result.preferences
    assert first == again
    assert tree_of(first).nodes[1].prior == 0.838  # exp(-1 / 4^1.25) = 0.83797


def test_a_right_answer_of_ones_own_may_count_more() -> None:
    """What is the gold solution word for word counts 1, others 1.25."""
    own = replace(HAND, solution="Step 1: 14. The answer is: 14")
    assert [tree_of(search(problem=p, novelty=1.25)).nodes[3].q for p in (HAND, own)] == [1.0, 1.25]


def test_no_gold_solution_to_leak() -> None:
    assert search(problem=replace(HAND, solution=""), leak_reference=True).result.outcome == "no gold solution to leak"


def test_steps_that_are_lines() -> None:
    """The next prompt ends with the line break; the sides of a pair do not."""
    texts = {
        START: [("\n3 * 4 = 12", "stop"), ("\n2 + 3 = 5", "stop")],
        f"{START}\n3 * 4 = 12\n": [("The answer is: 14", "eos"), ("The answer is: 15", "eos")],
        f"{START}\n2 + 3 = 5\n": [("The answer is: 20", "eos")],
    }
    finished = search(texts, delimiter=Delimiter.newline)
    first, second = preferences([finished])
    assert (first.prefix, first.chosen, first.chosen_rest) == ("", "3 * 4 = 12", "\nThe answer is: 14")
    assert (first.rejected, first.rejected_rest) == ("2 + 3 = 5", "\nThe answer is: 20")
    assert (second.prefix, second.chosen, second.rejected) == ("3 * 4 = 12\n", "The answer is: 14", "The answer is: 15")


def test_many_problems_are_searched_together() -> None:
    """Whatever their depths, all live trees ask together; the pairs are those of each alone."""
    asked = [LONG, OTHER, *problems("preference", 4)]
    texts: dict[str, list[tuple[str, str]]] = {}
    for problem in asked:
        texts.update(_script(problem))
    together, apart = Writer(texts), Writer(texts)
    settings = Mcts(**{**FEW, "iterations": 12})
    found = run(settings, together, asked, context())
    alone = run(settings, apart, asked, context(), live=1)
    assert sorted(map(repr, preferences(found))) == sorted(map(repr, preferences(alone)))
    assert counts(found) == counts(alone)
    deepest = max(sum(len(prompts) for prompts, _ in writer_of(texts, problem, settings).asked) for problem in asked)
    assert len(together.asked) == deepest
    assert len(together.asked[0][0]) == len(asked)


def _script(problem: Problem) -> dict[str, list[tuple[str, str]]]:
    """The gold steps and, beside each, one with another number that ends the solution wrongly."""
    start = f"Q: {problem.question}\nA"
    head, steps = split_steps(problem.solution)
    bare = [step.removesuffix("\n") for step in steps]
    texts = {start: [(f"\n{head}{bare[0]}", "stop"), (f"\n{head}Step 1: 7. The answer is: 100001", "eos")]}
    text = head + bare[0]
    for number, step in enumerate(bare[1:], start=2):
        written = step.removeprefix(f"Step {number}:")
        finish = "eos" if number == len(bare) else "stop"
        texts[f"{start}\n{text}\nStep {number}:"] = [(written, finish), (f" 7{number}. The answer is: 100001", "eos")]
        text += f"\n{step}"
    return texts


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"iterations": 0}, "iterations"), ({"depth_limit": 0}, "depth_limit"), ({"breadth_limit": 1}, "breadth_limit"),
        ({"temperature": 0.0}, "temperature"), ({"n_actions": 0}, "n_actions"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Mcts(**settings)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_through_the_command_line(tmp_path: Path) -> None:
    """The shipped model on twenty problems: most pairs are right against wrong, every tree's visits add up."""
    words = ["pairs=mcts", "limit=20", f"runs={tmp_path}", "run=a", "sampler.device=cpu"]
    subprocess.run([sys.executable, "-m", "stepdpo", "pairs", *words], check=True, capture_output=True)
    known = {problem.id: problem for problem in problems("preference", 20)}
    rows = [json.loads(line) for line in (tmp_path / "a" / "preferences.jsonl").read_text().splitlines()]
    right = 0
    for pair in map(from_row, rows):
        problem = known[pair.meta["problem"]]
        chosen, rejected = (
            TinymathChecker().first_error(problem, split_steps(pair.prefix + side)[1])
            for side in (pair.chosen, pair.rejected)
        )
        right += chosen is None and rejected == len(split_steps(pair.prefix)[1]) - 1
    assert len(rows) > 5
    assert right > 0.6 * len(rows)
    trees = [Tree.from_row(json.loads(line)) for line in (tmp_path / "a" / "trees.jsonl").read_text().splitlines()]
    assert [tree.nodes[0].visits for tree in trees] == [128] * 20
    for tree in trees:
        for number, children in enumerate(tree.children):
            below = sum(tree.nodes[i].visits for i in children)
            assert tree.nodes[number].visits == below or not children
