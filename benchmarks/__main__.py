"""`python -m benchmarks`: measure, print the tables, write results.json, and bring docs/speed.md up to date."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import Any

import torch

from benchmarks.page import bring_up_to_date
from benchmarks.run import MORE, RESULTS, Plan, results, write
from benchmarks.scaling import curves, recorded
from benchmarks.table import markdown, verdicts

THREADS = 2


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases and pairs, 3 rounds; docs stay as they are")
    parser.add_argument("--rounds", type=int, help="rounds a median is taken of (5, or 3 with --quick)")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="CASE", help="these cases alone; docs stay as they are"
    )
    parser.add_argument("--threads", type=int, default=THREADS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)  # for the processes that measure memory
    os.environ.update(TQDM_DISABLE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")  # TRL draws bars
    warnings.simplefilter("ignore")
    plan = Plan(chosen.quick, chosen.rounds or (3 if chosen.quick else 5), tuple(chosen.only))
    found: list[dict[str, Any]] = []
    for one in results(plan):
        found.append(one)
        write(RESULTS, found)
    if not plan.quick and not plan.only:
        more = {"recorded": recorded(), "curves": curves()}
        write(MORE, more)
        bring_up_to_date(found, more)
    print("\n" + markdown(found))
    for target, value in verdicts(found):
        if value is not None and not target.met(value):
            print(f"misses its target: {target.case} against {target.against}: {value:.3g}, not {target.bound:.3g}")
    print(f"written: {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
