"""Token stores without files."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from stepdpo.tokens.token_store import TokenStore
from stepdpo.tokens.token_store_writer import StoreWriter
from stepdpo.tokens.token_tree import TokenSequence


def in_memory(rows: Sequence[tuple[int, Sequence[TokenSequence], float, int]]) -> TokenStore:
    """A store without files, of (number, sequences, confidence, group)."""
    buffer = BytesIO()
    writer = StoreWriter(buffer)
    for number, sequences, confidence, group in rows:
        writer.add(number, sequences, confidence, group)
    content = buffer.getvalue()
    examples, responses = writer.entries(lambda first, count: content[first : first + count])
    return TokenStore(examples, responses, lambda first, count: content[first : first + count], steps=writer.steps())
