"""Results, tables, plots and the page that shows them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from support import small

from benchmarks import gpu, memory, page, plots, rows, run, table
from benchmarks.cases import NAMES, TARGETS, TITLES, Case
from benchmarks.timing import Measured, Part

TINY = Case("step_dpo_32k", small.SHAPE, "chain", "tdpo2", 2, ("classical", "pairs"), quick=2, epoch=True, exact=1)
NUMBERS = ("ours_s", "theirs_s", "ratio", "flops_ratio", "ours_peak_mb", "theirs_peak_mb", "loss_diff", "floor_ratio")
CURVE = {
    "name": "x",
    "axis": "pairs",
    "points": [{"x": 1, "s": {"ours": 0.5, "pairs": 2.0}}, {"x": 4, "s": {"ours": 1.0, "pairs": 9.0}}],
}


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    return list(run.results(run.Plan(rounds=3, only=(TINY.name,)), [TINY]))


def check(results: list[dict[str, Any]]) -> None:
    """The form that results.json promises."""
    for one in results:
        assert one["case"] in NAMES
        assert one["against"] in TITLES
        for name in NUMBERS:
            assert one[name] is None or (math.isfinite(one[name]) and one[name] >= 0), name
        assert isinstance(one["machine"], str)
        assert {"python", "torch", "transformers", "stepdpo"} <= one["versions"].keys()
        assert (one["ratio"] is None) == (one["against"] == "floor")


def test_results_have_their_form(results: list[dict[str, Any]]) -> None:
    check(json.loads(json.dumps(results)))
    kinds = [(one["case"], one["against"]) for one in results]
    epochs = [("step_dpo_32k_epoch", "classical"), ("step_dpo_32k_epoch", "pairs")]
    assert kinds == [(TINY.name, "classical"), (TINY.name, "pairs"), *epochs, (TINY.name, "floor")]
    first = results[0]
    assert len(first["ours_rounds_s"]) == len(first["theirs_rounds_s"]) == 3
    assert first["ratio"] == pytest.approx(sorted(first["theirs_rounds_s"])[1] / sorted(first["ours_rounds_s"])[1])
    assert first["loss_diff"] < 1e-5
    assert first["flops_ratio"] > 1
    assert max(first["ours_error"]) < 1e-5
    assert "ours_error" not in results[2], "an epoch is no other arithmetic"


def test_committed_results_have_their_form() -> None:
    check(json.loads(run.RESULTS.read_text(encoding="utf-8")))


def test_an_epoch_is_the_pass_and_the_step_of_the_same_round() -> None:
    """Rounds 1 + 5, 2 + 3 and 3 + 10: sums 6, 5, 13, median 6, which no median of parts gives."""
    steps = [Part(5.0, 9.0, 70), Part(3.0, 5.0, 0), Part(10.0, 9.0, 0)]
    passes = [Part(1.0, 2.0, 30), Part(2.0, 2.0, 0), Part(3.0, 3.0, 0)]
    side = Measured(steps, passes, 0.5, [])
    assert side.seconds(epoch=False) == 5.0
    assert side.seconds(epoch=True) == 6.0
    assert side.seconds(epoch=True, unit="cpu") == 11.0
    assert (side.flops(epoch=False), side.flops(epoch=True)) == (70, 100)


def test_table_says_what_holds(results: list[dict[str, Any]]) -> None:
    missed, met = ({**results[0], "case": "step_tdpo2_32k", "ratio": value} for value in (5.2, 5.4))
    assert ">= 5.3x | **no**" in table.markdown([missed])
    assert ">= 5.3x | yes" in table.markdown([met])
    floor = {**results[0], "case": "floor_7b", "against": "floor", "ratio": None, "floor_ratio": 1.04}
    assert "| 1.040x" in table.markdown([floor])
    big = {**results[0], "case": "step_tdpo2_152k", "ours_peak_mb": 100.0, "theirs_peak_mb": 790.0, "memory_pairs": 2}
    assert "<= 0.125 | **no**" in table.markdown([{**big, "theirs_peak_mb": 790.0}])
    assert "<= 0.125 | yes" in table.markdown([{**big, "theirs_peak_mb": 810.0}])


def test_every_target_is_of_a_case_that_exists() -> None:
    for target in TARGETS:
        assert target.case in NAMES
        assert target.against in TITLES
    assert all(value is None for _, value in table.verdicts([]))


def test_page_is_replaced_between_its_markers(results: list[dict[str, Any]]) -> None:
    more = {"recorded": None, "curves": [CURVE]}
    text = page.measured(results, more)
    once = page.between(page.PAGE.read_text(encoding="utf-8"), text)
    assert page.between(once, text) == once
    assert once.count("img/speed-x.svg") == 1
    assert "## How it is measured" in once
    with pytest.raises(ValueError, match="has no"):
        page.between("# Speed", text)


def test_plots_are_drawn() -> None:
    root = ElementTree.fromstring(plots.svg(CURVE))
    lines = [e.attrib["points"].split() for e in root if e.tag.endswith("polyline")]
    assert [len(points) for points in lines] == [2, 2]
    assert root.attrib["viewBox"] == f"0 0 {plots.WIDTH} {plots.HEIGHT}"


def test_recorded_lengths(tmp_path: Path) -> None:
    """33 characters are 10 tokens; what follows the step is the rest."""
    texts = {"prompt": 33, "initial_reason_steps": 66, "chosen": 33, "rejected": 66}
    row = {**{k: "x" * n for k, n in texts.items()}, "full_chosen": "x" * 132, "full_rejected": "x" * 66}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert rows.recorded(path, 1) == [rows.Lengths(10, 20, 10, 20, 30, 0)]


def test_uniform_lengths_stay_within_their_bounds() -> None:
    for n in rows.uniform(200):
        assert rows.PREFIX[0] <= n.question + n.steps <= rows.PREFIX[1]
        assert rows.STEP[0] <= min(n.chosen, n.rejected) <= max(n.chosen, n.rejected) <= rows.STEP[1]


@pytest.mark.skipif(not memory.RESET.exists(), reason="this system keeps no high-water mark")
def test_memory_sees_what_was_freed_again() -> None:
    def take() -> None:
        torch.ones(64 * 2**20 // 4)

    assert 60 < memory.above(take) < 160


def test_utilisation() -> None:
    """989 operations in 2 s on a device that does 989 a second."""
    assert gpu.utilisation(989, 2.0, 989.0) == 0.5
    assert gpu.utilisation(989, 2.0, None) is None
    assert gpu.peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert gpu.peak_of("NVIDIA H100 PCIe") == 756e12
    assert gpu.peak_of("a toaster") is None


def test_gpu_path_on_the_cpu() -> None:
    work = small.work()
    found = [gpu.run(work, side, 1e12, warm=0, rounds=2) for side in ("ours", "classical")]
    assert (
        found[0]["tokens"]
        == found[1]["tokens"]
        == sum(len(row.prompt) + len(row.chosen) + len(row.rejected) for row in work.rows)
    )
    assert found[0]["tokens_per_second"] == pytest.approx(found[0]["tokens"] / found[0]["seconds"])
    lines = gpu.table([*found, {"shape": "tiny", "loss": "dpo", "side": "trl", "error": "out of memory"}]).splitlines()
    assert lines[2].startswith("| tiny | dpo | stepdpo |")
    assert lines[2].endswith("| 1.00x |")
    assert "out of memory" in lines[-1]
