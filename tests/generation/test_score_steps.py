"""Log-probabilities and hidden states of steps, against a plain pass over each text; and the scorers made of them."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from transformers import Qwen2ForCausalLM

from stepdpo.core.errors import UserError
from stepdpo.core.types import Mark, Pair
from stepdpo.generation.requests import Beginning
from stepdpo.generation.score_steps import UNREADABLE, step_hidden, step_logps, step_texts
from stepdpo.generation.scorers.implicit import Form, Implicit
from stepdpo.generation.scorers.logprob import Logprob
from stepdpo.generation.scorers.value_head import ValueHead
from stepdpo.generation.step_scorer import Aggregate
from stepdpo.generation.transformers import LocalSampler
from stepdpo.models import value_head
from stepdpo.models.attention.registry import register
from stepdpo.models.load import Fresh, Pretrained
from stepdpo.models.step_values import step_values
from stepdpo.tokens.step_scores import Squash

PROMPT = "<|im_start|>user\nWhat is 2 + 3 * 4?<|im_end|>\n<|im_start|>assistant\n"
STEPS = ("Let's see.\nStep 1: 3 * 4 = 12.", "\nStep 2: 2 + 12 = 14.\nThe answer is: 14")
ITEMS = [
    (PROMPT, Beginning(STEPS, True)),
    (PROMPT, Beginning(STEPS[:1], False, "\nStep")),
    (PROMPT, Beginning(("7",), True)),
]


@pytest.fixture(scope="module")
def local() -> LocalSampler:
    return LocalSampler(tiny.model("sdpa").eval(), tiny.tokenizer(), 10_000)


def by_hand(model: Any, tokenizer: Any, prompt: str, beginning: Beginning) -> tuple[list[float], list[Any]]:
    """Of each step the nats of its tokens and the last hidden state: a token belongs to the step that it ends in."""
    text = prompt + beginning.text
    read = tokenizer(text + beginning.following, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in read["offset_mapping"]]
    places = accumulate(map(len, beginning.steps), initial=len(prompt))
    bounds = [len([end for end in ends if end <= place]) for place in places]
    ids = read["input_ids"][: bounds[-1]]
    if beginning.ended:
        ids, bounds[-1] = [*ids, tokenizer.eos_token_id], bounds[-1] + 1
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    logps = out.logits[0].double().log_softmax(-1)
    nats = [float(sum(logps[i - 1, ids[i]] for i in range(a, b))) for a, b in pairwise(bounds)]
    return nats, [out.hidden_states[-1][0, end - 1] for end in bounds[1:]]


def test_steps_are_read_where_they_end(local: LocalSampler) -> None:
    texts = step_texts(ITEMS, local.tokenizer)
    for (prompt, beginning), nats, hidden_SH in zip(
        ITEMS, step_logps(local.model, texts, 200), step_hidden(local.model, texts, 200), strict=True
    ):
        expected, states = by_hand(local.model, local.tokenizer, prompt, beginning)
        assert nats == pytest.approx(expected, rel=1e-5)
        assert hidden_SH is not None
        assert torch.allclose(hidden_SH, torch.stack(states), atol=1e-4)


def test_batches_and_company_change_nothing(local: LocalSampler) -> None:
    texts = step_texts(ITEMS, local.tokenizer)
    alone = [step_logps(local.model, [text], 200)[0] for text in texts]
    together = step_logps(local.model, texts, 100_000)
    assert all(a == pytest.approx(b, abs=1e-4) for a, b in zip(alone, together, strict=True))


def test_what_has_no_room_is_the_least_promising(local: LocalSampler) -> None:
    long = [(PROMPT, Beginning(("word " * 600,), False))]
    texts = step_texts(long, local.tokenizer)
    assert step_logps(local.model, texts, 100_000) == [[UNREADABLE]]
    assert step_hidden(local.model, texts, 100_000) == [None]


def test_logprob(local: LocalSampler) -> None:
    expected, _ = by_hand(local.model, local.tokenizer, *ITEMS[0])
    with Logprob().open(Fresh(), local) as score:
        first, *_ = score(ITEMS)
    assert first.score == pytest.approx(sum(expected), rel=1e-5)
    assert (first.log, first.tokens) == (True, len(step_texts(ITEMS, local.tokenizer)[0].ids))


@pytest.mark.parametrize("squash", Squash)
def test_value_head(local: LocalSampler, tmp_path: Path, squash: Squash) -> None:
    """A head's tanh v becomes (1 + v) / 2, a probability stays one."""
    local.model.save_pretrained(tmp_path)
    weight = torch.linspace(-1, 1, 32)
    value_head.write(tmp_path, {"weight": weight[None], "bias": torch.tensor([0.1])}, squash)
    scorer = ValueHead(aggregate=Aggregate.min)
    scorer.must_fit(Pretrained(str(tmp_path)))
    with scorer.open(Pretrained(str(tmp_path)), local) as score:
        found = score(ITEMS)
    for (prompt, beginning), one in zip(ITEMS, found, strict=True):
        _, states = by_hand(local.model, local.tokenizer, prompt, beginning)
        raw = [float(state @ weight + 0.1) for state in states]
        values = [
            (1 + torch.tensor(x).tanh().item()) / 2 if squash is Squash.tanh else torch.tensor(x).sigmoid().item()
            for x in raw
        ]
        assert one.by_step == pytest.approx(values, abs=1e-4)
        assert one.score == pytest.approx(min(values), abs=1e-4)


def test_values_are_read_where_training_reads_them(local: LocalSampler, tmp_path: Path) -> None:
    """The first step alone, as a search has it, and the whole response, as training has it."""
    local.model.save_pretrained(tmp_path)
    value_head.write(tmp_path, {"weight": torch.linspace(-1, 1, 32)[None], "bias": torch.zeros(1)}, Squash.sigmoid)
    text = "".join(STEPS)
    pair = Pair(
        "What is 2 + 3 * 4?", "", text, "", chosen_ends=True, chosen_steps=(Mark(len(STEPS[0])), Mark(len(text)))
    )
    trained = Pretrained(str(tmp_path)).model(register(), torch.float32).eval()
    values, _ = step_values([pair], trained, tmp_path, tiny.CHAT, local.tokenizer, torch.device("cpu"))
    with ValueHead().open(Pretrained(str(tmp_path)), local) as score:
        whole, first, _ = score(ITEMS)
    assert whole.by_step == pytest.approx(values[0], abs=1e-5)
    assert first.score == pytest.approx(values[0][0], abs=1e-5)


def test_no_value_head(local: LocalSampler, tmp_path: Path) -> None:
    local.model.save_pretrained(tmp_path)
    for model in (Pretrained(str(tmp_path)), Fresh()):
        with pytest.raises(UserError, match=r"has no value head .* algo=value"):
            ValueHead().must_fit(model)


def test_implicit(local: LocalSampler, tmp_path: Path) -> None:
    """beta log(pi / ref) of each step; its sums are the running total, and the last of them the whole."""
    other: Qwen2ForCausalLM = tiny.model("sdpa", seed=3).eval()
    other.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    both = [by_hand(model, local.tokenizer, *ITEMS[0])[0] for model in (local.model, other)]
    steps = [0.5 * (a - b) for a, b in zip(*both, strict=True)]
    for form, expected in ((Form.step, steps), (Form.sum, [steps[0], sum(steps)])):
        with Implicit(beta=0.5, form=form, reference=str(tmp_path)).open(Fresh(), local) as score:
            first, *_ = score(ITEMS)
        assert first.by_step == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert first.score == first.by_step[-1]


def test_a_model_against_itself_is_0(local: LocalSampler, tmp_path: Path) -> None:
    local.model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with Implicit(reference=str(tmp_path)).open(Fresh(), local) as score:
        assert [one.score for one in score(ITEMS)] == pytest.approx([0, 0, 0], abs=1e-5)


def test_the_reference_is_what_the_run_began_with(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model = Pretrained(str(tmp_path / "model"))
    with pytest.raises(UserError, match=r"scorer.reference=MODEL.*algo=dpo"):
        Implicit().must_fit(model)
    text = "model: {_target_: stepdpo.models.load.Pretrained, path: /nowhere/at/all}\nreference_model: null\n"
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="'/nowhere/at/all' holds no"):
        Implicit().must_fit(model)


def test_aggregates() -> None:
    steps = [0.5, 0.25, 1.0]
    assert [one(steps, log=False) for one in (Aggregate.last, Aggregate.min)] == [1.0, 0.25]
    assert Aggregate.mean(steps, log=False) == pytest.approx(1.75 / 3)
    assert (Aggregate.product(steps, log=False), Aggregate.product(steps, log=True)) == (0.125, 1.75)
    assert {one([0.3], log) for one in Aggregate for log in (True, False)} == {0.3}
