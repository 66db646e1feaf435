"""What trees know of their steps, worked by hand on small trees."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from stepdpo.core.steps import on_lines, split_steps, step_ends
from stepdpo.core.types import Mark
from stepdpo.data.preference_file import write_lines
from stepdpo.data.step_marks import covering
from stepdpo.pairs.tree.responses import UNKNOWN, Shared, TreeResponses, leaves, responses
from stepdpo.pairs.tree.step_marks import Labels, marks, step_value
from stepdpo.pairs.tree.step_pair import preference
from stepdpo.pairs.tree.tree import ROLLOUTS, Node, Tree
from stepdpo.runtime.atomic_io import encode

ONE, TWO, BAD, END, LOST = (
    "Step 1: 2 + 3 = 5",
    "\nStep 2: 5 + 1 = 6",
    "\nStep 2: 5 + 1 = 7",
    "\nStep 3: 6",
    "\nStep 3: 7",
)
SEARCHED = Tree(
    "p", "2 + 3 + 1?", "6",
    (
        Node(-1, "", 6, 0.0),
        Node(0, ONE, 6, 0.5),        # 0.75
        Node(1, TWO, 4, 0.9),        # 0.95
        Node(1, BAD, 2, -1.0),       # 0
        Node(2, END, 3, 1.0, correct=True),
        Node(3, LOST, 2, -1.0, correct=False),
        Node(2, "\nStep 3: maybe", 0),        # never visited
    ),
)  # fmt: skip


def ends(*texts: str) -> list[int]:
    return [len("".join(texts[: i + 1])) for i in range(len(texts))]


def test_marks_lie_at_the_ends_of_the_nodes_with_half_of_q_plus_one() -> None:
    assert marks(SEARCHED, 4) == tuple(map(Mark, ends(ONE, TWO, END), (0.75, 0.95, 1.0)))
    assert marks(SEARCHED, 5) == tuple(map(Mark, ends(ONE, BAD, LOST), (0.75, 0.0, 0.0)))
    assert marks(SEARCHED, 6) == tuple(map(Mark, ends(ONE, TWO, "\nStep 3: maybe"), (0.75, 0.95, None)))


def test_a_q_beyond_its_range_counts_as_the_end_of_it() -> None:
    """A search may reward a new solution with more than 1, or have the model's own doubts in Q."""
    beyond = Tree("p", "q", "1", (Node(-1), Node(0, "a", 2, 1.25), Node(0, "b", 2, -1.5)))
    assert [step_value(beyond, i) for i in (1, 2)] == [1.0, 0.0]


def test_hard_labels_say_whether_anything_after_it_is_right() -> None:
    assert [step_value(SEARCHED, i, Labels.hard) for i in range(1, 7)] == [1, 1, 0, 1, 0, None]
    unended = Tree("p", "q", "1", (Node(-1), Node(0, "a", 3, 0.8)))
    assert step_value(unended, 1, Labels.hard) is None


def test_of_roll_outs_the_share_and_of_their_rest_the_end_alone() -> None:
    rolled = Tree(
        "p", "2 + 3 + 1?", "6",
        (
            Node(-1, "", 8, 2 * 5 / 8 - 1, successes=5),
            Node(0, ONE, 8, 2 * 3 / 8 - 1, successes=3),
            Node(1, TWO + END, 1, correct=True),
            Node(0, ONE + " or so" + BAD + LOST, 2, correct=False),
            Node(1, BAD, 8, -1.0, successes=0),
        ),
        meta={"visits": ROLLOUTS},
    )  # fmt: skip
    assert marks(rolled, 2) == tuple(map(Mark, ends(ONE, TWO, END), (3 / 8, None, 1.0)))
    assert marks(rolled, 3) == tuple(map(Mark, ends(ONE + " or so", BAD, LOST), (None, None, 0.0)))
    assert [step_value(rolled, i, Labels.hard) for i in (1, 2, 3, 4)] == [1, 1, 0, 0]


def test_a_line_break_belongs_to_the_next_step() -> None:
    lines = Tree("p", "q", "1", (Node(-1), Node(0, "a\n", 2, 1.0), Node(1, "b\n", 2, 1.0), Node(1, " ", 0, 1.0)))
    assert marks(lines, 2) == (Mark(1, 1.0), Mark(4, 1.0))
    assert marks(lines, 3) == (Mark(1, 1.0),)


def test_both_sides_of_a_pair_carry_them_to_the_end_of_their_solutions() -> None:
    pair = preference(SEARCHED, 2, 3)
    assert pair.prefix + pair.chosen + pair.chosen_rest == ONE + TWO + END
    assert pair.chosen_steps == marks(SEARCHED, 4)
    assert pair.rejected_steps == marks(SEARCHED, 5)


def test_whole_responses_have_none_and_nor_have_later_turns_those_of_earlier_ones() -> None:
    nodes = (Node(-1), Node(0, "wrong", q=-1.0, correct=False), Node(1, "right", q=1.0, correct=True, feedback="No."))
    assert marks(Tree("p", "q", "1", nodes), 2) == (Mark(len("right"), 1.0),)
    assert marks(Tree("p", "q", "1", nodes, meta={"whole": True}), 2) == ()
    assert leaves(Tree("p", "q", "1", nodes)) == [1, 2]


@pytest.mark.parametrize("shared", Shared)
def test_every_leaf_is_a_response_and_a_shared_step_counts_once_or_in_every_one(shared: Shared) -> None:
    odd: Counter[str] = Counter()
    made = [p for p, _ in responses(SEARCHED, Labels.soft, shared, odd)]
    again = 0.75 if shared is Shared.every else None
    assert [(p.chosen, p.label, p.whole) for p in made[:2]] == [
        (ONE + TWO + END, 1.0, True),
        (ONE + BAD + LOST, 0.0, True),
    ]
    assert [[mark.value for mark in p.chosen_steps] for p in made[:2]] == [[0.75, 0.95, 1.0], [again, 0.0, 0.0]]
    assert not any(p.rejected for p in made)
    if shared is Shared.once:  # of the response that was broken off nothing new is known
        assert (len(made), odd[UNKNOWN]) == (2, 1)
        known = [mark.value for p in made for mark in p.chosen_steps if mark.value is not None]
        assert len(known) == sum(step_value(SEARCHED, i) is not None for i in range(1, 7))
    else:
        assert [(p.label, p.whole) for p in made[2:]] == [(None, False)]


def test_the_data_set_reads_the_folder_of_a_run(tmp_path: Path) -> None:
    other = Tree("other", "7?", "7", (Node(-1), Node(0, "Step 1: 7", 1, 1.0, correct=True)))
    write_lines([encode(tree.to_row()) for tree in (SEARCHED, other)], tmp_path / "trees.jsonl")
    loaded = TreeResponses(str(tmp_path)).load()
    assert [p.question for p in loaded.preferences] == [SEARCHED.question] * 2 + ["7?"]
    assert loaded.places == tuple(f"{tmp_path / 'trees.jsonl'}:{place}" for place in ("1:4", "1:5", "2:1"))
    assert (loaded.counts["trees"], loaded.counts[UNKNOWN]) == (2, 1)
    assert len(TreeResponses(str(tmp_path), limit=1).load().preferences) == 2
    held = TreeResponses(str(tmp_path), heldout=1).load()
    assert not {p.question for p in held.heldout} & {p.question for p in held.preferences}


def test_its_fingerprint_is_of_the_settings_and_of_the_bytes(tmp_path: Path) -> None:
    write_lines([encode(SEARCHED.to_row())], tmp_path / "trees.jsonl")
    soft = TreeResponses(str(tmp_path))
    before = soft.fingerprint()
    assert before == TreeResponses(str(tmp_path)).fingerprint()
    assert before != TreeResponses(str(tmp_path), labels=Labels.hard).fingerprint()
    write_lines([encode(SEARCHED.to_row())] * 2, tmp_path / "trees.jsonl")
    assert before != soft.fingerprint()


def test_torn_rows_are_bad_ones(tmp_path: Path) -> None:
    write_lines(['{"problem": "p", "nodes": 3}', encode(SEARCHED.to_row())], tmp_path / "trees.jsonl")
    loaded = TreeResponses(str(tmp_path)).load()
    assert [row.line for row in loaded.bad] == [1]
    assert loaded.places[0].endswith("trees.jsonl:2:4")


def test_which_step_the_line_break_before_a_label_belongs_to() -> None:
    """By marks to the next one, so a step ends with its own text; where nobody marked any, to the one before it."""
    head, steps = split_steps(text := "So.\nStep 1: a.\nStep 2: b.")
    assert text[: step_ends(head, steps)[0]] == "So.\nStep 1: a."
    assert on_lines(["So.\nStep 1: a.", "Step 2: b."]) == (text, step_ends(head, steps))
    assert [text[: mark.end] for mark in covering((), "", text)] == ["So.\n", "So.\nStep 1: a.\n", text]
    begun = Tree("p", "?", "6", (Node(-1, ""), Node(0, "So.\nStep 1: a.\n", 1, 1.0), Node(1, "Step 2: b.", 1, 1.0)))
    assert text[: marks(begun, 2)[0].end] == "So.\nStep 1: a."
