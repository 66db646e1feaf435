"""When two formulas are the same by the `strict` grader: a quick look at their values, then Math-Verify."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from stepdpo.evaluation.graders.equivalence import is_tuple
from stepdpo.evaluation.graders.probe import compare_values


@lru_cache(maxsize=512)
def _formula(text: str) -> Any:
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex
    from math_verify.grader import should_treat_as_complex

    config = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    return latex2sympy(
        normalize_latex(text, config),
        is_real=not should_treat_as_complex(text),
        normalization_config=None,
        conversion_config=ConversionConfig(lowercase_symbols=False),
    )


def same_formula(prediction: str, gold: str) -> bool:
    """Two formulas by Math-Verify, decimals to six places. Not bounded in time: run it in a worker."""
    from math_verify import verify

    from stepdpo.evaluation.graders.latex import read_plainly

    # Our own reader first: it knows fewer formulas, and is quick where it knows them.
    left, right = _read(prediction, read_plainly), _read(gold, read_plainly)
    if left is not None and right is not None and (verdict := compare_values(left, right)) is not None:
        return verdict
    # A single value is no tuple, interval or union, whatever a lenient parser makes of them.
    if (left is not None and _is_collection(gold)) or (right is not None and _is_collection(prediction)):
        return False
    left, right = _read(prediction, _formula), _read(gold, _formula)
    if left is None or right is None or compare_values(left, right) is False:
        return False
    # Without Math-Verify's own timeout, which is an alarm as well and would replace the worker's.
    return bool(verify(right, left, allow_set_relation_comp=True, timeout_seconds=None))


def _is_collection(text: str) -> bool:
    return is_tuple(text) or r"\cup" in text


def _read(text: str, reader: Callable[[str], Any]) -> Any:
    try:
        return reader(text)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # readers refuse in many ways
        return None
