"""A quick look at two formulas: values far apart prove them different, constants alike in 25 digits are equal."""

from __future__ import annotations

from typing import Any

# Positive numbers, none of them simple, so that formulas which differ hardly ever agree there. Symbols take them in the
# order of their names, the same ones on both sides.
POINTS = (
    "0.7310585786",
    "1.2689414214",
    "0.4174298105",
    "1.6180339887",
    "0.5671432904",
    "1.3247179572",
    "0.9159655942",
)
APART = 1e-4
DIGITS = 30  # five more than are compared: the last ones are of the rounding


def compare_values(left: Any, right: Any) -> bool | None:
    """False if the values differ by more than one part in 10^4 where the symbols stand for POINTS.

    True for equal constants without floating-point parts; None where neither can be said: for close values, relations
    and sets, undefined functions, too many symbols.
    """
    import sympy

    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    names = sorted({symbol.name for side in (left, right) for symbol in side.free_symbols})
    if len(names) > len(POINTS):
        return None
    points = dict(zip(names, map(sympy.Float, POINTS), strict=False))
    try:
        values = [sympy.N(side.subs({s: points[s.name] for s in side.free_symbols}), DIGITS) for side in (left, right)]
        sizes = [abs(value) for value in values]
        if not all((size.is_Float and size.is_finite) or size.is_Integer for size in sizes):
            return None
        if abs(values[0] - values[1]) > APART * max(1, *sizes):
            return False
        if not names and abs(values[0] - values[1]) < abs(values[0]) * sympy.Float(10) ** -25:
            return True
    except (TypeError, ValueError, OverflowError, AttributeError, ArithmeticError):
        return None
    return None
