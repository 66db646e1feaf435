"""Secrets out of whatever is written: by the name of a key, by the value of the environment, by shape."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "***"
SHORTEST = 8
"""Values of secret environment variables below this length are left alone: replacing `true` everywhere helps nobody."""

# Whole words of a name, at its start or after an underscore; `tokens` in the plural are counted ones.
_NAME = re.compile(
    r"(?:^|_)(?:api_?keys?|(?:access|private|secret|signing|ssh)_?keys?|secrets?|passwords?|passwd|passphrase|"
    r"credentials?|bearer|authorization)(?:_|$)"
    r"|(?:^|_)(?:auth|access|api|bearer|hf|hub|refresh)?_?token(?:_value)?$"
)
# The special tokens of a tokenizer, and names of the place where a secret is.
_NO_SECRET = re.compile(
    r"(?:^|_)(?:pad|eos|bos|unk|sep|cls|mask|stop|end|start|image|special|new|per|next|last|first)_token$"
    r"|_(?:env|file|path|folder|name|var|variable)$"
)
# Keys by the prefixes that their services give them (OpenAI and its like, Hugging Face, GitHub, wandb, AWS), what is
# before the `@` of an address, and what follows `Bearer`. The lengths spare ordinary words that begin alike.
_SHAPES = re.compile(
    r"\bsk-[A-Za-z0-9_-]{16,}|\bhf_[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|"
    r"\bwandb_v\d+_\w{20,}|\bAKIA[A-Z0-9]{16}\b|(?<=://)[^/@\s]+:[^/@\s]+(?=@)|(?<=\bBearer )[\w.~+/=-]{8,}"
)
_ASSIGNED = re.compile(r"""([A-Za-z_][\w.-]*)(["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,}\]"'&]+)""")
_ARGUMENT = re.compile(r"([-+~]*[A-Za-z_][\w.@/-]*)=(.*)", re.DOTALL)


def is_secret(name: str) -> bool:
    """Whether a key of this name holds a secret: `hf_token` does; `max_tokens`, `pad_token`, `api_key_env` do not."""
    last = re.split(r"[./]", name)[-1]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last).replace("-", "_").lower()
    return bool(_NAME.search(words)) and not _NO_SECRET.search(words)


def redact(value: Any) -> Any:
    """A copy of a config (dicts, lists, plain values) without its secrets; what is unset stays visibly unset."""
    if isinstance(value, Mapping):
        return {key: _entry(str(key), item) for key, item in value.items()}
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [redact(item) for item in value]
    return value


def redact_text(text: str) -> str:
    """Free text without the secrets of the environment, strings shaped like keys, and `api_key=...` or `token: ...`."""
    for secret in _environment():
        text = text.replace(secret, HIDDEN)
    return _ASSIGNED.sub(_assigned, _SHAPES.sub(HIDDEN, text))


def redact_argv(argv: Sequence[str]) -> list[str]:
    """A command line without secrets: `judge.api_key=X`, `--api-key X`, `--api-key=X`."""
    words: list[str] = []
    follows = False
    for word in argv:
        match = _ARGUMENT.fullmatch(word)
        if follows and not word.startswith("-"):
            words.append(HIDDEN)
        elif match and is_secret(match[1].lstrip("-+~")) and not _harmless(match[2]):
            words.append(f"{match[1]}={HIDDEN}")
        else:
            words.append(redact_text(word))
        follows = word.startswith("--") and "=" not in word and is_secret(word.lstrip("-"))
    return words


def _entry(key: str, item: Any) -> Any:
    if not is_secret(key) or item is None or item == "" or isinstance(item, bool):
        return redact(item)
    return item if isinstance(item, str) and _harmless(item) else HIDDEN


def _assigned(match: re.Match[str]) -> str:
    if not is_secret(match[1]) or _harmless(match[3]):
        return match[0]
    return f"{match[1]}{match[2]}{HIDDEN}"


def _harmless(value: str) -> bool:
    """Says where the secret is (`${oc.env:KEY}`) or that there is none, and does not give it away."""
    bare = value.strip("\"'").lower()
    return bare in ("", "null", "none", "true", "false", HIDDEN) or re.fullmatch(r"\$\{[\w.:]+\}?", bare) is not None


def _environment() -> list[str]:
    values = (value for name, value in os.environ.items() if is_secret(name))
    # The longest first: where one secret is part of another, the longer must go while it is still in one piece.
    return sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)
