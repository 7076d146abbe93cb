"""How long a run will still take: from what its jobs have taken so far, not from a moving average.

A job has steps, of which it may need fewer than it is allowed, and a rest (loading, scoring,
writing). Jobs of one speed take as long for a step, and of one kind besides, for the rest. The
steps still to come are expected from the jobs so far by the product-limit estimator (Kaplan &
Meier 1958, doi:10.1080/01621459.1958.10501452), since those that have ended by now are the short
ones. What is left is then laid out over the workers.
"""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["TimeLeft", "Work", "in_words"]


@dataclass(frozen=True)
class Work:
    """What is known of a job before it runs.

    Attributes
    ----------
    steps : int
        At the most; 0 for a job without steps.
    speed : hashable
        Jobs with an equal one take equally long for a step.
    kind : hashable
        Jobs with equal ones of both take equally long beside their steps; of another speed, in
        proportion.
    """

    steps: int
    speed: Hashable = None
    kind: Hashable = None


@dataclass
class _Seen:
    """What a job has said of itself.

    Where it stands, when it said so, its seconds then; and the steps whose beginning and end this
    session has seen, with their seconds.
    """

    done: int
    at: float
    seconds: float
    steps: int
    spent: float


@dataclass
class _Sum:
    """Seconds of so many."""

    count: float = 0.0
    seconds: float = 0.0

    def add(self, count: float, seconds: float) -> None:
        self.count += count
        self.seconds += seconds

    @property
    def mean(self) -> float | None:
        return self.seconds / self.count if self.count else None


@dataclass
class TimeLeft:
    """Expects how long the jobs of a run will still take.

    Parameters
    ----------
    works : mapping of str to Work
        All jobs of the run, in the order in which they will run.
    workers : int
        Jobs at a time.
    clock : callable
        Seconds now; for tests.

    Examples
    --------
    >>> time_left = TimeLeft({"a": Work(10), "b": Work(10)}, workers=1, clock=lambda: 0.0)
    >>> time_left.left() is None
    True
    >>> time_left.step("a", 1, 2.0)
    >>> time_left.left()
    38.0
    """

    works: Mapping[str, Work]
    workers: int
    clock: Callable[[], float] = time.monotonic
    _hints: dict[Hashable, float] = field(default_factory=dict)
    _running: dict[str, _Seen] = field(default_factory=dict)
    _ended: dict[str, int] = field(default_factory=dict)
    _steps: dict[Hashable, _Sum] = field(default_factory=dict)
    _rests: dict[tuple[Hashable, Hashable], _Sum] = field(default_factory=dict)

    def hint(self, speed: Hashable, seconds: float) -> None:
        """Tell what a step may take, as measured beforehand.

        Hints need be right only up to a factor that all have in common. The first of a speed
        counts: those of all speeds are then of the same minutes.
        """
        self._hints.setdefault(speed, seconds)

    def step(self, name: str, done: int, seconds: float) -> None:
        """Note how many steps a job has behind it, so many seconds after it began."""
        if name in self._ended:
            return
        seen, now = self._running.get(name), self.clock()
        if seen is None:
            # One that goes on from a checkpoint has read before its first step: no measure.
            steps, spent = (1, seconds) if done == 1 else (0, 0.0)
            self._running[name] = _Seen(done, now, seconds, steps, spent)
        else:
            steps, spent = done - seen.done, seconds - seen.seconds
            self._running[name] = _Seen(done, now, seconds, seen.steps + steps, seen.spent + spent)
        self._steps.setdefault(self.works[name].speed, _Sum()).add(steps, spent)

    def finish(self, name: str, done: int, seconds: float, kept: bool = False) -> tuple[int, float]:
        """Note that a job has ended after so many steps and seconds.

        Of one that was ``kept`` by an earlier session, and only read back, the seconds say nothing.

        Returns
        -------
        steps : int
            Those that this session has seen from their beginning to their end.
        seconds : float
            Of these.
        """
        work = self.works[name]
        if name in self._running and done > self._running[name].done:
            # The message of the last step is still under way.
            self.step(name, done, seconds)
        seen = self._running.get(name)
        if not kept:
            rest = seconds - (seen.seconds if seen else 0.0)
            self._rests.setdefault((work.kind, work.speed), _Sum()).add(1, rest)
        self._running.pop(name, None)
        self._ended[name] = done
        return (seen.steps, seen.spent) if seen else (0, 0.0)

    def left(self) -> float | None:
        """Seconds until the last job ends; None as long as nothing can be said."""
        if self._pace() is None and any(
            work.steps for name, work in self.works.items() if name not in self._ended
        ):
            return None
        free = [0.0] * self.workers
        for seconds in self._jobs():
            heapq.heapreplace(free, free[0] + seconds)
        return max(free)

    def _jobs(self) -> Iterable[float]:
        """Seconds that each job still needs: those that are running first."""
        now, going_on = self.clock(), self._going_on()
        for name, seen in self._running.items():
            work = self.works[name]
            steps = _expected(going_on, seen.done, work.steps)
            still = steps * self._a_step(work.speed) + self._rest(work)
            yield max(0.0, still - (now - seen.at))
        whole: dict[Work, float] = {}
        for name, work in self.works.items():
            if name not in self._running and name not in self._ended:
                if work not in whole:
                    steps = _expected(going_on, 0, work.steps)
                    whole[work] = steps * self._a_step(work.speed) + self._rest(work)
                yield whole[work]

    def _pace(self) -> float | None:
        """By what factor steps take longer than the hints say."""
        hinted = told = 0.0
        for speed, found in self._steps.items():
            hinted += found.count * self._hint(speed)
            told += found.seconds
        if hinted:
            return told / hinted
        return 1.0 if self._hints else None

    def _hint(self, speed: Hashable) -> float:
        known = self._hints.get(speed)
        if known is not None:
            return known
        return sum(self._hints.values()) / len(self._hints) if self._hints else 1.0

    def _a_step(self, speed: Hashable) -> float:
        known = self._steps.get(speed, _Sum()).mean
        return self._hint(speed) * (self._pace() or 0.0) if known is None else known

    def _rest(self, work: Work) -> float:
        """Seconds of a job beside its steps; of a speed not seen yet, in proportion to a step."""
        known = self._rests.get((work.kind, work.speed), _Sum()).mean
        if known is not None:
            return known
        alike = {speed: found for (kind, speed), found in self._rests.items() if kind == work.kind}
        steps = sum(found.count * self._a_step(speed) for speed, found in alike.items())
        seconds = sum(found.seconds for found in alike.values())
        return self._a_step(work.speed) * seconds / steps if steps else 0.0

    def _going_on(self) -> list[float]:
        """For each number of steps, the share of the jobs with so many that take another."""
        most = max((work.steps for work in self.works.values()), default=0)
        ends = Counter(done for name, done in self._ended.items() if self.works[name].steps)
        alive = Counter(seen.done for seen in self._running.values())
        shares = [1.0] * most
        # One more, that ran to the end, until there are enough to learn from.
        beyond = 1 + sum(ends.values()) + sum(alive.values())
        for step in range(most):
            # Whether those that stand here go on is not known yet.
            beyond -= alive[step]
            shares[step] = 1 - ends[step] / beyond
            beyond -= ends[step]
        return shares


def _expected(going_on: Sequence[float], done: int, most: int) -> float:
    """Steps that a job still needs that has some behind it."""
    expected, there = 0.0, 1.0
    for step in range(done, most):
        there *= going_on[step]
        expected += there
    return expected


def in_words(seconds: float | None) -> str:
    """A time that is not more exact than it can be known.

    Examples
    --------
    >>> [in_words(s) for s in (None, 8.2, 42.0, 96.0, 700.0, 5400.0, 200_000.0)]
    ['', 'about 10 s left', 'about 40 s left', 'about 2 min left', 'about 12 min left', \
'about 1.5 h left', 'about 2.3 days left']
    """
    if seconds is None:
        return ""
    if seconds < 55:
        return f"about {max(10, round(seconds, -1)):.0f} s left"
    if seconds < 5400:
        return f"about {max(1, round(seconds / 60))} min left"
    if seconds < 48 * 3600:
        return f"about {seconds / 3600:.1f} h left"
    return f"about {seconds / 86400:.1f} days left"
