"""Samples a second: stepdpo's sampler beside `generate` of transformers, over the same prompts. `make bench-sampling`.

    loop     one problem at a time, `num_return_sequences=n`: what a user writes
    batch    all problems in one left-padded batch, `num_return_sequences=n`: the most that generate can do
    ours     one call of LocalSampler.sample

All start from texts and end with texts, at the same temperature; rounds are interleaved, and medians are shown. That
they draw from one distribution is checked on lengths and solve rates, problem by problem.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean, median, stdev
from typing import Any

import torch

from benchmarks.machine import machine, versions
from stepdpo.core.types import CORRECT, Problem, Sampling
from stepdpo.data.template_card import resolve
from stepdpo.data.templates import NativeTemplate
from stepdpo.evaluation.graders.strict import Strict
from stepdpo.generation.prefix_sharing import register
from stepdpo.generation.stop_strings import eos_ids
from stepdpo.generation.transformers import CPU_TOKENS, LocalSampler
from stepdpo.models.load import Fresh, Pretrained
from stepdpo.tinymath.problems import problems
from stepdpo.tokens.tokenization import generation_prompt

MODELS: dict[str, Pretrained | Fresh] = {
    "shipped": Pretrained("pkg://tinymath/model"),
    "random": Fresh(hidden_size=256, layers=4, heads=4, key_value_heads=4, intermediate_size=1024),
}
Texts = list[list[tuple[str, int]]]
"""For every prompt the responses, each with its number of tokens."""


@dataclass
class Side:
    """One way to sample, and what was measured of it."""

    name: str
    sample: Callable[[int], Texts]
    """From the number of the round, which is the seed."""
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    drawn: list[Texts] = field(default_factory=list)

    def round(self, number: int) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        drawn = self.sample(number)
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        self.tokens.append(sum(tokens for some in drawn for _, tokens in some))
        self.drawn.append(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="shipped")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=160, help="longest response")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", nargs="+", default=["loop", "batch", "ours"])
    options = parser.parse_args()
    spec = MODELS[options.model]
    model, tokenizer = spec.model("sdpa", torch.float32).eval(), spec.tokenizer()
    sharing = spec.model(register(), torch.float32).eval()
    drawn = problems("test", options.problems)
    template = resolve(NativeTemplate(), Pretrained("pkg://tinymath/model").source)[0]
    prompts = [generation_prompt(template.render(p.question, (), tokenizer), tokenizer).text for p in drawn]
    params = Sampling(n=options.n, temperature=0.8, max_tokens=options.tokens)
    sides = [side for side in _sides(model, sharing, tokenizer, prompts, params) if side.name in options.sides]
    for number in range(options.rounds):
        for side in sides:
            side.round(number)
    print(f"{machine()}; {versions()}")
    print(f"{options.model} model, {len(prompts)} problems, n = {options.n}, up to {options.tokens} tokens, "
          f"medians of {options.rounds} interleaved rounds\n")  # fmt: skip
    _table(sides, len(prompts) * options.n)
    _same(sides, drawn)


def _sides(model: Any, sharing: Any, tokenizer: Any, prompts: Sequence[str], params: Sampling) -> list[Side]:
    """Ours with the attention that the sampler opens a model with."""
    ours = LocalSampler(sharing, tokenizer, CPU_TOKENS)

    def sample(seed: int) -> Texts:
        settings = Sampling(params.n, params.temperature, params.top_p, params.max_tokens, seed=seed)
        return [[(c.text, c.tokens) for c in some] for some in ours.sample(prompts, settings)]

    def loop(seed: int) -> Texts:
        torch.manual_seed(seed)
        return [
            generated(model, tokenizer, [prompt], params.n, params.temperature, params.max_tokens)[0]
            for prompt in prompts
        ]

    def batch(seed: int) -> Texts:
        torch.manual_seed(seed)
        return generated(model, tokenizer, prompts, params.n, params.temperature, params.max_tokens)

    return [Side("loop", loop), Side("batch", batch), Side("ours", sample)]


@torch.inference_mode()
def generated(model: Any, tokenizer: Any, prompts: Sequence[str], n: int, temperature: float, tokens: int) -> Texts:
    """As transformers' documentation shows it; temperature 0 is greedy decoding."""
    how: dict[str, Any] = {"do_sample": False}
    if temperature:
        how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    ends = list(eos_ids(model, tokenizer))
    read = tokenizer(
        list(prompts), return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False,
        return_token_type_ids=False,
    )  # fmt: skip
    out = model.generate(
        **read, **how, num_return_sequences=n, max_new_tokens=tokens,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=ends,
    )  # fmt: skip
    new = out[:, read["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    # argmax finds the first end; rows without one are as long as they could be.
    ended = torch.isin(new, torch.tensor(ends))
    lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, new.shape[1])
    rows = list(zip(texts, lengths.tolist(), strict=True))
    return [rows[at : at + n] for at in range(0, len(rows), n)]


def _table(sides: Sequence[Side], samples: int) -> None:
    print("| side | wall s | CPU s | samples/s | tokens/s | samples per CPU s | ours, wall | ours, CPU |")
    print("|---|---|---|---|---|---|---|---|")
    ours = sides[-1]
    for side in sides:
        wall, cpu = median(side.wall), median(side.cpu)
        rate = median(tokens / seconds for tokens, seconds in zip(side.tokens, side.wall, strict=True))
        by_wall, by_cpu = (
            median(a / b for a, b in zip(theirs, mine, strict=True))
            for theirs, mine in ((side.wall, ours.wall), (side.cpu, ours.cpu))
        )
        print(f"| {side.name} | {wall:.2f} | {cpu:.2f} | {samples / wall:.1f} | {rate:,.0f} | {samples / cpu:.1f} "
              f"| {by_wall:.1f} x | {by_cpu:.1f} x |")  # fmt: skip


def _same(sides: Sequence[Side], drawn: Sequence[Problem]) -> None:
    """Differences from ours in tokens and in solved share, in standard errors over problems."""
    figures = {side.name: _by_problem(side, drawn) for side in sides}
    for name, (lengths, solved) in figures.items():
        print(f"{name}: {mean(lengths):.2f} tokens a response, {mean(solved):.1%} right", end="")
        if name != "ours":
            for what, mine, theirs in (
                ("tokens", figures["ours"][0], lengths), ("right", figures["ours"][1], solved),
            ):  # fmt: skip
                print(f"; {what} {_z(mine, theirs):+.1f} standard errors from ours", end="")
        print()


def _by_problem(side: Side, drawn: Sequence[Problem]) -> tuple[list[float], list[float]]:
    grade = Strict().grade
    lengths, solved = [], []
    for number, problem in enumerate(drawn):
        texts = [one for texts_of_round in side.drawn for one in texts_of_round[number]]
        lengths.append(mean(tokens for _, tokens in texts))
        solved.append(mean(grade(text, problem).verdict == CORRECT for text, _ in texts))
    return lengths, solved


def _z(mine: Sequence[float], theirs: Sequence[float]) -> float:
    # Paired by problem, as problems differ in length and difficulty far more than two samplers should.
    differences = [b - a for a, b in zip(mine, theirs, strict=True)]
    error = stdev(differences) / len(differences) ** 0.5
    return mean(differences) / error if error else 0.0


if __name__ == "__main__":
    main()
