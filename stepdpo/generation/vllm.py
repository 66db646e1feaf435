"""Generation in this process with vLLM: paged attention, continuous batches, shared prefixes computed once."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any, ClassVar

from stepdpo.core.errors import UserError
from stepdpo.core.ranges import at_least, positive, within
from stepdpo.core.types import Completion, Sampling
from stepdpo.generation.seeding import check_greedy, numbered_seed, seeds
from stepdpo.models.load import ModelSpec, Pretrained
from stepdpo.tokens.tokenization import encode

NEEDS_VLLM = (
    "sampler=vllm needs vLLM: pip install 'stepdpo[vllm]' on a machine with CUDA; sampler=openai drives a server that "
    "runs elsewhere"
)
NEEDS_CHECKPOINT = "sampler=vllm reads a checkpoint; model=fresh has none"


class Dtype(Enum):
    auto = "auto"
    """As the checkpoint was saved; float32 becomes a half precision."""
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(frozen=True)
class VllmSampler:
    """Opens a model folder or hub model with vLLM, on one or several GPUs of this machine."""

    tensor_parallel: int = 1
    """GPUs that share each layer."""
    dtype: Dtype = Dtype.auto
    memory: float = 0.9
    """Share of each GPU's memory that vLLM takes."""
    context: int | None = None
    """Longest text, prompt and response together, in tokens; null: what the model has positions for."""
    prefix_caching: bool = True
    """Keep keys and values of shared beginnings between calls."""
    eager: bool = False
    """Leave out CUDA graphs: a quicker start, slower generation."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of vllm.LLM; one given here replaces ours."""
    progress: bool = True

    package: ClassVar[tuple[str, str]] = ("vllm", NEEDS_VLLM)
    """What is imported once it is opened, and what is said where that is missing."""

    def __post_init__(self) -> None:
        at_least(1, tensor_parallel=self.tensor_parallel, context=self.context)
        positive(memory=self.memory)
        within(0, 1, memory=self.memory)

    @property
    def devices(self) -> int:
        """GPUs that it takes."""
        return self.tensor_parallel

    @contextmanager
    def open(self, model: ModelSpec) -> Iterator[LocalVllm]:
        """Load the model. UserError where vLLM is not installed or the model is no checkpoint."""
        vllm = _library()
        if not isinstance(model, Pretrained):
            raise UserError(NEEDS_CHECKPOINT)
        given: dict[str, Any] = {
            "model": model.source,
            "revision": model.revision,
            "trust_remote_code": model.trust_remote_code,
            "tensor_parallel_size": self.tensor_parallel,
            "dtype": self.dtype.value,
            "gpu_memory_utilization": self.memory,
            "max_model_len": self.context,
            "enable_prefix_caching": self.prefix_caching,
            "enforce_eager": self.eager,
            "seed": 0,  # of its own numbers; every prompt brings a seed with its parameters
            **self.options,
        }
        sampler = LocalVllm(vllm, vllm.LLM(**given), model.tokenizer(), self.progress, given)
        try:
            yield sampler
        finally:
            del sampler.llm  # its processes and memory go with it
            gc.collect()  # the GPU's memory is wanted again in this process, by training or by another model


class LocalVllm:
    """A model loaded by vLLM. Prompts are given as the tokens that training would make of them."""

    def __init__(self, vllm: ModuleType, llm: Any, tokenizer: Any, progress: bool, given: dict[str, Any]) -> None:
        self.vllm, self.llm, self.tokenizer, self.progress, self.given = vllm, llm, tokenizer, progress, given
        self.context = int(llm.llm_engine.model_config.max_model_len)

    @property
    def provenance(self) -> dict[str, Any]:
        """What a result depends on besides the prompts: for the record."""
        return {
            "sampler": "vllm",
            "dtype": str(self.llm.llm_engine.model_config.dtype).removeprefix("torch."),
            "tensor_parallel": self.given["tensor_parallel_size"],
            "versions": {"vllm": self.vllm.__version__},
        }

    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        """`params.n` completions a prompt, in the order of the prompts; a prompt without room gets empty ones."""
        check_greedy(params)
        done = [[Completion("", 0, "length")] * params.n for _ in prompts]
        places, inputs, settings = [], [], []
        for place, ((ids, _), seed) in enumerate(
            zip(encode(prompts, self.tokenizer), seeds(prompts, params.seed, streams), strict=True)
        ):
            room = min(params.max_tokens, self.context - len(ids))
            if room > 0:
                places.append(place)
                inputs.append({"prompt_token_ids": ids})
                settings.append(self.vllm.SamplingParams(**sampling_params(params, room, numbered_seed(seed, 0))))
        if inputs:
            for place, output in zip(places, self._run(inputs, settings), strict=True):
                done[place] = [completion(one, params) for one in output.outputs]
        return done

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        """Nats of each continuation after its prompt, under the model itself."""
        texts = [prompt + more for prompt, more in zip(prompts, continuations, strict=True)]
        encoded = list(encode(texts, self.tokenizer))
        # One token more than the text is written and thrown away: vLLM always writes.
        settings = self.vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        outputs = self._run([{"prompt_token_ids": ids} for ids, _ in encoded], settings) if encoded else []
        return [
            given_logp(ids, ends, len(prompt), output.prompt_logprobs)
            for prompt, (ids, ends), output in zip(prompts, encoded, outputs, strict=True)
        ]

    def _run(self, inputs: Sequence[Any], settings: Any) -> list[Any]:
        outputs: list[Any] = self.llm.generate(list(inputs), settings, use_tqdm=self.progress)
        return outputs


def sampling_params(params: Sampling, room: int, seed: int) -> dict[str, Any]:
    """The arguments of vllm.SamplingParams for one prompt; its responses take `seed`, `seed` + 1, ..."""
    return {
        "n": params.n,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "max_tokens": room,
        "stop": list(params.stop) or None,
        "seed": seed if params.temperature else None,
        "logprobs": 0 if params.logps else None,
    }


def completion(output: Any, params: Sampling) -> Completion:
    """One response, from vLLM's record of it. RuntimeError for one that vLLM gave up."""
    if output.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended a response by {output.finish_reason!r}")
    finish = "length" if output.finish_reason == "length" else "stop" if isinstance(output.stop_reason, str) else "eos"
    logp = output.cumulative_logprob if params.logps else None
    return Completion(output.text, len(output.token_ids), finish, logp)


def given_logp(ids: Sequence[int], ends: Sequence[int], prompt: int, told: Sequence[Any]) -> float:
    """Nats of the tokens that end after character `prompt`; `told` has a token -> logprob mapping a position."""
    scored = [i for i, end in enumerate(ends) if end > prompt and i > 0]
    return float(sum(told[i][ids[i]].logprob for i in scored))


def _library() -> ModuleType:
    try:
        import vllm
    except ImportError as error:
        if getattr(error, "name", None) != "vllm":
            raise UserError(f"sampler=vllm: vLLM cannot be loaded here ({error})") from error
        raise UserError(NEEDS_VLLM) from None
    module: ModuleType = vllm
    return module
