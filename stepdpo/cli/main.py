"""The command line. Nothing heavy is imported here: `--help` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

import stepdpo
from stepdpo.cli.job_result import ExitCode
from stepdpo.runtime.terminal import guard_output

app = typer.Typer(
    name="stepdpo",
    help="Step-level preference optimisation: make pairs, train, evaluate, report.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
HYDRA_VERB = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
HELP_WORDS = ("-h", "--help")


def _version(wanted: bool) -> None:
    if wanted:
        print(stepdpo.__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def _taught(verb: str, words: Sequence[str], needs_words: bool = False) -> bool:
    """Whether help was wanted, which is then printed."""
    wanted = any(word in HELP_WORDS for word in words) or (needs_words and not words)
    if wanted:
        from stepdpo.cli.help import help_for

        print(help_for(verb))
    return wanted


def _hydra_verb(verb: str, ctx: typer.Context) -> None:
    if _taught(verb, ctx.args):
        return
    from stepdpo.cli.launch import launch

    with _told():
        code = launch(verb, ctx.args)
    raise SystemExit(code)


@contextmanager
def _told() -> Iterator[None]:
    """What a user can mend, and what failed elsewhere: a line without secrets and the exit code, not a traceback."""
    from stepdpo.core.errors import Outage, UserError, printable
    from stepdpo.runtime.secrets import redact_text

    try:
        yield
    except (UserError, Outage) as error:
        print(f"error: {printable(redact_text(str(error)))}", file=sys.stderr)
        raise SystemExit(ExitCode.USER_ERROR if isinstance(error, UserError) else ExitCode.FAILED) from error


@app.command(context_settings=HYDRA_VERB, add_help_option=False)
def train(ctx: typer.Context) -> None:
    """Train a model on preferences:  stepdpo train algo=tdpo template=alpaca"""
    _hydra_verb("train", ctx)


@app.command(context_settings=HYDRA_VERB, add_help_option=False)
def eval(ctx: typer.Context) -> None:
    """Answer a task's problems and grade them:  stepdpo eval run=demo task=gsm8k,math"""
    _hydra_verb("eval", ctx)


@app.command(context_settings=HYDRA_VERB, add_help_option=False)
def pairs(ctx: typer.Context) -> None:
    """Make preferences from a model's own solutions:  stepdpo pairs task=tinymath n=8"""
    _hydra_verb("pairs", ctx)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="Run names or folders; a sweep's folder stands for its jobs.")],
    base: Annotated[str | None, typer.Option(help="Run or folder to compare with.")] = None,
    control: Annotated[str | None, typer.Option(help="Run to hold the others against, problem by problem.")] = None,
    focus: Annotated[
        str | None, typer.Option(help="One of the runs: what it has over each other, in a sentence.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; else the first run's.")] = None,
    root: Annotated[Path, typer.Option("--runs", help="Where run folders live.")] = Path("runs"),
) -> None:
    """Accuracies with intervals and paired tests, as a table and a picture, printed and written into a folder."""
    from stepdpo.cli.reports import report_runs

    with _told():
        report_runs(runs, base, control, root, focus=focus, out=out)


@app.command()
def grade(
    file: Annotated[Path, typer.Argument(help="JSON Lines with `response` and `answer` (or prediction, gold).")],
    grader: Annotated[str, typer.Option(help="strict, or official (as Step-DPO's evaluation grades).")] = "strict",
    out: Annotated[Path | None, typer.Option(help="Write one verdict a row here.")] = None,
) -> None:
    """Grade any system's answers, one verdict a row, and print the totals."""
    from stepdpo.evaluation.grade_file import grade_file

    with _told():
        grade_file(file, grader, out)


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="A file, a folder, or the name of a dataset option.")],
    level: Annotated[str, typer.Option(help="step or instance: what the examples show as scored.")] = "step",
    task: Annotated[list[str] | None, typer.Option(help="Look for problems shared with these tasks.")] = None,
    max_bad: Annotated[str, typer.Option(help="Share of bad rows that is still accepted.")] = "1%",
    model: Annotated[str | None, typer.Option(help="Say how likely this model finds both sides.")] = None,
    template: Annotated[str, typer.Option(help="What that model reads around a question.")] = "native",
    pairs: Annotated[
        int, typer.Option(min=1, help="So many preferences, evenly spread, that model is asked about.")
    ] = 1000,
    json: Annotated[Path | None, typer.Option(help="Write everything that was found here.")] = None,
    format: Annotated[str, typer.Option(help="How the rows lie, where their columns do not tell.")] = "",
    split: Annotated[str, typer.Option(help="The split of a hub data set, or what the files' names begin with.")] = "",
    columns: Annotated[list[str] | None, typer.Option(help="A column under another name: prompt=query.")] = None,
    config_dir: Annotated[list[Path] | None, typer.Option(help="A folder of options of your own.")] = None,
) -> None:
    """Look at preference data as training would, without training."""
    from stepdpo.cli.check_names import Layout, check_named

    with _told():
        check_named(
            data, level=level, tasks=task or [], max_bad=max_bad, model=model, template=template, model_pairs=pairs,
            out_json=json, layout=Layout(format, split, tuple(columns or ())), folders=config_dir or (),
        )  # fmt: skip


@app.command(context_settings=HYDRA_VERB, add_help_option=False)
def inspect(ctx: typer.Context) -> None:
    """See what a trained model prefers, token by token and step by step:  stepdpo inspect demo task=tinymath"""
    if _taught("inspect", ctx.args, needs_words=True):
        return
    from stepdpo.cli.inspect_names import inspect_named

    with _told():
        inspect_named(ctx.args)


@app.command(context_settings=HYDRA_VERB, add_help_option=False)
def chat(ctx: typer.Context) -> None:
    """Ask a model questions, by any decoder, with the values of its steps:  stepdpo chat demo decode=vote"""
    if _taught("chat", ctx.args, needs_words=True):
        return
    from stepdpo.cli.chat_names import chat_named

    with _told():
        code = chat_named(ctx.args)
    raise SystemExit(code)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Name or folder of a finished training.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="The options below as words: dtype=bfloat16.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder to write; else `export` in the run's.")] = None,
    dtype: Annotated[str | None, typer.Option(help="bfloat16, float16 or float32; else as the model is saved.")] = None,
    merge: Annotated[str | None, typer.Option(help="false: an adapter alone, for peft. Else merged.")] = None,
    shard: Annotated[str | None, typer.Option(help="Most that a file of weights holds; else 5GB.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    license: Annotated[str | None, typer.Option(help="Word for the card, such as apache-2.0; else left open.")] = None,
    base: Annotated[str | None, typer.Option(help="Where others find the base: owner/name, or a folder.")] = None,
    push: Annotated[str | None, typer.Option(help="owner/name on the hub; the token is HF_TOKEN.")] = None,
    private: Annotated[str | None, typer.Option(help="false: a repository that push makes is public.")] = None,
    gguf: Annotated[bool, typer.Option("--gguf", help="Print llama.cpp's command for the folder.")] = False,
    root: Annotated[Path, typer.Option("--runs", help="Where run folders live.")] = Path("runs"),
) -> None:
    """Hand a trained model on:  stepdpo export demo out=my-model dtype=bfloat16

    A folder that transformers, vLLM, SGLang or (merge=false) peft opens, with chat template and model card.
    """
    from stepdpo.cli.export_words import settings

    given = {
        "out": out, "dtype": dtype, "merge": merge, "shard": shard, "force": force, "license": license, "base": base,
        "push": push, "private": private,
    }  # fmt: skip
    with _told():
        wanted = settings(words or (), given)
        from stepdpo.cli.export import export
        from stepdpo.cli.reports import find_run

        export(find_run(run, root), wanted, gguf)


@app.command(name="export-data")
def export_data(
    source: Annotated[str, typer.Argument(help="A file, a folder, a run of pairs, its trees.jsonl, or a data set.")],
    output: Annotated[Path, typer.Option(help="JSON Lines to write.")],
    format: Annotated[
        str,
        typer.Option(help="TRL: stepwise, trl, trl_conversational. LLaMA-Factory: sharegpt, alpaca (ranking)."),
    ] = "stepwise",
    threshold: Annotated[float, typer.Option(help="stepwise: the label from which on a step is right.")] = 0.5,
    level: Annotated[
        str, typer.Option(help="Of pairs: instance, to the end of the solutions; or step, to the end of the step.")
    ] = "instance",
) -> None:
    """Write data for other programs:  stepdpo export-data runs/mine --format trl --output pairs.jsonl"""
    from stepdpo.cli.export_data import export_data

    with _told():
        export_data(source, format, output, threshold, level)


def main() -> None:
    """Console entry."""
    sys.excepthook = _print_failure
    guard_output()
    app()


def _print_failure(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback, whose texts may quote what a command was given, without secrets."""
    from traceback import format_exception

    from stepdpo.runtime.secrets import redact_text

    print(redact_text("".join(format_exception(kind, error, trace))), file=sys.stderr)
