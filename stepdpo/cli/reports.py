"""Reports on runs: of the verb `report`, of one training, of all jobs of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stepdpo.core.errors import UserError, nearest


def report_runs(
    names: Sequence[str],
    base: str | None,
    control: str | None,
    root: Path,
    *,
    focus: str | None = None,
    out: Path | None = None,
) -> None:
    """`stepdpo report`: names or folders; a sweep's folder stands for its jobs. Written into the first, or `out`."""
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is no folder")
    folders = [find_run(name, root) for name in names]
    jobs = [job for folder in folders for job in (sorted(folder.glob("job-*")) or [folder])]
    against, held = (
        find_run(name, root, names, f"--{flag} ") if name else None
        for flag, name in (("base", base), ("control", control))
    )
    chosen = _one_of(focus, folders, jobs, root) if focus else None
    report_on(jobs, out or folders[0], against, held, chosen)


def report_sweep(sweep: Path, folders: Sequence[Path]) -> None:
    """One report over all jobs of a sweep that were evaluated."""
    evaluated = [folder for folder in folders if (folder / "eval").is_dir()]
    if evaluated:
        report_on(evaluated, sweep)
        print(f"report over {len(evaluated)} jobs: {sweep / 'report.md'}")
    else:
        print(f"{len(folders)} jobs in {sweep}; then=[TASK] evaluates each and reports on all")


def report_on(
    folders: Sequence[Path], out: Path, base: Path | None = None, control: Path | None = None, focus: Path | None = None
) -> None:
    """Write and print the report of some runs."""
    from stepdpo.report.make import report  # scipy: the process that starts the workers does without until then

    report(folders, base, out, control, focus)


def _one_of(focus: str, folders: Sequence[Path], jobs: Sequence[Path], root: Path) -> Path:
    """The run that is meant, which is one of those reported on: by its name, or its folder."""
    for place in (root / focus, Path(focus)):
        if place.resolve() in {job.resolve() for job in jobs}:
            return place
    names = {job.name for job in jobs} | {str(folder) for folder in folders}
    raise UserError(f"--focus {focus}: is none of the runs; {nearest(focus, names)}")


def find_run(name: str, root: Path, others: Sequence[str] = (), flag: str = "") -> Path:
    """A run by its name below `root`, or by its folder; UserError names the nearest, `others` among them."""
    for place in (root / name, Path(name)):
        if place.is_dir():
            return place
    known = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    raise UserError(f"{flag}{name}: no such run; {nearest(name, [*known, *others])}")
