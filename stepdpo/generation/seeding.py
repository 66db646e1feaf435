"""Which random numbers a response takes: decided by the seed, its prompt and its stream, not by its neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from stepdpo.core.types import Sampling


def check_greedy(params: Sampling) -> None:
    """ValueError where several greedy responses are asked for: they would all be the same."""
    if params.temperature == 0 and params.n != 1:
        raise ValueError("temperature 0 is greedy decoding: n must be 1")


def seeds(prompts: Sequence[str], seed: int, streams: Sequence[int] | None) -> Iterator[bytes]:
    """One a prompt, from its text and its stream."""
    # By a hash and not by Python's own, which changes from process to process: a resumed run writes the same texts.
    for prompt, stream in zip(prompts, times_before(prompts) if streams is None else streams, strict=True):
        yield blake2b(f"{seed}/{stream}/{prompt}".encode(), digest_size=8).digest()


def numbered_seed(seed: bytes, number: int) -> int:
    """A seed of 31 bits, which every server takes, for a prompt's responses from `number` on."""
    # Without the bit that a signed integer keeps for its sign.
    return int.from_bytes(blake2b(seed + number.to_bytes(8, "big"), digest_size=4).digest(), "big") >> 1


def times_before(prompts: Sequence[str]) -> list[int]:
    """How often each prompt has come before in the list."""
    earlier: Counter[str] = Counter()
    times = []
    for prompt in prompts:
        times.append(earlier[prompt])
        earlier[prompt] += 1
    return times
