"""Solutions of the embedded miniature task, made rather than read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from stepdpo.core.package_data import sources
from stepdpo.core.types import Preference
from stepdpo.data.validation import Loaded, amount, gather


@dataclass(frozen=True)
class TinymathSolutions:
    """Gold solutions of generated problems, for supervised training: chosen = solution, nothing rejected."""

    split: str = "train"
    """train or test; the two share no question."""
    count: int = 2000
    """How many problems."""
    seed: int = 0
    """Chooses the problems, and the held-out ones among them."""
    heldout: float | str = 0
    """Solutions kept from training: a number, or a share (0.05, "5%")."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        amount(self.heldout, 0)
        if self.count < 1:
            raise ValueError(f"count: expected a number from 1, got {self.count}")

    def fingerprint(self) -> str:
        """Hash of the settings, and of the code that makes the problems."""
        digest = hashlib.sha256(repr(self).encode())
        for file in sources(["tinymath/*.py"]):
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def load(self) -> Loaded:
        """Generate the problems and take their solutions."""
        from stepdpo.tinymath.problems import problems

        good = [
            (
                Preference(
                    question=problem.question,
                    prefix="",
                    chosen=problem.solution,
                    rejected="",
                    answer=", ".join(problem.answers),
                    whole=True,
                ),
                problem.id,
            )
            for problem in problems(self.split, self.count, seed=self.seed)
        ]
        return gather(good, [], {}, heldout=self.heldout, seed=self.seed, max_bad=0.0)
