"""The demo trains every method at the best cell of its grid, and its page says how sure means are."""

from __future__ import annotations

import math

import pytest
from omegaconf import OmegaConf

from benchmarks import demo, demo_page
from stepdpo.core.package_data import conf
from stepdpo.runtime.atomic_io import read_json

CELLS = read_json(demo.CELLS)["cells"]


def test_grids_are_of_one_size() -> None:
    assert CELLS.keys() == {method.name for method in demo.METHODS}
    assert {len(cells) for cells in CELLS.values()} == {6}


@pytest.mark.parametrize("method", demo.METHODS, ids=lambda method: method.name)
def test_an_experiment_is_the_first_best_cell(method: demo.Method) -> None:
    best = max(CELLS[method.name], key=lambda cell: cell["accuracy"])  # the first one of several
    recipe, experiment = (
        OmegaConf.load(conf() / group / f"{name}.yaml")
        for group, name in (("recipe", "tinymath_long"), ("experiment", method.experiment))
    )
    for key, value in (word.split("=") for word in best["words"]):
        used = OmegaConf.select(experiment, key)
        assert float(used if used is not None else OmegaConf.select(recipe, key)) == float(value), key


def test_a_mean_over_seeds() -> None:
    """Of 1, 2, 3 the standard deviation is 1, and Student's 97.5 % point with 2 degrees of freedom 4.3027."""
    reach = 4.3027 / math.sqrt(3)
    assert demo_page.spread([1.0, 2.0, 3.0], ".2f") == ("2.00 ± 1.0", f"{2 - reach:.2f} to {2 + reach:.2f}")
    assert demo_page.spread([4.0], "+.1f") == ("+4.0", "")
