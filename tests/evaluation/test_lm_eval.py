"""lm-evaluation-harness as a process of its own: words in, figures out; a stand-in script is what is started."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from stepdpo.cli.shorthands import normalise
from stepdpo.core.errors import UserError
from stepdpo.data.templates import NativeTemplate
from stepdpo.evaluation.evaluate import Evaluation, evaluate, refuse_unasked_scorer
from stepdpo.evaluation.lm_eval import LmEval, command
from stepdpo.evaluation.lm_eval_results import accuracy, read_results
from stepdpo.generation.decoding.greedy import Greedy
from stepdpo.generation.decoding.vote import Vote
from stepdpo.generation.transformers import TransformersSampler
from stepdpo.models.load import Pretrained
from stepdpo.report.make import report

MODEL = Pretrained("pkg://tinymath/model")
RESULTS: dict[str, Any] = {
    "results": {
        "sums": {
            "alias": "sums", "exact_match,strict": 0.25, "exact_match_stderr,strict": 0.125,
            "exact_match,flexible": 0.5, "exact_match_stderr,flexible": "N/A", "sample_len": 4,
        },
        "choice": {"alias": " - choice", "acc,none": 0.75, "acc_stderr,none": 0.1},
    },
    "n-shot": {"sums": 3, "choice": 0},
    "n-samples": {"sums": {"original": 12, "effective": 4}, "choice": {"original": 9, "effective": 4}},
}  # fmt: skip
ROWS = [
    {"task": "sums", "metric": "exact_match", "filter": "strict", "value": 0.25, "stderr": 0.125, "n": 4, "shots": 3},
    {"task": "sums", "metric": "exact_match", "filter": "flexible", "value": 0.5, "stderr": None, "n": 4, "shots": 3},
    {"task": "choice", "metric": "acc", "filter": "none", "value": 0.75, "stderr": 0.1, "n": 4, "shots": 0},
]
STAND_IN = """#!{python}
import json, os, pathlib, sys
words = sys.argv[1:]
if words[0] == "-c":  # the question for its version
    if {lacks}:
        sys.exit(1)
    print("0.4.9")
    sys.exit(0)
pathlib.Path({said!r}).write_text(json.dumps([words, sorted(os.environ)]))
if {code}:
    sys.exit({code})
out = pathlib.Path(words[words.index("--output_path") + 1]) / "a__model"
out.mkdir(parents=True)
(out / "results_2026-01-01T00-00-00.json").write_text({results!r})
"""


def stand_in(folder: Path, *, results: Any = RESULTS, code: int = 0, lacks: bool = False) -> str:
    """An interpreter that takes the harness's words and leaves results."""
    path = folder / "python"
    said = str(folder / "said.json")
    path.write_text(
        STAND_IN.format(python=sys.executable, lacks=lacks, said=said, code=code, results=json.dumps(results))
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def run(task: LmEval, folder: Path) -> dict[str, Any]:
    return evaluate(Evaluation(MODEL, task, NativeTemplate(), Greedy(), TransformersSampler()), folder)


def test_the_words_that_it_is_started_with() -> None:
    task = LmEval(("gsm8k", "arc_easy"), "env/bin/python")
    assert command(task, "/m", Path("out")) == [
        "env/bin/python", "-m", "lm_eval", "--model", "hf", "--model_args", "pretrained=/m",
        "--tasks", "gsm8k,arc_easy", "--batch_size", "8", "--output_path", "out",
    ]  # fmt: skip
    full = LmEval(
        ("gsm8k",), "p", limit=5, shots=0, batch_size="auto", chat=True, include_path="mine",
        model_args="dtype=float32", device="cpu",
    )  # fmt: skip
    words = command(full, "/m", Path("out"))
    assert words[words.index("--model_args") + 1] == "pretrained=/m,dtype=float32"
    given = dict(zip(words[3:-1:2], words[4:-1:2], strict=True))
    assert [given[flag] for flag in ("--limit", "--num_fewshot", "--batch_size", "--include_path", "--device")] == [
        "5", "0", "auto", "mine", "cpu",
    ]  # fmt: skip
    assert words[-1] == "--apply_chat_template"


def test_what_it_writes_as_rows() -> None:
    assert read_results(RESULTS) == ROWS
    assert accuracy(ROWS) == 0.25
    assert accuracy([{"metric": "perplexity", "value": 9.0}]) is None


def test_a_run_and_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    folder = tmp_path / "run" / "eval" / "lm_eval-sums"
    summary = run(LmEval(("sums", "choice"), stand_in(tmp_path), name="lm_eval-sums", limit=4), folder)
    words, environment = json.loads((tmp_path / "said.json").read_text())
    assert words[words.index("--model_args") + 1] == f"pretrained={MODEL.folder()}"
    assert "PYTHONPATH" not in environment  # ours would stand before the harness's own packages
    assert "PATH" in environment
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert (summary["kind"], summary["accuracy"], summary["lm_eval"]) == ("lm_eval", 0.25, "0.4.9")
    assert summary["results"] == ROWS
    assert (folder / summary["file"]).is_file()
    report([tmp_path / "run"], None, tmp_path / "report")
    written = (tmp_path / "report" / "report.md").read_text()
    assert "| run | sums | exact_match | strict | 4 | 3 | 0.2500 ± 0.1250 |" in written.replace("\\_", "_")
    assert "| run | sums | exact_match | flexible | 4 | 3 | 0.5000 |" in written.replace("\\_", "_")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lacks": True}, "has no lm_eval; python -m venv"),
        ({"code": 3}, "lm_eval ended with exit code 3"),
        ({"results": {"results": {}}}, "there are no figures in it"),
        ({"results": [1]}, "not the results of lm_eval"),
    ],
)
def test_what_goes_wrong_is_said(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(LmEval(("sums",), stand_in(tmp_path, **given)), tmp_path / "run")


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.python: '.*nowhere' cannot be started \(No such file.*pip install"):
        run(LmEval(("sums",), str(tmp_path / "nowhere")), tmp_path / "run")


def test_what_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match="name at least one task"):
        LmEval((), "p")
    with pytest.raises(ValueError, match="a number or auto"):
        LmEval(("a",), "p", batch_size="many")
    with pytest.raises(UserError, match="problems are the harness's own"):
        LmEval(("a",), "p").problems()
    spec = Evaluation(MODEL, LmEval(("a",), "p"), NativeTemplate(), Vote(), TransformersSampler())
    with pytest.raises(UserError, match="the harness answers in its own way"):
        refuse_unasked_scorer(spec)


def test_the_short_words() -> None:
    assert normalise("eval", ["task=lm_eval:gsm8k,arc_easy", "lm_eval.python=p"], {}) == [
        "task=lm_eval", "task.tasks=[gsm8k,arc_easy]", "task.name='lm_eval-gsm8k-arc_easy'", "task.python=p",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_harness_itself(tmp_path: Path) -> None:
    """On a task of one YAML file, with the miniature; where STEPDPO_LM_EVAL names an interpreter that has it."""
    python = os.environ.get("STEPDPO_LM_EVAL", "")
    if not python:
        pytest.skip("needs STEPDPO_LM_EVAL, an interpreter with lm_eval")
    (tmp_path / "sums.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    (tmp_path / "sums.yaml").write_text(
        "task: my_sums\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'sums.jsonl'}}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
        'generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}\n'
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    task = LmEval(("my_sums",), python, limit=1, include_path=str(tmp_path), device="cpu", batch_size="1")
    summary = run(task, tmp_path / "run")
    assert [(row["task"], row["metric"], row["n"]) for row in summary["results"]] == [("my_sums", "exact_match", 1)]
