"""Our templates as chat templates: what servers render prompts with, so that they ask as the training did."""

from __future__ import annotations

import json

from stepdpo.data.templates import NativeTemplate, TextTemplate, with_date

QUESTION = "{question}"


def of_text(template: TextTemplate, joint: bool, bos: bool) -> str:
    """A chat template that writes what the text template does; it refuses a turn of the system, as that does.

    `joint`: whether the first character of a response is given with the prompt; `bos`: whether the text must begin with
    the token that begins a text, since servers add none to what a chat template has written.
    """
    question = " + message['content'] + ".join(_literal(piece) for piece in template.prompt.split(QUESTION))
    answer = f"{_literal(template.joint)} + message['content'] + {_literal(template.between)}"
    refuse = _literal(f"template {template.name} has no place for a system turn")
    return "".join([
        "{{ bos_token }}" if bos else "",
        "{% for message in messages %}",
        "{% if message['role'] == 'user' %}{{ " + question + " }}",
        "{% elif message['role'] == 'assistant' %}{{ " + answer + " }}",
        "{% else %}{{ raise_exception(" + refuse + ") }}{% endif %}",
        "{% endfor %}",
        "{% if add_generation_prompt %}{{ " + _literal(template.joint) + " }}{% endif %}" if joint else "",
    ])  # fmt: skip


def of_native(template: NativeTemplate, own: str) -> str:
    """The model's own chat template with what the settings say: the day, and the turn of the system."""
    text = with_date(template.date, own) if template.date else own
    if template.system is None:
        return text
    turn = f"[{{'role': 'system', 'content': {_literal(template.system)}}}]"
    return (
        "{% if not messages or messages[0]['role'] != 'system' %}"
        f"{{% set messages = {turn} + messages %}}{{% endif %}}{text}"
    )


def _literal(text: str) -> str:
    """A string of the template language; JSON's escapes are among its own, but for those of halves of letters."""
    return json.dumps(text, ensure_ascii=False)
