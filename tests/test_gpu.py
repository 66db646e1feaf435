"""What needs one CUDA device: every attention the same numbers as on the CPU, and whole runs in bfloat16.

Needs torch, transformers and pytest; neither DeepSpeed nor TRL. Tests of vLLM are skipped where it is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import commands
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

import stepdpo
from stepdpo.models.attention.registry import Attention, register
from stepdpo.models.scorer import Scorer
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.collator import collate
from stepdpo.tokens.token_tree import TokenSequence, TokenTree, build_tree
from stepdpo.training.engine.local import Local
from stepdpo.training.engine.settings import Device, Dtype
from stepdpo.training.optimizer import AdamW

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # the compiler has hints that depend on the card
]
torch.set_float32_matmul_precision("highest")  # no TF32: fp32 is fp32

VOCABULARY = 512
SHIPPED = Path(stepdpo.__file__).parent / "tinymath" / "model"
KINDS = [Attention.runs, Attention.flex, Attention.dense]
Gradient = dict[str, Tensor]


def model(attention: str) -> Qwen2ForCausalLM:
    """Seven query heads a key head, as in Qwen2-0.5B, and heads of 32."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=224,
        num_hidden_layers=2,
        num_attention_heads=7,
        num_key_value_heads=1,
        intermediate_size=256,
        max_position_embeddings=2048,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    config._attn_implementation = attention
    return Qwen2ForCausalLM(config)


@cache
def batch(seed: int, pairs: int = 3) -> TreeBatch:
    """Pairs with trunks of a few hundred tokens, and a search tree."""
    generator = np.random.default_rng(seed)

    def some(low: int, high: int) -> np.ndarray:
        return generator.integers(2, VOCABULARY, int(generator.integers(low, high))).astype(np.int32)

    def tree(paths: list[np.ndarray], scored: int, number: int) -> TokenTree:
        several = [TokenSequence(p, min(scored, len(p) - 1), owner) for owner, p in enumerate(paths)]
        return build_tree(several, [number + i for i in range(len(paths) // 2)], [1.0] * (len(paths) // 2))

    trees = []
    for number in range(pairs):
        trunk = some(100, 400)
        trees.append(tree([np.concatenate([trunk, some(10, 60)]) for _ in range(2)], len(trunk), number))
    paths = [some(150, 200)]
    for _ in range(5):
        paths.append(np.concatenate([paths[-1][: int(generator.integers(80, len(paths[-1])))], some(10, 60)]))
    return collate([*trees, tree(paths, 60, pairs)])


def scores(
    kind: Attention, device: Device, dtype: Dtype = Dtype.float32, recompute: bool = False, seed: int = 0
) -> tuple[Tensor, Tensor, Gradient]:
    """(summed log-probabilities, hidden states at scored positions, gradient of the mean log-ratio of the sides)."""
    spec = Local(dtype=dtype, device=device, gradient_checkpointing=recompute)
    name = register(kind)
    with spec.open(lambda _, gather: Scorer(model(name), False, gather), AdamW()) as engine:
        scores = engine.score(batch(seed))
        logps_B2, hidden_TH = scores.logps_R.view(-1, 2), scores.hidden_TH
        engine.backward((logps_B2[:, 0] - logps_B2[:, 1]).mean(), last=True)
        gradient = {n: p.grad.double().cpu() for n, p in engine.model.named_parameters() if p.grad is not None}
        return logps_B2.detach().double().cpu(), hidden_TH.double().cpu(), gradient


def off(one: Gradient, other: Gradient) -> float:
    """Size of the difference, relative to the whole gradient."""
    assert one.keys() == other.keys()
    norm = torch.stack([g.norm() for g in other.values()]).norm()
    return float(torch.stack([(one[n] - other[n]).norm() for n in one]).norm() / norm)


@pytest.mark.parametrize("kind", KINDS)
def test_every_attention_computes_what_the_cpu_computes(kind: Attention) -> None:
    logps, hidden, gradient = scores(kind, Device.cuda)
    wanted_logps, wanted_hidden, wanted_gradient = scores(Attention.runs, Device.cpu)
    torch.testing.assert_close(logps, wanted_logps, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(hidden, wanted_hidden, rtol=1e-3, atol=1e-3)
    assert off(gradient, wanted_gradient) < 1e-4


@pytest.mark.parametrize("kind", [Attention.runs, Attention.flex])
def test_bfloat16_is_as_near_as_the_dense_twin(kind: Attention) -> None:
    """Half as far again as the twin's own distance between the formats is allowed."""
    exact_logps, _, exact = scores(Attention.dense, Device.cuda)
    twin_logps, _, twin = scores(Attention.dense, Device.cuda, Dtype.bfloat16)
    logps, _, gradient = scores(kind, Device.cuda, Dtype.bfloat16)
    assert 0 < off(gradient, exact) < 1.5 * off(twin, exact)
    assert (logps - exact_logps).norm() < 1.5 * (twin_logps - exact_logps).norm()


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations(kind: Attention) -> None:
    logps, _, gradient = scores(kind, Device.cuda, recompute=True)
    wanted_logps, _, wanted = scores(kind, Device.cuda)
    torch.testing.assert_close(logps, wanted_logps, rtol=1e-5, atol=1e-3)
    assert off(gradient, wanted) < 1e-5


def test_lengths_that_differ_from_batch_to_batch() -> None:
    """FlexAttention stays compiled: a fall back to its plain form would show as an error of memory on long rows."""
    lengths = set()
    for seed in range(6):
        lengths.add(batch(seed).input_ids_RL.shape[1])
        logps, _, gradient = scores(Attention.flex, Device.cuda, seed=seed)
        wanted_logps, _, wanted = scores(Attention.dense, Device.cuda, seed=seed)
        torch.testing.assert_close(logps, wanted_logps, rtol=1e-5, atol=1e-3)
        assert off(gradient, wanted) < 1e-4
    assert len(lengths) > 3


@pytest.mark.parametrize("algo", ["dpo", "tdpo"])
def test_a_run_in_bfloat16(algo: str, pairs_words: list[str], tmp_path: Path) -> None:
    words = ["model=fresh", *pairs_words, f"algo={algo}", "engine=local", "engine.device=cuda", "run=gpu"]
    done = commands.stepdpo("train", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    AutoModelForCausalLM.from_pretrained(tmp_path / "runs" / "gpu" / "model")


def test_a_run_with_recomputed_activations(pairs_words: list[str], tmp_path: Path) -> None:
    words = ["model=fresh", *pairs_words, "engine=local", "engine.gradient_checkpointing=true", "run=gpu", "epochs=1"]
    done = commands.stepdpo("train", *words, cwd=tmp_path)
    assert done.code == 0, done.err


def test_a_run_beside_a_base_in_4_bits(pairs_words: list[str], blocks_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    words = [f"model={blocks_model}", *pairs_words, "adapter=qlora", "engine=local", "engine.device=cuda", "run=gpu"]
    done = commands.stepdpo("train", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "runs" / "gpu" / "model", dtype="auto")
    assert merged.dtype == torch.bfloat16


def test_codes_of_a_gpu_are_those_of_a_cpu() -> None:
    """And so are the matrices they stand for; a few numbers lie between two levels and may go to either."""
    pytest.importorskip("bitsandbytes")
    from stepdpo.models.quantise import Nf4, dequantise, quantised

    there = []
    for device in ("cpu", "cuda"):
        small = model("eager")
        Nf4().quantise(small, torch.device(device))
        there.append(quantised(small))
    assert there[0].keys() == there[1].keys() != set()
    for name, layer in there[0].items():
        on_gpu = there[1][name]
        same = (layer.weight.data == on_gpu.weight.data.cpu()).float().mean()
        assert same > 0.999, name
        off_by = (dequantise(layer) - dequantise(on_gpu)).norm() / dequantise(layer).norm()
        assert off_by < 1e-2, name


def test_seven_billion_numbers_in_4_bits_are_trained_in_12_gb() -> None:
    """The shape of Qwen2-7B with random weights, a pair of 2,048 tokens; while it is built, 16 GB are taken."""
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("peft")
    from stepdpo.models.logprobs import HeadMemory
    from stepdpo.models.lora import Lora
    from stepdpo.models.quantise import Nf4

    config = Qwen2Config(
        vocab_size=152_064, hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        intermediate_size=18_944, max_position_embeddings=4096, tie_word_embeddings=False,
    )  # fmt: skip
    config._attn_implementation = register(Attention.flex)

    def build(_: torch.dtype, gather: Any) -> Scorer:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device("cuda"):
                large = Qwen2ForCausalLM(config)
        finally:
            torch.set_default_dtype(before)
        Nf4().quantise(large, torch.device("cuda"))
        return Scorer(Lora(base=Nf4()).attach(large), False, gather, HeadMemory.recompute)

    tokens = np.random.default_rng(0).integers(2, 152_000, 2048).astype(np.int32)
    sides = [
        TokenSequence(np.concatenate([tokens[:1024], part]), 1024, n)
        for n, part in enumerate(np.split(tokens[1024:], 2))
    ]
    pair = collate([build_tree(sides, [0], [1.0])])
    with Local(device=Device.cuda, gradient_checkpointing=True).open(build, AdamW()) as engine:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        for _ in range(2):  # the moments are there from the second update on
            logps_B2 = engine.score(pair).logps_R.view(-1, 2)
            engine.backward((logps_B2[:, 0] - logps_B2[:, 1]).mean(), last=True)
            assert engine.step(1e-5) > 0
        peak = torch.cuda.max_memory_allocated()
    print(f"{held / 1e9:.2f} GB held, {peak / 1e9:.2f} GB at the peak")
    assert held < 6.5e9
    assert peak < 12e9


@pytest.fixture(scope="module")
def written() -> Iterator[Any]:
    """The shipped miniature in vLLM, in float32 so that texts can be compared."""
    pytest.importorskip("vllm")
    from stepdpo.generation.vllm import Dtype as VllmDtype
    from stepdpo.generation.vllm import VllmSampler
    from stepdpo.models.load import Pretrained

    spec = VllmSampler(dtype=VllmDtype.float32, memory=0.3, eager=True, progress=False)
    with spec.open(Pretrained(path=str(SHIPPED))) as sampler:
        yield sampler


def questions(count: int) -> list[str]:
    from stepdpo.tinymath.problems import problems

    asked = problems("test", count)
    return [f"<|im_start|>user\n{p.question}<|im_end|>\n<|im_start|>assistant\n" for p in asked]


def test_vllm_writes_what_the_model_writes(written: Any) -> None:
    """Greedily the same texts as transformers, but for ties that rounding decides; the same seed, the same texts."""
    from stepdpo.core.types import Sampling
    from stepdpo.generation.transformers import TransformersSampler
    from stepdpo.models.load import Pretrained

    prompts = questions(32)
    with TransformersSampler(device="cpu", progress=False).open(Pretrained(path=str(SHIPPED))) as local:
        wanted = [c for (c,) in local.sample(prompts, Sampling(max_tokens=200))]
    found = [c for (c,) in written.sample(prompts, Sampling(max_tokens=200))]
    assert sum(a == b for a, b in zip(found, wanted, strict=True)) >= 28
    params = Sampling(n=4, temperature=0.8, max_tokens=200, seed=3, stop=("\nStep 3",), logps=True)
    first = written.sample(prompts, params)
    again = written.sample(prompts[::-1], params)[::-1]
    texts = [[[c.text for c in some] for some in found] for found in (first, again)]
    assert sum(a == b for a, b in zip(*texts, strict=True)) >= 28
    assert len({text for some in texts[0] for text in some}) > 40
    assert all("\nStep 3" not in c.text and (c.logp or 0) < 0 for some in first for c in some)


def test_vllm_weighs_given_texts(written: Any) -> None:
    """Against one pass of the model over the whole text, in float64."""
    from stepdpo.tokens.tokenization import encode

    prompts, texts = questions(4), ["Step 1: 7 + 5 = 12", " ", "Step", "The answer is: 3"]
    model = AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float64).eval()
    for prompt, text, nats in zip(prompts, texts, written.score(prompts, texts), strict=True):
        ((ids, ends),) = encode([prompt + text], written.tokenizer)
        with torch.inference_mode():
            logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        wanted = sum(float(logps[i - 1, ids[i]]) for i, end in enumerate(ends) if end > len(prompt))
        assert nats == pytest.approx(wanted, abs=1e-2)


def test_pairs_with_vllm(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    words = ["limit=8", "n=4", "max_tokens=200", "sampler=vllm", "sampler.memory=0.3", "sampler.eager=true", "run=x"]
    done = commands.stepdpo("pairs", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "runs" / "x" / "preferences.jsonl").read_text()
