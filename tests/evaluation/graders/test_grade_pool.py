"""The workers: order, deadlines, recovery, threads, and what a worker may not do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from stepdpo.core.types import CORRECT, WRONG, Grade, Problem
from stepdpo.evaluation.graders.official import Official
from stepdpo.evaluation.graders.pending import CRASH, DIFFERENT, EQUAL, MEMORY, TIMEOUT, Comparison, Pending
from stepdpo.evaluation.graders.pool import Pool, graders
from stepdpo.evaluation.graders.strict import Strict

ROOT = Path(__file__).resolve().parents[3]
BOMB = Comparison("strict", ("10^{10^{10}}",), ("3",))


def ask_strict(pool: Pool, prediction: str, gold: str) -> str:
    return pool.compare(Comparison("strict", (prediction,), (gold,)))


@pytest.fixture
def pool():
    opened = Pool(workers=1, timeout=0.5)
    yield opened
    opened.close()


def test_grades_keep_the_order_of_the_items() -> None:
    items = [(rf"\boxed{{{n}(x+1)}}", Problem("p", "", (f"{n}x+{n}",))) for n in range(2, 30)]
    items[::5] = [(r"\boxed{7}", Problem("p", "", ("7",)))] * len(items[::5])
    items[3] = (r"\boxed{x+5}", Problem("p", "", ("x+6",)))
    with graders() as grade_many:
        verdicts = [grade.verdict for grade in grade_many(items, Strict())]
    assert verdicts == [WRONG if i == 3 else CORRECT for i in range(len(items))]


def test_plain_answers_need_no_process() -> None:
    pool = Pool()
    items = [("The answer is: 5", Problem("p", "", ("5",))), (r"\boxed{\text{Mon}}", Problem("p", "", ("Tue",)))]
    assert [g.verdict for g in pool.grade_many(items, Strict())] == [CORRECT, WRONG]
    assert all(worker.process is None for worker in pool.all)


def test_a_late_comparison_is_wrong_and_the_next_one_is_fine(pool: Pool) -> None:
    assert ask_strict(pool, "x+1", "1+x") == EQUAL
    assert pool.compare(BOMB) == TIMEOUT
    assert ask_strict(pool, "x+2", "2+x") == EQUAL
    assert Pending(BOMB, "box").grade(TIMEOUT) == Grade(WRONG, "10^{10^{10}}", "box; timeout")


def test_time_in_which_a_worker_gets_no_processor_does_not_count() -> None:
    """A comparison that only waits, much longer than its seconds: on a busy machine every one does."""
    code = (
        "import time; from stepdpo.evaluation.graders import worker\n"
        "worker.outcome = lambda *asked: time.sleep(0.6) or 'equal'\n"
        "worker.main(0.2, 1536)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    asked = b'1 ["strict", ["x"], ["x"]]\n'
    done = subprocess.run([sys.executable, "-c", code], env=environment, input=asked, capture_output=True, timeout=60)
    assert done.stdout == b"1 equal\n"


def test_every_worker_hashes_alike(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this process was told: sympy's results may hang on the order of a set."""
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    assert ask_strict(pool, "x+1", "1+x") == EQUAL
    process = pool.all[0].process
    assert process is not None
    assert psutil.Process(process.pid).environ()["PYTHONHASHSEED"] == "0"


def test_an_answer_is_remembered(pool: Pool) -> None:
    pool.compare(BOMB)
    start = time.monotonic()
    assert pool.compare(BOMB) == TIMEOUT
    assert time.monotonic() - start < 0.1


def test_memory_is_bounded() -> None:
    pool = Pool(workers=1, timeout=20, megabytes=64)
    try:
        hungry = Comparison("official", (r"\frac{(x+y+z)^{90}}{x+1}",), (r"\frac{(x+y+z)^{90}}{x+1.00000001}",))
        assert pool.compare(hungry) in (MEMORY, CRASH)
        assert pool.compare(Comparison("official", ("x+2",), ("2+x",))) == EQUAL
    finally:
        pool.close()


def test_a_killed_worker_is_replaced(pool: Pool) -> None:
    assert ask_strict(pool, "x+1", "1+x") == EQUAL
    process = pool.all[0].process
    assert process is not None
    os.killpg(process.pid, 9)
    process.wait()
    assert ask_strict(pool, "x+3", "3+x") == CRASH
    assert ask_strict(pool, "x+4", "4+x") == EQUAL


def test_threads_may_share_a_grader() -> None:
    def verdict(n: int) -> str:
        return Strict().grade(rf"\boxed{{(x+{n})^2}}", Problem("p", "", (f"x^2+{2 * n}x+{n * n}",))).verdict

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(verdict, range(1, 25))) == [CORRECT] * 24


def test_a_grader_without_the_cheap_part_is_simply_called() -> None:
    class Always:
        def grade(self, response: str, problem: Problem) -> Grade:
            return Grade(CORRECT, response, "always")

    with graders() as grade_many:
        assert grade_many([("a", Problem("p", "", ()))], Always()) == [Grade(CORRECT, "a", "always")]


def test_an_unguarded_script_with_a_heavy_main_module(tmp_path: Path) -> None:
    """Workers must not import the caller's main module: here that would count up, and never end."""
    script = tmp_path / "main.py"
    script.write_text(
        "import pathlib\n"
        "pathlib.Path(__file__).with_name('mark').open('a').write('x')\n"
        "from stepdpo.evaluation.graders.strict import Strict\nfrom stepdpo.core.types import Problem\n"
        "print(Strict().grade('x+1', Problem('p', '', ('1+x',))).verdict)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert (run.stdout.strip(), run.stderr, (tmp_path / "mark").read_text()) == ("correct", "", "x")


@pytest.mark.parametrize(
    "module",
    ["stepdpo.evaluation.graders.worker", "stepdpo.evaluation.graders.strict", "stepdpo.evaluation.graders.official"],
)
def test_graders_import_no_torch(module: str) -> None:
    light = "" if module.endswith("worker") else "and 'sympy' not in sys.modules"
    code = f"import sys, {module}; assert 'torch' not in sys.modules {light}"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=60)


def test_strict_and_official_ask_in_their_own_rules(pool: Pool) -> None:
    assert pool.compare(Comparison("official", ("(x+1)^2",), ("(1+x)^2",))) == EQUAL
    assert pool.compare(Comparison("official", ("x+1",), ("x+2",))) == DIFFERENT
    assert Official().grade("The answer is: x+1", Problem("p", "", ("1+x",))).verdict == CORRECT
