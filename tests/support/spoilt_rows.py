"""Rows of every format, and ways to spoil them: wrong types, huge numbers, half characters, other columns."""

from __future__ import annotations

from random import Random
from typing import Any


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


GOOD: list[dict[str, Any]] = [
    {"question": "2 + 3?", "prefix": "Step 1:", "chosen": " 5", "rejected": " 6", "confidence": 0.9, "meta": {"a": [1]},
     "history": turns("A", "Again.")[::-1], "chosen_value": 0.5, "whole": True},
    {"prompt": "2 + 3?", "initial_reason_steps": "Let's think step by step.\nStep 1:", "chosen": " 5", "rejected": " 6",
     "full_chosen": " 5\nStep 2: 5", "full_rejected": " 6\nStep 2: 6", "answer": "5", "dataset": "x"},
    {"trajectory": [{"from": "user", "value": "Q"}], "chosen": "5", "rejected": "6", "id": "a_5_1",
     "parent_id": "a_5_0"},
    {"prompt": turns("Q"), "chosen": turns("Q", "5")[1:], "rejected": turns("Q", "6")[1:]},
    {"chosen": turns("Q", "5"), "rejected": turns("Q", "6")},
    {"question": "Q", "answer": "2 + 3\n#### 5"},
    {"instruction": "Q", "input": "2 + 3", "output": "\\boxed{5}"},
    {"messages": [{"role": "system", "content": "S"}, *turns("Q", "5")]},
    {"conversations": turns("Q"), "chosen": turns("Q", "5")[1], "rejected": turns("Q", "6")[1], "system": "S"},
    {"prompt": "2 + 3?", "completions": ["2 + 3 = 5", "\nSo 5."], "labels": [True, False]},
    {"prompt": turns("Q"), "completion": turns("Q", "5")[1:], "label": False},
    {"input": "2 + 3? Step 1: 5 ки\nStep 2: 5 ки", "label": "2 + 3? Step 1: 5 +\nStep 2: 5 -", "task": "x"},
    {"question": {"problem": "2 + 3?", "ground_truth_answer": "5"}, "label": {"finish_reason": "solution", "steps": [
        {"completions": [{"text": "So 5.", "rating": 1}, {"text": "So 6.", "rating": -1}], "chosen_completion": 0},
        {"completions": None, "human_completion": {"text": "# Answer\n\n5", "rating": None}}]}},
    {"question": "2 + 3?", "chosen": "2 + 3 = 5\n5", "rejected": "", "label": 0.5, "chosen_steps": [[9, 1], [11, None]],
     "chosen_weights": [[4, 0.5]]},
]  # fmt: skip
ODD: list[Any] = [
    None, True, False, 0, -1, 10**400, "HUGE", 1e308, float("nan"), float("inf"), "", " \n", "\ud800", "a\x00b",
    "\x1b[31m", "<|im_end|>", "<|im_start|>", "5<|im_end|>", "\\boxed{", "####", "{question}", "日本語 😀", "x" * 5000,
    "chosen", "\u202e",
    [], {}, [[]], [None], {"": ""}, {"role": ["user"]}, {"role": "user"}, [{"from": "gpt", "value": 5}], {"\udc00": 1},
    [{"role": "system", "content": "S"}], [{"role": "assistant", "content": ""}], {"value": float("nan")}, turns("Q"),
    turns("Q", "5"), {"role": "assistant", "content": "5"}, [["a", 1]], {"a": {"b": [{"c": None}]}},
]  # fmt: skip
NAMES = sorted(
    {name for row in GOOD for name in row}
    | {"rejcted", "label", "completion", "\ud83d", "", "answers", "\x1b]0;x", "labels"}
)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def spoilt(random: Random, value: Any) -> Any:
    """The value with one place in it changed."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        name = random.choice(sorted(value))
        kind = random.random()
        if kind < 0.15:
            return {k: v for k, v in value.items() if k != name}
        if kind < 0.3:
            return {**value, random.choice(NAMES): random.choice(ODD)}
        return {**value, name: spoilt(random, value[name])}
    if isinstance(value, list) and value and random.random() < 0.8:
        place = random.randrange(len(value))
        return [*value[:place], spoilt(random, value[place]), *value[place + 1 :]]
    return deep(random.choice([50, 300, 900])) if random.random() < 0.03 else random.choice(ODD)
