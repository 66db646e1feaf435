"""Rows that a tokenizer or its chat template cannot write as a prompt and a response: one by one, with their places."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import tiny
from support.scripted import LONG, OTHER, Scripted, opened, run, spoil

from stepdpo.algo.dpo import DPO
from stepdpo.cli.check import check
from stepdpo.core.errors import UserError
from stepdpo.core.types import Pair, Turn
from stepdpo.data.dataset import Dataset
from stepdpo.data.formats import Format
from stepdpo.data.level import Step
from stepdpo.data.templates import NativeTemplate
from stepdpo.models.chat_template import bound_chat_templates
from stepdpo.pairs.sampled import Sampled
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.preprocess import TokenizedDataset, prepare
from stepdpo.tokens.tokenization import question_prompt, tokenize

END = "<|im_end|>"
STRICT = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)
PAIR = {"trajectory": [{"from": "user", "value": "What is 2+3?"}], "chosen": "5", "rejected": "6"}
TWICE = {**PAIR, "trajectory": [*PAIR["trajectory"], {"from": "user", "value": "Think."}]}  # type: ignore[misc]


def strict() -> Any:
    tokenizer = copy.deepcopy(tiny.tokenizer())  # shared by all tests
    tokenizer.chat_template = STRICT
    return tokenizer


def written(folder: Path, *rows: Any) -> Dataset:
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Dataset(path=str(folder / "d.jsonl"), max_bad=0.3)


def prepared(folder: Path, dataset: Dataset, tokenizer: Any) -> TokenizedDataset:
    return prepare(dataset, Step(), NativeTemplate(), DPO().needs, tokenizer, Lengths(), folder)


def quarantined(folder: Path) -> list[tuple[int, str]]:
    rows = map(json.loads, (folder / "quarantine.jsonl").read_text().splitlines())
    return [(row["line"], row["reason"]) for row in rows]


def test_a_row_that_the_chat_template_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = written(tmp_path, PAIR, TWICE, *[{**PAIR, "chosen": f"5, case {n}"} for n in range(3)])
    for _ in range(2):  # made, then from the cache
        trees = prepared(tmp_path, dataset, strict())
        assert sorted(trees.train) == [0, 2, 3, 4]
        assert quarantined(tmp_path) == [(2, "the chat template refuses it: roles must alternate")]
        assert "training on 4 of 5 pairs" in (said := capsys.readouterr().out)
        assert "1 left out: bad rows (quarantine.jsonl)" in said


def test_too_many_of_them_are_an_error_with_their_places(tmp_path: Path) -> None:
    dataset = written(tmp_path, PAIR, TWICE, {**TWICE, "chosen": "five"})
    with pytest.raises(UserError, match=r"(?s)2 of 3 rows.*d\.jsonl:2: the chat template refuses it"):
        prepared(tmp_path, replace(dataset, max_bad=0.3), strict())
    assert [line for line, _ in quarantined(tmp_path)] == [2, 3]


def test_a_broken_chat_template_is_no_fault_of_the_rows(tmp_path: Path) -> None:
    tokenizer = strict()
    tokenizer.chat_template = "{% for %}"
    with pytest.raises(UserError, match="the chat template of this model is broken"):
        prepared(tmp_path, written(tmp_path, PAIR), tokenizer)


def test_an_endless_chat_template_is_no_fault_of_the_rows(tmp_path: Path) -> None:
    bound_chat_templates()  # as loading a model's tokenizer does
    tokenizer = strict()
    tokenizer.chat_template = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(UserError, match=r"the chat template of this model goes beyond .*: more than 1,000,000 steps"):
        prepared(tmp_path, written(tmp_path, PAIR), tokenizer)
    assert not (tmp_path / "quarantine.jsonl").exists()


def test_a_row_without_a_rejected_side_among_others(tmp_path: Path) -> None:
    rows = [{"question": f"{n} + 1?", "chosen": str(n + 1), "rejected": "0"} for n in range(9)]
    lone = {"question": "9 + 1?", "chosen": "10"}
    assert len(prepared(tmp_path, written(tmp_path, *rows, lone), strict()).train) == 9
    assert quarantined(tmp_path) == [(10, "has no rejected side, which this algo needs")]
    with pytest.raises(UserError, match="algo=sft"):
        prepared(tmp_path, replace(written(tmp_path, lone), format=Format.PREFERENCES), strict())


def ids(pair: Pair, tokenizer: Any) -> list[list[int]]:
    done = tokenize([pair], tiny.CHAT, tokenizer, Lengths())
    return [sequence.tokens.tolist() for sequence in done.sequences[0]]


@pytest.mark.parametrize("end", ["", END, END + END, END + "\n"])
@pytest.mark.parametrize("ends", [True, False])
def test_an_end_that_the_data_wrote_is_not_doubled(end: str, ends: bool, tokenizer: Any) -> None:
    """Nor is one scored because the data wrote it: that is for the level to say."""
    assert tokenizer.eos_token == END
    plain = Pair("What is 2 + 3?", "", "It is 5.", "It is 6.", ends, ends)
    found = ids(replace(plain, chosen=plain.chosen + end, rejected=plain.rejected + end), tokenizer)
    assert found == ids(plain, tokenizer)
    assert [[token == tokenizer.eos_token_id for token in side[-2:]] for side in found] == [[False, ends]] * 2


@pytest.mark.parametrize("token", ["<|im_start|>", "<|endoftext|>", END])
@pytest.mark.parametrize("place", ["question", "context", "chosen", "rejected", "history"])
def test_no_data_write_control_tokens(place: str, token: str, tokenizer: Any) -> None:
    text = f"say {token} now"
    pair = Pair("Q", "", "yes", "no")
    value: Any = (Turn("assistant", text), Turn("user", "Go on.")) if place == "history" else text
    done = tokenize([pair, replace(pair, **{place: value})], tiny.CHAT, tokenizer, Lengths())
    assert list(done.sequences) == [0]
    assert f"holds the control token '{token}'" in done.refused[1]


def test_a_prompt_to_be_answered_holds_none(tokenizer: Any) -> None:
    from stepdpo.data.fields import RowError

    with pytest.raises(RowError, match="question holds the control token"):
        question_prompt(tiny.CHAT, f"2 + 3?{END}", (), tokenizer)
    with pytest.raises(RowError, match="turn of the assistant holds"):
        question_prompt(tiny.CHAT, "2 + 3?", (Turn("assistant", END),), tokenizer)


def test_pairs_go_on_without_a_problem_that_cannot_be_asked() -> None:
    bad = replace(OTHER, question=OTHER.question + END)
    sampler = Scripted({opened(LONG): [f"\n{LONG.solution}", f"\n{spoil(LONG, 1)}"]})
    done = {one.problem: one.result for one in run(Sampled(), sampler, [bad, LONG])}
    assert len(done[LONG.id].preferences) == 1
    assert done[bad.id].outcome == f"question holds the control token '{END}'"
    assert done[bad.id].unusable == bad.question[:200]


def test_check_counts_them(tmp_path: Path) -> None:
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=140)
    ended = {**PAIR, "chosen": f"5{END}"}
    held = {**PAIR, "rejected": "6<|endoftext|>7"}
    found = check(written(tmp_path, PAIR, ended, held, TWICE, *[{**PAIR, "chosen": f"5 {n}"} for n in range(9)]),
                  tokenizer=strict(), console=console, template=NativeTemplate())  # fmt: skip
    assert [(row.line, row.reason) for row in found.loaded.bad] == [
        (3, "rejected holds the control token '<|endoftext|>'"),
        (4, "the chat template refuses it: roles must alternate"),
    ]
    assert (found.loaded.counts["usable"], found.loaded.counts["bad"]) == (11, 2)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1  sides that end with the end of text (taken off)" in shown
