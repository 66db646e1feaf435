"""No secret passes; nothing else is lost."""

import os

import pytest

from stepdpo.runtime.secrets import is_secret, redact, redact_argv, redact_text

CANARY = "sk-CANARY0123456789abcdef"


@pytest.mark.parametrize(
    "name",
    ["api_key", "OPENAI_API_KEY", "openaiApiKey", "judge.api_key", "token", "hf_token", "HF-TOKEN", "auth_token", 
     "refreshToken", "password", "client_secret", "AWS_SECRET_ACCESS_KEY", "private_key",
     "credentials", "WANDB_API_KEY"],
)  # fmt: skip
def test_secret_names(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["tokens", "max_tokens", "mean_tokens", "tokens_per_second", "pad_token", "eos_token", "token_ids", "tokenizer",
     "PWD", "keyword", "key_value_heads", "monkey", "api_key_env", "passes", "secretary", "author", "TOKENIZERS"],
)  # fmt: skip
def test_harmless_names(name: str) -> None:
    assert not is_secret(name)


def test_config() -> None:
    config = {
        "judge": {"api_key": CANARY, "token": None, "password": "", "model": "m"},
        "sampler": [{"max_tokens": 512, "hf_token": "abc", "use": {"token": True}}],
        "url": "https://me:hunter22@host/path",
        "where": {"api_key": "${oc.env:OPENAI_API_KEY}"},
        "note": f"called with api_key={CANARY}, beta=0.1",
    }
    assert redact(config) == {
        "judge": {"api_key": "***", "token": None, "password": "", "model": "m"},
        "sampler": [{"max_tokens": 512, "hf_token": "***", "use": {"token": True}}],
        "url": "https://***@host/path",
        "where": {"api_key": "${oc.env:OPENAI_API_KEY}"},
        "note": "called with api_key=***, beta=0.1",
    }
    assert config["judge"]["api_key"] == CANARY  # type: ignore[index]


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "HF_TOKEN", "OPENAI_API_KEY"])
def test_values_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "plainlookingvalue")
    assert redact_text("x plainlookingvalue y") == "x *** y"
    monkeypatch.setenv(name, "short")
    assert redact_text("a short text") == "a short text"


@pytest.mark.parametrize(
    "words",
    [[f"judge.api_key={CANARY}"], [f"+judge.api_key={CANARY}"], [f"++judge.token=a,{CANARY}"], ["--api-key", CANARY],
     [f"--api-key={CANARY}"], [f"judge={{api_key: {CANARY}, model: m}}"], [f"judge.url=http://x/?api_key={CANARY}"],
     [f"judge={{'api_key': '{CANARY}'}}"], [f"free {CANARY} text"], ["--hf-token", "CANARY-of-no-known-shape"],
     ["judge.password=CANARY,with,commas"], ["judge.token=CANARY with blanks"]],
)  # fmt: skip
def test_argv(words: list[str]) -> None:
    cleaned = redact_argv(["stepdpo", "train", *words, "algo=tdpo"])
    assert "CANARY" not in " ".join(cleaned)
    assert cleaned[:2] == ["stepdpo", "train"]
    assert cleaned[-1] == "algo=tdpo"


def test_ordinary_argv_is_kept() -> None:
    argv = ["stepdpo", "train", "-m", "algo=dpo,tdpo", "sampler.max_tokens=512", "risk-averse-strategies", "--cfg",
            "job", "judge.api_key=null", "judge.api_key=${oc.env:OPENAI_API_KEY}", os.sep]  # fmt: skip
    assert redact_argv(argv) == argv
