"""Finding the answer in a response, and the gold answer in a worked solution."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stepdpo.evaluation.graders.boxes import OPENING, last_boxes

END_MARKS = re.compile(r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_text)\|>|</s>|<｜end▁of▁sentence｜>")
FINAL_HOPE = ("final answer is $", "$. I hope")
PHRASE = re.compile(r"(?:\banswers?\s*(?:is|are)\b|\banswers?\b[*_\s]{0,4}:|\bans\s*[:=])[*_\s:]{0,9}", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<!\\)[.!?;](?:\s|$)|\n|,? (?:because|since|which|so|as) ", re.IGNORECASE)
MATHS = re.compile(
    r"(?<!\\)\$\$(?P<display>.+?)(?<!\\)\$\$|\\\[(?P<bracket>.+?)\\\]|\\\((?P<paren>.+?)\\\)"
    r"|(?<!\\)\$(?P<dollar>(?:\\\$|[^$\n])+?)(?<!\\)\$",
    re.DOTALL,
)
NUMBER = re.compile(
    r"(?<![\w.,])[-−+]?[$€£]?(?:\d{1,3}(?:,(?:\\!\s?)?\d{3})+(?:\.\d+)?|\d+,\d+|\d+(?:\.\d+)?|\.\d+)"
    r"(?:\s*/\s*\d+(?:\.\d+)?)?(?:\s*\\?%|\s+per\s?cent\b|\s+pct\b)?"
)
PLAIN_WORD = re.compile(
    r"(?<![\\A-Za-z])(?!(?:and|or|sqrt|sin|cos|tan|log|ln|pi|infinity|inf)\b)(?:[A-Z]?[a-z]{2,})(?![A-Za-z(])"
)
TEXT_GROUP = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|begin|end|operatorname)\s*\{[^{}]*\}")
HOPE = re.compile(r"\bfinal answer is:?\s*(?P<answer>.{1,500}?)\.?\s*I hope", re.IGNORECASE | re.DOTALL)
LAST_NUMBER = re.compile(r"-?\d*\.?\d+")
PERCENT = re.compile(r"[\s$]*(?:\\?%|per\s?cent|pct)")
LIST_LINK = re.compile(r"\s*(?:,\s*(?:and|or)?|;|and|or)\s*")
REACH = 4000
"""Formulas, numbers and phrases are looked for in this many characters at most, which bounds the time."""
BARE_LENGTH = 1000
"""Characters of a response that is an answer and nothing else, at most."""
BARE_WORDS = 6
"""Words of such a response where they are all of it (`no real solutions`), at most: more are a sentence."""
WORDS_BESIDE_MATHS = 4
"""Words of such a response beside its number or formula (a unit, a name), at most: more are a sentence."""


@dataclass(frozen=True, slots=True)
class Found:
    """An answer as it stands in the text, and the rule that found it."""

    text: str
    rule: str


def official_answers(response: str) -> list[str]:
    """Answers by the rules of the Step-DPO evaluation, first rule that fires; not yet normalised."""
    # The order, and "he answer is" for both spellings of its first letter, are the published code's.
    opening, closing = FINAL_HOPE
    if opening in response and closing in response:
        answers = [response.split(opening, 1)[1].split(closing, 1)[0]]
    elif "boxed" in response:
        answers = [content for piece in response.split("boxed{")[1:] if (content := _until_closed(piece)) is not None]
    elif "he answer is" in response:
        answers = [response.rsplit("he answer is", 1)[1]]
    elif "```output" in response and (output := response.rsplit("```output", 1)[1].split("```")[0].strip()):
        answers = [output]
    else:
        answers = LAST_NUMBER.findall(response.replace(",", ""))[-1:]
    return [answer.strip().lstrip(":").rstrip(".").rstrip("/") for answer in answers]


def _until_closed(piece: str) -> str | None:
    """The text up to the brace that closes the box (kept if a % follows it); None if none does."""
    depth = 0
    for i, character in enumerate(piece):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return piece[: i + 1] if piece[i + 1 : i + 2] == "%" else piece[:i]
    return None


def find_answer(response: str) -> Found | None:
    r"""The answer of a response by the strict rules, first rule that fires.

    hope: "the final answer is ... I hope it is correct", where no box follows it;
    box: the last balanced `\boxed{}`, with its neighbours where they form one answer;
    hashes: what follows the last `####`;
    phrase: what follows the last "answer is" or "answer:", up to the end of the line or sentence;
    bare: the whole text, where it is nothing but an answer;
    last: the last formula or number.
    """
    # What follows the end of a turn was written to nobody: it is often another problem with an answer of its own.
    text = END_MARKS.split(response.strip(), maxsplit=1)[0].strip()
    group = last_boxes(text)
    # Only behind the last box: a model that puts its answer in a box afterwards means the box.
    hopes = list(HOPE.finditer(text, group[-1].end if group else 0))
    if hopes and "final answer is" not in hopes[-1]["answer"] and (answer := _phrase_answer(hopes[-1]["answer"])):
        return Found(answer, "hope")
    if group:
        return Found(", ".join(box.content for box in group) + _percent(text, group[-1].end), "box")
    if OPENING.search(text):  # a box that never closes: the response was cut off in its answer
        return None
    _, hashes, hashed = text.rpartition("####")
    # GSM8K's mark. Markdown has it too, so a sentence with the phrase under such a heading is left to the next rule.
    if hashes and not PHRASE.search(hashed) and (answer := hashed.strip().split("\n", 1)[0]):
        return Found(answer, "hashes")
    for match in reversed(list(PHRASE.finditer(text))[-20:]):  # a text that repeats itself is not searched for ever
        if answer := _phrase_answer(text[match.end() : match.end() + REACH]):
            return Found(answer, "phrase")
    if bare := _bare(text):
        return Found(bare, "bare")
    last = _last(text)
    return Found(last, "last") if last else None


def _phrase_answer(rest: str) -> str:
    rest = re.sub(r"^(?:\s|\\?[\"“*])+", "", rest)
    if (maths := MATHS.match(rest)) and _is_maths(maths):
        spans = [maths]
        while (link := LIST_LINK.match(rest, spans[-1].end())) and (after := MATHS.match(rest, link.end())):
            spans.append(after)
        return ", ".join(_content(span) for span in spans) + _percent(rest, spans[-1].end())
    line = rest[: end.start()] if (end := SENTENCE_END.search(rest)) else rest
    line = line.strip().strip('*_"“”').strip()
    # A sentence and no answer, such as `that he has 5 apples left`: the number in it is meant.
    if any(character.isdigit() for character in line) and PLAIN_WORD.match(line):
        return _last(line)
    return line


def _is_maths(match: re.Match[str]) -> bool:
    """Dollar signs round a stretch of prose are amounts of money, not formulas."""
    dollars = match.group("dollar")
    return dollars is None or len(PLAIN_WORD.findall(TEXT_GROUP.sub("", dollars))) < 2


def _content(match: re.Match[str]) -> str:
    return next(content for content in match.groups() if content is not None).strip()


def _bare(text: str) -> str:
    """The text itself if it is an answer and nothing else."""
    whole = MATHS.fullmatch(text)
    if whole and _is_maths(whole) and "$" not in _content(whole).replace("\\$", ""):
        return _content(whole)
    if not text or len(text) > BARE_LENGTH or text.count("\n\n"):
        return ""
    flat = TEXT_GROUP.sub(" ", text)
    words = list(PLAIN_WORD.finditer(flat))
    if not re.search(r"\d|\\[a-z]", text):
        return text if len(text.split()) <= BARE_WORDS else ""
    if len(words) > WORDS_BESIDE_MATHS:
        return ""
    return "" if words and not re.search(r"[\d$\\=]", flat[: words[0].start()]) else text


def _last(text: str) -> str:
    """The last formula or the last number outside one, whichever stands later."""
    text = text[-REACH:]
    spans = [match for match in MATHS.finditer(text) if _is_maths(match)]
    formula = spans[-1] if spans else None
    numbers = [m for m in NUMBER.finditer(text, formula.end() if formula else 0) if m.group().strip()]
    if numbers:
        return numbers[-1].group()
    if formula is None:
        return ""
    return _content(formula) + _percent(text, formula.end())


def _percent(text: str, at: int) -> str:
    """A percent sign where one, or the word, stands right here."""
    return r"\%" if PERCENT.match(text, at) else ""


def gold_answer(text: str) -> str:
    r"""The final answer of a worked gold solution, found like a response's; a bare answer is itself."""
    if "####" in text:
        return text.rsplit("####", 1)[1].strip()
    found = find_answer(text)
    return found.text if found and found.rule in ("hope", "box", "phrase", "bare") else text.strip()
