"""From text to trees: what is scored, what is put around it, what is too long, and how trees share a batch."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny

from stepdpo.core.errors import UserError
from stepdpo.core.types import Pair, Preference, Prompt
from stepdpo.data.level import Instance, Prefix, Step
from stepdpo.data.templates import TextTemplate
from stepdpo.models.attention.registry import register
from stepdpo.models.scorer import Scorer
from stepdpo.tokens.collator import collate
from stepdpo.tokens.lengths import Equal, Lengths, Overlong
from stepdpo.tokens.token_tree import TokenTree, build_tree
from stepdpo.tokens.tokenization import _encode_from, encode, generation_prompt, tokenize

PLAIN = TextTemplate(name="plain", prompt="{question}")
"""With digits as text every character is one token, so lengths can be counted by eye."""
ANY = st.text(st.characters(exclude_characters="|"))
"""Any text without a control token, which all hold a bar: those are refused."""
TEN = Lengths(max_length=10, max_prompt_length=4, overlong=Overlong.official)


def tree_of(pair: Pair, template: TextTemplate, tokenizer: Any, lengths: Lengths | None = None) -> TokenTree:
    done = tokenize([pair], template, tokenizer, lengths or Lengths())
    assert not done.dropped
    return build_tree(done.sequences[0], [0], [pair.confidence])


def read_and_scored(tree: TokenTree, owner: int) -> tuple[list[int], list[int]]:
    """(unscored ids, scored ids) of a response, read off the tree."""
    terms = tree.terms[tree.owners == owner]
    terms = terms[np.argsort(tree.positions[tree.sources[terms]])]
    first = tree.sources[terms[0]]
    before = [k for k in range(first + 1) if first < tree.ends[k]]
    return tree.tokens[before].tolist(), tree.targets[terms].tolist()


# The mask rule


@pytest.mark.parametrize("template", [tiny.CHAT, tiny.DEEPSEEK], ids=lambda t: t.name)
@pytest.mark.parametrize("preference", tiny.PREFERENCES, ids=lambda p: p.question[:10])
@pytest.mark.parametrize("prefix", Prefix)
def test_scored_tokens_are_the_step(
    preference: Preference, prefix: Prefix, template: TextTemplate, tokenizer: Any
) -> None:
    tree = tree_of(Step(prefix=prefix)(preference), template, tokenizer)
    read = prefix is Prefix.prompt and preference.prefix != ""
    prompt = template.prompt.replace("{question}", preference.question)
    unscored = prompt + template.joint + preference.prefix if read else prompt
    for owner, step in enumerate((preference.chosen, preference.rejected)):
        before, scored = read_and_scored(tree, owner)
        response = step if read else template.joint + preference.prefix + step
        assert tokenizer.decode(before) == unscored
        assert tokenizer.decode(scored) == response
        assert before + scored == tokenizer(unscored + response)["input_ids"]


@pytest.mark.parametrize("ours", [tiny.ALPACA, tiny.DEEPSEEK], ids=lambda t: t.name)
def test_the_official_joint_stands_before_a_prefix_alone(ours: TextTemplate, tokenizer: Any) -> None:
    """As Step-DPO's trainer joins its texts: with nothing between the prompt and a step that follows no prefix."""
    official = replace(ours, joint_alone=False)
    question, prefix, step = "2 + 3?", "Step 1:", " It is 5."
    alone, after = Step()(Preference(question, "", step, " 6.")), Step()(Preference(question, prefix, step, " 6."))
    for template, begins in ((ours, ours.joint), (official, "")):
        before, scored = read_and_scored(tree_of(alone, template, tokenizer), 0)
        prompt = template.prompt.replace("{question}", question)
        assert before + scored == tokenizer(prompt + begins + step)["input_ids"]
    assert tree_of(after, ours, tokenizer).tokens.tolist() == tree_of(after, official, tokenizer).tokens.tolist()


def test_whole_solutions_are_scored(tokenizer: Any) -> None:
    preference = tiny.PREFERENCES[1]
    tree = tree_of(Instance()(preference), tiny.DEEPSEEK, tokenizer)
    _, scored = read_and_scored(tree, 0)
    text = " " + preference.prefix + preference.chosen + preference.chosen_rest + "<|im_end|>"
    assert tokenizer.decode(scored) == text


def test_a_token_across_the_boundary_is_scored(tokenizer: Any) -> None:
    """`Step 1: ` + `He` is read by the model as `Step 1:` + ` He`: the token that straddles is sampled, so scored."""
    pair = Pair("Q", context="Step 1: ", chosen="He gets 14.", rejected="He gets 9.")
    before, scored = read_and_scored(tree_of(pair, tiny.CHAT, tokenizer), 0)
    assert tokenizer.decode(before).endswith("Step 1:")
    assert tokenizer.decode(scored) == " He gets 14."


def test_the_joint_is_scored_unless_a_context_follows(tokenizer: Any) -> None:
    """Alpaca's newline is one token with the colon before it: scored as a whole, or read as a whole."""
    scored = read_and_scored(tree_of(Pair("Q", "", "So 5.", "So 6."), tiny.ALPACA, tokenizer), 0)[1]
    assert tokenizer.decode(scored) == ":\nSo 5."
    before, scored = read_and_scored(tree_of(Pair("Q", "So", " 5.", " 6."), tiny.ALPACA, tokenizer), 0)
    assert (tokenizer.decode(before)[-15:], tokenizer.decode(scored)) == ("## Response:\nSo", " 5.")


@pytest.mark.parametrize("template", [tiny.CHAT, tiny.ALPACA, tiny.DEEPSEEK], ids=lambda t: t.name)
def test_a_prompt_is_opened_where_training_has_a_border(template: TextTemplate, tokenizer: Any) -> None:
    """What a model is given to go on from is a beginning of what it was trained on, token by token."""
    before, scored = read_and_scored(tree_of(Pair("Q", "", "So 5.", "So 6."), template, tokenizer), 0)
    given = generation_prompt(template.render("Q", (), tokenizer), tokenizer)
    ids = tokenizer(given.text)["input_ids"]
    assert [*before, *scored][: len(ids)] == ids
    assert given.text + given.joint == template.prompt.replace("{question}", "Q") + template.joint


def test_a_character_of_several_tokens_is_not_split(tokenizer: Any) -> None:
    """The bytes of one character before the boundary are all unscored."""
    pair = Pair("Q", context="数", chosen="学", rejected="字")
    before, scored = read_and_scored(tree_of(pair, tiny.CHAT, tokenizer), 0)
    assert (tokenizer.decode(before)[-1:], tokenizer.decode(scored)) == ("数", "学")
    assert len(scored) == 3


@given(ANY.filter(bool), ANY.filter(bool), ANY)
def test_scored_text_contains_the_response(context: str, chosen: str, question: str) -> None:
    """On any text: nothing of the response is missed, and at most the straddling token lies before it."""
    tokenizer = tiny.tokenizer()
    pair = Pair(question, context, chosen, "")
    before, scored = read_and_scored(tree_of(pair, tiny.ALPACA, tokenizer), 0)
    whole = tiny.ALPACA.prompt.replace("{question}", question) + "\n" + context + chosen
    assert before + scored == tokenizer(whole)["input_ids"]
    rest = tokenizer.decode(scored[1:])
    assert chosen.endswith(rest) or "\ufffd" in rest
    assert len(tokenizer.decode(before)) <= len(whole) - len(chosen) or "\ufffd" in tokenizer.decode(before)


@given(texts=st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=4))
@pytest.mark.parametrize("bos", [False, True])
def test_the_first_scored_token_is_the_first_to_end_after_the_boundary(texts: list[tuple[str, str]], bos: bool) -> None:
    """As counted off the offsets of all tokens, one by one."""
    tokenizer = tiny.with_bos(prepends=False) if bos else tiny.tokenizer()
    whole = [before + after for before, after in texts]
    expected = [
        (ids, [next((n for n, end in enumerate(ends) if end > len(before)), len(ids))])
        for (ids, ends), (before, _) in zip(encode(whole, tokenizer), texts, strict=True)
    ]
    assert list(_encode_from(whole, [[len(before)] for before, _ in texts], tokenizer)) == expected


# Special tokens


@pytest.mark.parametrize("prepends", [False, True])
def test_one_beginning_of_text(prepends: bool, tokenizer: Any) -> None:
    """None for tokenizers without one; otherwise exactly one, whether or not the tokenizer would add it."""
    pair = Pair("2 + 3?", "", "5", "6")
    plain = read_and_scored(tree_of(pair, tiny.ALPACA, tokenizer), 0)
    known = tiny.with_bos(prepends)
    before, scored = read_and_scored(tree_of(pair, tiny.ALPACA, known), 0)
    assert before == [known.bos_token_id, *plain[0]]
    assert scored == plain[1]
    assert tokenizer.bos_token_id is None
    assert known.bos_token_id not in plain[0]


@pytest.mark.parametrize("prepends", [False, True])
def test_a_template_that_holds_the_beginning_gets_no_second(prepends: bool, tokenizer: Any) -> None:
    pair = Pair("2 + 3?", "", "5", "6")
    assert read_and_scored(tree_of(pair, tiny.CHAT, tiny.with_bos(prepends)), 1) == read_and_scored(
        tree_of(pair, tiny.CHAT, tokenizer), 1
    )


@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("rejected", [False, True])
def test_end_of_text_only_where_told(chosen: bool, rejected: bool, tokenizer: Any) -> None:
    pair = Pair("2 + 3?", "", "5", "6", chosen_ends=chosen, rejected_ends=rejected)
    tree = tree_of(pair, tiny.ALPACA, tokenizer)
    for owner, ends in enumerate((chosen, rejected)):
        before, scored = read_and_scored(tree, owner)
        assert scored.count(tokenizer.eos_token_id) == int(ends)
        assert (scored[-1] == tokenizer.eos_token_id) == ends
        assert tokenizer.eos_token_id not in before


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(UserError, match="offsets"):
        tokenize([Pair("Q", "", "a", "b")], PLAIN, object(), Lengths())


# Lengths


def digits(count: int, first: int = 1) -> str:
    return "".join(str((first + n) % 10) for n in range(count))


def cut(prompt: int, chosen: int, rejected: int, tokenizer: Any, ends: bool = False) -> list[tuple[str, str]]:
    """What is left of prompt and response of each side at most 10 long, prompt at most 4."""
    pair = Pair(digits(prompt), "", "7" + digits(chosen - 1), "8" + digits(rejected - 1), ends, ends)
    tree = tree_of(pair, PLAIN, tokenizer, TEN)
    return [tuple(map(tokenizer.decode, read_and_scored(tree, owner))) for owner in (0, 1)]  # type: ignore[misc]


def test_a_pair_at_the_limit_stays_whole(tokenizer: Any) -> None:
    assert cut(6, 4, 1, tokenizer) == [("123456", "7123"), ("123456", "8")]


def test_the_end_of_a_long_prompt_is_kept(tokenizer: Any) -> None:
    """8 + 5 > 10, so the last 4 of the prompt; 4 + 5 <= 10, so whole responses."""
    assert cut(8, 5, 2, tokenizer) == [("5678", "71234"), ("5678", "81")]


def test_then_the_start_of_long_responses(tokenizer: Any) -> None:
    """8 + 9 > 10, so 4 of the prompt; 4 + 9 > 10, so the first 10 - 4 = 6 of each response."""
    assert cut(8, 9, 3, tokenizer) == [("5678", "712345"), ("5678", "812")]


def test_responses_are_cut_though_room_remains(tokenizer: Any) -> None:
    """3 + 9 > 10 with a prompt under 4: both responses are cut to 6, not to the 7 that would fit."""
    assert cut(3, 9, 8, tokenizer) == [("123", "712345"), ("123", "812345")]


def test_the_end_of_text_counts_as_response(tokenizer: Any) -> None:
    """6 + 4 fits, the end-of-text token makes it 11: the prompt is cut."""
    assert cut(6, 4, 1, tokenizer, ends=True) == [("3456", "7123<|im_end|>"), ("3456", "8<|im_end|>")]


def test_the_official_cut_loses_the_beginning_of_text() -> None:
    known = tiny.with_bos(prepends=False)
    assert cut(8, 5, 2, known)[0] == ("5678", "71234")
    assert cut(5, 4, 2, known)[0] == ("<|im_start|>12345", "7123")


def test_sides_that_differ_after_the_cut_only_are_dropped(tokenizer: Any) -> None:
    pair = Pair(digits(8), "", "7123456", "7123459")
    done = tokenize([pair], PLAIN, tokenizer, TEN)
    assert (done.sequences, dict(done.dropped)) == ({}, {"same tokens on both sides": 1})


def test_sides_that_the_official_cut_makes_equal_may_be_kept(tokenizer: Any) -> None:
    """As published runs kept them: both sides score the same; DPO learns nothing, and the pair counts in its mean."""
    pair = Pair(digits(8), "", "7123456", "7123459")
    done = tokenize([pair, pair], PLAIN, tokenizer, replace(TEN, equal=Equal.official))
    assert (sorted(done.sequences), dict(done.dropped)) == ([0, 1], {})
    model = tiny.model(register())
    trees = [build_tree(done.sequences[0], [0], [1.0]), tree_of(Pair("1", "", "2", "3"), PLAIN, tokenizer)]
    logps_R, _, tokens_R, *_ = Scorer(model, False, lambda _: nullcontext())(collate(trees))
    assert logps_R[0] == logps_R[1]
    assert tokens_R.tolist() == [6, 6, 1, 1]
    (gradient,) = torch.autograd.grad(logps_R[0] - logps_R[1], model.get_output_embeddings().weight)
    assert not gradient.any()


def test_over_long_pairs_are_dropped_and_counted(tokenizer: Any) -> None:
    pairs = [Pair(digits(n), "", "71", "8") for n in (8, 9, 8, 30)]
    done = tokenize(pairs, PLAIN, tokenizer, Lengths(max_length=10))
    assert sorted(done.sequences) == [0, 2]
    assert dict(done.dropped) == {"over-long": 2}
    assert sorted(tokenize(pairs, PLAIN, tokenizer, Lengths(max_length=10), range(70, 74)).sequences) == [70, 72]


def test_over_long_pairs_may_be_an_error(tokenizer: Any) -> None:
    pairs = [Pair(digits(n), "", "71", "8") for n in (8, 9)]
    with pytest.raises(UserError, match=r"pair 1 has 11 tokens.*max_length=10"):
        tokenize(pairs, PLAIN, tokenizer, Lengths(max_length=10, overlong=Overlong.error))


@pytest.mark.parametrize("settings", [{"max_length": 512}, {"max_length": 1}, {"max_prompt_length": 0}])
def test_lengths_that_leave_nothing_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max_"):
        Lengths(**settings, overlong=Overlong.official)


def test_equal_and_empty_sides_are_counted(tokenizer: Any) -> None:
    pairs = [
        Pair("1", "", "2", "2"),
        Pair("1", "", "2", "2", chosen_ends=True),
        Pair("1", "3", "", ""),
        Pair("1", "", "2", "3"),
    ]
    done = tokenize(pairs, PLAIN, tokenizer, Lengths())
    assert sorted(done.sequences) == [1, 3]
    assert dict(done.dropped) == {"same tokens on both sides": 1, "nothing to score": 1}


def test_supervised_data_has_one_branch(tokenizer: Any) -> None:
    tree = tree_of(Pair("1", "", "2", "", chosen_ends=True), PLAIN, tokenizer)
    assert len(tree.segments) == 1
    assert set(tree.owners.tolist()) == {0}


def test_history_precedes_the_response(tokenizer: Any) -> None:
    """Turns are rendered by the template, so they are read and not scored."""
    preference = replace(tiny.PREFERENCES[0], prefix="")
    tree = tree_of(Step()(preference), tiny.CHAT, tokenizer)
    assert tokenizer.decode(read_and_scored(tree, 0)[0]).count("<|im_start|>user") == 1


def test_an_opened_prompt_is_the_beginning_of_what_training_sees() -> None:
    """Qwen2 tokenizers make one token of `:` and a newline, so Alpaca's newline is given; of `:` and a blank, two."""
    tokenizer = tiny.tokenizer()
    newline = generation_prompt(Prompt("### Response:", "\n"), tokenizer)
    assert (newline.text, newline.joint) == ("### Response:\n", "")
    blank = generation_prompt(Prompt("Assistant:", " "), tokenizer)
    assert (blank.text, blank.joint) == ("Assistant:", " ")
    for prompt in (newline, blank):
        ids, whole = (ids for ids, _ in encode([prompt.text, f"{prompt.text}{prompt.joint}Let's"], tokenizer))
        assert whole[: len(ids)] == ids
