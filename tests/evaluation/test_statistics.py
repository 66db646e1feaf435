"""Numbers derived in the open."""

import math
from dataclasses import replace

import pytest
from scipy.stats import binom

from stepdpo.core.types import Attempt, Grade
from stepdpo.evaluation import bootstrap
from stepdpo.evaluation.statistics import (
    Paired,
    auc,
    by_seed,
    mcnemar,
    paired,
    stderr,
    summarise,
    verdicts,
    wilson,
)


def attempt(problem_id: str, strict: str, official: str, tokens: int = 10, finish: str = "eos") -> Attempt:
    return Attempt(
        problem_id=problem_id, question="1+1?", answers=("2",), response="2", tokens=tokens, finish=finish,
        official=Grade(official, "2", "r"), strict=Grade(strict, "2", "r"),
    )  # fmt: skip


def test_stderr_of_a_half() -> None:
    assert stderr(50, 100) == pytest.approx(math.sqrt(0.25 / 100))


def test_wilson_by_its_formula() -> None:
    """(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with z = 1.95996."""
    n, correct, z = 1319, 1149, 1.959963984540054
    p = correct / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = wilson(correct, n)
    assert low == pytest.approx((centre - half) / (1 + z * z / n))
    assert high == pytest.approx((centre + half) / (1 + z * z / n))
    assert 0.017 < (high - low) / 2 < 0.019  # 87.11 % on GSM8K is known to +-1.8 points


@pytest.mark.parametrize("correct", [0, 10])
def test_wilson_has_a_width_at_the_ends(correct: int) -> None:
    low, high = wilson(correct, 10)
    assert 0 <= low < high <= 1


def test_mcnemar_counts_coin_tosses() -> None:
    """5 heads of 5: two-sided 2 * 2^-5. 1 of 6: 2 * (1 + 6) / 64. 3 of 6 is the most likely outcome: 1."""
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(1, 5) == pytest.approx(14 / 64)
    assert mcnemar(3, 3) == pytest.approx(1.0)
    assert mcnemar(0, 0) == 1.0


def test_paired_is_over_shared_problems() -> None:
    base = {"a": True, "b": False, "c": False, "d": True, "only base": True}
    other = {"a": True, "b": True, "c": True, "d": False, "only other": True}
    pair = paired(base, other)
    assert pair == Paired(n=4, base_correct=2, correct=3, gained=2, lost=1)
    assert pair.delta == 0.25
    differences = [0, 1, 1, -1]
    variance = sum((d - 0.25) ** 2 for d in differences) / 4
    assert pair.stderr == pytest.approx(math.sqrt(variance / 4))
    assert pair.p_value == 1.0


def test_paired_swapped_is_negated() -> None:
    a, b = {str(i): i % 3 == 0 for i in range(30)}, {str(i): i % 2 == 0 for i in range(30)}
    there, back = paired(a, b), paired(b, a)
    assert there.delta == -back.delta
    assert there.p_value == back.p_value
    assert there.stderr == back.stderr


def test_paired_with_itself_and_with_the_opposite() -> None:
    right = dict.fromkeys("abc", True)
    wrong = dict.fromkeys("abc", False)
    assert (paired(right, right).delta, paired(right, right).stderr, paired(right, right).p_value) == (0.0, 0.0, 1.0)
    assert (paired(wrong, right).delta, paired(wrong, right).stderr) == (1.0, 0.0)


def test_paired_needs_something_shared() -> None:
    with pytest.raises(ValueError, match="no problem"):
        paired({"a": True}, {"b": True})


def test_summarise() -> None:
    attempts = [
        attempt("a", "correct", "correct", tokens=10),
        attempt("b", "unparsed", "correct", tokens=20, finish="length"),
        attempt("c", "wrong", "unparsed", tokens=30),
        attempt("d", "correct", "wrong", tokens=40, finish="stop"),
    ]
    summary = summarise(attempts)
    assert (summary["n"], summary["mean_tokens"], summary["truncated"]) == (4, 25.0, 1)
    strict = summary["graders"]["strict"]
    assert (strict["correct"], strict["accuracy"], strict["unparsed"]) == (2, 0.5, 1)
    assert strict["stderr"] == 0.25
    assert (strict["ci_low"], strict["ci_high"]) == wilson(2, 4)
    assert set(strict) == {"correct", "accuracy", "stderr", "ci_low", "ci_high", "unparsed"}
    assert verdicts(attempts, "official") == {"a": True, "b": True, "c": False, "d": False}


def under(seed: int, verdicts_of: str) -> list[Attempt]:
    """Problems a, b, ... of which each is right (+) or wrong under a seed."""
    return [
        replace(attempt(name, "correct" if right == "+" else "wrong", "wrong"), seed=seed)
        for name, right in zip("abcdefgh", verdicts_of, strict=False)
    ]


def test_several_seeds_are_one_draw_of_problems() -> None:
    """Shares of four problems under two seeds: 1, 1/2, 1/2, 0. The interval is the problems' bootstrap."""
    attempts = [*under(3, "++--"), *under(4, "+-+-")]
    summary = summarise(attempts)
    strict = summary["graders"]["strict"]
    assert (summary["n"], summary["mean_tokens"]) == (4, 10)
    assert (strict["correct"], strict["accuracy"]) == (2, 0.5)
    assert strict["stderr"] == pytest.approx(math.sqrt((0.25 + 0 + 0 + 0.25) / 4) / math.sqrt(4))
    assert (strict["ci_low"], strict["ci_high"]) == bootstrap.interval([1, 0.5, 0.5, 0])
    assert by_seed(attempts, "strict") == {3: 0.5, 4: 0.5}
    assert by_seed([*under(0, "++-"), *under(1, "---")], "strict") == {0: pytest.approx(2 / 3), 1: 0}
    assert by_seed([attempt("a", "correct", "correct")], "strict") == {}
    # Eight answers of four problems are surer than four, and by no means as sure as those of eight problems.
    low, high = wilson(4, 8)
    assert high - low < wilson(2, 4)[1] - wilson(2, 4)[0]


def test_runs_under_seeds_are_compared_by_the_bootstrap_over_problems() -> None:
    base, other = [*under(0, "+---"), *under(1, "+---")], [*under(0, "++--"), *under(1, "+-+-")]
    pair = paired(verdicts(base, "strict"), verdicts(other, "strict"))
    assert (pair.n, pair.base_correct, pair.correct) == (4, 1, 2)
    assert pair.differences == (0, 0.5, 0.5, 0)
    assert pair.p_value == bootstrap.p_value((0, 0.5, 0.5, 0))


@pytest.mark.parametrize(("gained", "lost"), [(9, 2), (3, 3), (1, 12), (40, 22)])
def test_mcnemar_as_the_binomial_tails_have_it(gained: int, lost: int) -> None:
    """The two tails of a fair coin beyond the smaller count, no more than 1."""
    tail = float(binom.cdf(min(gained, lost), gained + lost, 0.5))
    assert mcnemar(gained, lost) == pytest.approx(min(1.0, 2 * tail))


def test_nothing_to_summarise() -> None:
    with pytest.raises(ValueError, match="no attempts"):
        summarise([])


def test_auc_counts_who_lies_above() -> None:
    """Positives 3, 1 against negatives 1, 0: 3 lies above both, 1 above one and level with the other."""
    assert auc([3.0, 1.0, 1.0, 0.0], [True, True, False, False]) == (2 + 1 + 0.5) / 4
    assert auc([5.0, 5.0, 5.0], [True, False, False]) == 0.5
    assert auc([1.0, 2.0], [True, False]) == 0.0
    assert math.isnan(auc([1.0], [True]))
