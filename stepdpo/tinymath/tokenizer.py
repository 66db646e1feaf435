"""A byte-level BPE tokenizer for the miniature: small, deterministic, and able to write any text.

It is a Qwen2 tokenizer with a vocabulary of its own: transformers and vLLM choose the class by the model's
architecture, so any other way of cutting text into words would be lost when the checkpoint is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend
from transformers import Qwen2Tokenizer

from stepdpo.tinymath.story import BOXES, HE, SHE, THINGS, Teller

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 1024
"""At most so many entries; training ends earlier, when every word is one token."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
FRAMES = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n\n\n### Response:",
    "user\nassistant\nsystem\nYou are a helpful assistant.\nUser: Assistant: User: Assistant:",
    "Please reason step by step, and put your final answer within \\boxed{}.",
    "Let's think step by step.\nStep 1: Step 2: Step 3:\nThe answer is: #### $ $ \\frac \\text",
)
"""Text around questions and solutions: the prompt templates and the step phrases."""


SEED = 20240626
"""Of the stories. Any number would do, but another one gives another vocabulary than the shipped model's."""
STORIES, REPEATS = 3000, 50
"""Stories, and times that every listed word and frame comes besides: set by hand, so that rare words become tokens too.
As the seed they are a part of what the vocabulary is."""


def build() -> Qwen2Tokenizer:
    """Train the tokenizer; the same vocabulary every time."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer  # words, single digits, runs of signs
    backend.decoder = decoders.ByteLevel()
    specials = [AddedToken(text, special=True, normalized=False) for text in (PAD, START, END)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_corpus(), trainer=trainer)
    # Only vocabulary and merges are kept: how text is split into words has to be Qwen2's own.
    learnt = json.loads(backend.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(merge) for merge in learnt["merges"]],  # type: ignore[misc]
        unk_token=PAD,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        padding_side="left",  # a response goes on where its prompt ends, at the right edge
    )


def _corpus() -> Iterator[str]:
    """Stories of every length, each listed word in its places, and the frames, often enough to be learnt."""
    rng = Random(SEED)
    for _ in range(STORIES):
        story = Teller(rng).tell(2 + rng.randrange(5))
        yield f"{story.question}\n{story.solution}"
    for _ in range(REPEATS):
        for name in (*SHE, *HE):
            yield f"{name} {name}"
        for noun in (*THINGS, *BOXES):
            yield f" {noun}"
        yield from FRAMES
