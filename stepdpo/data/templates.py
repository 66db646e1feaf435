"""Question -> the text a model reads. Training and evaluation hold the same object.

The exact strings of published work are in conf/template/ (Step-DPO's code: `alpaca`, `qwen2_boxed`, `deepseek_math`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zlib import crc32

from jinja2 import TemplateError, TemplateSyntaxError

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Template, Tokenizer
from stepdpo.core.types import Prompt, Turn
from stepdpo.data.fields import RowError

CLOCK = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
"""A chat template's look at the clock, and the form it wants the time in."""


TROUBLE = (TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class TextTemplate:
    r"""A fixed string with `{question}` in it.

    The placeholder is replaced, not formatted, so braces in the question or in `\boxed{}` are just text.
    Earlier turns of a conversation are written as further blocks of the same form.
    """

    name: str
    prompt: str
    """Text around the question; ends where the model starts to write."""
    joint: str = ""
    """First characters of every response: scored when nothing unscored follows them."""
    joint_alone: bool = True
    """Whether that holds in training where a response follows no prefix, too; Step-DPO's code leaves it out there."""
    between: str = "\n\n"
    """Text between one turn's response and the next block (multi-turn data)."""

    def __post_init__(self) -> None:
        if "{question}" not in self.prompt:
            raise ValueError(f"template {self.name!r}: the prompt must contain {{question}}")

    def render(self, question: str, history: Sequence[Turn], tokenizer: Tokenizer) -> Prompt:
        text = self.prompt.replace("{question}", question)
        if history and history[0].role == "system":
            raise RowError(f"template={self.name} has no place for a system turn")
        for turn in history:
            if turn.role == "assistant":
                text += self.joint + turn.content + self.between
            else:
                text += self.prompt.replace("{question}", turn.content)
        return Prompt(text=text, joint=self.joint, joint_alone=self.joint_alone)


@dataclass(frozen=True)
class NativeTemplate:
    """The model's own: the template its checkpoint names, else its tokenizer's chat template."""

    name: str = "native"
    system: str | None = None
    """System message, where the data have none; left to the chat template's default when not given."""
    date: str | None = None
    """The day (YYYY-MM-DD) that a chat template with `strftime_now` writes; null: the one a run begins on."""

    def __post_init__(self) -> None:
        if self.date is not None:
            try:
                datetime.fromisoformat(self.date)
            except ValueError:
                raise ValueError(f"date: expected a day such as 2026-12-01, got {self.date!r}") from None

    def render(self, question: str, history: Sequence[Turn], tokenizer: Tokenizer) -> Prompt:
        if not tokenizer.chat_template:
            raise UserError(
                "template=native: this model's tokenizer has no chat template; name one, for example template=alpaca"
            )
        own = history[0].content if history and history[0].role == "system" else None
        system = self.system if own is None else own
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": question})
        messages += [{"role": turn.role, "content": turn.content} for turn in history if turn.role != "system"]
        try:
            fixed = {"chat_template": with_date(self.date, tokenizer.get_chat_template())} if self.date else {}
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **fixed)
        except (TemplateSyntaxError, SyntaxError, RecursionError, MemoryError) as error:
            raise UserError(f"{_whose(tokenizer)} is broken ({error or type(error).__name__})") from error
        except UserError as error:  # beyond its bounds, whatever the row
            raise UserError(f"{_whose(tokenizer)} {error}") from error
        except TROUBLE as error:  # what templates raise of their own accord, or trip over
            raise RowError(f"the chat template refuses it: {error}") from error
        return Prompt(text=str(text), joint="")


def _whose(tokenizer: Tokenizer) -> str:
    return f"template=native: the chat template of {getattr(tokenizer, 'name_or_path', '') or 'this model'}"


def with_date(day: str, chat_template: str) -> str:
    """A chat template with the day written in where it asks the clock; tomorrow's prompts would be others else.

    In the text, as transformers hands no functions to a template.
    """
    when = datetime.fromisoformat(day)
    return CLOCK.sub(lambda call: json.dumps(when.strftime(call[2]), ensure_ascii=False), chat_template)


@dataclass(frozen=True)
class MixedTemplate:
    """Each question under one of several templates, chosen by a hash of the question.

    For supervised training of a model that should understand all of them.
    """

    name: str
    parts: list[Template]

    def __post_init__(self) -> None:
        if not self.parts or not all(hasattr(part, "render") for part in self.parts):
            raise ValueError("parts must be one template or more")

    def render(self, question: str, history: Sequence[Turn], tokenizer: Tokenizer) -> Prompt:
        # By the question, not by a draw: both sides of all pairs of a question, and its turn in a later epoch or on
        # another process, read the same prompt.
        part = self.parts[crc32(question.encode()) % len(self.parts)]
        return part.render(question, history, tokenizer)
