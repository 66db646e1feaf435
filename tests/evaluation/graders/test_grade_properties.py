"""Whatever the text: graders never raise, give the same grade twice, and normalising twice changes nothing."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepdpo.core.types import CORRECT, UNPARSED, WRONG, Problem
from stepdpo.evaluation.graders.answers import find_answer, gold_answer, official_answers
from stepdpo.evaluation.graders.equivalence import same
from stepdpo.evaluation.graders.logic import cover, every, some, unknown
from stepdpo.evaluation.graders.normalise import normalise
from stepdpo.evaluation.graders.official import Official
from stepdpo.evaluation.graders.pending import Pending
from stepdpo.evaluation.graders.pool import Pool
from stepdpo.evaluation.graders.strict import Strict

VOCABULARY = r"""
\boxed{ } { \frac \text{ $ ( ) [ ] \{ \} , ; = x y 1 25 0.5 % \% : #### and \pm \cup \in ^ _ / - e \sqrt \pi
\infty \begin{pmatrix} \end{pmatrix} & \\ ° − Friday cm A !
"""
PIECES = st.sampled_from([*VOCABULARY.split(), " ", "\n", "The answer is"])
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map("".join))
VERDICTS = st.lists(st.sampled_from([True, False, None]), max_size=5)


@settings(max_examples=400, deadline=None)
@given(response=TEXTS, gold=TEXTS, question=st.sampled_from(["", "separated by commas"]))
def test_examining_never_raises_and_is_deterministic(response: str, gold: str, question: str) -> None:
    problem = Problem("p", question, (gold,))
    for grader in (Strict(), Official()):
        first = grader.examine(response, problem)
        assert first == grader.examine(response, problem)
        assert isinstance(first, Pending) or first.verdict in (CORRECT, WRONG, UNPARSED)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
@example("5" + 9 * "\\" + "%")  # one backslash a round would outlast the rounds
@example(6 * "\\" + "boxed")
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_an_answer_equals_itself(text: str) -> None:
    assert same(text, text, unknown) is (bool(normalise(text)) or False) or not normalise(text).strip("{} ")


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_finders_never_raise(text: str) -> None:
    find_answer(text)
    gold_answer(text)
    assert len(official_answers(text)) <= text.count("boxed{") + 1


@given(VERDICTS)
def test_three_valued_logic_is_the_usual_one_where_all_is_known(verdicts: list[bool | None]) -> None:
    if None not in verdicts:
        assert (every(verdicts), some(verdicts)) == (all(verdicts), any(verdicts))
    assert every(verdicts) is not True or all(verdicts)
    assert cover("ab", "ba", lambda p, g: p == g) is True


def test_formulas_in_full_never_raise() -> None:
    pool = Pool(timeout=2.0)
    texts = [
        r"x \le",
        r"(x",
        r"\frac{1}{",
        r"\{1, x\}",
        "x = y = z",
        r"\sqrt[n]{x}",
        r"x \in (1, y]",
        "f(x)^2",
        r"a_{1}!",
    ]
    items = [(rf"\boxed{{{a}}}", Problem("p", "", (b,))) for a in texts for b in texts]
    try:
        for grader in (Strict(), Official()):
            first = pool.grade_many(items, grader)
            assert first == pool.grade_many(items, grader)
    finally:
        pool.close()
