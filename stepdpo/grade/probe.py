"""A quick proof that two formulas differ: their values at a fixed point do."""

from __future__ import annotations

from typing import Any

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


def clearly_apart(left: Any, right: Any) -> bool:
    """Whether two expressions take values more than one part in 10^4 apart where their symbols stand for POINTS.

    False where that cannot be said: for relations and sets, undefined functions, too many symbols.
    """
    import sympy

    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return False
    names = sorted({symbol.name for side in (left, right) for symbol in side.free_symbols})
    if len(names) > len(POINTS):
        return False
    values = dict(zip(names, map(sympy.Float, POINTS), strict=False))
    try:
        numbers = [
            complex(sympy.N(side.subs({s: values[s.name] for s in side.free_symbols}))) for side in (left, right)
        ]
    except (TypeError, ValueError, OverflowError, AttributeError, ArithmeticError):
        return False
    distance = abs(numbers[0] - numbers[1])
    return distance > APART * max(1.0, abs(numbers[0]), abs(numbers[1]))  # never true of infinity or nan
