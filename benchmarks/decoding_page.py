"""The measured parts of docs/decoding.md, between its markers, and its picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.decoding_picture import svg
from benchmarks.demo_page import table

PAGE = Path("docs/decoding.md")
PICTURE = PAGE.parent / "img/decoding.svg"


def write(found: Mapping[str, Any]) -> None:
    """Replace what stands between `<!-- bench-decoding NAME -->` and `<!-- end -->`; KeyError for an unknown name."""
    parts = tables(found)
    text = re.sub(
        r"(<!-- bench-decoding ([\w-]+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{parts[match[2]]}\n\n{match[3]}" if match[2] in parts else match[0],
        PAGE.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    PAGE.write_text(text, encoding="utf-8")
    PICTURE.write_text(picture(found["decoders"]), encoding="utf-8")
    print(f"{PAGE} and {PICTURE} are written", flush=True)


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """By the names of the markers; of what was measured."""
    made = {
        "decoders": _decoders, "heads": _heads, "speed": _speed, "resumed": _resumed, "localisation": _localisation
    }  # fmt: skip
    of = {"heads": "decoders"}
    parts = {name: make(found[of.get(name, name)]) for name, make in made.items() if of.get(name, name) in found}
    return parts | {"machine": f"Measured on {found['machine']}."}


def _decoders(found: Mapping[str, Any]) -> str:
    head = [
        "",
        "problems",
        "accuracy",
        "generated",
        "scored",
        "calls",
        "CPU s",
        "above greedy",
        "gained, lost",
        "p",
    ]
    rows = []
    for row in found["rows"]:
        against = row.get("against")
        compared = (
            [f"{100 * against['delta']:+.1f}", f"{against['gained']:.0f}, {against['lost']:.0f}", f"{against['p']:.2g}"]
            if against
            else ["", "", ""]
        )
        rows.append([
            row["about"], str(row["n"]),
            f"{100 * row['accuracy']:.1f} ± {100 * row['stderr']:.1f}", f"{row['generated_tokens']:,.0f}",
            f"{row['scored_tokens']:,.0f}", f"{row['calls']:.1f}", f"{row['cpu']:.2f}", *compared,
        ])  # fmt: skip
    note = (
        "Percent of test problems (the dear decoders answer the first of them alone) ± standard error; tokens, calls "
        "and CPU seconds are means a problem, seconds with the start of the command and the loading of models. A row "
        "is compared with the greedy answers of its own model to the same problems; p is of McNemar's exact test, of a "
        "vote with ties of a paired bootstrap."
    )
    return f"{table(head, rows)}\n\n{note}"


def _heads(found: Mapping[str, Any]) -> str:
    rows = []
    grid = found["heads"]
    for cell in [*grid["cells"], grid["base"]]:
        name = f"`{' '.join(cell['words'])}`" if cell in grid["cells"] else cell["words"][0]
        how = {"last": "last step", "min": "lowest so far"}[cell["aggregate"]]
        shown = f"**{cell['auc']:.3f}**" if cell == grid["chosen"] else f"{cell['auc']:.3f}"
        rows.append([name, how, shown, f"{cell['ranked']:.3f}"])
    note = (
        f"{found['searched']} problems searched, {found['epochs']} epochs; by the exact checker, over solutions to "
        f"{found['heldout']} held-out problems: AUC of right against wrong beginnings, and how often of two beginnings "
        "between which a search may choose (of one problem, of as many steps, right up to the last) the right one is "
        f"above: {grid['base']['pairs']:,} pairs. The setting in bold is used."
    )
    return f"{table(['setting', 'value of', 'AUC', 'ranked well'], rows)}\n\n{note}"


def _speed(found: Mapping[str, Any]) -> str:
    about = {
        "ours": "`stepdpo eval`", "batch": "`generate`, batches of 32", "alone": "`generate`, one by one"
    }  # fmt: skip
    n = {"ours": found["problems"], "batch": found["problems"], "alone": found["alone"]}
    rows = []
    for name, side in found["sides"].items():
        same = f"{found['same'][name]} of {n[name]}" if name in found["same"] else ""
        times = [f"{side['times']:.1f} x", f"{side['cpu_times']:.1f} x"] if name != "ours" else ["", ""]
        rows.append([about[name], str(n[name]), f"{side['rate']:.1f}", f"{side['cpu_rate']:.1f}", *times, same])
    rounds = f"Medians of {found['rounds']} interleaved rounds" if found["rounds"] > 1 else "One round"
    head = ["", "problems", "a second", "a CPU second", "times ours", "times ours, CPU", "same response"]
    note = (
        f"{rounds}, one thread, float32, {found['tokens']:.0f} tokens a response. The seconds of `stepdpo eval` "
        "include the loading of the model, its CPU seconds the whole command; those of `generate` include neither. "
        "Where others use the machine too, the CPU seconds are the ones to believe."
    )
    return f"{table(head, rows)}\n\n{note}"


def _resumed(found: Mapping[str, Any]) -> str:
    whole, again = found["whole"], found["again"]
    same = "the same" if found["same"] else "not the same"
    return (
        f"Of {found['problems']} problems, killed with {found['kept']} written: the model was then asked for "
        f"{again['responses']} responses, {again['tokens']:,} tokens; an evaluation that is not stopped asks for "
        f"{whole['responses']}, {whole['tokens']:,} tokens. The responses are {same}."
    )


def _localisation(found: Mapping[str, Any]) -> str:
    rules = list(dict.fromkeys(rule for row in found["rows"].values() for rule in row))
    rules = [rule for rule in rules if rule != "place"]
    rows = []
    for name, row in found["rows"].items():
        shown = [_rate(row[rule]) if rule in row else "" for rule in rules]
        if "place" in row:
            shown[0] = _rate(row["place"])
        one = next(iter(row.values()))
        compared = f"{one['gained']}, {one['lost']}, {one['p']:.1g}" if one["gained"] or one["lost"] else ""
        rows.append([name, *shown, compared])
    first = next(iter(found["rows"]))
    note = (
        f"Percent of {found['n']} wrong solutions to {found['problems']} problems, of {found['steps']:.1f} steps "
        f"(chance {100 * found['chance']:.1f}), with Wilson's 95 % intervals. The last column: the first rule of a row "
        f"against that of {first}; gained, lost, p. Roll-outs take {found['rollout_tokens']:,.0f} tokens a solution."
    )
    return f"{table(['by', *rules, f'against {first}'], rows)}\n\n{note}"


def _rate(rate: Mapping[str, float]) -> str:
    return f"{100 * rate['share']:.1f} ({100 * rate['ci_low']:.1f} to {100 * rate['ci_high']:.1f})"


def picture(found: Mapping[str, Any]) -> str:
    """Every row at the tokens it generates; those of n samples at 1, 2, 4, ... of them too."""
    return svg([{"name": row["about"], "points": _points(row)} for row in found["rows"]], "tokens generated a problem")


def _points(row: Mapping[str, Any]) -> Sequence[tuple[float, float, float]]:
    curve = row.get("curve") or {}
    whole = max(map(int, curve), default=1)
    points = [
        (row["generated_tokens"] * int(k) / whole, one["value"], one["stderr"])
        for k, one in curve.items()
    ]  # fmt: skip
    return points or [(row["generated_tokens"], row["accuracy"], row["stderr"])]
