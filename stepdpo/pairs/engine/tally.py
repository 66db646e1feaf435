"""What a person sees of a run of `stepdpo pairs`: counts of the whole run, rates of this process."""

from __future__ import annotations

from dataclasses import dataclass

from stepdpo.pairs.engine.requests import ProblemResult


@dataclass
class Tally:
    """Adds up problem results. `pairs` begins with those that were made before; the rest is this process's."""

    pairs: int = 0
    problems: int = 0
    tokens: int = 0
    graded: int = 0
    right: int = 0

    def add(self, done: ProblemResult) -> None:
        self.problems += 1
        self.pairs += len(done.result.preferences)
        self.tokens += done.tokens
        self.graded += done.graded
        self.right += done.right

    def figures(self, seconds: float) -> str:
        """In words, for the `seconds` since this process began."""
        solved = f"  {self.right / self.graded:.0%} right" if self.graded else ""
        rate = f"{self.problems / seconds:.3g} problems/s"
        return f"{rate}  {self.pairs:,} pairs{solved}  {self.tokens / seconds:,.0f} tokens/s"
