"""`--help` of the verbs that take a configuration: examples that run, then every group and its options."""

from __future__ import annotations

from stepdpo.cli.shorthands import defaults
from stepdpo.core.package_data import conf

WHAT = {
    "train": """\
Usage: stepdpo train [-m] [GROUP=OPTION] [KEY=VALUE] ...

Train a model on preferences. With -m, comma-separated values make a sweep with one report at its end.

Examples:
  stepdpo train                                      the embedded miniature, Step-DPO, one minute on a CPU
  stepdpo train algo=tdpo template=alpaca            token-level DPO under the Alpaca template
  stepdpo train -m algo=dpo,tdpo level=step,instance then=[tinymath]
  stepdpo train model=Qwen/Qwen2-7B-Instruct dataset=step_dpo_10k engine.stage=3 run=qwen then=[gsm8k,math]
  stepdpo train rounds=3 pairs=siblings then=[tinymath]
                                                     pairs by the policy, a training on them, and again
  stepdpo train run=qwen resume=true                 with the same words: go on from the last checkpoint""",
    "eval": """\
Usage: stepdpo eval [GROUP=OPTION] [KEY=VALUE] ...

Answer a task's problems and grade them with both graders.

Examples:
  stepdpo eval run=demo                              the model of runs/demo on the miniature's test problems
  stepdpo eval run=qwen task=gsm8k,math
  stepdpo eval model=Qwen/Qwen2-7B-Instruct template=qwen2_boxed task=gsm8k task.path=gsm8k_test.jsonl""",
    "pairs": """\
Usage: stepdpo pairs [GROUP=OPTION] [KEY=VALUE] ...

Make preferences from a model's own solutions; they are written to runs/NAME/preferences.jsonl.

Examples:
  stepdpo pairs task=tinymath n=8 temperature=0.8 limit=1000 run=mine
  stepdpo train dataset=jsonl dataset.path=runs/mine/preferences.jsonl""",
    "inspect": """\
Usage: stepdpo inspect RUN [GROUP=OPTION] [KEY=VALUE] ...

Show how a trained model differs from the one it began from: beta * (log pi - log pi_ref) of every token and step,
chosen beside rejected, and how often the lowest step is the first wrong one. Everything is written to
RUN/inspect/NAME/inspect.jsonl, the figures to summary.json beside it.

Examples:
  stepdpo inspect demo                               pairs of the run's own data
  stepdpo inspect demo dataset=my_pairs.jsonl limit=1000
  stepdpo inspect demo dataset=tinymath level=step   as a loss on steps sees a pair
  stepdpo inspect demo task=tinymath                 its own answers, whose wrong steps an exact checker knows
  stepdpo inspect demo task=tinymath writer=reference samples=4 temperature=1
                                                     the same answers for every run from one base: to compare runs
  stepdpo inspect demo checkpoint=step-000100""",
    "chat": """\
Usage: stepdpo chat RUN|MODEL [--web] [--port N] [GROUP=OPTION] [KEY=VALUE] ...

Ask a model questions. On a terminal every line is one, and the answer is shown as it is written; a model with a value
head, or scorer=, says of every step how promising it is. Answers go to stdout, all else to stderr.
With --web it is a page of this machine instead; its address is printed.

Examples:
  stepdpo chat demo                                  the model of runs/demo
  stepdpo chat tinymath decode=vote decode.n=4       the miniature; the answer that most of four samples give
  stepdpo chat valued decode=step_beam scorer=value_head
  stepdpo chat demo scorer=implicit                  greedy, and how much training has raised each step
  stepdpo chat Qwen/Qwen2-7B-Instruct template=qwen2_boxed
  stepdpo chat demo --web --port 8000
  echo "What is 2 + 3?" | stepdpo chat demo          questions from a pipe, one a line

While it runs: /decode vote n=4, /scorer logprob, /about, /help, /quit.""",
}


def help_for(verb: str) -> str:
    """The help text; imports nothing heavy."""
    # The file's own lines, not its values: the comments beside the settings are what a reader wants.
    root = conf()
    lines = [WHAT[verb], "", "Groups (GROUP=OPTION), and the option used when none is given:"]
    text = (root / f"{verb}.yaml").read_text(encoding="utf-8").splitlines()
    for group, default in defaults(verb).items():
        options = sorted(path.stem for path in (root / group).glob("*.yaml"))
        if options:
            lines.append(f"  {group:<11}{', '.join(options)}  [{default}]")
    lines += ["", "Settings (KEY=VALUE), with their defaults:"]
    start = next(i for i, line in enumerate(text) if line.startswith("_target_"))
    stop = next((i for i, line in enumerate(text) if line.startswith("hydra:")), len(text))
    lines += [f"  {line}".rstrip() for line in text[start + 1 : stop] if line.strip()]
    lines += [
        "",
        "Settings of a part are written GROUP.KEY=VALUE (algo.beta=0.1); `--cfg job` shows them all.",
        "Your own options: --config-dir FOLDER with the same layout. More: --hydra-help.",
    ]
    return "\n".join(lines)
