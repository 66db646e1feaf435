"""What `check` says of the contents of a data set: counted by hand."""

from __future__ import annotations

import pytest

from stepdpo.core.types import Preference, Problem
from stepdpo.data import statistics as survey
from stepdpo.data.contamination import Likeness, shared_questions


def pair(chosen: str = " a", rejected: str = " b", prefix: str = "Step 1:", **more: object) -> Preference:
    return Preference("Q", prefix, chosen, rejected, **more)  # type: ignore[arg-type]


def test_doubles() -> None:
    """Three of one kind say two things again; ` b` is rejected beside ` a` and ` c`, ` a` chosen over ` b` and ` d`."""
    given = [pair(), pair(), pair(), pair(chosen=" c"), pair(rejected=" d"), pair(prefix="Step 1: x\nStep 2:")]
    assert list(survey.duplicates(given).values()) == [2, 1, 1]


@pytest.mark.parametrize(
    ("prefix", "meta", "step"),
    [
        ("", {}, 1),
        ("Let us see.\nStep 1:", {}, 1),
        ("Step 1: x\nStep 2: y\nStep 3:", {}, 3),
        ("Step 1: x\nStep 2: y\n", {}, 3),
        ("Step 1: x\nStep 2:", {"step": 0}, 1),
        ("Step 1:", {"step": "third"}, 1),
        ("No labels,\n", {}, 1),
    ],
)
def test_which_step(prefix: str, meta: dict[str, object], step: int) -> None:
    assert survey.step_of(pair(prefix=prefix, meta=meta)) == step


def test_steps_are_in_order_and_whole_responses_about_none() -> None:
    given = [pair(meta={"step": 4}), pair(), pair(), pair(whole=True, prefix="")]
    assert survey.steps(given) == {1: 2, 5: 1}
    assert list(survey.steps(given)) == [1, 5]


def test_values() -> None:
    given = [
        pair(chosen_value=0.5, rejected_value=-0.5),
        pair(chosen_value=0.0, rejected_value=0.5, confidence=0.6),
        pair(chosen_value=1.0, confidence=0.8),
    ]
    assert survey.value_summary(given) == {
        "pairs with values": 2,
        "chosen value": 0.25,
        "rejected value": 0.0,
        "share with chosen above rejected": 0.5,
        "pairs with a confidence below 1": 2,
        "mean confidence of these": pytest.approx(0.7),
    }
    assert survey.value_summary([pair()]) == {}


def test_quantiles() -> None:
    assert survey.summary([3, 0, 1, 2]) == {"empty": 1, "median": 2, "90 %": 3, "99 %": 3, "longest": 3}
    assert survey.quantile([-3.0, -2.0, -1.0], 0.05) == -3.0


# Runs of 13 words


def words(first: int, count: int) -> str:
    return " ".join(f"w{i}" for i in range(first, first + count))


def found(asked: str, posed: str) -> tuple[Likeness, float] | None:
    items = list(shared_questions([asked], {"quiz": [Problem("quiz/0", posed, ("1",))]}))
    return (items[0].likeness, items[0].share) if items else None


def test_a_run_of_13_words() -> None:
    """40 words of which 13 lie in the other question: 1 of 28 runs. 14 would be 2 of 28, 12 none."""
    for shared, expected in ((12, None), (13, 1 / 28), (14, 2 / 28)):
        asked = f"{words(1000, 20)} {words(0, shared)} {words(2000, 20 - shared)}"
        posed = f"{words(3000, 30)}, {words(0, shared).upper()}; {words(4000, 30)}"
        assert found(asked, posed) == (expected and (Likeness.RUN, pytest.approx(expected)))


@pytest.mark.parametrize("count", [8, 12])
def test_short_questions_are_one_run(count: int) -> None:
    """Held whole by the other, either way round; with a word changed they are not."""
    short, long = words(0, count), f"{words(500, 40)} {words(0, count)} {words(600, 40)}"
    assert found(short, long) == (Likeness.OVERLAP if count > 9 else Likeness.RUN, 1.0)
    assert found(long, short) == (Likeness.OVERLAP if count > 9 else Likeness.RUN, 0.0)
    changed = short.replace("w3", "zebra")
    assert found(changed, long) is None
    assert found(long, changed) is None


def test_fewer_than_8_words_say_nothing() -> None:
    short, long = words(0, 7), f"{words(500, 40)} {words(0, 7)} {words(600, 40)}"
    assert found(short, long) is None
    assert found(long, short) is None
    assert found(short.upper(), short) == (Likeness.EXACT, 0.0)


def test_a_copy_shares_all_of_its_runs() -> None:
    assert found(words(0, 30), words(0, 30)) == (Likeness.EXACT, 1.0)


def test_of_several_problems_the_first_is_named() -> None:
    """As many as leave no room for luck: runs are looked up in an order that Python draws anew for every process."""
    asked = " ".join(words(100 * i, 13) for i in range(40))
    posed = [Problem(f"quiz/{i}", f"{words(100 * i, 13)} {words(10_000 + 100 * i, 40)}", ("1",)) for i in range(40)]
    (item,) = shared_questions([asked], {"quiz": posed})
    assert (item.likeness, item.problem_id) == (Likeness.RUN, "quiz/0")


def test_single_responses_to_one_question_are_no_variants_of_each_other() -> None:
    found = survey.duplicates([Preference("q", "", text, "") for text in ("a", "b", "b")])
    assert list(found.values()) == [1, 0, 0]
