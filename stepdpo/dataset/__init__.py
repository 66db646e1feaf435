"""Preference data: read from disc or the hub, mapped by columns, validated row by row."""

from stepdpo.dataset.columns import RowError
from stepdpo.dataset.formats import Format
from stepdpo.dataset.generated import TinymathSolutions
from stepdpo.dataset.loaded import Finding, Loaded, enforce, write_quarantine
from stepdpo.dataset.preferences import fingerprint, from_row, to_row, write_preferences
from stepdpo.dataset.rows import BadRow
from stepdpo.dataset.source import Dataset

__all__ = [
    "BadRow",
    "Dataset",
    "Finding",
    "Format",
    "Loaded",
    "RowError",
    "TinymathSolutions",
    "enforce",
    "fingerprint",
    "from_row",
    "to_row",
    "write_preferences",
    "write_quarantine",
]
