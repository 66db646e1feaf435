"""A run folder -> the model card of its export: data, recipe and results, as the hub reads them and as people do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from omegaconf import OmegaConf

import stepdpo
from stepdpo.core.config_file import load_config
from stepdpo.core.errors import UserError
from stepdpo.evaluation.statistics import counted
from stepdpo.report.render import escape, markdown_table
from stepdpo.report.tables import read_evaluations, run_rows, settings
from stepdpo.runtime.atomic_io import read_json
from stepdpo.runtime.manifest import MANIFEST
from stepdpo.runtime.run_folder import ATTEMPTS, CONFIG, DATA, SUMMARY
from stepdpo.runtime.secrets import redact, redact_text

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
PACKAGES = ("torch", "transformers", "deepspeed", "peft", "bitsandbytes")


@dataclass(frozen=True)
class Exported:
    """What is known of an export besides its run."""

    name: str
    base: str
    """Hub id or folder; empty for a model that was made."""
    licence: str
    weights: str
    """A sentence: what was written, in which number format."""
    prompts: str
    """A sentence: how it is asked."""
    example: str
    """A prompt as text; may be empty."""
    adapter: bool
    """Whether it is an adapter alone."""
    value_head: bool = False


def model_card(run: Path, training: Path, export: Exported) -> str:
    """README.md with its metadata. `training`: the folder that holds the data's facts; that of a run, but for rounds.

    Nothing in it is a secret: texts go through the same filter as whatever else is written. Raises UserError for
    evaluations or a configuration that cannot be read.
    """
    if export.licence and not _LICENCE.fullmatch(export.licence):
        raise UserError(f"license: expected one of the hub's words, such as apache-2.0, got {export.licence!r}")
    rows = _results(run)
    named = settings(training)
    recipe: Any = redact(OmegaConf.to_container(load_config(training / CONFIG), resolve=False))
    data = ModelCardData(
        base_model=export.base if on_hub(export.base) else None,
        base_model_relation="adapter" if export.adapter else "finetune" if on_hub(export.base) else None,
        datasets=_dataset_ids(recipe),
        library_name="peft" if export.adapter else "transformers",
        license=export.licence or None,
        model_name=export.name,
        pipeline_tag="text-generation",
        tags=list(filter(None, ["stepdpo", named["algo"], f"level-{named['level']}" if named["level"] else ""])),
        eval_results=[_metric(row) for row in rows] or None,
    )
    if not rows:
        data.pop("model_name")  # it is of the results
    sections = (
        _opening(export, named), _prompting(export), _data(training), _recipe(training, recipe), _table(rows),
        _licence(export),
    )  # fmt: skip
    body = redact_text("\n\n".join(filter(None, sections)))
    return str(ModelCard(f"---\n{redact_text(data.to_yaml())}\n---\n\n{body}\n"))


def on_hub(name: str) -> bool:
    """Whether a name is a hub id and no folder of this machine."""
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


def _results(run: Path) -> Sequence[Mapping[str, Any]]:
    """A row for every evaluation and grader; none for a run that was never evaluated."""
    if not any((run / "eval").rglob(SUMMARY)):
        return []
    return run_rows(run.name, run, read_evaluations(run), [])


def _metric(row: Mapping[str, Any]) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type=row["task"],
        dataset_name=row["task"],
        metric_type="accuracy",
        metric_name=f"accuracy ({row['grader']} grader, decode={row['decode']})",
        metric_value=row["accuracy"],
        metric_args={
            "n": row["n"], "correct": row["correct"], "ci_low": row["ci_low"], "ci_high": row["ci_high"],
            "confidence": 0.95, "interval": "Wilson", "grader": row["grader"], "decode": row["decode"],
            "template": row["template"],
        },
    )  # fmt: skip


def _opening(export: Exported, named: Mapping[str, str]) -> str:
    base = f" from {escape(_shown(export.base))}" if export.base else ""
    how = ", ".join(f"{group} {escape(named[group])}" for group in ("algo", "level", "template") if named[group])
    lines = [f"# {escape(export.name)}", f"Trained by stepdpo{base} ({how}). {escape(export.weights)}"]
    if export.value_head:
        lines.append(
            "`value_head.safetensors` is a linear layer that gives a number to every step, from the hidden state at "
            "its last token; what squashes it stands in the file's metadata. Programs that do not know it open the "
            "model without it."
        )
    return "\n\n".join(lines)


def _prompting(export: Exported) -> str:
    text = f"## Prompts\n\n{escape(export.prompts)}"
    return f"{text}\n\n{_fenced(export.example)}" if export.example else text


def _data(training: Path) -> str:
    path = training / DATA
    if not path.is_file():
        return "## Data\n\nHow many rows there were is not known: an earlier version of stepdpo trained it."
    found = read_json(path)
    try:
        left_out = sum(found["left_out"].values())
        lines = {
            **{str(name): f"{count:,}" for name, count in found["rows"].items()},
            f"{found['unit']} trained on": f"{found['trained_on']:,}",
            "left out": f"{left_out:,}",
            "tokens (shared ones once)": f"{found['tokens']:,}",
            "fingerprint": str(found["fingerprint"]),
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: not what a training writes ({type(error).__name__}: {error})") from error
    table = markdown_table({"data": list(lines), "": list(lines.values())})
    return f"## Data\n\n{table}\n\nThe fingerprint is a hash of what was read and what was scored, in order."


def _recipe(training: Path, recipe: Any) -> str:
    path = training / MANIFEST
    started = read_json(path) if path.is_file() else {}
    versions = started.get("versions") or {}
    known = [f"stepdpo {started.get('stepdpo', stepdpo.__version__)}"]
    known += [f"{name} {versions[name]}" for name in PACKAGES if name in versions]
    return f"## Recipe\n\n{escape(', '.join(known))}\n\n{_fenced(OmegaConf.to_yaml(OmegaConf.create(recipe)), 'yaml')}"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "## Results\n\nIt was not evaluated."
    cells = {
        "task": [str(row["task"]) for row in rows],
        "decode": [str(row["decode"]) for row in rows],
        "grader": [str(row["grader"]) for row in rows],
        "accuracy": [f"{row['accuracy']:.1%}" for row in rows],
        "95 %": [f"{row['ci_low']:.1%} to {row['ci_high']:.1%}" for row in rows],
        "n": [f"{row['n']:,}" for row in rows],
        "no answer": [counted(row["unparsed"]) for row in rows],
        "cut": [counted(row["truncated"]) for row in rows],
    }
    return (
        f"## Results\n\n{markdown_table(cells)}\n\nWilson intervals. `no answer`: responses in which none was found; "
        f"`cut`: responses that ran into the limit of tokens. Graders as stepdpo has them (`{ATTEMPTS}` of the run)."
    )


def _licence(export: Exported) -> str:
    if export.licence:
        return ""
    return (
        "## Licence\n\nNot stated by whoever exported it. What the base's and the data's licences ask for holds; "
        "`stepdpo export ... license=apache-2.0` states one here."
    )


def _dataset_ids(recipe: Any) -> list[str] | None:
    found = (recipe.get("dataset") or {}).get("path") if isinstance(recipe, dict) else None
    return [found] if isinstance(found, str) and on_hub(found) else None


def _shown(base: str) -> str:
    """A hub id as it is, a folder of this machine by its last name."""
    return base if on_hub(base) else f"a local model, {Path(base).name}"


def _fenced(text: str, language: str = "") -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"
