"""Telling a long story: what happens to whom, with quantities that stay whole and within bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from stepdpo.tinymath.long_story import LARGEST, Family, LongStory, Move
from stepdpo.tinymath.story import BOXES, HE, SHE, THINGS, Equation


class LongTeller:
    """Tells one long story: keeps the running total and collects what is said of it."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        women = rng.randrange(2) == 0
        self.who = rng.choice(SHE if women else HE)
        self.pronoun = "She" if women else "He"
        self.friend = rng.choice(HE if women else SHE)
        self.things = rng.choice(THINGS)
        self.sentences: list[str] = []
        self.moves: list[Move] = []
        self.total = 0

    def tell(self, operations: int) -> LongStory:
        """A story of exactly so many operations, the last one sometimes asked for rather than told."""
        self.total = start = self.rng.randrange(8, 50)
        self.sentences.append(f"{self.who} has {start} {self.things}.")
        while len(self.moves) < operations:
            room = operations - len(self.moves)
            if room == 1 and self.rng.randrange(2):
                self._until_one_fits([self._asked])
                break
            # Boxes take two operations: how many things there are in all, then what that changes.
            boxes = [self._gain_boxes, self._lose_boxes] if room > 1 else []
            self._until_one_fits([self._gain, self._lose, self._grow, self._share, *boxes])
        else:
            self._say(f"How many {self.things} does {self.who} have now?")
        return LongStory(tuple(self.sentences), tuple(self.moves), start, self.who, self.friend, self.things)

    def _until_one_fits(self, kinds: Sequence[Callable[[], bool]]) -> None:
        """An event whose result would be out of bounds or not whole tells nothing: another one is drawn."""
        while not self.rng.choice(kinds)():
            pass

    # Half of the gains and losses are of a family, as every other event is: mistakes are to be met often.
    def _gain(self) -> bool:
        number, form = self.rng.randrange(3, 40), self.rng.randrange(4)
        if form > 1:
            return self._apply(Move("+", number, family=Family.gives, mistaken=("-", number)), "{f} gives {w} {n} {t}.")
        return self._apply(Move("+", number), ("{p} finds {n} more {t}.", "{p} buys {n} {t}.")[form])

    def _lose(self) -> bool:
        number, form = self.rng.randrange(3, 40), self.rng.randrange(4)
        if form > 1:
            move = Move("-", number, family=Family.gets, mistaken=("+", number))
            return self._apply(move, "Then {f} gets {n} {t} from {w}.")
        return self._apply(Move("-", number), ("{p} loses {n} {t}.", "{p} sells {n} {t}.")[form])

    def _grow(self) -> bool:
        number = self.rng.randrange(2, 4)
        if self.rng.randrange(2):
            move = Move("*", number, family=Family.later, mistaken=("+", number))
            return self._apply(move, "A week later {w} has {n} times as many {t}.")
        return self._apply(Move("*", number), "{w} works until there are {n} times as many {t}.")

    def _share(self) -> bool:
        parts = [number for number in range(2, 6) if self.total % number == 0]
        if not parts:
            return False
        number = self.rng.choice(parts)
        if self.rng.randrange(2):
            move = Move("/", number, family=Family.people, mistaken=("-", number))
            return self._apply(move, "{n} people share the {t}, and {w} keeps one share.")
        return self._apply(Move("/", number), "{p} splits the {t} equally into {n} piles and keeps one.")

    def _gain_boxes(self) -> bool:
        if self.rng.randrange(2):
            return self._boxes("+", "{f} brings {n} {b} of {m} {t}.", Family.brings)
        return self._boxes("+", "{p} buys {n} {b} with {m} {t} in each.", None)

    def _lose_boxes(self) -> bool:
        if self.rng.randrange(2):
            return self._boxes("-", "{f} takes {n} {b} of {m} {t} away.", Family.away)
        return self._boxes("-", "{p} fills {n} {b} with {m} {t} each and sells them.", None)

    def _boxes(self, operation: str, told: str, family: Family | None) -> bool:
        count, held = self.rng.randrange(2, 6), self.rng.randrange(2, 10)
        change = Equation(self.total, operation, count * held)
        if not 1 < change.result <= LARGEST:
            return False
        boxes = self.rng.choice(BOXES)
        self._say(told, n=count, m=held, b=boxes)
        # "Brings 3 boxes of 8" read as 3 + 8; "takes 3 boxes of 8 away" read as 3 less.
        adds = (family, ("+", held)) if family is Family.brings else (None, None)
        takes = (family, ("-", count)) if family is Family.away else (None, None)
        self.moves.append(Move("*", held, left=count, family=adds[0], mistaken=adds[1], boxes=boxes))
        self.moves.append(Move(operation, None, family=takes[0], mistaken=takes[1]))
        self.total = change.result
        return True

    def _asked(self) -> bool:
        """The last operation is a comparison that the question asks for."""
        number, factor = self.rng.randrange(3, 40), self.rng.randrange(2, 4)
        operation, count, told = self.rng.choice((
            ("+", number, "{f} has {n} more {t} than {w}."),
            ("-", number, "{f} has {n} fewer {t} than {w}."),
            ("*", factor, "{f} has {n} times as many {t} as {w}."),
        ))  # fmt: skip
        if not self._apply(Move(operation, count, of_friend=True), told):
            return False
        self._say(f"How many {self.things} does {self.friend} have?")
        return True

    def _apply(self, move: Move, told: str) -> bool:
        """Tell one operation on the total, unless its result is out of bounds or not whole."""
        assert move.right is not None, "only boxes depend on another move"
        equation = Equation(self.total, move.operation, move.right)
        if not equation.whole or not 1 < equation.result <= LARGEST:
            return False
        self._say(told, n=move.right)
        self.moves.append(move)
        self.total = equation.result
        return True

    def _say(self, form: str, **words: object) -> None:
        who = self.pronoun if self.rng.randrange(2) else self.who
        self.sentences.append(form.format(p=who, w=self.who, f=self.friend, t=self.things, **words))
