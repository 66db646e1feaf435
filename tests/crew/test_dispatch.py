"""Who gets which group, and what becomes of groups whose worker dies: with workers that are told what happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from stepdpo.crew.dispatch import Arrived, Died, Dispatcher, Event, GroupDone, Ready


@dataclass(frozen=True)
class Named:
    id: str


@dataclass(frozen=True)
class Made:
    problem: str
    by: str


def groups(*names: str) -> Iterator[list[Named]]:
    return ([Named(one) for one in name] for name in names)


@dataclass
class Scripted:
    """Workers w0, w1, ... in the order of their starts; events come as the script says: `worker what`."""

    script: list[str]
    started: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    dismissed: list[str] = field(default_factory=list)

    def start(self, number: int) -> str:
        self.started.append(f"w{len(self.started)} as {number}")
        return f"w{len(self.started) - 1}"

    def give(self, worker: str, group: Sequence[Named]) -> None:
        self.given.append(f"{worker} {''.join(one.id for one in group)}")

    def wait(self, workers: Sequence[str]) -> tuple[str, Event]:
        worker, what = self.script.pop(0).split()
        assert worker in workers, f"{worker} is not waited for"
        events = {"ready": Ready(), "done": GroupDone({"by": worker}), "died": Died("Why not.")}
        return worker, events.get(what) or Arrived(Made(what, worker))

    def bury(self, worker: str) -> None:
        self.given.append(f"{worker} buried")

    def dismiss(self, workers: Sequence[str]) -> None:
        self.dismissed += workers


def run(script: str, names: Sequence[str], count: int = 2, ahead: int = 1, retries: int = 1) -> tuple[Scripted, str]:
    """The workers, and the results in the order in which they came."""
    workers = Scripted(script.split(", ") if script else [])
    dispatcher: Dispatcher[Named, Made, str] = Dispatcher(workers, count, ahead, retries)
    results = " ".join(made.problem for made in dispatcher.finish(groups(*names)))
    assert not workers.script
    return workers, results


def test_results_come_as_they_are_there_and_the_next_group_goes_to_who_is_free() -> None:
    workers, results = run(
        "w1 ready, w0 ready, w0 c, w1 b, w0 d, w0 done, w0 e, w1 a, w1 done, w0 done", ["ab", "cd", "e"]
    )
    assert workers.given == ["w1 ab", "w0 cd", "w0 e"]
    assert results == "c b d e a"
    assert workers.dismissed == ["w0", "w1"]


def test_groups_that_are_given_ahead_go_to_the_worker_with_fewest() -> None:
    workers, _ = run(
        "w0 ready, w1 ready, w0 a, w0 done, w0 b, w0 done, w1 c, w1 done, w1 d, w1 done, w0 e, w0 done",
        list("abcde"),
        ahead=2,
    )
    assert workers.given == ["w0 a", "w0 b", "w1 c", "w1 d", "w0 e"]


def test_groups_of_a_dead_worker_go_first_and_only_the_one_it_was_at_is_blamed() -> None:
    script = "w0 ready, w0 a, w0 died, w1 ready, w1 a, w1 b, w1 died, "
    with pytest.raises(
        RuntimeError, match=r"2 workers died over the problems from a on; resume=true goes on\. Why not\."
    ):
        run(script, ["ab", "c", "d"], count=1, ahead=2)
    going_on = "w0 ready, w0 a, w0 b, w0 done, w0 died, w1 ready, w1 c, w1 done, w1 d, w1 done, w1 e, w1 done"
    workers, results = run(going_on, ["ab", "c", "d", "e"], count=1, ahead=2, retries=1)
    assert workers.started == ["w0 as 0", "w1 as 0"]
    assert workers.given == ["w0 ab", "w0 c", "w0 d", "w0 buried", "w1 c", "w1 d", "w1 e"]
    assert results == "a b c d e"


def test_what_had_arrived_of_a_group_is_not_taken_twice() -> None:
    _, results = run("w0 ready, w0 b, w0 died, w1 ready, w1 a, w1 b, w1 c, w1 done", ["abc"], count=1)
    assert results == "b a c"


def test_workers_that_never_begin_end_the_run() -> None:
    with pytest.raises(RuntimeError, match="2 workers died before they began"):
        run("w0 died, w1 died", ["a"])


def test_nothing_to_do() -> None:
    """Nobody is waited for."""
    workers, results = run("", [])
    assert (workers.given, workers.dismissed, results) == ([], [], "")


def test_provenance_is_that_of_the_last_who_finished() -> None:
    workers = Scripted(["w0 ready", "w0 a", "w0 done"])
    dispatcher: Dispatcher[Named, Made, str] = Dispatcher(workers, 1, 1, 0)
    assert [made.by for made in dispatcher.finish(groups("a"))] == ["w0"]
    assert dispatcher.provenance == {"by": "w0"}
