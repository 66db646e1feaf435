"""`stepdpo export`: the template that a model was trained with, as its chat template where that can be proved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Template
from stepdpo.core.types import Turn
from stepdpo.data import chat_text
from stepdpo.data.fields import RowError
from stepdpo.data.template_card import CARD, card, resolve
from stepdpo.data.templates import NativeTemplate, TextTemplate
from stepdpo.models.base_files import TOKENIZER_CONFIG
from stepdpo.models.load import Pretrained
from stepdpo.tokens.tokenization import encode, generation_prompt, question_prompt

CHAT_TEMPLATE = "chat_template.jinja"
PROBES: Sequence[tuple[str, tuple[Turn, ...]]] = (
    ("What is 2 + 3?", ()),
    (" Zoë's {question}:\n1. 3 % of {{ 5 }} \\boxed{} 🐈?\n", ()),
    ("Is it 5?", (Turn("assistant", "No.\nIt is 6."), Turn("user", "Why?"))),
    ("Is it 5?", (Turn("system", "Be brief."),)),
)
"""Questions, and what was said after them, under which both ways of writing a prompt must give the same tokens."""


@dataclass(frozen=True)
class Prompts:
    """How others ask the exported model."""

    chat_template: str | None
    """To be written; None where the tokenizer's stays as it is."""
    told: str
    """A sentence for the user and for the card."""
    example: str = ""
    """A prompt as text."""


def prompts_of(model: Path, day: str) -> Prompts:
    """The chat template for a model's folder; `day` is written by one that reads the clock, where the card has none."""
    tokenizer = Pretrained(path=str(model)).tokenizer()
    name = (card(model).get("template") or {}).get("name", "native")
    unsaid = f"It was trained with template={name}, which no chat template says: the tokenizer's is the base's."
    try:
        template, _ = resolve(NativeTemplate(), model, tokenizer, day)
        example = question_prompt(template, PROBES[0][0], (), tokenizer).text
    except (UserError, RowError):
        return Prompts(None, unsaid)
    text = _candidate(template, tokenizer)
    if text is None or not _proved(text, template, tokenizer):
        return Prompts(None, f"{unsaid} Prompts must be given as text.", example)
    own = str(tokenizer.chat_template)
    if text == own:
        return Prompts(None, "It was trained with the chat template of its tokenizer.", example)
    return Prompts(text, f"Its chat template is template={name}, which it was trained with.", example)


def write_prompts(prompts: Prompts, folder: Path) -> None:
    """Into an exported folder; the card then names the chat template that is there now."""
    text = prompts.chat_template
    if text is None:
        return
    (folder / CHAT_TEMPLATE).write_text(text, encoding="utf-8", newline="")
    _edit(folder / TOKENIZER_CONFIG, lambda found: {k: v for k, v in found.items() if k != "chat_template"})

    def follows(found: dict[str, Any]) -> dict[str, Any]:
        if "chat_template" not in found:
            return found  # of a text template: it names none
        hashed = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        fixed = {"date": None} if "date" in found["template"] else {}  # written in
        return {**found, "chat_template": hashed, "template": {**found["template"], **fixed}}

    _edit(folder / CARD, follows)


def _candidate(template: Template, tokenizer: Any) -> str | None:
    """A chat template that should do, by its text; None where there is no such."""
    if type(template) is NativeTemplate:
        return chat_text.of_native(template, tokenizer.get_chat_template())
    if type(template) is not TextTemplate:
        return None
    prompt = template.render(PROBES[0][0], (), tokenizer)
    joint = generation_prompt(prompt, tokenizer).text != prompt.text
    ((ids, _),) = encode([prompt.text], tokenizer)
    plain = tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
    return chat_text.of_text(template, joint, bos=ids != plain)


def _proved(text: str, template: Template, tokenizer: Any) -> bool:
    """Whether a chat template gives the tokens of every probe that the training's template has a prompt for."""
    for question, history in PROBES:
        try:
            prompt = question_prompt(template, question, history, tokenizer).text
        except RowError:
            continue
        ((wanted, _),) = encode([prompt], tokenizer)
        system = [turn for turn in history if turn.role == "system"]
        turns = [*system, Turn("user", question), *(turn for turn in history if turn.role != "system")]
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            found = tokenizer.apply_chat_template(
                messages, chat_template=text, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except (TemplateError, TypeError, ValueError):
            return False
        if list(found) != list(wanted):
            return False
    return True


def _edit(path: Path, change: Any) -> None:
    if path.is_file():
        content = change(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
