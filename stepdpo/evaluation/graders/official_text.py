"""How the Step-DPO evaluation (arXiv 2406.18629) normalises a predicted answer, faults included."""

from __future__ import annotations

import re
from collections.abc import Sequence

SPELLINGS = (("tfrac", "frac"), ("dfrac", "frac"), ("cfrac", "frac"), ("\\left", ""), ("\\right", ""))
SYMBOLS = (("\\$", ""), ("$", ""), ("x\\in", ""), ("\\%", "%"), (" .", " 0."), ("{.", "{0."), ("\\cdot", ""))


def normalise(answer: str) -> str:
    """Normalise a predicted answer (golds are compared as they are)."""
    # Replacements in the published order, which their results depend on: `inf` after `infinity`, units after \text.
    text = answer.strip().replace("\n", "").rstrip(".").replace("\\!", "")
    if text.startswith(r"\text{") and text.endswith("}"):
        text = text[len(r"\text{") : -1]
    text = _replace(text, SPELLINGS)
    text = re.sub(r"\\text{.*?}$", "", text).strip() or text
    for degrees in (r"^{\circ}", r"^\circ"):
        text = text.replace(degrees, "").strip()
    for unit in (r"\{[cm]?m\}(\^[23])?", r"p\.m\.$", r"(?<=\d)\s*t$"):
        text = re.sub(unit, "", text).strip()
    text = _replace(text, SYMBOLS).replace("infinity", r"\infty")
    if r"\infty" not in text:
        text = text.replace("inf", r"\infty")
    text = re.sub(r"\\mbox{.*?}", "", _replace(text, (("\\mathbf", ""), ("\\mathrm", ""))))
    if "i" not in text:
        text = text.replace("j", "i")
    text = re.sub(r"(\d)\.0+($|[^\d])", r"\1\2", text)
    if not text:
        return text
    text = "0" + text if text.startswith(".") else text
    for name in ("sqrt", "tan"):
        text = re.sub(rf"\\{name}(-?[0-9.a-zA-Z]+)", rf"\\{name}{{\1}}", text)
        text = re.sub(rf"\\{name}\s+(\w+)$", rf"\\{name}{{\1}}", text)
    return _slash_to_fraction(_brace_fractions(text.replace(" ", ""))).rstrip("\\,.")


def _replace(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def _brace_fractions(text: str) -> str:
    r"""`\frac12` and `\frac1{72}` get their braces; a fraction cut off at the end leaves the text as it was."""
    head, *tails = text.split(r"\frac")
    done = [head]
    for tail in tails:
        if tail.startswith("{"):
            done.append(tail)
        elif len(tail) < 2:
            return text
        elif tail[1] == "{":
            done.append(f"{{{tail[0]}}}{tail[1:]}")
        else:
            done.append(f"{{{tail[0]}}}{{{tail[1]}}}{tail[2:]}")
    return r"\frac".join(done)


def _slash_to_fraction(text: str) -> str:
    upper, slash, lower = text.partition("/")
    if not slash or "/" in lower or not all("sqrt" in part or _is_int(part) for part in (upper, lower)):
        return text
    return rf"\frac{{{upper}}}{{{lower}}}"


def _is_int(text: str) -> bool:
    return re.fullmatch(r"0|-?[1-9][0-9]*", text) is not None
