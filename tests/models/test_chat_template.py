"""A chat template renders what transformers renders, and ends whatever it does."""

from __future__ import annotations

import copy
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from support.chat_templates import FAMILIES, TOOL
from transformers.utils import chat_template_utils

from stepdpo.core.errors import UserError
from stepdpo.data.fields import RowError
from stepdpo.data.templates import CLOCK, NativeTemplate
from stepdpo.models import chat_template, template_budget

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
TURNS = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": "  What is 2 + 3? <&> {{ x }} “ä” \u202e"},
    {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\nStep 1: 5"},
    {"role": "user", "content": "Sure?\n"},
]


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """transformers' own way of making a template, from before; ours is in its place until the test ends."""
    now = getattr(chat_template_utils, chat_template.COMPILE)
    own = getattr(now, "unbounded", now)
    monkeypatch.setattr(chat_template_utils, chat_template.COMPILE, own)
    chat_template.bound_chat_templates()
    return own


def rendered(text: str, **given: Any) -> str:
    rows, _ = chat_template_utils.render_jinja_template(**{"chat_template": text, "conversations": [TURNS], **given})
    return str(rows[0])


def outcome(text: str, **given: Any) -> str:
    try:
        return rendered(text, **given)
    except TemplateError as error:
        return f"refused: {error}"


def outcomes(text: str, chats: Sequence[Any]) -> list[str]:
    """With tools and without, with a turn to begin and without."""
    return [
        outcome(text, conversations=[chat], tools=tools, add_generation_prompt=begin, **NAMES)
        for chat in chats
        for tools in (None, [TOOL, TOOL])
        for begin in (True, False)
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_an_honest_template_renders_the_same(name: str, bounded: Any, monkeypatch: Any) -> None:
    """To the byte, with and without a system turn, also long conversations; and what it raises."""
    text = CLOCK.sub("'a day'", FAMILIES[name])
    chats = [TURNS, TURNS[1:], TURNS[1:2], TURNS[:2] * 30, TURNS[1:3] * 150]
    ours = outcomes(text, chats)
    monkeypatch.setattr(chat_template_utils, chat_template.COMPILE, bounded)
    assert ours == outcomes(text, chats)
    assert any(len(text) > 100 for text in ours)


@pytest.mark.slow
def test_the_templates_that_come_with_trl_render_the_same(bounded: Any, monkeypatch: Any) -> None:
    package = importlib.util.find_spec("trl")
    if package is None or package.origin is None:
        pytest.skip("no trl")
    files = sorted((Path(package.origin).parent / "chat_templates").glob("*.jinja"))
    texts = [CLOCK.sub("'a day'", file.read_text(encoding="utf-8")) for file in files]
    ours = [outcomes(text, [TURNS, TURNS[1:]]) for text in texts]
    monkeypatch.setattr(chat_template_utils, chat_template.COMPILE, bounded)
    assert ours == [outcomes(text, [TURNS, TURNS[1:]]) for text in texts]


def test_what_the_assistant_wrote_is_found_as_before(bounded: Any) -> None:
    """transformers' own tag, which keeps its state beside the environment."""
    text = FAMILIES["mistral"]
    rows, spans = chat_template_utils.render_jinja_template(
        conversations=[TURNS], chat_template=text, return_assistant_tokens_mask=True, **NAMES
    )
    assert [rows[0][start:end] for start, end in spans[0]] == [" <think>\nEasy.\n</think>\n\nStep 1: 5</s>"]


GROWS = "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = MORE %}{% endfor %}{{ ns.x }}"
TWICE = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}"
BIG = "{% set x = 'a' * 9000000 %}{% for i in range(99999) %}{% if TEST %}{% endif %}{% endfor %}"
ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops that write": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "loops over lists": "{% for a in range(99999) %}{{ range(99999)|list|length }}{% endfor %}",
    "a loop within itself": "{% for x in [1, 1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    "a macro within itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a block within itself": "{% block a %}{{ self.a() }}{% endblock %}",
    "a macro twice within itself": TWICE,
    "a long body": "{% macro f() %}" + "{% set x = 1 %}" * 2000 + "{% endmacro %}"
    "{% for a in range(99999) %}{{ f() }}{% endfor %}",
    "long comparisons": BIG.replace("TEST", "'b' in x"),
    "long tests": BIG.replace("TEST", "x is eq(x)"),
    "long slices": BIG.replace("TEST", "x[1:]"),
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "loops within loops": "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
}
LARGE = {
    "a text times a number": "{{ 'a' * 10**10 }}",
    "a list times a number": "{{ ([0] * 10**10)|length }}",
    "powers": "{{ 10 ** (10 ** 10) }}",
    "products": GROWS.replace("START", "9").replace("MORE", "ns.x * ns.x"),
    "sums": GROWS.replace("START", "'ab'").replace("MORE", "ns.x + ns.x"),
    "joined": GROWS.replace("START", "'ab'").replace("MORE", "ns.x ~ ns.x"),
    "joined by a filter": GROWS.replace("START", "'ab'").replace("MORE", "[ns.x, ns.x]|join"),
    "formatted": GROWS.replace("START", "'ab'").replace("MORE", "'%s%s' % (ns.x, ns.x)"),
    "lists of lists": GROWS.replace("START", "[]").replace("MORE", "[ns.x, ns.x]"),
    "mappings of mappings": GROWS.replace("START", "{}").replace("MORE", "dict(a=ns.x, b=ns.x)"),
    "a namespace in itself": "{% set ns = namespace() %}{% set ns.a = ns %}{% set ns.b = ns %}{{ ns }}",
    "namespaces in lists": "{% set ns = namespace() %}{{ [ns, ns] }}",
    "a filter that pads": "{{ 'x'|center(10**9) }}",
    "a method that pads": "{{ 'x'.ljust(10**9) }}",
    "zeros": "{{ '1'.zfill(10**9) }}",
    "bytes": "{{ (5).to_bytes(10**9, 'big') }}",
    "tabs": "{{ '\t'.expandtabs(10**9) }}",
    "a width": "{{ '%1000000000d'|format(1) }}",
    "a width worked out": "{{ '%*d' % (10**9, 1) }}",
    "another width": "{{ '{:>1000000000}'.format(1) }}",
    "another width worked out": "{{ '{:{w}}'.format(1, w=10**9) }}",
    "replaced": "{% set x = 'a' * 9999 %}{{ x.replace('a', x) }}",
    "replaced by a filter": "{% set x = 'a' * 9999 %}{{ x|replace('a', x) }}",
    "replaced by names": "{% set x = 'a' * 9999 %}{{ x|replace(new=x, old='a') }}",
    "translated": "{{ ('a' * 9999).translate({97: 'b' * 9999}) }}",
    "between": "{{ ('x' * 9999).join(range(9999)|map('string')) }}",
    "between by a filter": "{{ range(9999)|map('string')|join('x' * 9999) }}",
    "indented": "{{ ('\n' * 9999)|indent(9999) }}",
    "JSON": "{{ [[1], [2]]|tojson(indent=10**9) }}",
    "batches": "{{ [1]|batch(10**9, 'x')|list }}",
    "slices": "{{ [1]|slice(10**9)|list }}",
    "decimals": "{{ 1|round(10**9) }}",
    "a tag's setting": "{% autoescape 'x'|center(10**9) %}{% endautoescape %}",
    "a text that is gone through": "{% for a in range(999) %}{% for b in range(999) %}" + "x" * 999 + "{% endfor %}"
    "{% endfor %}",
    "a text that is kept": "{% set x %}{% for a in range(99999) %}" + "x" * 999 + "{% endfor %}{% endset %}",
    "a long template": "x" * 2_000_000,
}  # fmt: skip


@pytest.mark.parametrize("text", [*ENDLESS.values(), *LARGE.values()], ids=[*ENDLESS, *LARGE])
def test_a_template_that_does_too_much(text: str, bounded: Any, tokenizer: Any, monkeypatch: Any) -> None:
    """Its fault, and not a row's: whose it is, is said."""
    monkeypatch.setattr(template_budget, "STEPS", 50_000)  # each is beyond any number of them
    strange = copy.copy(tokenizer)
    strange.chat_template = text
    strange.name_or_path = "some/model"
    with pytest.raises(UserError, match=r"template=native: the chat template of some/model (goes beyond|is broken)"):
        NativeTemplate().render("2 + 3?", (), strange)


def test_nothing_by_chance(bounded: Any) -> None:
    with pytest.raises(TemplateError, match="lipsum"):
        rendered("{{ lipsum(9) }}")


def test_what_a_template_trips_over_is_the_rows(bounded: Any, tokenizer: Any) -> None:
    strange = copy.copy(tokenizer)
    for text in ("{{ 1 / 0 }}", "{{ messages[0].content.index('!') }}", "{{ 1.5 ** 9999 }}"):
        strange.chat_template = text
        with pytest.raises(RowError, match="the chat template refuses it"):
            NativeTemplate().render("2 + 3?", (), strange)


def test_every_prompt_has_its_own_steps(bounded: Any) -> None:
    """One after another, and in threads: 600,000 of a million each."""
    text = "{% for a in range(60) %}{% for b in range(9999) %}{% endfor %}{% endfor %}{{ messages|length }}"
    assert {rendered(text) for _ in range(3)} == {"4"}
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(rendered(text))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["4", "4"]


def test_loading_a_tokenizer_bounds_its_template(tiny_model: Any, monkeypatch: Any) -> None:
    from stepdpo.models.load import Pretrained

    now = getattr(chat_template_utils, chat_template.COMPILE)
    monkeypatch.setattr(chat_template_utils, chat_template.COMPILE, getattr(now, "unbounded", now))
    loaded = Pretrained(str(tiny_model)).tokenizer()
    loaded.chat_template = "{{ 'a' * 10**10 }}"
    with pytest.raises(UserError, match="goes beyond"):
        NativeTemplate().render("2 + 3?", (), loaded)
    assert hasattr(getattr(chat_template_utils, chat_template.COMPILE), "unbounded")


def test_a_transformers_that_compiles_in_another_way_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(chat_template_utils, chat_template.COMPILE)
    chat_template.bound_chat_templates()
    assert "not bounded" in caplog.text
