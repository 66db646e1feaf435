"""The miniature's tokenizer: exact on any text, digit by digit, one token a word, in the Hugging Face format."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config

from stepdpo.tinymath.problems import SPLITS, problems
from stepdpo.tinymath.tokenizer import FRAMES, VOCABULARY, build

TOKENIZER = build()


def pieces(text: str, tokenizer: PreTrainedTokenizerFast = TOKENIZER) -> list[str]:
    return [tokenizer.decode([index]) for index in tokenizer(text)["input_ids"]]


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    """In the composed form that Qwen2 tokenizers give to every text."""
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == unicodedata.normalize("NFC", text)


def test_all_bytes_are_covered() -> None:
    text = "".join(map(chr, range(0x250))) + "Ελλάς 数学 🙂"
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text
    assert 256 < len(TOKENIZER) <= VOCABULARY


def test_digits_stand_alone() -> None:
    assert pieces("13 * 3 = 39.") == ["1", "3", " *", " ", "3", " =", " ", "3", "9", "."]


@pytest.mark.parametrize("split", SPLITS)
def test_every_word_is_one_token(split: str) -> None:
    texts = [f"{problem.question}\n{problem.solution}" for problem in problems(split, 1000)]
    words = {word for text in [*texts, *FRAMES[:2]] for word in re.findall(r" ?[A-Za-z]+", text)}
    assert {word for word in words if len(pieces(word)) != 1} == set()


def test_a_step_starts_and_ends_on_token_borders() -> None:
    r"""The prefix `...Step 2:`, the step and the next `\nStep` never share a token."""
    prefix, step, rest = "Let's think step by step.\nStep 2:", " Tom has 1 + 2 = 3 pens", "\nStep 3:"
    assert pieces(prefix + step + rest) == pieces(prefix) + pieces(step) + pieces(rest)


def test_chat_template() -> None:
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "R"},
    ]
    assert TOKENIZER.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
        "<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n"
    )
    assert TOKENIZER.apply_chat_template(turns[1:2], tokenize=False) == "<|im_start|>user\nQ<|im_end|>\n"


def test_specials() -> None:
    assert pieces("<|im_start|>user\n") == ["<|im_start|>", "user", "\n"]
    assert (TOKENIZER.eos_token, TOKENIZER.pad_token, TOKENIZER.bos_token_id) == ("<|im_end|>", "<|endoftext|>", None)
    assert TOKENIZER("")["input_ids"] == []
    assert TOKENIZER.decode(TOKENIZER("a<|im_end|>")["input_ids"], skip_special_tokens=True) == "a"


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    Qwen2Config(vocab_size=len(TOKENIZER)).save_pretrained(tmp_path)  # the architecture decides the class
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert {"tokenizer.json", "tokenizer_config.json"} <= {path.name for path in tmp_path.iterdir()}
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert (loaded.eos_token, loaded.pad_token, loaded.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    assert loaded.padding_side == "left"
    text = "<|im_start|>user\n Tom  has 13 pens .<|im_end|>\n"
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    turn = [{"role": "user", "content": "Q"}]
    assert loaded.apply_chat_template(turn, tokenize=False) == TOKENIZER.apply_chat_template(turn, tokenize=False)


def test_training_is_deterministic() -> None:
    assert build().backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()
