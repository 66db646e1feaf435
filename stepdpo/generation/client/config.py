"""Where a server is and how it is to be treated."""

from __future__ import annotations

from dataclasses import dataclass

from stepdpo.core.ranges import at_least, positive


@dataclass(frozen=True)
class Server:
    """One OpenAI-compatible server (vLLM, SGLang, TGI, `transformers serve`, a provider's)."""

    url: str = "http://localhost:8000/v1"
    """Base URL, `/v1` included."""
    model: str | None = None
    """The model's name there; null where the server lists exactly one."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; a server without keys needs none."""
    concurrency: int = 32
    """Requests under way at a time."""
    timeout: float = 300.0
    """Seconds after which a request without its whole answer is given up, and sent again."""
    retries: int = 6
    """How often a request is sent again."""
    backoff: float = 0.5
    """Seconds before the first repetition; twice as long before each further one."""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url: expected http://... or https://..., got {self.url!r}")
        at_least(1, concurrency=self.concurrency)
        at_least(0, retries=self.retries, backoff=self.backoff)
        positive(timeout=self.timeout)
