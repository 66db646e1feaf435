"""Plain numbers, compared exactly and without sympy."""

from __future__ import annotations

import re
from fractions import Fraction

from stepdpo.evaluation.graders.logic import Truth

# Repetitions are bounded throughout: this runs outside the workers, and a number of a million digits takes its time.
DECIMAL = r"[-+]?(?:\d{1,100}(?:\.\d{0,100})?|\.\d{1,100})"
PLAIN = re.compile(rf"(?P<value>{DECIMAL})(?P<percent>%?)")
RATIO = re.compile(
    r"(?P<sign>[-+]?)\s*(?:(?P<whole>\d{1,50})\s*)?"
    rf"(?:\\frac\s*\{{\s*(?P<upper>{DECIMAL})\s*\}}\s*\{{\s*(?P<lower>{DECIMAL})\s*\}}"
    r"|(?<!\d)(?P<over>[-+]?\d{1,50})\s*/\s*(?P<under>\d{1,50}))(?P<percent>%?)"
)
# Two digits or more behind the comma, as `1,2` is a list; three may be thousands, so the other side must have a point.
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d{2,}")
CLOSE = Fraction(1, 1_000_000)


def same_number(prediction: str, gold: str) -> Truth:
    """Whether two plain numbers are equal; None where one of them is no plain number.

    Integers and fractions must agree exactly. A decimal agrees with what lies within 1e-6 of it, and within a
    thousandth of the gold number where that is tiny. With a percent sign on one side only, `50%` may be meant as 50
    or as 1/2; without a sign, 0.5 is not 50.
    """
    left, right = _values(prediction), _values(gold)
    if left is None or right is None:
        return True if _decimal_commas(prediction, gold) else None
    # With a sign on both sides, or on neither, there is nothing to guess.
    if len(left) == len(right):
        left, right = left[:1], right[:1]
    exact = "." not in prediction and "." not in gold
    return any(a == b if exact else abs(a - b) <= min(CLOSE, abs(b) / 1000) for a in left for b in right)


def _values(text: str) -> list[Fraction] | None:
    """What a text may be worth: one value, or with a percent sign two."""
    match = PLAIN.fullmatch(text)
    if match:
        value = Fraction(match["value"])
    else:
        match = RATIO.fullmatch(text)
        if not match:
            return None
        lower = Fraction(match["lower"] or match["under"])
        upper = Fraction(match["upper"] or match["over"])
        # Divided by zero, or a mixed number with a negative fraction, which nobody writes and means.
        if lower == 0 or (match["whole"] and upper < 0):
            return None
        value = Fraction(match["whole"] or 0) + upper / lower
        value = -value if match["sign"] == "-" else value
    return [value, value / 100] if match["percent"] else [value]


def _decimal_commas(prediction: str, gold: str) -> bool:
    """`1000,99` is 1000.99 where the other side says so with a point."""
    for one, other in ((prediction, gold), (gold, prediction)):
        if DECIMAL_COMMA.fullmatch(one) and "." in other and PLAIN.fullmatch(other):
            return one.replace(",", ".") == other
    return False
