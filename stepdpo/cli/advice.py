"""What to say of a word that was not understood: the setting, the option or the verb that was meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from stepdpo.cli.shorthands import VERBS, defaults, known_folders
from stepdpo.core.errors import nearest


def unknown(verb: str, key: str, word: str, names: set[str], settings: Callable[[str], Any]) -> str:
    """What to say of a key that the verb does not have. `settings`: of a verb, asked for only where they are needed."""
    part = key.partition(".")[0]
    if part not in names:
        theirs = {other: set(names_in(settings(other))) | set(defaults(other)) for other in VERBS if other != verb}
        if others := [other for other, known in theirs.items() if key in known or part in defaults(other)]:
            near = [name for name in names if name.rpartition(".")[2] == key]
            hint = f"; did you mean {near[0]!r}?" if len(near) == 1 else ""
            return of_others(verb, key, others, word) + hint
        known = {name: other for other, some in theirs.items() for name in some}
        close = get_close_matches(key, known, n=1, cutoff=0.75)
        if close and not get_close_matches(key, names, n=1, cutoff=_likeness(key, close[0])):
            return f"{key}: there is no such setting; `stepdpo {known[close[0]]}` has {close[0]!r}"
    return f"{key}: there is no such setting; {near_name(key, names)}"


def of_others(verb: str, key: str, others: Sequence[str], word: str) -> str:
    """What to say of a setting that other verbs have; a training can be given words for what it starts."""
    said = f"{key}: a setting of {' and '.join(f'`stepdpo {other}`' for other in others)}, not of `stepdpo {verb}`"
    for_whom = {
        "eval": ("then_with", "the evaluations after it"),
        "pairs": ("rounds.pairs_with", "the pairs of a round"),
    }
    if verb == "train":
        where = [
            f'words for {what} go into {place}="{word}"' for other, (place, what) in for_whom.items() if other in others
        ]
        said += "".join(f"; {one}" for one in where)
    return said


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, other, one).ratio()


def near_name(key: str, names: set[str]) -> str:
    """The name meant: one that ends alike, one of the same part, or any."""
    part, _, last = key.rpartition(".")
    same = [n for n in names if n.rpartition(".")[2] == last]
    if same and part:
        # Many parts have a `path` or a `seed`: of several, only a nearly right one is named alone.
        same = get_close_matches(key, same, n=1, cutoff=0.8) or same
    if same:
        return "did you mean " + " or ".join(repr(n) for n in sorted(same)) + "?"
    siblings = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == part}
    close = get_close_matches(last, siblings, n=1, cutoff=0.5) if part else []
    if close:
        return f"did you mean {siblings[close[0]]!r}?"
    if having := _options_with(part, last):
        return f"it belongs to {' and '.join(f'{part}={option}' for option in having)}"
    if part and siblings:
        return f"known in {part}: {', '.join(sorted(siblings))}"
    if part in names:
        return f"there are none in {part}"
    top = {name for name in names if "." not in name}
    return nearest(key, names if get_close_matches(key, names, n=1, cutoff=0.5) else top)


def _options_with(group: str, key: str) -> list[str]:
    """Options of a group that have a setting, as their files tell."""
    files = [file for folder in known_folders() for file in sorted((folder / group).glob("*.yaml"))] if group else []
    return [
        file.stem for file in files if re.search(rf"^{re.escape(key)}:", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]


def names_in(node: Any, prefix: str = "") -> Iterator[str]:
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "_target_":
            continue
        yield f"{prefix}{key}"
        yield from names_in(value, f"{prefix}{key}.")


def in_our_words(error: Exception) -> str:
    """Hydra's message in our words; of one that we do not know, its first line."""
    text = str(error)
    if found := re.search(r"Could not find '([\w/]+)/(\w+)'", text):
        options = [line.strip() for line in text.partition("Available options in")[2].splitlines()[1:]]
        return f"{found[1]}={found[2]}: there is no such option; {nearest(found[2], filter(None, options))}"
    if found := re.search(r"Error merging override (.+)", text):
        why = str(error.__cause__ or "").strip().splitlines()[:1]
        return f"{found[1]}: does not fit" + (f" ({why[0]})" if why else "")
    if found := re.search(r"Could not override '(.+?)'", text):
        return f"{found[1]}: there is no such setting"
    if found := re.search(r"Could not delete (?:from config. )?'(.+?)'", text):
        return f"~{found[1]}: is not there, so it cannot be left out"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
