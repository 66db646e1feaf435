r"""A small, quick reader of LaTeX formulas into sympy; it never evaluates text as Python.

`read` understands the same language as `sympy.parsing.latex`, the parser behind the published numbers (which cannot be
installed beside Hydra), with its habits: letters stand side by side as a product, `x(y)` applies a function x, `\pi`
is just a symbol, and what follows a complete formula is ignored (`1,2` reads as 1). `read_plainly` has none of these
habits, and refuses what it is not sure of.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sympy

from stepdpo.evaluation.graders import latex_tables as words


class Unreadable(ValueError):
    """The text is not a formula of this language."""


class Odd(Unreadable):
    """A character that occurs in no formula: no beginning of the text counts as one."""


def read(text: str) -> Any:
    """The formula at the beginning of `text`; raises Unreadable."""
    reader = Reader(text)
    left = reader.sum()
    while (sign := reader.peek()) in words.RELATIONS:
        reader.take()
        left = words.RELATIONS[sign](left, reader.sum())
    return left


def read_plainly(text: str) -> Any:
    """The expression that all of `text` is, in the usual meaning; raises Unreadable."""
    if words.UNSURE.search(text):
        raise Unreadable(text)
    reader = Reader(text, plain=True)
    value = reader.sum()
    if reader.peek():
        raise Unreadable(text)
    return value


class Reader:
    """Recursive descent with one token of look-ahead; lives for one call."""

    def __init__(self, text: str, plain: bool = False) -> None:
        self.plain = plain
        text = words.DIGIT_GAP.sub("", text)
        self.tokens = [(m.lastgroup, m.group()) for m in words.TOKEN.finditer(text) if m.lastgroup != "skip"]
        self.at = 0
        self.bars = 0
        self.dead: set[int] = set()

    def peek(self, ahead: int = 0) -> str:
        if self.at + ahead >= len(self.tokens):
            return ""
        kind, token = self.tokens[self.at + ahead]
        if kind == "odd":
            raise Odd(token)
        return token

    def attempt(self, step: Callable[[], Any]) -> Any:
        """What `step` reads, or None and nothing read: the formula then ends before it."""
        start, bars = self.at, self.bars
        # What could not be read from here once cannot be read the second time. Without this note, nested brackets would
        # be tried again at every level, in time exponential in their depth.
        if start in self.dead:
            return None
        try:
            return step()
        except Odd:
            raise
        except Unreadable:
            self.at, self.bars = start, bars
            self.dead.add(start)
            return None

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise Unreadable(f"expected {expected}, found {token!r}")
        self.at += 1
        return token

    def sum(self) -> Any:
        total = self.product()
        while self.peek() in ("+", "-") and (term := self.attempt(lambda: self.after_sign(self.product))) is not None:
            total = total + term
        return total

    def after_sign(self, operand: Callable[[], Any]) -> Any:
        return -operand() if self.take() == "-" else operand()

    def product(self, factor: Callable[[], Any] | None = None) -> Any:
        factor = factor or self.signed
        total = factor()
        while (sign := self.peek()) in words.PRODUCT and (
            other := self.attempt(lambda: self.after_sign(factor))
        ) is not None:
            total = total / other if sign in ("/", ":", r"\div") else total * other
        return total

    def signed(self, plain: bool = False) -> Any:
        """A signed run of factors side by side; with `plain`, one that ends before the next function."""
        if self.peek() in ("+", "-"):
            return self.after_sign(lambda: self.signed(plain))
        total = self.power()
        while self.starts_factor(plain) and (factor := self.attempt(self.power)) is not None:
            total = total * factor
        return total

    def starts_factor(self, plain: bool) -> bool:
        token = self.peek()
        # Within bars the next one closes them: |a|b|c| is read as |a| b |c|.
        if token == "|" and not self.bars:
            return True
        if token in words.STOPS or (token == "{" and self.peek(1) == "}"):
            return False
        return not (plain and (token in words.FUNCTIONS or token in words.LOGARITHMS or token == r"\sqrt"))

    def power(self) -> Any:
        value = self.factor()
        while True:
            if self.peek() == "!":
                self.take()
                value = sympy.factorial(value)
            elif self.peek() == "^" and (exponent := self.attempt(self.exponent)) is not None:
                value = value**exponent
            else:
                return value

    def exponent(self) -> Any:
        self.take("^")
        value = self.factor() if self.peek() == "{" else self.atom()
        if self.peek() == "_":
            self.subscript()
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
        if token in words.FENCES:
            bars, self.bars = self.bars, 0  # bars within brackets are pairs of their own
            self.take()
            value = self.sum()
            self.take(words.FENCES[token])
            self.bars = bars
            return words.ROUNDINGS[token](value) if token in words.ROUNDINGS else value
        if token in words.FUNCTIONS or token in words.LOGARITHMS:
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
        arguments = self.arguments() if self.peek() == "(" else [self.product(lambda: self.signed(plain=True))]
        argument = arguments[0]
        if name in words.LOGARITHMS:
            value = sympy.log(argument, base if base is not None else words.LOGARITHMS[name])
        elif exponent == -1 and words.FUNCTIONS[name] in words.INVERSE:
            return getattr(sympy, words.INVERSE[words.FUNCTIONS[name]])(argument)
        else:
            value = getattr(sympy, words.FUNCTIONS[name])(argument)
        return value if exponent is None else value**exponent

    def atom(self) -> Any:
        token = self.take()
        kind = self.tokens[self.at - 1][0]
        if kind == "number":
            number = token.replace(",", "")
            if re.fullmatch(r"0\d+", number):
                raise Odd(token)
            return sympy.Float(number) if "." in number else sympy.Integer(number)
        if token in words.FRACTIONS or token == r"\binom":
            upper, lower = self.part(), self.part()
            return upper / lower if token in words.FRACTIONS else sympy.binomial(upper, lower)
        if token == r"\infty":
            return sympy.oo
        if token == r"\overline":
            return sympy.conjugate(self.braced())
        if kind not in ("letter", "command") or token in words.UNREADABLE or token in words.CLOSING:
            raise Unreadable(token)
        if self.plain and token in words.CONSTANTS:
            return words.CONSTANTS[token]
        if token == "d" and not self.plain and self.at < len(self.tokens) and self.tokens[self.at][0] == "letter":
            return sympy.Symbol("d" + self.take())
        name = token.lstrip("\\") + (self.subscript() if self.peek() == "_" else "")
        while self.peek() == "'":
            name += self.take()
        if self.plain or self.peek() != "(":
            return sympy.Symbol(name)
        arguments = self.attempt(self.arguments)
        return sympy.Symbol(name) if arguments is None else sympy.Function(name)(*arguments)

    def arguments(self) -> list[Any]:
        self.take("(")
        found = [self.sum()]
        while self.peek() == ",":
            self.take()
            found.append(self.sum())
        self.take(")")
        return found

    def part(self) -> Any:
        """An operand of a fraction: a group in braces or one digit."""
        token = self.peek()
        if token == "{":
            return self.factor()
        if token.isdigit():
            # `\frac12` is one half: a number of several digits is taken apart, and gives its first.
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
