"""What a way of making pairs yields is a request, or it is said at once."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from support.scripted import LONG, Scripted, run


class Confused:
    """Yields a prompt where a request for it was meant."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, problem: Any, context: Any) -> Any:
        yield problem.question


def test_what_is_no_request_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a method yields requests and returns a Result; this one yielded ."):
        run(Confused(), Scripted({}), [LONG])
