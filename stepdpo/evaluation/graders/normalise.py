r"""One spelling for an answer: the `strict` grader treats gold and prediction alike with it."""

from __future__ import annotations

import re

UNICODE = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "∞": r"\infty ", "π": r"\pi ",
     "θ": r"\theta ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ",
     "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}",
     "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "√": r"\sqrt ", "，": ",", "（": "(", "）": ")", "％": "%", "⁄": "/",
     "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": ""}
)  # fmt: skip
BLANKS = re.compile(r"\s+")
SYNONYMS = {r"\varnothing": r"\emptyset", r"\geqslant": r"\ge", r"\leqslant": r"\le", r"\geq": r"\ge", r"\leq": r"\le",
            r"\neq": r"\ne", r"\lt": "<", r"\gt": ">", r"\dfrac": r"\frac", r"\tfrac": r"\frac",
            r"\cfrac": r"\frac"}  # fmt: skip
SYNONYM = re.compile(rf"(?:{'|'.join(map(re.escape, SYNONYMS))})(?![a-zA-Z])")
REALS = re.compile(r"\\mathbb\s*\{?\s*R\s*\}?(?!\s*\^)")
SPACING = re.compile(r"(?<!\\)\\(?:[,:;> ]|q?quad\b|hspace\s*\{[^{}]*\})|(?<!\\)~")
ORNAMENT = re.compile(
    r"\\(?:!|displaystyle\b|textstyle\b|limits\b|(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\.?)"
    r"|\\\$|[$€£]|\\[()]|(?<!\\)\\\[|\\\]"
)
WRAPPER = (
    r"\\(?:text(?:bf|it|rm|normal|tt)?|mbox|hbox|math(?:rm|bf|it|bb|sf|cal)|boldsymbol|operatorname\*?)\s*\{([^{}]*)\}"
)
WRAPPED = re.compile(WRAPPER)
WHOLLY_WRAPPED = re.compile(rf"[(\[]?\s*{WRAPPER}\s*[)\]]?")
CONJUNCTION = re.compile(
    r",?\s*\\(?:text|mbox|textrm|mathrm)\s*\{\s*,?\s*(?:and|or)\s*\}\s*|,?\s*(?<![A-Za-z\\])(?:and|or)(?![a-zA-Z])\s*"
)
TEXT_UNIT = re.compile(
    r"(?<=[\w})\]%])\s*\\(?:text(?:bf|it|rm|normal)?|mbox|hbox|mathrm|rm)\s*\{[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?\s*$"
)
DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)\s*[CF]?(?![A-Za-z])|\s*\\degree\b|\s*\bdegrees?\b")
UNIT_WORDS = (
    r"(?:(?:square|cubic|sq|cu)\.?\s+)?(?:[cmk]m|ft|in|yd|mi|[km]g|lbs?|oz|ml|cc|hrs?|"
    r"[ap]\.?m\.?|(?!(?:and|or|pi|sqrt|sin|cos|tan|sec|csc|cot|log|exp|mod|inf|infinity|base)\b)[A-Za-z]{3,})"
)
PLAIN_UNIT = re.compile(rf"(?<=[\d}})%])\s+{UNIT_WORDS}(?:[\s/]+{UNIT_WORDS}){{0,5}}(?:\s*\^\s*\{{?\d\}}?)?\.?\s*$")
GLUED_UNIT = re.compile(r"(?<=\d)(?:cm|mm|km|kg|ft|mph|lbs?|am|pm|m²|cents?|units?)(?:\^\{?\d\}?)?$")
PERCENT_WORD = re.compile(r"\s*(?:\\*%|\bper\s?cent(?:age)?\b|\bpct\b)")
GROUPING = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\,(?=\d{3}(?!\d)))\s*(?=\d)")
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?%?|[-+]?[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?%?")
# Possessive, and from the first backslash only: looking again from each of a thousand would take a million steps.
SLASHES = re.compile(
    r"(?<!\\)\\{2,}+(?=(?:[dtc]?frac|sqrt|left|right|text|le|ge|leq|geq|pi|infty|cup|boxed|circ|pm|cdot|times|in|begin|end)(?![a-zA-Z]))"
)
BARE_ROOT = re.compile(r"\\sqrt\s*(\d|[a-zA-Z](?![a-zA-Z]))")
BARE_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|(\d|[a-zA-Z]|\\[a-z]+))\s*(?:\{([^{}]*)\}|(\d|[a-zA-Z]))")
SCIENTIFIC = re.compile(r"([-+]?\d+(?:\.\d+)?)[eE]([-+]?\d{1,3})")
CHOICE = re.compile(r"\(?([A-Z])\)?[.:)]?")


def normalise(answer: str) -> str:
    """The one spelling of `answer`; applying it again changes nothing."""
    text = answer
    # One rule uncovers what another takes away (a unit within a wrapped text within a sentence). A few rounds settle
    # every answer known, and a bound keeps a hostile one from going on.
    for _ in range(4):
        before, text = text, _once(text)
        if text == before:
            break
    return text


def _once(text: str) -> str:
    # The order matters. Grouping before spacing, as `1\,000` is one number and `1\, 2` two; a text that is wrapped as a
    # whole before units, as it is words; units while they still stand in their wrappers; thousands last, when nothing
    # but the number is left.
    text = BLANKS.sub(" ", SLASHES.sub(r"\\", text.translate(UNICODE)))
    text = BLANKS.sub(" ", SPACING.sub(" ", GROUPING.sub("", text)))
    text = BLANKS.sub(" ", ORNAMENT.sub("", text)).strip()
    text = REALS.sub(r"(-\\infty, \\infty)", SYNONYM.sub(lambda match: SYNONYMS[match.group()], text))
    whole = WHOLLY_WRAPPED.fullmatch(text)
    if whole:
        return _words(whole.group(1))
    text = CONJUNCTION.sub(", ", text)
    text = PERCENT_WORD.sub("%", text)
    text = DEGREES.sub("", TEXT_UNIT.sub("", text))
    text = PLAIN_UNIT.sub("", WRAPPED.sub(r" \1 ", text))
    text = GLUED_UNIT.sub("", text.strip())
    text = BARE_FRACTION.sub(_braced, BARE_ROOT.sub(r"\\sqrt{\1}", text))
    text = BLANKS.sub(" ", text).strip().rstrip(".,;:").strip()
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    if scientific := SCIENTIFIC.fullmatch(text):
        text = _plain_decimal(scientific)
    if THOUSANDS.fullmatch(text):
        text = text.replace(",", "").replace(" ", "")
    if choice := CHOICE.fullmatch(text):
        text = choice.group(1)
    return text


def _words(text: str) -> str:
    r"""The inside of a wrapped text: `\text{ (A) }` and `(\text{A})` are both A."""
    text = BLANKS.sub(" ", text).strip().rstrip(".").strip()
    return choice.group(1) if (choice := CHOICE.fullmatch(text)) else text


def _braced(match: re.Match[str]) -> str:
    upper, lower = (match[1] or match[2] or ""), (match[3] or match[4] or "")
    return rf"\frac{{{upper}}}{{{lower}}}"


def _plain_decimal(match: re.Match[str]) -> str:
    mantissa, exponent = match[1], int(match[2])
    if abs(exponent) > 30:  # written out, a few characters would become an answer of any length
        return match.group()
    sign, digits = ("-" if mantissa.startswith("-") else ""), mantissa.lstrip("+-")
    whole, _, part = digits.partition(".")
    if exponent >= 0:
        part = part.ljust(exponent, "0")
        whole, part = whole + part[:exponent], part[exponent:]
    else:
        whole = whole.rjust(1 - exponent, "0")
        whole, part = whole[:exponent], whole[exponent:] + part
    part = part.rstrip("0")
    return f"{sign}{whole.lstrip('0') or '0'}" + (f".{part}" if part else "")


def split_list(text: str) -> list[str]:
    """The members of a list at its top level: `1, (2, 3)` has two; separated by semicolons if there are any."""
    for separator in (";", ","):
        parts = _split(text, separator)
        if len(parts) > 1:
            return [part.strip() for part in parts if part.strip()]
    return [text.strip()] if text.strip() else []


def _split(text: str, separator: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        elif character == separator and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]
