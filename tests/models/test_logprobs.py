"""Token scores against plain autograd in double precision: values, gradients, chunks, number formats."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stepdpo.models import logprobs as logps
from stepdpo.models.head import Head
from stepdpo.models.logprobs import HeadMemory, token_scores
from stepdpo.tokens.batch import sum_by_owner

T, H, V = 7, 5, 11


class Case:
    """Hidden states, a head, targets and a reference of different size, seeded."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.hidden_TH, self.head_VH = normal(T, H).requires_grad_(), normal(V, H).requires_grad_()
        self.reference_hidden_TH, self.reference_head_VH = normal(T, H), normal(V, H)
        self.target_T = torch.randint(V, (T,), generator=generator)
        self.weights_2T = normal(2, T)
        """An arbitrary direction in which logps and kl are pulled."""


def plain(hidden: Tensor, head: Tensor, target: Tensor, r_hidden: Tensor, r_head: Tensor) -> tuple[Tensor, Tensor]:
    """log softmax(h W^T)[target] and sum_v r (log r - log p), r the reference: arXiv 2404.11999, section 4."""
    return from_logits(hidden @ head.T, r_hidden @ r_head.T, target)


def from_logits(policy: Tensor, reference: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    p, r = torch.log_softmax(policy, -1), torch.log_softmax(reference, -1)
    return p[torch.arange(len(target)), target], (r.exp() * (r - p)).sum(-1)


def grads(case: Case, *, head_memory: HeadMemory = HeadMemory.auto, reference: bool = True) -> tuple[Tensor, ...]:
    known = (case.reference_hidden_TH, case.reference_head_VH) if reference else (None, None)
    logps_T, kl_T, _ = token_scores(
        case.hidden_TH, Head(case.head_VH), case.target_T, None, *known, head_memory=head_memory
    )
    loss = (case.weights_2T[0] * logps_T).sum() + (case.weights_2T[1] * kl_T).sum()
    return logps_T, kl_T, *torch.autograd.grad(loss, (case.hidden_TH, case.head_VH))


@pytest.mark.parametrize("head_memory", HeadMemory)
@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients_are_those_of_plain_autograd(seed: int, head_memory: HeadMemory) -> None:
    case = Case(seed)
    doubles = [
        tensor.detach().double()
        for tensor in (case.hidden_TH, case.head_VH, case.reference_hidden_TH, case.reference_head_VH)
    ]
    hidden, head = doubles[0].requires_grad_(), doubles[1].requires_grad_()
    logps_T, kl_T = plain(hidden, head, case.target_T, doubles[2], doubles[3])
    loss = (case.weights_2T[0] * logps_T).sum() + (case.weights_2T[1] * kl_T).sum()
    expected = (logps_T, kl_T, *torch.autograd.grad(loss, (hidden, head)))
    for got, wanted in zip(grads(case, head_memory=head_memory), expected, strict=True):
        assert got.dtype is torch.float32
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("head_memory", HeadMemory)
def test_gradients_are_finite_differences(head_memory: HeadMemory) -> None:
    """In double precision, without any formula for a derivative; scaled and capped, with an adapter on the head."""
    case = Case(3)
    generator = torch.Generator().manual_seed(9)
    inputs = [case.hidden_TH, case.head_VH, torch.randn(T, 2, generator=generator), torch.randn(V, 2)]
    known = (case.reference_hidden_TH.double(), case.reference_head_VH.double())

    def scores(hidden: Tensor, weight: Tensor, low: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        return token_scores(hidden, Head(weight, up, 0.7, 3.0), case.target_T, low, *known, head_memory=head_memory)[:2]

    assert torch.autograd.gradcheck(scores, [t.detach().double().requires_grad_() for t in inputs])


@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.25, None), (1.0, 2.0), (3.0, 1.5)])
def test_heads_that_adapt_scale_and_cap(scale: float, cap: float | None) -> None:
    """Logits written out: cap tanh(scale (h W^T + low up^T) / cap); the reference has no adapter."""
    case = Case(4)
    double = [t.detach().double() for t in (case.reference_hidden_TH, case.reference_head_VH)]
    hidden, weight = (t.detach().double().requires_grad_() for t in (case.hidden_TH, case.head_VH))
    low, up = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (T, V))

    def shaped(logits: Tensor) -> Tensor:
        return scale * logits if cap is None else cap * torch.tanh(scale * logits / cap)

    expected = from_logits(shaped(hidden @ weight.T + low @ up.T), shaped(double[0] @ double[1].T), case.target_T)
    got = token_scores(hidden, Head(weight, up, scale, cap), case.target_T, low, *double)[:2]
    pulls = case.weights_2T.double()
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    wanted = torch.autograd.grad(
        sum((p * t).sum() for p, t in zip(pulls, expected, strict=True)), [hidden, weight, low, up]
    )
    gradients = torch.autograd.grad(
        sum((p * t).sum() for p, t in zip(pulls, got, strict=True)), [hidden, weight, low, up]
    )
    for ours, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("head_memory", HeadMemory)
@pytest.mark.parametrize("rows", [1, 2, 3, T - 1, T, T + 1])
def test_chunks_never_matter(rows: int, head_memory: HeadMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = grads(Case(), head_memory=HeadMemory.save)
    monkeypatch.setattr(logps, "CHUNK_BYTES", rows * V * 4)
    for got, wanted in zip(grads(Case(), head_memory=head_memory), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_auto_keeps_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two distributions (policy and reference) of T x V numbers of four bytes."""
    case, kept = Case(), []
    apply = logps._TokenScores.apply
    monkeypatch.setattr(logps._TokenScores, "apply", lambda *args: kept.append(args[-1]) or apply(*args))
    for room in (2 * T * V * 4, 2 * T * V * 4 - 1):
        monkeypatch.setattr(logps, "KEEP_BYTES", room)
        grads(case)
    assert kept == [True, False]


@pytest.mark.parametrize("head_memory", HeadMemory)
def test_a_second_backward_pass_is_the_same(head_memory: HeadMemory) -> None:
    """Kept distributions are used up in place by the first."""
    case = Case()
    known = (case.reference_hidden_TH, case.reference_head_VH)
    logps_T, kl_T, _ = token_scores(
        case.hidden_TH, Head(case.head_VH), case.target_T, None, *known, head_memory=head_memory
    )
    loss = (logps_T * case.weights_2T[0] + kl_T * case.weights_2T[1]).sum()
    first = torch.autograd.grad(loss, (case.hidden_TH, case.head_VH), retain_graph=True)
    second = torch.autograd.grad(loss, (case.hidden_TH, case.head_VH))
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_frozen_head_gets_no_gradient() -> None:
    case = Case()
    token_scores(case.hidden_TH, Head(case.head_VH.detach()), case.target_T)[0].sum().backward()
    assert case.hidden_TH.grad is not None


def test_kl_and_its_gradient_vanish_at_the_reference() -> None:
    case = Case()
    case.reference_hidden_TH, case.reference_head_VH = case.hidden_TH.detach(), case.head_VH.detach()
    case.weights_2T[0] = 0
    _, kl_T, grad_hidden_TH, grad_head_VH = grads(case)
    for tensor in (kl_T, grad_hidden_TH, grad_head_VH):
        torch.testing.assert_close(tensor, torch.zeros_like(tensor), rtol=0, atol=1e-5)


def test_kl_is_positive_and_puts_the_reference_first() -> None:
    """Two tokens, reference (3/4, 1/4), policy (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2)."""
    head = torch.tensor([[1.0], [0.0]])
    _, kl_T, _ = token_scores(
        torch.tensor([[0.0]]), Head(head), torch.tensor([0]), None, torch.tensor([[3.0]]).log(), head
    )
    expected = 0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log()
    torch.testing.assert_close(kl_T, expected[None])


def test_without_a_reference_the_kl_is_a_constant() -> None:
    case = Case()
    _, kl_T, _ = token_scores(case.hidden_TH, Head(case.head_VH), case.target_T)
    assert kl_T.tolist() == [0.0] * T
    gradients = torch.autograd.grad(kl_T.sum(), (case.hidden_TH, case.head_VH))
    assert all(gradient.abs().max() == 0 for gradient in gradients)


def test_no_gradient_is_kept_for_the_reference() -> None:
    case = Case()
    case.reference_head_VH.requires_grad_()
    known = (case.reference_hidden_TH, case.reference_head_VH)
    token_scores(case.hidden_TH, Head(case.head_VH), case.target_T, None, *known)[1].sum().backward()
    assert case.reference_head_VH.grad is None


def test_an_unlikely_token_is_no_infinity() -> None:
    """softmax().log() would give -inf at a logit gap of 200, and 0 * inf = nan in the KL."""
    head = torch.tensor([[200.0], [0.0]])
    hidden = torch.ones(1, 1, requires_grad=True)
    logps_T, kl_T, _ = token_scores(hidden, Head(head), torch.tensor([1]), None, torch.ones(1, 1), head)
    (logps_T + kl_T).sum().backward()
    assert logps_T.tolist() == [-200.0]
    assert kl_T.tolist() == [0.0]
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


def test_bfloat16_inputs_are_scored_in_fp32() -> None:
    case = Case()
    inputs = [t.detach().bfloat16() for t in (case.hidden_TH, case.head_VH)]
    logps_T, _, _ = token_scores(inputs[0], Head(inputs[1]), case.target_T)
    exact = (inputs[0] @ inputs[1].T).float().log_softmax(-1).gather(1, case.target_T[:, None]).squeeze(1)
    assert logps_T.dtype is torch.float32
    torch.testing.assert_close(logps_T, exact)


def test_autocast_computes_the_same_logits_in_both_directions() -> None:
    """Else softmax probabilities in the backward pass would not add up to 1, nor the KL's gradient vanish."""
    case = Case()
    head = torch.cat([case.head_VH.detach(), torch.ones(V, 1)], dim=1).requires_grad_()
    hidden = torch.cat([40 * case.hidden_TH.detach(), torch.ones(T, 1)], dim=1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logps_T, kl_T, _ = token_scores(hidden, Head(head), case.target_T, None, hidden.detach(), head.detach())
    (kl_gradient,) = torch.autograd.grad(kl_T.sum(), hidden, retain_graph=True)
    torch.testing.assert_close(kl_gradient, torch.zeros_like(kl_gradient), rtol=0, atol=1e-3)
    (gradient,) = torch.autograd.grad(logps_T.sum(), hidden)
    torch.testing.assert_close(gradient[:, -1], torch.zeros(T), rtol=0, atol=0.02)


@pytest.mark.parametrize("rows", [2, 100])
@pytest.mark.parametrize("head_memory", HeadMemory)
@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.25, None), (3.0, 1.5)])
def test_collision_probabilities_are_sums_of_squares(
    scale: float, cap: float | None, adapted: bool, head_memory: HeadMemory, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """log sum_v p_v^2, from all probabilities in double precision, whatever the head, the chunks and what is kept."""
    monkeypatch.setattr(logps, "CHUNK_BYTES", rows * V * 4)
    case, generator = Case(5), torch.Generator().manual_seed(7)
    low, up = (torch.randn(n, 2, generator=generator) for n in (T, V))
    logits_TV = case.hidden_TH.detach().double() @ case.head_VH.detach().double().T
    logits_TV = logits_TV + low.double() @ up.double().T if adapted else logits_TV
    logits_TV = scale * logits_TV if cap is None else cap * torch.tanh(scale * logits_TV / cap)
    wanted_T = logits_TV.softmax(-1).square().sum(-1).log()
    head, factor = Head(case.head_VH, up if adapted else None, scale, cap), low if adapted else None
    got = token_scores(case.hidden_TH, head, case.target_T, factor, head_memory=head_memory, collision=True)
    assert got.collision_T is not None
    assert not got.collision_T.requires_grad
    torch.testing.assert_close(got.collision_T.double(), wanted_T, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("head_memory", HeadMemory)
@pytest.mark.parametrize("reference", [False, True])
def test_collision_probabilities_change_no_bit_of_the_rest(reference: bool, head_memory: HeadMemory) -> None:
    """Nor are they computed where nobody asks."""
    case = Case(6)
    known = (case.reference_hidden_TH, case.reference_head_VH) if reference else (None, None)

    def scored(collision: bool) -> tuple[Tensor, ...]:
        got = token_scores(
            case.hidden_TH, Head(case.head_VH), case.target_T, None, *known,
            head_memory=head_memory, collision=collision,
        )  # fmt: skip
        assert (got.collision_T is not None) is collision
        pull = (case.weights_2T[0] * got.logps_T).sum() + (case.weights_2T[1] * got.kl_T).sum()
        return got.logps_T, got.kl_T, *torch.autograd.grad(pull, (case.hidden_TH, case.head_VH))

    for one, other in zip(scored(False), scored(True), strict=True):
        assert torch.equal(one, other)


def test_what_nobody_asks_for_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(logps, "_collision")
    grads(Case())


def test_collision_probabilities_of_a_sure_and_of_an_undecided_model() -> None:
    """0 nats, and -log V, however far the logits lie apart."""
    hidden, head = torch.tensor([[1.0], [0.0]]), torch.tensor([[500.0], [0.0], [0.0], [-500.0]])
    collision_T = token_scores(hidden, Head(head), torch.tensor([1, 1]), collision=True).collision_T
    torch.testing.assert_close(collision_T, -torch.tensor([1.0, 4.0]).log())


def test_sums_go_to_their_owners() -> None:
    """A term of the trunk counts for both responses."""
    values_T = torch.tensor([1.0, 10.0, 100.0], requires_grad=True)
    term_E, owner_E = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 0, 1, 1])
    sums = sum_by_owner(values_T, term_E, owner_E, owners=4)
    assert sums.tolist() == [11.0, 201.0, 0.0, 0.0]
    (gradient,) = torch.autograd.grad((sums * torch.tensor([1.0, 5.0, 7.0, 7.0])).sum(), values_T)
    assert gradient.tolist() == [6.0, 1.0, 10.0]
