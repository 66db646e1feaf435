"""How the Step-DPO evaluation (arXiv 2406.18629) compares answers, faults included."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isclose

from stepdpo.evaluation.graders.logic import Leaf, Truth, cover, every, some

TOLERANCE = 1e-3
FENCED = re.compile(r"(\(|\[).+(\)|\])")
MATRIX_OPENINGS = (r"\begin{pmatrix}", r"\begin{bmatrix}")
MATRIX_CLOSINGS = (r"\end{pmatrix}", r"\end{bmatrix}")


def match(predictions: Sequence[str], golds: Sequence[str], symbolic: Leaf) -> Truth:
    """Every prediction equals some gold and every gold is met; `symbolic` compares two formulas."""
    return cover(predictions, golds, lambda prediction, gold: _pair(prediction, gold, symbolic))


def _pair(prediction: str, gold: str, symbolic: Leaf) -> Truth:
    if r"\cup" in prediction and r"\cup" in gold:
        return match(prediction.split(r"\cup"), gold.split(r"\cup"), symbolic)
    values = _float(prediction), _float(gold)
    if values[0] is not None and values[1] is not None and abs(values[0] - values[1]) < TOLERANCE:
        return True
    return math_equal(prediction, gold, symbolic)


def math_equal(prediction: str, gold: str, symbolic: Leaf) -> Truth:
    """Numbers leniently, tuples and matrices by element, equations by difference, all else by `symbolic`."""
    if prediction == gold:
        return True
    # The published code refuses this one power by name.
    if not prediction or "^{216}" in prediction:
        return False
    numbers = _number(prediction), _number(gold)
    if numbers[0] is not None and numbers[1] is not None:
        return _leniently_equal(numbers[0], numbers[1])
    return some(_ways(prediction.strip(), gold.strip(), symbolic))


def _ways(prediction: str, gold: str, symbolic: Leaf) -> Iterator[Truth]:
    if FENCED.match(prediction) and FENCED.match(gold):
        yield _elements(prediction[1:-1].split(","), gold[1:-1].split(","), symbolic)
    if _is_matrix(prediction) and _is_matrix(gold):
        rows, gold_rows = _rows(prediction), _rows(gold)
        if len(rows) == len(gold_rows):
            yield every(_elements(p, g, symbolic) for p, g in zip(rows, gold_rows, strict=True))
    equations = prediction.count("="), gold.count("=")
    if equations == (1, 1):
        left, right = _difference(prediction), _difference(gold)
        yield symbolic(left, right)
        yield symbolic(f"-({left})", right)
    elif equations == (1, 0) and _short_name(prediction):
        yield math_equal(prediction.split("=")[1], gold, symbolic)
    elif equations == (0, 1) and _short_name(gold):
        yield math_equal(prediction, gold.split("=")[1], symbolic)
    yield symbolic(prediction, gold)


def _elements(predictions: Sequence[str], golds: Sequence[str], symbolic: Leaf) -> Truth:
    if len(predictions) != len(golds):
        return False
    return every(math_equal(p, g, symbolic) for p, g in zip(predictions, golds, strict=True))


def _float(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _number(text: str) -> float | None:
    """A number, a percentage being worth a hundredth."""
    value = _float(text)
    if value is None and text.endswith("%"):
        value = _float(text[:-1].removesuffix("\\"))
        return None if value is None else value / 100
    return value


def _leniently_equal(prediction: float, gold: float) -> bool:
    """Equal up to a factor of 100 either way: the published percent leniency."""
    return any(isclose(value, prediction, abs_tol=TOLERANCE) for value in (gold / 100, gold, gold * 100))


def _is_matrix(text: str) -> bool:
    return text.startswith(MATRIX_OPENINGS) and text.endswith(MATRIX_CLOSINGS)


def _rows(matrix: str) -> list[list[str]]:
    body = matrix[len(MATRIX_OPENINGS[0]) : -len(MATRIX_CLOSINGS[0])]
    return [row.strip().split("&") for row in body.split(r"\\") if row.strip()]


def _short_name(equation: str) -> bool:
    return len(equation.split("=")[0].strip()) <= 2


def _difference(equation: str) -> str:
    left, right = equation.split("=")
    return f"{left.strip()} - ({right.strip()})"


def symbolic_equal(left: str, right: str) -> bool:
    """Whether sympy finds no difference, or one below 1e-3 in value. Not bounded in time: run it in a worker."""
    from sympy import N, simplify

    from stepdpo.evaluation.graders.latex import read
    from stepdpo.evaluation.graders.probe import compare_values

    try:
        values = [read(text.replace("**", "^")) for text in (left, right)]
    except (MemoryError, RecursionError):
        raise
    except Exception:  # sympy and the reader refuse in many ways; what cannot be read equals nothing
        return False
    # Values far apart are different, and are told so in milliseconds; simplify may take minutes to give up.
    if compare_values(*values) is False:
        return False
    try:
        if simplify(values[0] - values[1]) == 0:
            return True
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the same
        pass
    try:
        return isclose(N(values[0]), N(values[1]), abs_tol=TOLERANCE)
    except (TypeError, ValueError, OverflowError):
        return False
