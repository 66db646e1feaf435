"""Models and tokenizers from a folder, the hub, or from scratch; the only place that calls `from_pretrained`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging
from transformers.utils.hub import cached_file

from stepdpo.core.errors import UserError
from stepdpo.core.package_data import PREFIX, packaged
from stepdpo.core.ranges import at_least
from stepdpo.models.chat_template import bound_chat_templates
from stepdpo.models.fingerprint import fingerprint
from stepdpo.models.integrity import refuse_damaged, refuse_incomplete, refuse_not_finite

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ModelSpec(Protocol):
    """A part of the group `model`: where a causal language model and its tokenizer come from."""

    @property
    def source(self) -> str:
        """Folder or hub id; what a template's card and a report know the model by."""

    def tokenizer(self) -> Any:
        """Its tokenizer, as transformers has it."""

    def model(self, attention: str, dtype: torch.dtype) -> Any:
        """The model as transformers has it, weights in `dtype`, with the attention backend of that name."""

    def fingerprint(self) -> str:
        """What tells its weights from others'."""

    def folder(self) -> Path | None:
        """Where its files lie on this machine; None for a model that is made and not loaded."""


@dataclass(frozen=True)
class Pretrained:
    """A causal language model in Hugging Face format."""

    path: str
    """Folder, hub id, or `pkg://...` for what ships with stepdpo."""
    revision: str | None = None
    trust_remote_code: bool = False
    """Running code from a model repository; off unless asked, and then a revision must be pinned."""

    def __post_init__(self) -> None:
        if self.trust_remote_code and not self.revision:
            raise ValueError("trust_remote_code=true needs model.revision: code that may change must not be run")

    @property
    def source(self) -> str:
        return packaged(self.path)

    def fingerprint(self) -> str:
        """Hash of the weights, wherever they lie."""
        self._look()
        return fingerprint(self.folder())

    def folder(self) -> Path:
        """The folder itself, or the one in the cache of the hub."""
        if Path(self.source).is_dir():
            return Path(self.source)
        return Path(str(cached_file(self.source, "config.json", revision=self.revision))).parent

    def tokenizer(self) -> Any:
        self._look()
        bound_chat_templates()
        try:
            return AutoTokenizer.from_pretrained(
                self.source, revision=self.revision, trust_remote_code=self.trust_remote_code
            )
        except Exception as error:  # the library in Rust raises nothing narrower
            raise UserError(f"model: no tokenizer in {self.path!r} ({_first_line(error)})") from error

    def model(self, attention: str, dtype: torch.dtype) -> Any:
        """The model with the given attention backend, set once and never changed."""
        self._look()
        try:
            config = AutoConfig.from_pretrained(
                self.source, revision=self.revision, trust_remote_code=self.trust_remote_code
            )
            # Some attentions read their dropout from the configuration at every call, where no nn.Dropout can be found.
            for key in ("attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop", "attn_pdrop"):
                if hasattr(config, key):
                    setattr(config, key, 0.0)
            with _without_report():
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    self.source,
                    config=config,
                    revision=self.revision,
                    trust_remote_code=self.trust_remote_code,
                    dtype=dtype,
                    attn_implementation=attention,
                    use_safetensors=True,  # the other format is a pickle, which runs code when it is opened
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # refused below, by name
                )
        except KeyError as error:
            # Of a model that looks its attention up in a list of its own, and not among those registered.
            if error.args != (attention,):
                raise
            raise UserError(
                f"model: {self.path!r} has an attention of its own, which cannot read token trees"
            ) from error
        # RuntimeError: other shapes, at ZeRO 3, which has an account of its own.
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"model: cannot load {self.path!r} ({_first_line(error)})") from error
        model, found = loaded
        refuse_incomplete(found, self.path)
        refuse_not_finite(model, self.path)
        return without_dropout(model)

    def _look(self) -> None:
        """UserError for a folder that cannot be a model; what the hub has is looked at when it is loaded."""
        if self.path.startswith(("/", ".", "~", PREFIX)) or Path(self.source).is_dir():
            refuse_damaged(Path(self.source), self.path)


@dataclass(frozen=True)
class Fresh:
    """A small Qwen2-architecture model with random weights and the tinymath tokenizer."""

    hidden_size: int = 160
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    intermediate_size: int = 448
    max_positions: int = 1024
    seed: int = 0
    """Seed of the weights."""

    def __post_init__(self) -> None:
        at_least(1, hidden_size=self.hidden_size, layers=self.layers, heads=self.heads)
        at_least(1, key_value_heads=self.key_value_heads, intermediate_size=self.intermediate_size)
        at_least(2, max_positions=self.max_positions)
        at_least(0, seed=self.seed)
        if self.hidden_size % (2 * self.heads):  # positions are told by pairs of numbers in a head
            raise ValueError(f"hidden_size must be a multiple of 2 * heads, which is {2 * self.heads}")
        if self.heads % self.key_value_heads:
            raise ValueError(f"key_value_heads must divide heads, which is {self.heads}, got {self.key_value_heads}")

    @property
    def source(self) -> str:
        return "fresh"

    def fingerprint(self) -> str:
        """Everything the weights depend on."""
        return f"{self!r} torch {torch.__version__} transformers {transformers.__version__}"

    def folder(self) -> None:
        """None: it is made."""

    def tokenizer(self) -> Any:
        from stepdpo.tinymath.tokenizer import build

        return build()

    def model(self, attention: str, dtype: torch.dtype) -> Any:
        tokenizer = self.tokenizer()
        torch.manual_seed(self.seed)  # the weights are drawn from the global generator when the model is built
        config = Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            intermediate_size=self.intermediate_size,
            max_position_embeddings=self.max_positions,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        config._attn_implementation = attention
        model: Any = Qwen2ForCausalLM(config)
        return without_dropout(model.to(dtype))


def without_progress_bars() -> None:
    """A worker's output is a log, and transformers draws bars while it loads."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def _without_report() -> Iterator[None]:
    """Transformers says at length which weights it made up; `integrity` refuses them in a line."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)


def without_dropout(model: Any) -> Any:
    """Preference losses compare two passes of the same weights: no dropout in either."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def must_exist(path: str, source: str, where: str = "model") -> None:
    """UserError for a path that is plainly one of this machine and leads to no model."""
    plainly = path.startswith(("/", ".", "~", PREFIX)) or path.count("/") > 1  # a hub id is `owner/name`
    if plainly and not Path(source).is_dir():  # what is wrong with a folder that is there, `refuse_damaged` says better
        raise UserError(f"{where}: {path!r} holds no config.json; it should be a folder in Hugging Face format")


def _first_line(error: Exception) -> str:
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    return f"{first} {more[0].strip()}" if more and first.endswith(":") else first
