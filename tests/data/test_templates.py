"""The exact strings: published prompts to the character, conversations, and which template a checkpoint gets."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stepdpo.core.config import build, config_folders
from stepdpo.core.errors import UserError
from stepdpo.core.package_data import conf
from stepdpo.core.types import Prompt, Turn
from stepdpo.data.fields import RowError
from stepdpo.data.template_card import CARD, card_entry, describe, own_sources, resolve
from stepdpo.data.templates import MixedTemplate, NativeTemplate, TextTemplate

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "templates.json").read_text())
TEXT = TextTemplate(name="alpaca", prompt="Q: {question}\nA:", joint=" ")


def option(name: str) -> Any:
    return build(OmegaConf.load(conf() / "template" / f"{name}.yaml"))


class NoChat:
    chat_template = None


@pytest.mark.parametrize("name", GOLDEN["prompts"])
def test_published_prompts(name: str, tokenizer: Any) -> None:
    """Braces in a question are text; the join stands between the prompt and what the response begins with."""
    prompt = option(name).render(GOLDEN["question"], (), tokenizer)
    assert prompt.text == GOLDEN["prompts"][name]["text"]
    assert prompt.joint == GOLDEN["prompts"][name]["join"]


def test_every_text_template_has_a_golden_string() -> None:
    names = {path.stem for path in (conf() / "template").glob("*.yaml")}
    assert {name for name in names if isinstance(option(name), TextTemplate)} == set(GOLDEN["prompts"])


@pytest.mark.parametrize("name", GOLDEN["conversations"])
def test_conversations(name: str, tokenizer: Any) -> None:
    """Earlier turns are blocks of the same form: prompt, join, what was said."""
    history = [Turn(role, content) for role, content in GOLDEN["history"]]
    assert option(name).render("2 + 3?", history, tokenizer).text == GOLDEN["conversations"][name]


def test_a_card_of_before_the_official_joint_means_the_same(tmp_path: Path) -> None:
    old = {key: value for key, value in describe(TEXT).items() if key not in ("_target_", "joint_alone")}
    (tmp_path / CARD).write_text(json.dumps({"template": old}))
    assert resolve(NativeTemplate(), tmp_path) == (TEXT, None)
    assert resolve(TEXT, tmp_path) == (TEXT, None)
    official = option("alpaca_official")
    (tmp_path / CARD).write_text(json.dumps({"template": describe(official)}))
    assert resolve(NativeTemplate(), tmp_path) == (official, None)


def test_a_template_needs_a_place_for_the_question() -> None:
    with pytest.raises(ValueError, match="must contain"):
        TextTemplate(name="x", prompt="Solve it.")


def test_native_is_the_chat_template(tokenizer: Any) -> None:
    prompt = NativeTemplate().render("2 + 3?", (), tokenizer)
    assert (prompt.text, prompt.joint) == (
        "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n",
        "",
    )


def test_native_renders_system_and_history(tokenizer: Any) -> None:
    history = (Turn("assistant", "6"), Turn("user", "Sure?"))
    assert NativeTemplate(system="Be brief.").render("2 + 3?", history, tokenizer).text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 + 3?<|im_end|>\n"
        "<|im_start|>assistant\n6<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_turn_of_the_data_stands_in_place_of_the_templates(tokenizer: Any) -> None:
    history = (Turn("system", "Be kind."), Turn("assistant", "6"), Turn("user", "Sure?"))
    assert NativeTemplate(system="Be brief.").render("2 + 3?", history, tokenizer).text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n2 + 3?<|im_end|>\n"
        "<|im_start|>assistant\n6<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(RowError, match="template=alpaca has no place for a system turn"):
        TEXT.render("2 + 3?", history, tokenizer)


def test_native_without_a_chat_template_is_refused() -> None:
    with pytest.raises(UserError, match="template=alpaca"):
        NativeTemplate().render("2 + 3?", (), NoChat())  # type: ignore[arg-type]


def test_a_mixture_renders_each_question_always_alike(tokenizer: Any) -> None:
    other = TextTemplate(name="other", prompt="{question}!")
    mixed = MixedTemplate(name="mixed", parts=[TEXT, other])
    questions = [f"{n} + 1?" for n in range(40)]
    texts = [mixed.render(q, (), tokenizer).text for q in questions]
    assert texts == [mixed.render(q, (), tokenizer).text for q in questions]
    short = [f"{q}!" for q in questions]
    long = [f"Q: {q}\nA:" for q in questions]
    assert all(text in pair for text, pair in zip(texts, zip(short, long, strict=True), strict=True))
    assert 0 < sum(text in short for text in texts) < len(texts)


# Which template a checkpoint gets


def checkpoint(folder: Path, content: Any) -> Path:
    (folder / CARD).write_text(json.dumps(content))
    return folder


def test_native_takes_the_template_of_the_card(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, {"template": describe(TEXT)})
    assert resolve(NativeTemplate(), folder) == (TEXT, None)


@pytest.mark.parametrize("content", [None, {}, {"template": {"name": "native"}}, []])
def test_native_stays_without_a_text_in_the_card(tmp_path: Path, content: Any) -> None:
    folder = tmp_path if content is None else checkpoint(tmp_path, content)
    assert resolve(NativeTemplate(), folder) == (NativeTemplate(), None)


def test_the_template_it_was_trained_with_is_silent(tmp_path: Path) -> None:
    assert resolve(TEXT, checkpoint(tmp_path, {"template": describe(TEXT)})) == (TEXT, None)
    assert resolve(TEXT, tmp_path / "somebody-elses") == (TEXT, None)


@pytest.mark.parametrize("trained", [TextTemplate(name="deepseek_math", prompt="{question}"), NativeTemplate()])
def test_another_template_is_used_with_a_warning(tmp_path: Path, trained: Any) -> None:
    template, warning = resolve(TEXT, checkpoint(tmp_path, {"template": describe(trained)}))
    assert template == TEXT
    assert warning is not None
    assert f"template={trained.name}" in warning
    assert "template=alpaca" in warning


class Shout:
    """A template that is code."""

    name = "shout"

    def render(self, question: str, history: Any, tokenizer: Any) -> Prompt:
        return Prompt(question.upper(), "")


def test_a_template_that_is_code_is_remembered_by_name(tmp_path: Path) -> None:
    """Its text cannot be built from the card, so whoever does not name it is told which one it was."""
    folder = checkpoint(tmp_path, {"template": describe(Shout())})
    shout = Shout()
    assert resolve(shout, folder) == (shout, None)
    template, warning = resolve(NativeTemplate(), folder)
    assert template == NativeTemplate()
    assert warning is not None
    assert "trained with template=shout" in warning


def test_the_same_name_with_another_text_is_noticed(tmp_path: Path) -> None:
    changed = TextTemplate(name="alpaca", prompt="Q: {question}\nA:", joint="\n")
    template, warning = resolve(TEXT, checkpoint(tmp_path, {"template": describe(changed)}))
    assert template == TEXT
    assert warning is not None
    assert "another text" in warning


def test_a_mixture_knows_its_parts(tmp_path: Path) -> None:
    mixed = MixedTemplate(name="mixed", parts=[NativeTemplate(), TEXT])
    folder = checkpoint(tmp_path, {"template": describe(mixed)})
    assert resolve(TEXT, folder) == (TEXT, None)
    assert resolve(NativeTemplate(), folder) == (NativeTemplate(), None)


def test_a_mixed_template_is_built_with_its_parts() -> None:
    """The parts keep their classes, though the field names no more than what they offer."""
    parts = option("mixed").parts
    assert [type(part) for part in parts] == [NativeTemplate, TextTemplate]
    assert [part.name for part in parts] == ["native", "alpaca"]


# The whole template is remembered


@pytest.mark.parametrize(
    "trained",
    [
        NativeTemplate(system="Be brief."),
        MixedTemplate(name="mixed", parts=[TEXT, TextTemplate(name="b", prompt="{question}?")]),
        TextTemplate(name="x", prompt="{question}", joint=" ", between="--"),
    ],
)
def test_native_rebuilds_what_it_was_trained_with(trained: Any, tmp_path: Path, tokenizer: Any) -> None:
    folder = checkpoint(tmp_path, card_entry(trained, tokenizer))
    assert resolve(NativeTemplate(), folder, tokenizer, "2026-01-02") == (trained, None)


def test_the_native_part_of_a_mixture_keeps_its_settings(tmp_path: Path) -> None:
    part = NativeTemplate(system="Be brief.")
    folder = checkpoint(tmp_path, {"template": describe(MixedTemplate(name="mixed", parts=[TEXT, part]))})
    assert resolve(NativeTemplate(), folder) == (part, None)


def test_other_settings_of_native_are_a_warning(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, {"template": describe(NativeTemplate(system="Be brief."))})
    other = NativeTemplate(system="Be long.")
    template, warning = resolve(other, folder)
    assert template == other
    assert warning is not None
    assert "other settings under the name template=native" in warning


def test_another_chat_template_is_a_warning(tmp_path: Path, tokenizer: Any) -> None:
    folder = checkpoint(tmp_path, card_entry(NativeTemplate(), tokenizer))
    assert resolve(NativeTemplate(), folder, tokenizer) == (NativeTemplate(), None)
    changed = copy.copy(tokenizer)
    changed.chat_template = tokenizer.chat_template + " "
    _, warning = resolve(NativeTemplate(), folder, changed)
    assert warning is not None
    assert "another chat template" in warning


def test_a_secret_is_not_written_into_a_card(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not masked either: that would rebuild another template."""
    monkeypatch.setenv("OPENAI_API_KEY", "CANARY-of-the-environment")
    secret = NativeTemplate(system="Say CANARY-of-the-environment.")
    for template, key in ((secret, "system"), (MixedTemplate(name="mixed", parts=[TEXT, secret]), "parts")):
        with pytest.raises(UserError, match=f"template.{key}: holds a secret"):
            card_entry(template, tokenizer)


def test_a_damaged_card_is_named(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("{")
    with pytest.raises(UserError, match=r"stepdpo.json: damaged"):
        resolve(NativeTemplate(), tmp_path)


TEXTS = "stepdpo.data.templates."
DAMAGED = (
    '"x"', "[" * 100_000, '{"template": "x"}', '{"template": 3}', '{"template": [1]}',
    '{"template": {"name": "a", "parts": 3}}', '{"template": {"name": "a", "parts": ["b"]}}',
    '{"template": {"name": ["a"]}}', '{"template": {"name": {"a": 1}, "prompt": 3}}',
    '{"template": {"name": "x", "also": 3}}',
    '{"template": {"name": "x", "also": [[]]}}', '{"template": {"_target_": 5}}',
    '{"template": {"date": 3, "name": "native"}}',
    f'{{"template": {{"_target_": "{TEXTS}MixedTemplate", "name": "m", "parts": []}}}}',
    f'{{"template": {{"_target_": "{TEXTS}MixedTemplate", "name": "m", "parts": [{{"name": "a"}}]}}}}',
    f'{{"template": {{"_target_": "{TEXTS}TextTemplate", "name": "a", "prompt": ["{{question}}"]}}}}',
    f'{{"template": {{"_target_": "{TEXTS}NativeTemplate", "date": "tomorrow"}}}}',
    '{"template": {"_target_": "stepdpo.algo.dpo.DPO"}}', '{"template": {"_target_": "os.system"}}',
    '{"template": {"_target_": "stepdpo.data.level.Step"}}',
)  # fmt: skip
"""Cards that nobody wrote, or that somebody did."""


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[:60])
def test_a_strangers_card_is_read_or_refused(text: str, tmp_path: Path, tokenizer: Any) -> None:
    """By its path, without a traceback, and whichever template it is read for."""
    (tmp_path / CARD).write_text(text)
    for template in (NativeTemplate(), TEXT):
        with suppress(UserError):
            resolve(template, tmp_path, tokenizer, "2026-01-02")
    if "template" in text:
        with pytest.raises(UserError, match=r"stepdpo\.json: "):
            resolve(NativeTemplate(), tmp_path, tokenizer, "2026-01-02")


OWN = """
from dataclasses import dataclass
from stepdpo.core.types import Prompt

@dataclass(frozen=True)
class Loud:
    name: str = "loud"
    marks: int = 1

    def render(self, question, history, tokenizer):
        return Prompt(question.upper() + "!" * self.marks, "")
"""


def test_a_class_of_ones_own_is_found_by_config_dir_alone(tmp_path: Path, tokenizer: Any) -> None:
    conf_dir = tmp_path / "loudly" / "conf"
    (conf_dir / "template").mkdir(parents=True)
    code = tmp_path / "loudly" / "loud_template.py"
    code.write_text(OWN)
    node = {"_target_": "loud_template.Loud", "marks": 3}
    with config_folders([conf_dir]):
        loud = build(node)
        folder = checkpoint(tmp_path, card_entry(loud, tokenizer))
        assert own_sources(loud) == {"template_loud_template.py": OWN.encode()}
        assert resolve(NativeTemplate(), folder, tokenizer) == (loud, None)
        assert resolve(loud, folder, tokenizer) == (loud, None)
        code.write_text(OWN.replace("upper", "lower"))
        _, warning = resolve(loud, folder, tokenizer)
        assert warning is not None
        assert "another text or other settings" in warning
    with pytest.raises(UserError, match=r"stepdpo.json: template.*--config-dir"):
        resolve(NativeTemplate(), folder, tokenizer)


def clocked(tokenizer: Any) -> Any:
    """A tokenizer whose chat template writes the day, as Llama 3's does."""
    dated = copy.copy(tokenizer)
    dated.chat_template = "Today is {{ strftime_now('%d %b %Y') }}. {{ messages[0].content }}"
    return dated


def test_the_day_is_fixed_and_kept(tmp_path: Path, tokenizer: Any) -> None:
    """The run's at first, then the card's, whatever the day of an evaluation; said by nobody who does not write it."""
    dated = clocked(tokenizer)
    template, warning = resolve(NativeTemplate(), tmp_path, dated, "2026-01-02")
    assert (template, warning) == (NativeTemplate(date="2026-01-02"), None)
    assert template.render("2 + 3?", (), dated).text == "Today is 02 Jan 2026. 2 + 3?"
    folder = checkpoint(tmp_path, card_entry(template, dated))
    assert resolve(NativeTemplate(), folder, dated, "2031-05-06") == (template, None)
    assert resolve(NativeTemplate(system="x"), folder, dated, "2031-05-06")[0] == NativeTemplate(
        "native", "x", "2026-01-02"
    )
    assert resolve(NativeTemplate(), tmp_path / "none", tokenizer, "2031-05-06") == (NativeTemplate(), None)


def test_a_day_is_a_day() -> None:
    with pytest.raises(ValueError, match="date: expected a day such as 2026-12-01, got 'tomorrow'"):
        NativeTemplate(date="tomorrow")
