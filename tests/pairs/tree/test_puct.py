"""PUCT, backup and selection on trees worked by hand."""

from __future__ import annotations

from math import exp, sqrt
from random import Random

import pytest
from support.scripted import LONG

from stepdpo.generation.puct import Prior, prior_of, puct
from stepdpo.pairs.tree.puct import PuctSearch


def test_puct_by_hand() -> None:
    """Q + w p sqrt(N_parent) / (1 + N), with numbers whose roots are whole."""
    assert puct(0.5, 2, 0.6, 9, 1.0) == pytest.approx(0.5 + 0.6 * 3 / 3)
    assert puct(-1.0, 0, 0.5, 16, 2.0) == pytest.approx(-1.0 + 2.0 * 0.5 * 4 / 1)
    assert puct(0.25, 5, 0.9, 0, 1.0) == 0.25


def test_priors_by_hand() -> None:
    """Four tokens of nat -2 each: 4^1.25 = 2^2.5 = 5.65685; the code divides the log, the paper the probability."""
    assert prior_of(-8.0, 4, 1.25) == pytest.approx(exp(-8 / 5.656854249))
    assert prior_of(-8.0, 4, 1.25, Prior.paper) == pytest.approx(exp(-8) / 5.656854249)
    assert prior_of(-8.0, 4, 1.0) == pytest.approx(exp(-2))
    assert prior_of(0.0, 7, 1.25) == 1.0


def test_the_child_with_the_largest_puct_is_taken() -> None:
    """With N = 4 at the root, w = 1: a: -1 + .8 * 2 / 2 = -.2; b: .3 + .5 * 2 / 4 = .55; c: 0 + .25 * 2 / 1 = .5."""
    search = PuctSearch()
    for text, prior in (("a", 0.8), ("b", 0.5), ("c", 0.25)):
        search.add(0, text, prior)
    root, a, b, c = search.nodes
    (root.visits, a.visits, b.visits, c.visits) = (4, 1, 3, 0)
    (a.q, b.q) = (-1.0, 0.3)
    assert search.select(0) == 2
    b.visits = 4  # .3 + .5 * 2 / 5 = .5: a tie with c, and b is likelier
    assert search.select(0) == 2
    b.visits = 5  # .3 + .5 * 2 / 6 = .4667
    assert search.select(0) == 3
    search.weight = 2.0  # a: -1 + 2 * .8 = .6; b: .3 + 2 * .1667 = .6333; c: 2 * .5 = 1
    assert search.select(0) == 3


def test_at_first_the_likeliest_is_tried() -> None:
    """N of the root is 0, so nobody explores, and all Q are 0."""
    search = PuctSearch()
    search.add(0, "a", 0.4)
    search.add(0, "b", 0.9)
    search.add(0, "c", 0.9)
    assert search.descend() == 2


def test_three_walks_by_hand() -> None:
    """Root - a, b; a - c (right), d (wrong); b - e (wrong). One backup after another, gamma = 1.

    1. c: Q = 1. a: children c (max(1, N) = 1, Q 1) and d (1, Q -1): V = 0, Q = 0. Root: a (0), b (0): V = 0.
    2. e: Q = -1. b: V = -1, Q = -1. Root: a (N 1, Q 0), b (1, -1): V = -1/2.
    3. c again: N = 2. a: c (2, 1), d (1, -1): V = 1/3, N = 2. Root: a (2, 1/3), b (1, -1): V = (2/3 - 1) / 3 = -1/9.
    """
    search = PuctSearch()
    a, b = search.add(0, "a"), search.add(0, "b")
    c, d, e = search.add(a, "c"), search.add(a, "d"), search.add(b, "e")
    for leaf, outcome in ((c, 1.0), (d, -1.0), (e, -1.0)):
        search.end(leaf, outcome, outcome > 0)
    search.back_up(c)
    assert [search.nodes[i].q for i in (a, b, c, d)] == [0.0, 0.0, 1.0, -1.0]
    assert search.nodes[0].children_value == 0.0
    search.back_up(e)
    assert (search.nodes[b].q, search.nodes[0].q) == (-1.0, -0.5)
    search.back_up(c)
    assert search.nodes[a].q == pytest.approx(1 / 3)
    assert search.nodes[0].q == pytest.approx(-1 / 9)
    assert [node.visits for node in search.nodes] == [3, 2, 1, 2, 0, 1]
    assert search.best(0) == a


def test_gamma_discounts_what_lies_below() -> None:
    """Root - a - b (right), gamma = 1/2: Q of b is its reward, 1; of a 0 + 1/2 * 1; of the root 1/2 * 1/2."""
    search = PuctSearch(gamma=0.5)
    a = search.add(0, "a")
    b = search.add(a, "b")
    search.end(b, 1.0, True)
    search.back_up(b)
    assert [node.q for node in search.nodes] == [0.25, 0.5, 1.0]


def test_self_evaluations_telescope() -> None:
    """v(a) = .6, v(b) = .2 + 1 for a right answer: r(a) = .6, r(b) = 1.2 - .6 = .6, so Q(a) = .6 + .6 = v(b)."""
    search = PuctSearch()
    a = search.add(0, "a", evaluation=0.6)
    b = search.add(a, "b", evaluation=0.2)
    search.end(b, 1.0, True)
    assert search.nodes[b].q == pytest.approx(0.6)
    search.back_up(b)
    assert search.nodes[a].q == pytest.approx(1.2)
    c = search.add(a, "c")  # nobody was asked: as good as its parent, so r = 0
    assert (search.nodes[c].value, search.nodes[c].reward) == (0.6, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_visits_add_up(seed: int) -> None:
    """N = walks that ended there + N of the children; only ends end walks; N of the root is the number of walks."""
    rng, search, ended = Random(seed), PuctSearch(), dict[int, int]()
    for _ in range(60):
        at = search.descend()
        while not search.nodes[at].ended:
            for i in range(rng.randint(1, 3)):
                child = search.add(at, str(i), rng.random())
                if search.nodes[child].depth == 4 or rng.random() < 0.3:
                    search.end(child, rng.choice((-1.0, 1.0)), True)
            at = search.descend(at)
        search.back_up(at)
        ended[at] = ended.get(at, 0) + 1
    assert search.nodes[0].visits == 60
    for number, node in enumerate(search.nodes):
        assert node.visits == ended.get(number, 0) + sum(search.nodes[i].visits for i in node.children)
        assert bool(node.children) <= (number not in ended)
        assert -1 <= node.q <= 1
        if node.children:
            weights = [max(1, search.nodes[i].visits) for i in node.children]
            mean = sum(w * search.nodes[i].q for w, i in zip(weights, node.children, strict=True)) / sum(weights)
            assert node.visits == 0 or node.q == pytest.approx(mean)


def test_a_search_finds_the_better_of_two_chances() -> None:
    """Two first steps with right endings in 3 of 4 and 1 of 4: most walks go to the first, and Q says so.

    While N_a is much smaller than N, a's exploring term w p sqrt(N) / (1 + N_a) is the larger one: both are tried.
    """
    search = PuctSearch()
    a, b = search.add(0, "a", 0.5), search.add(0, "b", 0.5)
    for parent, rights in ((a, 3), (b, 1)):
        for i in range(4):
            search.end(search.add(parent, str(i), 0.5), 1.0 if i < rights else -1.0, i < rights)
    for _ in range(100):
        search.back_up(search.descend())
    assert search.nodes[a].q > search.nodes[b].q
    assert search.nodes[a].visits > search.nodes[b].visits > 0.05 * sqrt(100)


def test_the_tree_leaves_out_what_nobody_knows() -> None:
    """Q stays out of nodes never walked through and never evaluated, and of those that were cut short."""
    search = PuctSearch()
    seen, unseen, cut = search.add(0, "\na", 0.5), search.add(0, "\nb", 0.25), search.add(0, "\nc", 0.125)
    search.end(cut, -1.0)
    right = search.add(seen, "\nd")
    wrong = search.add(seen, "\ne")
    search.end(right, 1.0, True)
    search.end(wrong, -1.0, False)
    search.back_up(right)
    search.back_up(cut)
    tree = search.tree(LONG, search="mcts")
    assert [node.q for node in tree.nodes] == [pytest.approx(-1 / 3), 0.0, None, None, 1.0, -1.0]
    assert [node.visits for node in tree.nodes] == [2, 1, 0, 1, 1, 0]
    assert [node.correct for node in tree.nodes] == [None, None, None, None, True, False]
    assert tree.nodes[0].prior is None
    assert tree.nodes[unseen].prior == 0.25
    assert (tree.text(right), tree.meta, tree.problem) == ("\na\nd", {"search": "mcts"}, LONG.id)


def test_a_node_is_better_than_none() -> None:
    search = PuctSearch()
    assert search.best(0) is None
    for text in "abc":
        search.add(0, text)
    search.nodes[2].visits = search.nodes[3].visits = 2
    search.nodes[3].q = 0.5
    assert search.best(0) == 3
