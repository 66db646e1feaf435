"""One arithmetic story: sentences, the equations they call for, and the question at its end."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

OPENING = "Let's think step by step."
SHE = ("Anna", "Clara", "Emma", "Grace", "Ivy", "Kate", "Lucy", "Maria", "Nora", "Rosa", "Sara", "Zoe")
HE = ("Adam", "Ben", "Carl", "David", "Eric", "Felix", "Henry", "Jack", "Leo", "Mark", "Oscar", "Tom")
THINGS = (
    "apples", "badges", "beads", "books", "buttons", "candles", "cards", "coins", "cookies", "cups", "eggs", "flowers",
    "keys", "lemons", "marbles", "nuts", "pears", "pencils", "pens", "plums", "shells", "stamps", "stickers", "stones",
)  # fmt: skip
BOXES = ("bags", "baskets", "boxes", "jars", "packs", "trays")
LARGEST = 300
"""No quantity of a story is greater."""


@dataclass(frozen=True, slots=True)
class Equation:
    """One operation on whole numbers; right, unless a carry is forgotten."""

    left: int
    operation: str
    right: int
    forgotten: bool = False
    """Whether the carry of a sum, or the borrow of a difference, is forgotten: the result is then off by ten."""

    @property
    def whole(self) -> bool:
        """Whether the result is a whole number."""
        return self.operation != "/" or self.left % self.right == 0

    @property
    def carries(self) -> bool:
        """Whether there is a carry or a borrow from the last digit, which could be forgotten."""
        if self.operation == "+":
            return self.left % 10 + self.right % 10 > 9
        return self.operation == "-" and self.left % 10 < self.right % 10

    @property
    def result(self) -> int:
        """The value; division is exact by construction."""
        if self.operation == "+":
            return self.left + self.right - 10 * self.forgotten
        if self.operation == "-":
            return self.left - self.right + 10 * self.forgotten
        return self.left * self.right if self.operation == "*" else self.left // self.right

    def __str__(self) -> str:
        return f"{self.left} {self.operation} {self.right} = {self.result}"


@dataclass(frozen=True, slots=True)
class Story:
    """What is told and asked, and the working that answers it."""

    sentences: tuple[str, ...]
    steps: tuple[str, ...]
    equations: tuple[Equation, ...]

    @property
    def question(self) -> str:
        return " ".join(self.sentences)

    @property
    def answer(self) -> int:
        return self.equations[-1].result

    @property
    def solution(self) -> str:
        """The working in the Step-DPO form.

        Steps end without a full stop: a stop and the line's end would be one token, and a step cut between
        them a sequence of tokens that the model never writes.
        """
        lines = [f"Step {number}: {step}" for number, step in enumerate(self.steps, start=1)]
        return "\n".join([OPENING, *lines, f"The answer is: {self.answer}"])


class Teller:
    """Tells one story: keeps the running total and collects what is said of it."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        women = rng.randrange(2) == 0
        self.who = rng.choice(SHE if women else HE)
        self.pronoun = "She" if women else "He"
        self.friend = rng.choice(HE if women else SHE)
        self.things = rng.choice(THINGS)
        self.sentences: list[str] = []
        self.steps: list[str] = []
        self.equations: list[Equation] = []
        self.total = 0

    def tell(self, operations: int) -> Story:
        """A story of exactly so many operations, the last one often asked for rather than told."""
        self._begin()
        while len(self.equations) < operations:
            room = operations - len(self.equations)
            if room == 1 and self.rng.randrange(2):
                self._asked()
                break
            self._event(room)
        else:
            self._say(f"How many {self.things} does {self.who} have now?")
        return Story(tuple(self.sentences), tuple(self.steps), tuple(self.equations))

    def _begin(self) -> None:
        self.total = self.rng.randrange(5, 50)
        verb = self.rng.choice(("has", "owns", "starts with", "collects"))
        self._say(f"{self.who} {verb} {self.total} {self.things}.")

    def _event(self, room: int) -> None:
        """Something happens to the total; `room` operations are left."""
        kinds = [self._gain, self._lose, self._grow, self._share]
        if room > 1:  # groups take two operations: how many there are in all, then what that changes
            kinds += [self._gain_groups, self._lose_groups]
        # An event whose result would be out of bounds or not whole tells nothing: another one is drawn.
        while not self.rng.choice(kinds)():
            pass

    def _gain(self) -> bool:
        number = self.rng.randrange(3, 50)
        form = self.rng.choice(
            (
                "{p} finds {n} more {t}.",
                "{p} buys {n} {t}.",
                "{f} gives {w} {n} {t}.",
                "Then {w} gets {n} {t} from {f}.",
            )
        )
        return self._apply("+", number, form, "{w} has {e} {t}")

    def _lose(self) -> bool:
        number = self.rng.randrange(3, 50)
        form = self.rng.choice(
            ("{p} loses {n} {t}.", "{p} sells {n} {t}.", "{w} gives {f} {n} {t}.", "Then {f} gets {n} {t} from {w}.")
        )
        return self._apply("-", number, form, "{w} has {e} {t} left")

    def _grow(self) -> bool:
        number = self.rng.randrange(2, 10)
        form = self.rng.choice(
            ("A week later {w} has {n} times as many {t}.", "{w} works until there are {n} times as many {t}.")
        )
        return self._apply("*", number, form, "{w} has {e} {t}")

    def _share(self) -> bool:
        parts = [number for number in range(2, 10) if self.total % number == 0]
        if not parts:
            return False
        number = self.rng.choice(parts)
        form = self.rng.choice(
            (
                "{p} splits the {t} equally into {n} piles and keeps one.",
                "{n} people share the {t}, and {w} keeps one share.",
            )
        )
        return self._apply("/", number, form, "{w} keeps {e} {t}")

    def _gain_groups(self) -> bool:
        return self._groups(
            "+", ("{p} buys {n} {b} with {m} {t} in each.", "{f} brings {n} {b} of {m} {t}."), "{w} has {e} {t}"
        )

    def _lose_groups(self) -> bool:
        forms = ("{p} fills {n} {b} with {m} {t} each and sells them.", "{f} takes {n} {b} of {m} {t} away.")
        return self._groups("-", forms, "{w} has {e} {t} left")

    def _groups(self, operation: str, forms: tuple[str, ...], step: str) -> bool:
        product = Equation(self.rng.randrange(2, 10), "*", self.rng.randrange(3, 13))
        change = Equation(self.total, operation, product.result)
        boxes, form = self.rng.choice(BOXES), self.rng.choice(forms)
        if not 1 < change.result <= LARGEST:
            return False
        self._say(form, n=product.left, m=product.right, b=boxes)
        self._work(product, "The {b} hold {e} {t}", b=boxes)
        self._work(change, step)
        return True

    def _asked(self) -> None:
        """The last operation is a comparison or a sale, told either way round."""
        while True:
            number, factor = self.rng.randrange(3, 50), self.rng.randrange(2, 10)
            operation, count, told, answer = self.rng.choice((
                ("+", number, "{f} has {n} more {t} than {w}.", "{f} has {e} {t}"),
                ("-", number, "{f} has {n} fewer {t} than {w}.", "{f} has {e} {t}"),
                ("*", factor, "{f} has {n} times as many {t} as {w}.", "{f} has {e} {t}"),
            ))  # fmt: skip
            if self._apply(operation, count, told, answer):
                self._say(f"How many {self.things} does {self.friend} have?")
                return

    def _apply(self, operation: str, number: int, told: str, step: str) -> bool:
        """Tell and work one operation on the total, unless its result is out of bounds or not whole."""
        equation = Equation(self.total, operation, number)
        if not equation.whole or not 1 < equation.result <= LARGEST:
            return False
        self._say(told, n=number)
        self._work(equation, step)
        return True

    def _say(self, form: str, **words: object) -> None:
        who = self.pronoun if self.rng.randrange(2) else self.who
        self.sentences.append(form.format(p=who, w=self.who, f=self.friend, t=self.things, **words))

    def _work(self, equation: Equation, form: str, **words: object) -> None:
        self.steps.append(form.format(e=equation, w=self.who, f=self.friend, t=self.things, **words))
        self.equations.append(equation)
        self.total = equation.result
