"""A store gives back what was written: from memory or from files, with sizes that need no tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdpo.core.errors import UserError
from stepdpo.tokens.token_store import EXAMPLE, RESPONSE, TokenStore, open_store
from stepdpo.tokens.token_store_writer import StoreInfo, store_writer, verify
from stepdpo.tokens.token_tree import TokenSequence, TokenTree, build_tree
from tests.support.stores import in_memory

Row = tuple[int, list[TokenSequence], float, int]


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Pairs of one or two sequences that share beginnings, with gaps between their numbers."""
    drawn: list[Row] = []
    for number in sorted(draw(st.sets(st.integers(0, 30), max_size=8))):
        start = draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
        sequences = []
        for side in range(draw(st.integers(1, 2))):
            tokens = start[: draw(st.integers(1, len(start)))] + draw(st.lists(st.integers(0, 2), max_size=4))
            sequences.append(TokenSequence(np.array(tokens, np.int32), draw(st.integers(1, len(tokens))), side))
        drawn.append((number, sequences, draw(st.sampled_from([1.0, 0.75, 0.6])), draw(st.integers(0, 2))))
    return drawn


def same(one: TokenTree, other: TokenTree) -> None:
    for name in ("tokens", "positions", "ends", "sources", "targets", "terms", "owners"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.segments, one.pair_ids, one.confidences) == (other.segments, other.pair_ids, other.confidences)


@given(rows())
def test_it_is_a_mapping_of_trees(written: list[Row]) -> None:
    store = in_memory(written)
    trees = {number: build_tree(sequences, [number], [confidence]) for number, sequences, confidence, _ in written}
    assert len(store) == len(trees)
    assert list(store) == sorted(store) == sorted(trees)
    for number, tree in store.items():
        same(tree, trees[number])
    for absent in {-1, 31, *range(31)} - trees.keys():
        assert absent not in store
        with pytest.raises(KeyError):
            store[absent]
        with pytest.raises(KeyError):
            store.sizes([absent])


@given(rows())
def test_sizes_and_predictions_need_no_tree(written: list[Row]) -> None:
    store = in_memory(written)
    ids = list(store)[::-1]
    assert store.sizes(ids).tolist() == [len(store[i]) for i in ids]
    assert store.predictions(ids).tolist() == [len(store[i].targets) for i in ids]


@given(rows())
def test_ranks_order_the_pairs_of_a_problem_by_tokens(written: list[Row]) -> None:
    store = in_memory(written)
    ids = np.array(list(store), np.int64)
    groups, ranks = store.column("group", ids), store.column("rank", ids)
    for group in set(groups.tolist()):
        members = ids[groups == group][np.argsort(ranks[groups == group])]
        assert sorted(ranks[groups == group]) == list(range(len(members)))
        chosen = [store.sequences(int(i))[0].tokens.tolist() for i in members]
        assert chosen == sorted(chosen)


SOME: list[Row] = [
    (
        n,
        [
            TokenSequence(np.array([5, 6, 7, n], np.int32), 2, 0),
            TokenSequence(np.array([5, 6, 8, n, n], np.int32), 2, 1),
        ],
        1.0,
        n // 2,
    )
    for n in (0, 2, 3)
]


def write(folder: Path) -> StoreInfo:
    with store_writer(folder, "train") as writer:
        for row in SOME:
            writer.add(*row)
        return writer.finish()


def store(folder: Path) -> TokenStore:
    write(folder)
    return open_store(folder, "train")


def test_files_hold_the_same(tmp_path: Path) -> None:
    """4 + 3 tokens a pair (two are shared), and 60 bytes of index."""
    found = store(tmp_path)
    for number, tree in in_memory(SOME).items():
        same(found[number], tree)
    assert (tmp_path / "train.tokens").stat().st_size == 3 * 4 * (4 + 3)
    assert (tmp_path / "train.index").stat().st_size == 3 * EXAMPLE.itemsize
    assert (tmp_path / "train.responses").stat().st_size == 6 * RESPONSE.itemsize
    assert EXAMPLE.itemsize + 2 * RESPONSE.itemsize == 60


def test_a_store_outlives_its_folders_name(tmp_path: Path) -> None:
    """Its file is open: an entry that another run replaces does not disturb this one."""
    (tmp_path / "old").mkdir()
    found = store(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert len(found[2]) == 7


def test_the_fingerprint_is_tokens_and_what_is_scored(tmp_path: Path) -> None:
    def fingerprint(rows: list[Row]) -> str:
        with store_writer(tmp_path, "x") as writer:
            for row in rows:
                writer.add(*row)
            return writer.finish().fingerprint

    first = SOME[0]
    later = [TokenSequence(path.tokens, path.first_scored + 1, path.owner) for path in first[1]]
    others = [SOME[1:], SOME[::-1], [(first[0], later, *first[2:]), *SOME[1:]]]
    assert fingerprint(SOME) == fingerprint(SOME)
    assert len({fingerprint(rows) for rows in [SOME, *others]}) == 4


@pytest.mark.parametrize("name", ["train.tokens", "train.index"])
def test_damage_is_seen(name: str, tmp_path: Path) -> None:
    written = write(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    assert verify(tmp_path, "train", written) == ""
    for torn in (whole[:-1], whole + b"x", whole[:-2] + b"\xff" + whole[-1:], b""):
        path.write_bytes(torn)
        assert name in verify(tmp_path, "train", written)
    path.unlink()
    assert "No such file" in verify(tmp_path, "train", written)


def test_a_large_store_is_checked_while_it_is_read(tmp_path: Path) -> None:
    found = store(tmp_path)
    path = tmp_path / "train.tokens"
    with path.open("r+b") as file:
        file.seek(4 * 7 + 1)
        file.write(b"\x77")
    assert len(found[0]) == 7
    with pytest.raises(UserError, match="tokens of pair 2 are damaged"):
        found[2]
