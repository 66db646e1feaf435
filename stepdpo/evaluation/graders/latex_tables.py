"""The words of the language that latex.py reads."""

from __future__ import annotations

import re
from typing import Any

import sympy

TOKEN = re.compile(
    r"(?P<skip>\s+|\\(?:[,:;!]|(?:q?quad|left|right)(?![a-zA-Z])))|(?P<number>\d+(?:,\d{3})*(?:\.\d+)?)(?!\.(?:\D|$))"
    r"|(?P<command>\\(?:[a-zA-Z]+|[{}]))|(?P<letter>[a-zA-Z])|(?P<sign>[-+*/:^_!|()\[\]{}=<>,'.])|(?P<odd>.)",
    re.DOTALL,
)
DIGIT_GAP = re.compile(r"(?<=[\d,])(?:\s|\\[,:;!])+(?=\d)")
RELATIONS: dict[str, Any] = {
    "=": sympy.Eq, "<": sympy.Lt, r"\lt": sympy.Lt, ">": sympy.Gt, r"\gt": sympy.Gt,
    r"\le": sympy.Le, r"\leq": sympy.Le, r"\leqslant": sympy.Le,
    r"\ge": sympy.Ge, r"\geq": sympy.Ge, r"\geqslant": sympy.Ge, r"\ne": sympy.Ne, r"\neq": sympy.Ne,
}  # fmt: skip
CIRCULAR = ("sin", "cos", "tan", "csc", "sec", "cot", "sinh", "cosh", "tanh")
INVERSE = {name: "a" + name for name in CIRCULAR}
ARC = {"arc" + name: inverse for name, inverse in INVERSE.items()} | {
    "arsinh": "asinh",
    "arcosh": "acosh",
    "artanh": "atanh",
}
FUNCTIONS = {rf"\{name}": name for name in (*CIRCULAR, "exp")} | {rf"\{arc}": name for arc, name in ARC.items()}
LOGARITHMS = {r"\log": sympy.E, r"\ln": sympy.E, r"\lg": sympy.Integer(10)}
FENCES = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
ROUNDINGS = {r"\lfloor": sympy.floor, r"\lceil": sympy.ceiling}
CLOSING = frozenset(FENCES.values()) | {"|"}
CONSTANTS = {r"\pi": sympy.pi, "e": sympy.E, "i": sympy.I}
UNSURE = re.compile(
    r"\d\s*\\frac|[,:%=<>]|\\[lgn]eq?(?![a-z])|\\(?:text|in|cup|cap|pm|mp|begin|circ|approx|sim|equiv)(?![a-z])"
)
UNREADABLE = frozenset({r"\int", r"\sum", r"\prod", r"\lim", r"\langle", r"\rangle"})
FRACTIONS = frozenset({r"\frac", r"\dfrac", r"\tfrac"})
PRODUCT = frozenset({"*", "/", ":", r"\times", r"\cdot", r"\div"})
STOPS = CLOSING | PRODUCT | RELATIONS.keys() | {"+", "-", "^", "_", "!", ",", "'", ".", ""}
