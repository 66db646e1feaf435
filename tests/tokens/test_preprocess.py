"""What a run reads: sides a loss asks for, mismatched pairs, and the hash that a resumed run must meet again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny

from stepdpo.algo.dpo import DPO
from stepdpo.algo.kto import KTO
from stepdpo.algo.sft import SFT
from stepdpo.algo.stepkto import StepKTO
from stepdpo.algo.tpo import TPO
from stepdpo.core.errors import UserError
from stepdpo.core.types import Pair, Preference
from stepdpo.data.level import Instance, Prefix, Step
from stepdpo.data.validation import Loaded
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.preprocess import TokenizedDataset, prepare
from stepdpo.tokens.preprocess_worker import mismatched, next_other_question


@dataclass(frozen=True)
class Rows:
    preferences: tuple[Preference, ...] = tiny.PREFERENCES
    heldout: tuple[Preference, ...] = ()

    def load(self) -> Loaded:
        return Loaded(self.preferences, self.heldout)


def material(
    folder: Path, rows: Rows | None = None, needs: frozenset[str] = DPO().needs, **more: object
) -> TokenizedDataset:
    settings = {"level": Step(), "template": tiny.CHAT, "lengths": Lengths()} | more
    return prepare(
        dataset=rows or Rows(),
        needs=needs,
        tokenizer=tiny.tokenizer(),
        folder=folder,
        **settings,
    )  # type: ignore[arg-type]


def test_a_loss_that_looks_at_one_side_gets_one_side(tmp_path: Path) -> None:
    one, two = material(tmp_path, needs=SFT().needs), material(tmp_path)
    assert all(set(tree.owners.tolist()) == {0} for tree in one.train.values())
    assert all(set(tree.owners.tolist()) == {0, 1} for tree in two.train.values())


def test_one_sided_data_need_a_one_sided_loss(tmp_path: Path) -> None:
    rows = Rows(tuple(replace(p, rejected="", rejected_rest="") for p in tiny.PREFERENCES))
    assert len(material(tmp_path, rows, SFT().needs).train) == len(tiny.PREFERENCES)
    with pytest.raises(UserError, match="algo=sft"):
        material(tmp_path, rows)
    graded = Rows(tuple(replace(p, label=number % 2) for number, p in enumerate(rows.preferences)))
    with pytest.raises(UserError, match=r"no rejected sides.*single labelled responses \(algo=outcome"):
        material(tmp_path, graded)


def test_what_the_data_call_wrong_is_left_out_where_a_loss_asks_for_that(tmp_path: Path) -> None:
    """A label of 1/2 is none of them, and no label says nothing; held-out rows alike."""
    labels = (1.0, 0.0, None, 0.49, 0.5)
    single = tuple(
        replace(p, rejected="", rejected_rest="", label=label)
        for p, label in zip(tiny.PREFERENCES, labels, strict=True)
    )
    done = material(tmp_path, Rows(single, single[1:3]), SFT().needs)
    assert (sorted(done.train), sorted(done.heldout)) == ([0, 2, 4], [1])
    assert len(material(tmp_path, Rows(single), SFT(keep_wrong=True).needs).train) == len(single)
    with pytest.raises(UserError, match=r"no pair is left.*'labelled wrong': 2"):
        material(tmp_path, Rows((single[1], single[3])), SFT().needs)


def test_nothing_left_is_said_with_its_reasons(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no pair is left.*over-long.*5"):
        material(tmp_path, lengths=Lengths(max_length=8))


def test_heldout_pairs_are_not_trained_on(tmp_path: Path) -> None:
    done = material(tmp_path, Rows(tiny.PREFERENCES[:3], tiny.PREFERENCES[3:]))
    assert (sorted(done.train), sorted(done.heldout)) == ([0, 1, 2], [0, 1])


def test_the_fingerprint_is_what_is_read_and_what_is_scored(tmp_path: Path) -> None:
    same = material(tmp_path).fingerprint
    assert material(tmp_path).fingerprint == same
    others = [
        material(tmp_path, level=Step(prefix=Prefix.response)),
        material(tmp_path, level=Instance()),
        material(tmp_path, template=tiny.DEEPSEEK),
        material(tmp_path, Rows(tiny.PREFERENCES[::-1])),
        material(tmp_path, needs=SFT().needs),
    ]
    assert len({same, *(other.fingerprint for other in others)}) == 6


def test_a_problem_whose_first_row_is_over_long_keeps_its_place(tmp_path: Path) -> None:
    """Its other rows come later in the data than those of the next problem."""
    one, two = tiny.PREFERENCES[0], next(p for p in tiny.PREFERENCES if p.question != tiny.PREFERENCES[0].question)
    rows = Rows((replace(one, chosen=one.chosen * 100), two, one))
    done = material(tmp_path, rows, TPO.needs, lengths=Lengths(max_length=400))
    assert [tree.pair_ids for tree in done.train.values()] == [(0,), (1,)]


# KTO's reference point


def test_only_a_loss_that_needs_them_gets_mismatched_pairs(tmp_path: Path) -> None:
    assert material(tmp_path).mismatched == {}
    done = material(tmp_path, needs=KTO().needs)
    assert sorted(done.mismatched) == sorted(done.train)


def test_mismatched_responses_need_no_label(tmp_path: Path) -> None:
    """One a row, under the number of its chosen side, though only labelled responses are trained on."""
    done = material(tmp_path, needs=StepKTO().needs)
    assert len(done.train) == 2 * len(tiny.PREFERENCES)
    assert sorted(done.mismatched) == sorted(done.train)[::2]


def pairs(questions: str) -> list[Pair]:
    return [Pair(question, "", f"{question}{number}", "no") for number, question in enumerate(questions)]


def mismatch(questions: str) -> list[Pair]:
    both = pairs(questions)
    return [mismatched(own, both[other]) for own, other in zip(both, next_other_question(questions), strict=True)]


@pytest.mark.parametrize(
    ("questions", "answers"),
    [
        ("abc", ["b1", "c2", "a0"]),
        ("aabb", ["b2", "b2", "a0", "a0"]),
        ("abba", ["b1", "a3", "a3", "b1"]),
        ("aaa", ["a1", "a2", "a0"]),
        ("a", ["a0"]),
        ("", []),
    ],
)
def test_the_next_response_to_another_question(questions: str, answers: list[str]) -> None:
    """Rows of one problem stand side by side: the very next row would often be a good answer to the same question."""
    assert [pair.chosen for pair in mismatch(questions)] == answers


@given(st.text(alphabet="abc", max_size=30))
def test_no_question_is_matched_while_another_exists(questions: str) -> None:
    for own, made in zip(pairs(questions), mismatch(questions), strict=True):
        assert made.question == own.question
        assert made.rejected == ""
        if len(set(questions)) > 1:
            assert not made.chosen.startswith(own.question)


def test_what_the_data_were(tmp_path: Path) -> None:
    """Made or found in the cache, it says the same: how many, what became of them, and which they were."""
    done = material(tmp_path / "first", lengths=Lengths(max_length=90))
    facts = json.loads(json.dumps(done.facts))
    kept = len(done.train)
    assert 0 < kept < len(tiny.PREFERENCES)
    assert (facts["trained_on"], facts["unit"]) == (kept, "pairs")
    assert sum(facts["left_out"].values()) == len(tiny.PREFERENCES) - kept
    assert facts["fingerprint"] == done.fingerprint
    assert material(tmp_path / "second", lengths=Lengths(max_length=90)).facts == facts
