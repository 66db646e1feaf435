"""Question -> the text a model reads. Training and evaluation hold the same object.

The exact strings of published work are in conf/template/ (Step-DPO's code: `alpaca`, `qwen2_boxed`, `deepseek_math`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from jinja2 import TemplateError, TemplateSyntaxError

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Template, Tokenizer
from stepdpo.core.types import Prompt, Turn
from stepdpo.data.fields import RowError

CARD = "stepdpo.json"
"""The file beside a checkpoint's weights that says which template it was trained with."""


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
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateSyntaxError as error:
            raise UserError(f"template=native: this model's chat template is broken ({error})") from error
        except (TemplateError, TypeError) as error:  # what templates raise of their own accord, or trip over
            raise RowError(f"the chat template refuses it: {error}") from error
        return Prompt(text=str(text), joint="")


@dataclass(frozen=True)
class MixedTemplate:
    """Each question under one of several templates, chosen by a hash of the question.

    For supervised training of a model that should understand all of them.
    """

    name: str
    parts: list[Template]

    def render(self, question: str, history: Sequence[Turn], tokenizer: Tokenizer) -> Prompt:
        # By the question, not by a draw: both sides of all pairs of a question, and its turn in a later epoch or on
        # another process, read the same prompt.
        part = self.parts[crc32(question.encode()) % len(self.parts)]
        return part.render(question, history, tokenizer)


def card(folder: str | Path) -> dict[str, Any]:
    """What stepdpo wrote beside the weights in `folder`; empty for other people's checkpoints."""
    path = Path(folder) / CARD
    if not path.is_file():
        return {}
    content = json.loads(path.read_text())
    return content if isinstance(content, dict) else {}


def describe(template: Template) -> dict[str, Any]:
    """The entry for the card: enough to build a text template again; of one that is code, its name."""
    if isinstance(template, TextTemplate):
        # Cards of before there was a choice do not name it, and mean the same.
        return {key: value for key, value in asdict(template).items() if key != "joint_alone" or not value}
    if isinstance(template, MixedTemplate):
        return {"name": "native", "also": [part.name for part in template.parts]}
    return {"name": template.name}


def resolve(template: Template, model: str | Path) -> tuple[Template, str | None]:
    """The template to use with a checkpoint, and a warning if it is not the one it was trained with."""
    named = card(model).get("template") or {}
    if isinstance(template, NativeTemplate) and "prompt" in named:
        return TextTemplate(**named), None
    if named and template.name not in (named.get("name"), *named.get("also", ())):
        return template, (
            f"{model} was trained with template={named.get('name')} and is now used with template={template.name}: "
            "scores will not be comparable"
        )
    if "prompt" in named and named != describe(template):
        return template, (
            f"{model} was trained with another text under the name template={template.name}: "
            "scores will not be comparable"
        )
    return template, None
