"""The `report` verb: what a set of runs achieved, with intervals and paired differences.

tables.py reads run folders into rows, render.py turns rows into text, make.py is the verb.
"""

from stepdpo.report.make import compare, report

__all__ = ["compare", "report"]
