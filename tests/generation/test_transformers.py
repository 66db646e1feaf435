"""Generation with small random models: the loop against a naive one, batches, stop strings, white space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from stepdpo.core.config import build
from stepdpo.core.types import Completion, Sampling
from stepdpo.generation.decode_loop import generate, sample_token
from stepdpo.generation.stop_strings import StopStrings, eos_ids, response_text
from stepdpo.generation.transformers import LocalSampler, TransformersSampler
from stepdpo.models.load import Fresh
from stepdpo.tinymath.problems import problems

PROMPTS = [f"<|im_start|>user\n{p.question}<|im_end|>\n<|im_start|>assistant\n" for p in problems("test", 12)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return Fresh().tokenizer()


def tiny(tokenizer: Any, **changes: Any) -> Any:
    """Random weights, large enough for responses that vary, with an end of text that is likely."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    options: dict[str, Any] = {
        **sizes, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 256,
        "initializer_range": 0.4, "bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": False,
        "attn_implementation": "sdpa", **changes,
    }  # fmt: skip
    kind, config = (LlamaForCausalLM, LlamaConfig) if options.pop("llama", False) else (Qwen2ForCausalLM, Qwen2Config)
    model = kind(config(**options)).eval()
    with torch.no_grad():
        row = model.lm_head.weight
        row[tokenizer.eos_token_id] = row.mean(0) + 0.7 * torch.randn(row.shape[1])
    return model


@pytest.fixture(scope="module")
def sampler(tokenizer: Any) -> LocalSampler:
    return LocalSampler(tiny(tokenizer), tokenizer, 100_000)


def with_budget(sampler: LocalSampler, batch_tokens: int) -> LocalSampler:
    return LocalSampler(sampler.model, sampler.tokenizer, batch_tokens)


def naive(model: Any, tokenizer: Any, prompt: str, max_tokens: int) -> Completion:
    """One prompt, no cache, no padding: the whole text is read again for every token."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|endoftext|>")}
    new: list[int] = []
    with torch.inference_mode():
        while len(new) < max_tokens and (not new or new[-1] not in ends):
            new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    ended = new[-1] in ends
    text = tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Completion(text, len(new), "eos" if ended else "length")


@pytest.mark.parametrize("changes", [{}, {"llama": True}, {"use_sliding_window": True, "sliding_window": 24,
                                                         "max_window_layers": 1}])  # fmt: skip
def test_greedy_is_what_a_naive_loop_writes(tokenizer: Any, changes: dict[str, Any]) -> None:
    model = tiny(tokenizer, **changes)
    expected = [naive(model, tokenizer, prompt, 40) for prompt in PROMPTS]
    assert len({c.tokens for c in expected}) > 2
    assert "eos" in {c.finish for c in expected}
    found = LocalSampler(model, tokenizer, 100_000).sample(PROMPTS, Sampling(max_tokens=40))
    assert [c for (c,) in found] == expected


@pytest.mark.parametrize("batch_tokens", [1, 300, 1000])
def test_greedy_does_not_depend_on_the_batch(sampler: LocalSampler, batch_tokens: int) -> None:
    params = Sampling(max_tokens=40)
    assert with_budget(sampler, batch_tokens).sample(PROMPTS, params) == sampler.sample(PROMPTS, params)


def test_samples_follow_the_seed_and_not_the_batch(sampler: LocalSampler) -> None:
    params = Sampling(n=3, temperature=1.0, top_p=0.9, max_tokens=30, seed=5)
    found = sampler.sample(PROMPTS, params)
    assert all(len(completions) == 3 for completions in found)
    assert with_budget(sampler, 400).sample(PROMPTS, params) == found
    assert sampler.sample(PROMPTS[::-1], params)[::-1] == found
    assert (
        sampler.sample(PROMPTS[:1], Sampling(n=1, temperature=1.0, top_p=0.9, max_tokens=30, seed=5))[0] == found[0][:1]
    )
    assert len({c.text for c in found[0]}) == 3
    assert sampler.sample(PROMPTS, Sampling(n=3, temperature=1.0, top_p=0.9, max_tokens=30, seed=6)) != found


def test_one_prompt_twice_gives_different_samples(sampler: LocalSampler) -> None:
    first, second = sampler.sample([PROMPTS[0], PROMPTS[0]], Sampling(temperature=1.0, max_tokens=20))
    assert first != second


def test_a_longer_limit_goes_on_with_the_same_text(sampler: LocalSampler) -> None:
    short, long = (sampler.sample(PROMPTS, Sampling(temperature=1.0, max_tokens=n)) for n in (10, 30))
    assert all(b.text.startswith(a.text) for (a,), (b,) in zip(short, long, strict=True))


def test_nearly_cold_sampling_is_greedy(sampler: LocalSampler) -> None:
    greedy = sampler.sample(PROMPTS, Sampling(max_tokens=20))
    assert sampler.sample(PROMPTS, Sampling(temperature=1e-6, max_tokens=20)) == greedy
    assert sampler.sample(PROMPTS, Sampling(temperature=1.0, top_p=1e-6, max_tokens=20)) == greedy


def test_greedy_decoding_has_one_response(sampler: LocalSampler) -> None:
    with pytest.raises(ValueError, match="n must be 1"):
        sampler.sample(PROMPTS, Sampling(n=2))


def test_stop_strings_cut_and_end(sampler: LocalSampler) -> None:
    whole = [c for (c,) in sampler.sample(PROMPTS, Sampling(max_tokens=40))]
    stop = whole[0].text[5:8]
    found = [c for (c,) in sampler.sample(PROMPTS, Sampling(max_tokens=40, stop=(stop, "")))]
    for before, after in zip(whole, found, strict=True):
        if stop in before.text:
            assert (after.text, after.finish) == (before.text.partition(stop)[0], "stop")
            assert after.tokens < before.tokens or before.text.endswith(stop)
        else:
            assert after == before
    assert found[0].finish == "stop"


def test_the_model_never_writes_past_its_last_position(sampler: LocalSampler, tokenizer: Any) -> None:
    prompt = PROMPTS[0]
    long = prompt + " one" * (250 - len(tokenizer(prompt, add_special_tokens=False)["input_ids"]))
    size = len(tokenizer(long, add_special_tokens=False)["input_ids"])
    (just,), (full,), (plain,) = sampler.sample([long, long + " one" * 40, prompt], Sampling(max_tokens=40))
    assert just.tokens <= 256 - size
    assert full == Completion("", 0, "length")
    assert plain == sampler.sample([prompt], Sampling(max_tokens=40))[0][0]


def test_no_prompts(sampler: LocalSampler) -> None:
    assert sampler.sample([], Sampling()) == []


def test_every_row_of_top_p_and_temperature() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]))

    def picks(uniform: float, **options: Any) -> list[int]:
        return sample_token(logits, torch.tensor([uniform, uniform]), Sampling(**options)).tolist()

    assert picks(0.49, temperature=1.0) == [0, 1]
    assert picks(0.51, temperature=1.0) == [1, 2]
    assert picks(0.999, temperature=1.0) == [2, 2]
    assert picks(0.999, temperature=1.0, top_p=0.8) == [1, 1]
    assert picks(0.999, temperature=1.0, top_p=0.5) == [0, 2]
    assert picks(0.999, temperature=0.0) == [0, 2]


def test_sampling_has_the_models_distribution() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0]]).expand(20_000, -1)
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(sample_token(logits, uniform, Sampling(temperature=0.7)), minlength=4) / 20_000
    assert torch.allclose(counts, torch.softmax(logits[0] / 0.7, -1), atol=0.01)


@pytest.mark.parametrize("text", ["\nStep 1: x", " x", "x ", "\n\n", "naïve 3 × 4 — ½", "", " don't , do . it"])
def test_white_space_and_letters_survive(tokenizer: Any, text: str) -> None:
    prompt = tokenizer("### Response:", add_special_tokens=False)["input_ids"]
    new = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert response_text(prompt, new, tokenizer) == text


def test_special_tokens_are_not_text(tokenizer: Any) -> None:
    ids = tokenizer("a<|im_start|>b", add_special_tokens=False)["input_ids"]
    assert response_text([], ids, tokenizer) == "ab"


def test_all_ends_of_a_turn(tokenizer: Any, sampler: LocalSampler) -> None:
    """Those of the model, of the tokenizer, and every token that ends a turn or a text by its name."""
    named = {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")}
    assert set(eos_ids(sampler.model, tokenizer)) == named
    model = tiny(tokenizer)
    model.generation_config.eos_token_id = [7, 9]
    assert eos_ids(model, tokenizer) == tuple(sorted({7, 9} | named))


def test_tokens_until_a_stop_string(tokenizer: Any) -> None:
    ids = tokenizer("Step 1: a\nStep 2: b\nStep 3: c", add_special_tokens=False)["input_ids"]
    stops = StopStrings(("Step 2", "Step 3"), tokenizer)
    count = stops.tokens_until(ids)
    assert tokenizer.decode(ids[:count]) == "Step 1: a\nStep 2"
    assert stops.found(ids)
    assert not StopStrings(("Step 4",), tokenizer).found(ids)


@pytest.fixture
def opened() -> Iterator[LocalSampler]:
    part = build(
        {"_target_": "stepdpo.generation.transformers.TransformersSampler", "device": "cpu", "dtype": "bfloat16"}
    )
    assert isinstance(part, TransformersSampler)
    with part.open(Fresh(hidden_size=32, layers=1, intermediate_size=32)) as live:
        yield live


def test_opening(opened: LocalSampler, capsys: pytest.CaptureFixture[str]) -> None:
    (completion,) = opened.sample(PROMPTS[:1], Sampling(max_tokens=3))[0]
    assert completion.tokens <= 3
    assert opened.provenance["dtype"] == "bfloat16"
    assert opened.provenance["device"] == "cpu"
    assert "1 responses" in capsys.readouterr().out


def test_a_batch_that_does_not_fit_is_halved(sampler: LocalSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    params = Sampling(n=2, temperature=1.0, max_tokens=10)
    expected = sampler.sample(PROMPTS, params)
    sizes: list[int] = []

    def narrow(model: Any, prompts: Any, *rest: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 4:
            raise torch.OutOfMemoryError("too many")
        return generate(model, prompts, *rest)

    monkeypatch.setattr("stepdpo.generation.transformers.generate", narrow)
    assert sampler.sample(PROMPTS, params) == expected
    assert sizes == [12, 6, 3, 3, 6, 3, 3]
