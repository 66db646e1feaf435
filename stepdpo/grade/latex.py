"""A small reader of LaTeX formulas into sympy for the `official` grader; it never evaluates text as Python.

It understands the same language as `sympy.parsing.latex`, the parser behind the published numbers (which cannot be
installed beside Hydra), with its habits: letters stand side by side as a product, `x(y)` applies a function x, `\\pi`
is just a symbol, and what follows a complete formula is ignored (`1,2` reads as 1).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sympy

TOKEN = re.compile(
    r"(?P<skip>\s+|\\[,:;!]|\\q?quad\b)|(?P<number>\d+(?:,\d{3})*(?:\.\d+)?)|(?P<command>\\(?:[a-zA-Z]+|[{}]))"
    r"|(?P<letter>[a-zA-Z])|(?P<sign>[-+*/:^_!|()\[\]{}=<>,'])|(?P<odd>.)",
    re.DOTALL,
)
RELATIONS: dict[str, Any] = {
    "=": sympy.Eq, "<": sympy.Lt, r"\lt": sympy.Lt, ">": sympy.Gt, r"\gt": sympy.Gt,
    r"\le": sympy.Le, r"\leq": sympy.Le, r"\leqslant": sympy.Le,
    r"\ge": sympy.Ge, r"\geq": sympy.Ge, r"\geqslant": sympy.Ge, r"\ne": sympy.Ne, r"\neq": sympy.Ne,
}  # fmt: skip
NAMED = ["sin", "cos", "tan", "csc", "sec", "cot", "sinh", "cosh", "tanh", "exp", "floor", "ceil"]
INVERSE = {name: "a" + name for name in ["sin", "cos", "tan", "csc", "sec", "cot", "sinh", "cosh", "tanh"]}
ARC = {"arc" + name: inverse for name, inverse in INVERSE.items()} | {
    "arsinh": "asinh",
    "arcosh": "acosh",
    "artanh": "atanh",
}
FUNCTIONS = {rf"\{name}": name for name in NAMED} | {rf"\{arc}": name for arc, name in ARC.items()}
LOGARITHMS = {r"\log": sympy.E, r"\ln": sympy.E, r"\lg": sympy.Integer(10)}
FENCES = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
CLOSING = frozenset(FENCES.values()) | {"|"}
UNREADABLE = frozenset({r"\int", r"\sum", r"\prod", r"\lim", r"\langle", r"\rangle"})
PRODUCT = frozenset({"*", "/", ":", r"\times", r"\cdot", r"\div"})
STOPS = CLOSING | PRODUCT | RELATIONS.keys() | {"+", "-", "^", "_", "!", ",", "'", ""}


class Unreadable(ValueError):
    """The text is not a formula of this language."""


def read(text: str) -> Any:
    """The formula at the beginning of `text`; raises Unreadable."""
    reader = Reader(text)
    left = reader.sum()
    while (sign := reader.peek()) in RELATIONS:
        reader.take()
        left = RELATIONS[sign](left, reader.sum())
    return left


class Reader:
    """Recursive descent with one token of look-ahead; lives for one call of `read`."""

    def __init__(self, text: str) -> None:
        self.tokens = [(m.lastgroup, m.group()) for m in TOKEN.finditer(text) if m.lastgroup != "skip"]
        self.at = 0
        self.bars = 0

    def peek(self, ahead: int = 0) -> str:
        if self.at + ahead >= len(self.tokens):
            return ""
        kind, token = self.tokens[self.at + ahead]
        if kind == "odd":
            raise Unreadable(token)
        return token

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise Unreadable(f"expected {expected}, found {token!r}")
        self.at += 1
        return token

    def sum(self) -> Any:
        total = self.product()
        while (sign := self.peek()) in ("+", "-"):
            self.take()
            if not sign or not self.peek():
                return total
            term = self.product()
            total = total + term if sign == "+" else total - term
        return total

    def product(self, factor: Callable[[], Any] | None = None) -> Any:
        factor = factor or self.signed
        total = factor()
        while (sign := self.peek()) in PRODUCT:
            self.take()
            other = factor()
            total = total / other if sign in ("/", ":", r"\div") else total * other
        return total

    def signed(self, plain: bool = False) -> Any:
        """A signed run of factors side by side; with `plain`, one that ends before the next function."""
        if (sign := self.peek()) in ("+", "-"):
            self.take()
            value = self.signed(plain)
            return -value if sign == "-" else value
        total = self.power()
        while self.starts_factor(plain):
            total = total * self.power()
        return total

    def starts_factor(self, plain: bool) -> bool:
        token = self.peek()
        if token == "|" and not self.bars:
            return True
        if token in STOPS or (token == "{" and self.peek(1) == "}"):
            return False
        return not (plain and (token in FUNCTIONS or token in LOGARITHMS or token == r"\sqrt"))

    def power(self) -> Any:
        value = self.factor()
        while True:
            if self.peek() == "^":
                self.take()
                value = value ** (self.factor() if self.peek() == "{" else self.atom())
                if self.peek() == "_":
                    self.subscript()
            elif self.peek() == "!":
                self.take()
                value = sympy.factorial(value)
            else:
                return value

    def factor(self) -> Any:
        token = self.peek()
        if token == "|":
            self.take()
            self.bars += 1
            value = self.sum()
            self.take("|")
            self.bars -= 1
            return sympy.Abs(value)
        if token in FENCES:
            bars, self.bars = self.bars, 0
            self.take()
            value = self.sum()
            self.take(FENCES[token])
            self.bars = bars
            return {r"\lfloor": sympy.floor, r"\lceil": sympy.ceiling}.get(token, lambda v: v)(value)
        if token in FUNCTIONS or token in LOGARITHMS:
            return self.function()
        if token == r"\sqrt":
            self.take()
            root = self.factor() if self.peek() == "[" else 2
            return sympy.root(self.braced(), root)
        return self.atom()

    def braced(self) -> Any:
        if self.peek() != "{":
            raise Unreadable("expected {")
        return self.factor()

    def function(self) -> Any:
        name = self.take()
        base, exponent = None, None
        while (sign := self.peek()) in ("^", "_"):
            self.take()
            value = self.factor() if self.peek() == "{" else self.atom()
            base, exponent = (value, exponent) if sign == "_" else (base, value)
        argument = self.factor() if self.peek() == "(" else self.product(lambda: self.signed(plain=True))
        if name in LOGARITHMS:
            value = sympy.log(argument, base if base is not None else LOGARITHMS[name])
        elif exponent == -1 and FUNCTIONS[name] in INVERSE:
            return getattr(sympy, INVERSE[FUNCTIONS[name]])(argument)
        else:
            value = getattr(sympy, {"ceil": "ceiling"}.get(FUNCTIONS[name], FUNCTIONS[name]))(argument)
        return value if exponent is None else value**exponent

    def atom(self) -> Any:
        token = self.take()
        kind = self.tokens[self.at - 1][0]
        if kind == "number":
            number = token.replace(",", "")
            return sympy.Float(number) if "." in number else sympy.Integer(number)
        if token in (r"\frac", r"\binom"):
            upper, lower = self.part(), self.part()
            return upper / lower if token == r"\frac" else sympy.binomial(upper, lower)
        if token == r"\infty":
            return sympy.oo
        if token == r"\overline":
            return sympy.conjugate(self.braced())
        if kind not in ("letter", "command") or token in UNREADABLE or token in CLOSING:
            raise Unreadable(token)
        if token == "d" and self.at < len(self.tokens) and self.tokens[self.at][0] == "letter":
            return sympy.Symbol("d" + self.take())
        name = token.lstrip("\\") + (self.subscript() if self.peek() == "_" else "")
        while self.peek() == "'":
            name += self.take()
        if self.peek() != "(":
            return sympy.Symbol(name)
        self.take()
        arguments = [self.sum()]
        while self.peek() == ",":
            self.take()
            arguments.append(self.sum())
        self.take(")")
        return sympy.Function(name)(*arguments)

    def part(self) -> Any:
        """An operand of a fraction: a group in braces or one digit."""
        token = self.peek()
        if token == "{":
            return self.factor()
        if token.isdigit():
            self.tokens[self.at : self.at + 1] = [("number", digit) for digit in token]
            return sympy.Integer(self.take())
        raise Unreadable(token)

    def subscript(self) -> str:
        self.take("_")
        if self.peek() != "{":
            return f"_{{{self.take()}}}"
        start = self.at
        self.factor()
        return "_" + "".join(token for _, token in self.tokens[start : self.at])
