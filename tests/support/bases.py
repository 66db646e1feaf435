"""Tiny models whose files are written as publishers wrote them for transformers 4: Qwen2, Llama 3, DeepSeek."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM

from . import tiny

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""How Llama 3 cuts text into words."""
MODEL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 512, "initializer_range": 0.1, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "rms_norm_eps": 1e-6, "use_cache": True, "hidden_act": "silu",
    "transformers_version": "4.40.0", "bos_token_id": None,
}  # fmt: skip
LLAMA_3 = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rope_theta": 1_000_000.0,
              "sliding_window": 131072, "use_sliding_window": False, "max_window_layers": 21},
    "llama3": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 500_000.0,
               "rope_scaling": LLAMA_3, "attention_bias": False, "pretraining_tp": 1},
    "deepseek": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 20_000.0,
                 "rope_scaling": None, "attention_bias": False, "pretraining_tp": 1, "num_key_value_heads": 4},
}  # fmt: skip
BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
CHAT = "{% for m in messages %}{{ 'User: ' + m['content'] + '\\n\\n' }}{% endfor %}{{ 'Assistant:' }}"


def save(folder: Path, family: str) -> Path:
    """A base of that family, with random weights in bfloat16."""
    tokenizer, settings = {"qwen2": _qwen2, "llama3": _llama3, "deepseek": _deepseek}[family]()
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", settings)
    end = settings["eos_token"]["content"] if isinstance(settings["eos_token"], dict) else settings["eos_token"]
    sizes = {"vocab_size": tokenizer.get_vocab_size() + 8, "eos_token_id": tokenizer.token_to_id(end)}
    config = {**MODEL, **MODELS[family], **sizes}
    _write(folder / "config.json", config)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).to(torch.bfloat16).save_pretrained(folder)
    _write(folder / "config.json", config)  # as it was: saving wrote it in the words of transformers 5
    _write(folder / "generation_config.json", {"eos_token_id": sizes["eos_token_id"], "transformers_version": "4.40.0"})
    return folder


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=4))  # not as transformers 5 indents


def _backend(words: list[Any], names: list[str]) -> Any:
    """The miniature's vocabulary under another way of cutting text into words, with a beginning-of-text token."""
    learnt = json.loads(tiny.tokenizer().backend_tokenizer.to_str())["model"]
    backend = Tokenizer(models.BPE(vocab=learnt["vocab"], merges=[tuple(merge) for merge in learnt["merges"]]))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*words, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    first = names[0]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, backend.token_to_id(first))]
    )
    return backend


def _isolated(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated", False)


def _qwen2() -> tuple[Any, dict[str, Any]]:
    return copy.deepcopy(tiny.tokenizer().backend_tokenizer), {
        "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "unk_token": None, "errors": "replace",
        "tokenizer_class": "Qwen2Tokenizer", "model_max_length": 32768, "chat_template": tiny.tokenizer().chat_template,
    }  # fmt: skip


def _llama3() -> tuple[Any, dict[str, Any]]:
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    return _backend([_isolated(WORDS)], names), {
        "bos_token": names[0], "eos_token": names[2], "clean_up_tokenization_spaces": True, "chat_template": CHAT,
        "model_input_names": ["input_ids", "attention_mask"], "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }  # fmt: skip


def _deepseek() -> tuple[Any, dict[str, Any]]:
    words = [_isolated(r"[\r\n]"), _isolated(r"\s?\p{L}+"), _isolated(r"\s?\p{P}+"), pre_tokenizers.Digits(True)]
    begin, end = (
        {"__type": "AddedToken", "content": name, "lstrip": False, "normalized": True, "rstrip": False,
         "single_word": False}
        for name in (BEGIN, END)
    )  # fmt: skip
    return _backend(words, [BEGIN, END]), {
        "add_bos_token": True, "add_eos_token": False, "bos_token": begin, "eos_token": end, "pad_token": end,
        "legacy": True, "model_max_length": 4096, "sp_model_kwargs": {}, "unk_token": None,
        "clean_up_tokenization_spaces": False, "tokenizer_class": "LlamaTokenizerFast", "chat_template": CHAT,
    }  # fmt: skip
