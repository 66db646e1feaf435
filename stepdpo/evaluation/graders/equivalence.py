"""When two answers are the same by the `strict` grader: their structure; formulas.py does the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stepdpo.evaluation.graders.logic import Leaf, Truth, cover, every
from stepdpo.evaluation.graders.normalise import normalise, split_list
from stepdpo.evaluation.graders.numbers import same_number

WORDS = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z][A-Za-z' -]*")
FUNCTION = re.compile(r"(?:sin|cos|tan|cot|sec|csc|log|exp|sqrt|abs|max|min|gcd|lcm|mod|inf|infinity|ln|pi)")
LETTER = re.compile(r"[A-Z]")
BASED = re.compile(r"([\dA-F]+)(?:_\{?(\d+)\}?)?")
CLOCK = re.compile(r"\d{1,2}:[0-5]\d(?: ?[ap]\.?m\.?)?", re.IGNORECASE)
MEMBERSHIP = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?\s*\\in\s*(?=\S)")
NAME = re.compile(r"[|(]?\\?[A-Za-z][A-Za-z_{}\\,:/' ]*(?:_\{?\w+\}?)?(?:\([A-Za-z, ]+\))?[A-Za-z_{}\d:]*[|)]?")
VECTOR = re.compile(r"\\begin\{([pb]?matrix)\}(.*)\\end\{\1\}")
FENCES = {"(": ")]", "[": ")]", r"\{": (r"\}",), r"\langle": (r"\rangle",)}
PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])\s*")


def same_answer(predictions: Sequence[str], golds: Sequence[str], leaf: Leaf) -> Truth:
    """Whether a response gives the gold answers, all of them; `leaf` compares two formulas."""
    prediction = ", ".join(predictions)
    if len(golds) == 1:
        return same(prediction, golds[0], leaf)
    return cover(_members(prediction), [member for gold in golds for member in _members(gold)], _with(leaf))


def _with(leaf: Leaf) -> Leaf:
    return lambda prediction, gold: same(prediction, gold, leaf)


def same(prediction: str, gold: str, leaf: Leaf) -> Truth:
    """Compare two answers: as strings, numbers and words, then by their parts, then as formulas."""
    prediction, gold = _tidy(prediction), _tidy(gold)
    if not prediction or not gold:
        return False
    # Cheap and sure first. Names go before lists, as `x = 1, 2` is a list with a name; lists before formulas, as a
    # reader of formulas stops at a comma.
    plain = _plain(prediction, gold)
    if plain is not None:
        return plain
    prediction, gold = _drop_name(prediction, gold), _drop_name(gold, prediction)
    if len(_members(prediction)) > 1 or len(_members(gold)) > 1:
        return _lists(prediction, gold, leaf)
    inner = _fence(prediction), _fence(gold)
    if inner[0] and inner[1] and (len(inner[0][1]) > 1 or len(inner[1][1]) > 1):
        return _fenced(inner[0], inner[1], leaf)
    unions = prediction.split(r"\cup"), gold.split(r"\cup")
    if len(unions[0]) == len(unions[1]) > 1:
        return cover(unions[0], unions[1], _with(leaf))
    plain = _plain(prediction, gold)  # again, now that names are gone
    return leaf(prediction, gold) if plain is None else plain


def _tidy(text: str) -> str:
    text = normalise(text)
    while text.startswith("{") and _closes_at_end(text, "{", "}"):
        text = text[1:-1].strip()
    if vector := VECTOR.fullmatch(text):
        rows = [row.split("&") for row in vector[2].split(r"\\") if row.strip()]
        if len(rows) == 1 or all(len(row) == 1 for row in rows):
            return "(" + ", ".join(cell.strip() for row in rows for cell in row) + ")"
    return text


def _plain(prediction: str, gold: str) -> Truth:
    """What strings, numbers and words decide."""
    if prediction.replace(" ", "") == gold.replace(" ", ""):
        return True
    number = same_number(prediction, gold)
    if number is not None:
        return number
    if "_" in prediction + gold and (left := BASED.fullmatch(prediction)) and (right := BASED.fullmatch(gold)):
        return left[1] == right[1] and (left[2] is None or right[2] is None or left[2] == right[2])
    # Two times of day that are not the same text; a reader of formulas would take the colon for a division.
    if CLOCK.fullmatch(prediction) and CLOCK.fullmatch(gold):
        return False
    if LETTER.fullmatch(gold) and re.match(rf"\({gold}\)|{gold}[.:)]\s", prediction):
        return True
    words = [_is_words(text) for text in (prediction, gold)]
    if all(words):
        return _key(prediction) == _key(gold)
    return False if any(words) else None


def _is_words(text: str) -> bool:
    return WORDS.fullmatch(text) is not None and FUNCTION.match(text) is None


def _key(words: str) -> str:
    return re.sub(r"^(?:the|an?) |[^a-z ]", "", words.casefold()).replace(" ", "")


def _drop_name(text: str, other: str) -> str:
    r"""`x = 3` is 3, `a = b = 3` is 3, `x \in S` is S, where the other side has no such name."""
    if r"\in " not in other + " ":
        text = MEMBERSHIP.sub("", text, count=1) if MEMBERSHIP.match(text) else text
    name, equals, value = text.partition("=")
    if text.count("=") > 1 and "," not in text and not re.search(r"[<>;=]|\\approx", other + text.replace("=", "")):
        return text.rpartition("=")[2].strip()
    if not equals or "=" in value or "=" in other or re.search(r"[<>]|\\[lg]e|\\ne", name + other):
        return text
    return value.strip() if value.strip() and NAME.fullmatch(_fractions_away(name.strip())) else text


def _fractions_away(name: str) -> str:
    return re.sub(r"\\frac\{([A-Za-z]+)\}\{([A-Za-z]+)\}", r"\1/\2", name)


def _members(text: str) -> list[str]:
    r"""Members of a list: `1, 2`, `\pm 2`; set braces are those of a list."""
    text = _tidy(text)
    if text.startswith(r"\{") and text.endswith(r"\}") and _closes_at_end(text.replace("\\", ""), "{", "}"):
        text = text[2:-2]
    members = []
    for part in split_list(text):
        # Of two signs nobody says whether they go together: two members or four.
        signs = len(PLUS_MINUS.findall(part))
        members += [PLUS_MINUS.sub(sign, part).lstrip("+") for sign in "+-"] if signs == 1 else [part]
    return list(dict.fromkeys(_tidy(member) for member in members))


def _lists(prediction: str, gold: str, leaf: Leaf) -> Truth:
    """Lists as sets; a list against a bracketed tuple in order."""
    left, right = _members(prediction), _members(gold)
    fences = [_fence(text) for text in (prediction, gold)]
    tuples = [fence[1] if fence and fence[0] != "{}" and len(fence[1]) > 1 else None for fence in fences]
    # `1, 2` names two answers in any order; `(1, 2)` is one, whose order counts, and never a set.
    if not any(tuples):
        return cover(left, right, _with(leaf))
    if any(fence and fence[0] == "{}" for fence in fences):
        return False
    return _in_order(tuples[0] or left, tuples[1] or right, leaf)


def _in_order(left: Sequence[str], right: Sequence[str], leaf: Leaf) -> Truth:
    if len(left) != len(right):
        return False
    return every(same(p, g, leaf) for p, g in zip(left, right, strict=True))


def _fence(text: str) -> tuple[str, list[str]] | None:
    """The kind of brackets round a whole answer, such as `[)`, and what they hold."""
    for opening, closings in FENCES.items():
        if not text.startswith(opening):
            continue
        for closing in closings:
            if text.endswith(closing) and len(text) >= len(opening) + len(closing):
                inside = text[len(opening) : -len(closing)]
                if _balanced(inside):
                    kind = {r"\{": "{}", r"\langle": "()"}.get(opening, opening + closing)
                    return kind, split_list(inside)
    return None


def _fenced(left: tuple[str, list[str]], right: tuple[str, list[str]], leaf: Leaf) -> Truth:
    if left[0] != right[0]:
        return False
    if left[0] == "{}":
        return cover(left[1], right[1], _with(leaf))
    return _in_order(left[1], right[1], leaf)


def _balanced(text: str) -> bool:
    """No bracket inside closes one that was opened outside."""
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _closes_at_end(text: str, opening: str, closing: str) -> bool:
    return text.startswith(opening) and text.endswith(closing) and _balanced(text[1:-1])


def is_tuple(text: str) -> bool:
    """Whether brackets hold several members: a tuple, a point or an interval."""
    fence = _fence(text)
    return fence is not None and fence[0] != "{}" and len(fence[1]) > 1
