"""A byte-level BPE tokenizer for the miniature: small, deterministic, and exact on any text."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from stepdpo.tinymath.story import BOXES, HE, SHE, THINGS, Teller

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
VOCABULARY = 1024
"""At most so many entries; training ends earlier, when every word is one token."""
PIECES = r"'s| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s"
"""Words, single digits and runs of signs, each with the blank before it; every other white space stands alone."""
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


def build() -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same vocabulary every time."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    backend.decoder = decoders.ByteLevel()
    specials = [AddedToken(text, special=True, normalized=False) for text in (START, END, PAD)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_corpus(), trainer=trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _corpus() -> Iterator[str]:
    """Stories of every length, each listed word in its places, and the frames, often enough to be learnt."""
    rng = Random(20240626)
    for _ in range(3000):
        story = Teller(rng).tell(2 + rng.randrange(5))
        yield f"{story.question}\n{story.solution}"
    for _ in range(50):
        for name in (*SHE, *HE):
            yield f"{name} {name}"
        for noun in (*THINGS, *BOXES):
            yield f" {noun}"
        yield from FRAMES
