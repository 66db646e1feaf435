"""The guard at work in one run: what it looks at and when, what is said of a finding, and where that is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stepdpo.core.protocols import Tracker
from stepdpo.runtime.run_folder import GUARD, passed_bounds
from stepdpo.training.config import Training
from stepdpo.training.guard import Action, Finding, advice, first_sample

Sampled = Callable[[], dict[str, float]]
"""Answers some questions with the policy as it is; shares of the answers by name."""
Say = Callable[[str], None]


class Drifted(Exception):
    """The guard has stopped a training."""


class Watch:
    """It remembers in metrics.jsonl: a resumed run reads there what was said, and what the first sample gave."""

    def __init__(
        self, spec: Training, tracker: Tracker, lines: Iterable[Mapping[str, Any]], sampled: Sampled | None = None
    ) -> None:
        """`lines`: of the metrics.jsonl of a run that is resumed, up to where it goes on."""
        before = list(lines)
        self.spec, self.guard, self.tracker, self.sampled = spec, spec.guard, tracker, sampled
        self.told, self.start = passed_bounds(before), first_sample(before)

    def look(self, metrics: Mapping[str, float], update: int, say: Say) -> None:
        """At the numbers of an update before it is made, which tell of the model that the one before has left.

        Raises Drifted where the guard is to stop the training.
        """
        # The last update of an epoch may hold a single pair, which says little of the model.
        if 2 * metrics["pairs"] >= self.spec.batch.pairs:
            self._judge(metrics, update, say)

    def sample(self, done: int, say: Say) -> None:
        """Before the first update and then every so many: ask the policy. Raises Drifted as `look` does."""
        if not self.sampled or done % self.guard.every:
            return
        shares = self.sampled()
        self.tracker.log(shares, done)
        say(f"sample after {done:,}  " + "  ".join(f"{name} {value:.3g}" for name, value in shares.items()))
        if done == 0:
            self.start = shares
        self._judge(shares, done, say)

    def end(self, say: Say) -> None:
        """At the end of a training that was warned of something: the warning may lie far back."""
        if self.told:
            seen = ", ".join(f"guard.{kind} since update {update:,}" for kind, update in self.told.items())
            say(f"warning: this training passed bounds of its guard: {seen}")

    def _judge(self, record: Mapping[str, float], update: int, say: Say) -> None:
        found = self.guard.findings(record, self.start)
        for finding in found:
            if finding.kind not in self.told:
                self.told[finding.kind] = update
                self.tracker.log({f"{GUARD}{finding.kind}": finding.value}, update)
                say(f"warning: update {update:,}: {finding.text}; {advice(self.spec.algo)} (said once)")
        if found and self.guard.action is Action.stop:
            raise self._last_words(found, update)

    def _last_words(self, found: Sequence[Finding], update: int) -> Drifted:
        words = "; ".join(finding.text for finding in found)
        return Drifted(
            f"stopped by guard.action=stop at update {update:,}: {words}\n"
            f"a checkpoint was saved. In a new run {advice(self.spec.algo)}; "
            "resume=true guard.action=warn goes on with this one"
        )
