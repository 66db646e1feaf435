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
    r"(?:^|_)(?:api_?keys?|(?:access|account|encryption|master|private|secret|session|shared|signing|ssh|subscription)"
    r"_?keys?|secrets?|passwords?|passwd|passphrase|credentials?|bearer|authorization|cookies?|jwt)(?:_|$)"
    r"|(?:^|_)(?:auth|access|api|bearer|hf|hub|refresh)?_?token(?:_value)?$"
)
# The special tokens of a tokenizer, and names of the place where a secret is.
_NO_SECRET = re.compile(
    r"(?:^|_)(?:pad|eos|bos|unk|sep|cls|mask|stop|end|start|image|special|new|per|next|last|first)_token$"
    r"|_(?:env|file|path|folder|name|var|variable)$"
)
# Keys by the prefixes that their services give them (OpenAI and its like, Hugging Face, GitHub, GitLab, Slack, Google,
# wandb, AWS), signed tokens, private keys, what is before the `@` of an address, and what follows `Bearer`. The lengths
# spare ordinary words that begin alike.
_SHAPES = re.compile(
    r"\b[sr]k[-_][A-Za-z0-9_-]{16,}|\bhf_[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|"
    r"\bglpat-[\w-]{16,}|\bxox[a-z]-[\w-]{10,}|\bAIza[\w-]{30,}|\bwandb_v\d+_\w{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|"
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+|"
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)|"
    r"(?<=://)[^/@\s:]+:[^/@\s]+(?=@)|(?<=http://)[^/@\s]+(?=@)|(?<=https://)[^/@\s]+(?=@)|"
    r"(?<=\bBearer )[\w.~+/=-]{8,}|(?<=\bBasic )[\w+/=-]{8,}",
    re.DOTALL,
)
# What gives access in the query of an address, signed ones included (S3, Google, Azure), under a name that says little
# elsewhere.
_QUERY = re.compile(
    r"(?i)(?<=[?&;])((?:[\w.-]*[-_])?(?:sig|signature|credential|key|accesskeyid|accessid|code|pass|pwd|auth|session)=)"
    r"([^&\s\"'#,}\]]+)"
)
# A name and what divides it from its value, which may stand in a quoted or percent-encoded text. The value is no part
# of it: one that is no secret may hold names itself (`then_with="judge.api_key=..."`, `url=http://h?token=...`).
_NAMED = re.compile(r"""(?:%[0-9A-Fa-f]{2})*([A-Za-z_][\w.-]*)(\\*["']?\s*(?:[=:]|%3[AaDd])\s*)""")
_VALUE = re.compile(
    r"""\$\{[^}]*\}|\\*"[^"]*"|\\*'[^']*'|\[[^\]]*\]|\{[^}]*\}|(?:(?:Bearer|Basic|Token|Digest)\s+)?[^\s,}\]"'&]+"""
)
_PROSE = re.compile(r"[a-z]+,? +[a-z(]")
"""`judge.token: there is no such setting`: what an error says of a key."""
_REFERENCE = re.compile(r"""\$\{[\w.:]+(?:, *(?:null|''|""))?\}""")
_ENVIRONMENT = re.compile(r"\$\{\s*(?:oc\.)?env:")
_ARGUMENT = re.compile(r"([-+~]*[A-Za-z_][\w.@/-]*)=(.*)", re.DOTALL)


def is_secret(name: str) -> bool:
    """Whether a key of this name holds a secret: `hf_token` does; `max_tokens`, `pad_token`, `api_key_env` do not."""
    last = re.split(r"[./]", name)[-1]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last).replace("-", "_").lower()
    return bool(_NAME.search(words)) and not _NO_SECRET.search(words)


def redact(value: Any) -> Any:
    """A copy of a config (dicts, lists, plain values) without its secrets; what is unset stays visibly unset."""
    if isinstance(value, Mapping):
        return {redact(key): _entry(str(key), item) for key, item in value.items()}
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [redact(item) for item in value]
    return value


def redact_text(text: str) -> str:
    """Free text without the secrets of the environment, strings shaped like keys, and `api_key=...` or `token: ...`.

    However deep they stand: words within words, mappings, addresses, JSON and percent-encoded text.
    """
    return _assigned(_QUERY.sub(_in_query, _SHAPES.sub(HIDDEN, without_environment(text))))


def without_environment(text: str) -> str:
    """Text without the secrets of the environment alone: what is not ours to judge by its looks stays as it is."""
    for secret in _environment():
        text = text.replace(secret, HIDDEN)
    return text


def holding(value: Any) -> str:
    """The dotted name of the first setting in a config that holds a secret; empty where none does."""
    for key, item in value.items() if isinstance(value, Mapping) else ():
        if redact({key: item}) != {key: item}:
            within = "" if is_secret(str(key)) else holding(item)
            return redact_text(f"{key}.{within}" if within else str(key))
    return ""


def from_environment(value: Any, where: str) -> str:
    """The dotted name of the first text in an unresolved config that is taken from the environment; empty for none."""
    if isinstance(value, str):
        return where if _ENVIRONMENT.search(value) else ""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return next(filter(None, (from_environment(item, f"{where}.{key}") for key, item in items)), "")


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


def _in_query(match: re.Match[str]) -> str:
    return match[0] if _harmless(match[2]) else f"{match[1]}{HIDDEN}"


def _assigned(text: str) -> str:
    """The text without the values that stand after the name of a secret."""
    pieces, at = [], 0
    for named in _NAMED.finditer(text):
        if named.start() < at or not is_secret(named[1]):
            continue
        value = _VALUE.match(text, named.end())
        if value is None or _harmless(value[0]) or (named[2] == ": " and _PROSE.match(text, named.end())):
            continue
        pieces += [text[at : named.end()], HIDDEN]
        at = value.end()
    return "".join([*pieces, text[at:]])


def _harmless(value: str) -> bool:
    """Says where the secret is (`${oc.env:KEY}`) or that there is none, and does not give it away."""
    bare = value.strip("\\\"'").lower()
    return bare in ("", "null", "none", "true", "false", HIDDEN) or _REFERENCE.fullmatch(bare) is not None


def _environment() -> list[str]:
    values = (value for name, value in os.environ.items() if is_secret(name))
    # The longest first: where one secret is part of another, the longer must go while it is still in one piece.
    return sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)
