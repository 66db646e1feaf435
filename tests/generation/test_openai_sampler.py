"""sampler=openai against a real server: the same texts as the model itself writes, whatever the server does besides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.servers import RESET, Fault, said, serving, texts, written_by

from stepdpo.core.errors import Outage, UserError
from stepdpo.core.types import Completion, Sampling
from stepdpo.generation.client.config import Server
from stepdpo.generation.openai import Endpoint, Form, OpenAISampler, ServerSampler
from stepdpo.generation.seeding import numbered_seed, seeds
from stepdpo.generation.transformers import LocalSampler, TransformersSampler
from stepdpo.models.load import Fresh
from stepdpo.tinymath.problems import problems
from stepdpo.tokens.tokenization import encode

PROMPTS = [f"<|im_start|>user\n{p.question}<|im_end|>\n<|im_start|>assistant\n" for p in problems("preference", 5)]
PARAMS = Sampling(n=3, temperature=0.8, max_tokens=60, seed=4)
SMALL = Fresh(hidden_size=32, layers=1, intermediate_size=32)


@pytest.fixture(scope="module")
def local() -> Iterator[LocalSampler]:
    with TransformersSampler(device="cpu", progress=False).open(SMALL) as sampler:
        yield sampler


@contextmanager
def opened(url: str, **settings: Any) -> Iterator[ServerSampler]:
    server = Server(url, "tiny", backoff=0.001, retries=9)
    with OpenAISampler(server, progress=False, **settings).open(SMALL) as sampler:
        yield sampler


def fixed(endpoint: str, request: dict[str, Any]) -> dict[str, Any]:
    return texts(*[f"{request['prompt']} {number}" for number in range(request.get("n", 1))])


def expected(local: LocalSampler, params: Sampling) -> list[list[Completion]]:
    """What the model writes with the seeds that the sampler sends."""
    found = []
    for prompt, seed in zip(PROMPTS, seeds(PROMPTS, params.seed, None), strict=True):
        found += local.sample([prompt], replace(params, seed=numbered_seed(seed, 0)))
    return found


def test_what_the_model_writes(local: LocalSampler) -> None:
    with serving(written_by(local)) as served, opened(served.url) as sampler:
        found = sampler.sample(PROMPTS, PARAMS)
        assert [[c.text for c in some] for some in found] == [[c.text for c in s] for s in expected(local, PARAMS)]
        assert found == sampler.sample(PROMPTS, PARAMS)
        assert found != sampler.sample(PROMPTS, PARAMS, [1] * len(PROMPTS))
        assert found[::-1] == sampler.sample(PROMPTS[::-1], PARAMS)
        greedy = Sampling(max_tokens=40)
        assert [c.text for (c,) in sampler.sample(PROMPTS, greedy)] == [
            c.text for (c,) in local.sample(PROMPTS, greedy)
        ]
        assert "seed" not in served.asked[-1][1]
        assert sum(c.tokens for some in found for c in some) == sum(
            c.tokens for some in expected(local, PARAMS) for c in some
        )


def test_a_server_that_gives_one_response_at_a_time(local: LocalSampler) -> None:
    """As `transformers serve`, which knows no `n`: the rest is asked for with other seeds."""
    answer = written_by(local)

    def one(endpoint: str, request: dict[str, Any]) -> dict[str, Any]:
        return answer(endpoint, {**request, "n": 1})

    with serving(one) as served, opened(served.url) as sampler:
        found = sampler.sample(PROMPTS[:2], PARAMS)
        assert [request.get("n", 1) for _, request in served.asked].count(3) == 2
        assert len({request["seed"] for _, request in served.asked}) == len(served.asked) == 6
    with serving(answer) as served, opened(served.url, per_request=1) as sampler:
        assert sampler.sample(PROMPTS[:2], PARAMS) == found
        assert all("n" not in request for _, request in served.asked)


def test_a_server_in_trouble_changes_nothing(local: LocalSampler) -> None:
    with serving(written_by(local)) as served, opened(served.url) as sampler:
        found = sampler.sample(PROMPTS, PARAMS)
        served.faults.extend([RESET, Fault(500), Fault(429, "", {"Retry-After": "0"}), Fault(200, '{"choices": []}')])
        assert sampler.sample(PROMPTS, PARAMS) == found
        assert sampler.client.counts["retries"] == 4


def test_the_fields_of_a_request() -> None:
    with serving(fixed) as served, opened(served.url, extra={"top_k": 20}) as sampler:
        sampler.sample(["x"], Sampling(2, 0.7, 0.9, 33, ("\nStep ",), 1))
        ((endpoint, request),) = served.asked
    assert endpoint == "completions"
    assert isinstance(request.pop("seed"), int)
    assert request == {
        "model": "tiny", "prompt": "x", "n": 2, "temperature": 0.7, "top_p": 0.9, "max_tokens": 33,
        "stop": ["\nStep "], "top_k": 20,
    }  # fmt: skip


def test_log_probabilities_of_given_texts(local: LocalSampler) -> None:
    """Against one pass of the model over the whole text."""
    written = [" She has 4.", "Step 1: 7 + 5 = 12", ""]
    with serving(written_by(local)) as served, opened(served.url) as sampler:
        found = sampler.score(PROMPTS[:3], written)
    for prompt, text, nats in zip(PROMPTS, written, found, strict=False):
        ((ids, ends),) = encode([prompt + text], local.tokenizer)
        with torch.inference_mode():
            logps = local.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        scored = [i for i, end in enumerate(ends) if end > len(prompt)]
        assert nats == pytest.approx(sum(float(logps[i - 1, ids[i]]) for i in scored), abs=1e-5)
    assert found[2] == 0.0


def test_log_probabilities_that_are_not_there() -> None:
    asked = replace(PARAMS, logps=True)
    with serving(fixed) as served, opened(served.url) as sampler, pytest.raises(Outage, match="no log-probabilities"):
        sampler.sample(["x"], asked)


def test_a_server_that_takes_no_token_ids() -> None:
    refusal = Fault(400, json.dumps({"error": {"message": "prompt must be a string"}}))
    with serving(fixed, always=refusal) as served, opened(served.url) as sampler, pytest.raises(UserError) as caught:
        sampler.score(["a"], ["b"])
    assert "given texts: status 400" in str(caught.value)
    assert "prompt must be a string" in str(caught.value)


def test_prompts_without_room() -> None:
    """Known beforehand where the server tells its size; otherwise the server says so."""
    long = PROMPTS[0] * 20

    def strict(endpoint: str, request: dict[str, Any]) -> dict[str, Any]:
        return texts(*["a"] * request.get("n", 1))

    room = len(next(iter(encode([PROMPTS[0]], SMALL.tokenizer())))[0]) + 7
    with serving(strict, models=({"id": "tiny", "max_model_len": room},)) as served, opened(served.url) as sampler:
        found = sampler.sample([long, PROMPTS[0]], PARAMS)
        assert found == [[Completion("", 0, "length")] * 3, [Completion("a", 9, "eos")] * 3]
        assert [request["max_tokens"] for _, request in served.asked] == [7]
        assert sampler.provenance["requests"]["prompts too long"] == 1
    with serving(strict) as served, opened(served.url) as sampler:
        served.always = Fault(
            400, json.dumps({"error": {"message": "This model's maximum context length is 9 tokens."}})
        )
        assert sampler.sample([long], PARAMS) == [[Completion("", 0, "length")] * 3]
        served.always = Fault(400, json.dumps({"error": {"message": "seed: unknown field"}}))
        with pytest.raises(UserError, match="seed: unknown field"):
            sampler.sample([long], PARAMS)


def test_token_ids() -> None:
    with serving(lambda *_: texts("a")) as served, opened(served.url, prompt=Form.ids) as sampler:
        sampler.sample([PROMPTS[0]], Sampling())
    ((ids, _),) = encode([PROMPTS[0]], SMALL.tokenizer())
    assert served.asked[0][1]["prompt"] == ids


def test_a_server_that_knows_chats_only() -> None:
    """What the template made of the question is one message."""
    with serving(lambda *_: said("Step 1: 2")) as served, opened(served.url, endpoint=Endpoint.chat) as sampler:
        assert sampler.sample(["What is 1 + 1?"], Sampling()) == [[Completion("Step 1: 2", 9, "eos")]]
        with pytest.raises(Outage, match="endpoint=completions"):
            sampler.score(["a"], ["b"])
    ((endpoint, request),) = served.asked
    assert (endpoint, request["messages"]) == (
        "chat/completions", [{"role": "user", "content": "What is 1 + 1?"}],
    )  # fmt: skip


def test_a_server_that_goes_away() -> None:
    with serving(fixed) as served, opened(served.url) as sampler:
        sampler.sample(["x"], PARAMS)
        served.always = RESET
        with pytest.raises(Outage, match=r"no connection \(tried 10 times\)"):
            sampler.sample(["x"], PARAMS)


def test_greedy_decoding_has_one_result() -> None:
    with serving(fixed) as served, opened(served.url) as sampler, pytest.raises(ValueError, match="n must be 1"):
        sampler.sample(["x"], Sampling(n=2))
