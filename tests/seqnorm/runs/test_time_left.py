"""The time left, on histories that are known to their end: as recorded, and made up."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from seqnorm.runs.progress import Progress
from seqnorm.runs.time_left import TimeLeft, Work, in_words

RECORDED = Path(__file__).parents[3] / "docs" / "results" / "human_ctcf"


@dataclass
class Job:
    """What a job will turn out to take."""

    work: Work
    steps: int
    a_step: float
    rest: float

    @property
    def seconds(self) -> float:
        return self.steps * self.a_step + self.rest


def estimate_after_a_tenth(
    jobs: dict[str, Job], workers: int, hints: dict[object, float]
) -> tuple[float, float]:
    """Replay a run; the time left as expected after a tenth of its steps, and as it came."""
    now = 0.0
    expected = TimeLeft({name: job.work for name, job in jobs.items()}, workers, clock=lambda: now)
    for speed, seconds in hints.items():
        expected.hint(speed, seconds)
    free = [0.0] * workers
    events: list[tuple[float, str, int, float]] = []
    for name, job in jobs.items():
        worker = free.index(min(free))
        began = free[worker]
        events += [
            (began + step * job.a_step, name, step, step * job.a_step)
            for step in range(1, job.steps + 1)
        ]
        events.append((began + job.seconds, name, -1, job.seconds))
        free[worker] = began + job.seconds
    end, tenth = max(free), sum(job.steps for job in jobs.values()) / 10
    told = 0
    for at, name, step, seconds in sorted(events):
        now = at
        if step == -1:
            expected.finish(name, jobs[name].steps, seconds)
        else:
            expected.step(name, step, seconds)
            told += 1
        if told >= tenth:
            break
    left = expected.left()
    assert left is not None
    return left, end - now


def recorded(shuffle: random.Random) -> dict[str, Job]:
    """The trials of the run in docs/results, in another order, each with its scoring."""
    seconds = json.loads((RECORDED / "run.json").read_text())["trial_seconds"]
    tuning = pd.read_csv(RECORDED / "tuning.csv")
    names = list(seconds)
    jobs = {}
    for name, row in zip(names, tuning.itertuples(), strict=True):
        speed, chosen = row.norm, bool(row.chosen)
        work = Work(18, speed, "final" if chosen else "tuning")
        jobs[name] = Job(work, row.epochs, seconds[name] / row.epochs, 1.5 * chosen)
    shuffle.shuffle(names)
    return {name: jobs[name] for name in names}


SLOWNESS = {"cnn": 1.0, "residual": 2.5, "transformer": 6.0}
NORMS = {"batch": 1.0, "layer": 1.3, "group:8": 1.1, "instance": 1.2, "none": 0.8}


def made_up(chance: random.Random) -> dict[str, Job]:
    """A study of three models of very different speed, half of whose trials stop early."""
    jobs = {}
    for model, slow in SLOWNESS.items():
        for norm, factor in NORMS.items():
            for number in range(7):
                steps = 20 if chance.random() < 0.5 else chance.randint(6, 19)
                a_step = slow * factor * chance.lognormvariate(0, 0.1)
                work = Work(20, (model, norm), "final" if number > 3 else "tuning")
                rest = 3 * slow * (number > 3)
                jobs[f"{model} {norm} {number}"] = Job(work, steps, a_step, rest)
    names = list(jobs)
    chance.shuffle(names)
    return {name: jobs[name] for name in names}


def right(left: float, came: float) -> bool:
    return abs(left - came) <= 0.3 * came


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_after_a_tenth_of_a_recorded_run_the_estimate_is_right_within_30_percent(
    workers: int,
) -> None:
    replays = [
        estimate_after_a_tenth(recorded(random.Random(seed)), workers, {}) for seed in range(100)
    ]
    assert sum(right(*replay) for replay in replays) >= 90


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_after_a_tenth_of_a_study_of_unlike_models_the_estimate_is_right_within_30_percent(
    workers: int,
) -> None:
    good = 0
    for seed in range(100):
        chance = random.Random(seed)
        # Bare loops, measured in a moment: off by a fifth, and by a factor all together.
        hints: dict[object, float] = {
            (model, norm): 0.7 * slow * factor * chance.lognormvariate(0, 0.2)
            for model, slow in SLOWNESS.items()
            for norm, factor in NORMS.items()
        }
        good += right(*estimate_after_a_tenth(made_up(chance), workers, hints))
    assert good >= 90


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_the_order_of_the_spec_model_by_model_is_estimated_as_well(workers: int) -> None:
    """After a tenth the slow models have not been seen, but for their hints."""
    good = 0
    for seed in range(100):
        chance = random.Random(seed)
        jobs = dict(sorted(made_up(chance).items()))
        hints: dict[object, float] = {
            (model, norm): 0.7 * slow * factor * chance.lognormvariate(0, 0.1)
            for model, slow in SLOWNESS.items()
            for norm, factor in NORMS.items()
        }
        good += right(*estimate_after_a_tenth(jobs, workers, hints))
    assert good >= 90


def test_jobs_that_an_earlier_session_has_done_say_nothing_of_the_speed() -> None:
    works = {name: Work(10, "batch", "tuning") for name in "abcd"}
    left = TimeLeft(works, 1, clock=lambda: 0.0)
    left.finish("a", 10, 0.01)
    left.finish("b", 10, 0.01)
    assert left.left() is None
    left.step("c", 8, 5.0)  # goes on from a checkpoint: how long the eighth took is not known
    assert left.left() is None
    left.step("c", 9, 7.0)
    assert left.left() == pytest.approx(2 + 20, abs=0.1)


def test_what_is_read_back_says_nothing_of_what_it_took() -> None:
    works = {str(number): Work(0, None, "scoring") for number in range(100)}
    left = TimeLeft(works, 1, clock=lambda: 0.0)
    for number in range(90):
        left.finish(str(number), 0, 0.01, kept=True)
    left.finish("90", 0, 6.0)
    assert left.left() == pytest.approx(9 * 6.0)


def test_expected_steps_are_the_mean_share_used_when_all_have_ended() -> None:
    works = {str(number): Work(20) for number in range(401)}
    left = TimeLeft(works, 1, clock=lambda: 0.0)
    chance = random.Random(1)
    ends = [chance.randint(3, 20) for _ in range(400)]
    for number, steps in enumerate(ends):
        for step in range(1, steps + 1):
            left.step(str(number), step, float(step))
        left.finish(str(number), steps, float(steps))
    assert left.left() == pytest.approx(sum(ends) / 400, rel=0.01)


def test_jobs_that_still_run_are_not_taken_for_long_ones_nor_those_done_for_all() -> None:
    """Ended so far are the short ones: their mean would be 5 of 20 steps, the truth is 12.5."""
    works = {str(number): Work(20) for number in range(1000)}
    left = TimeLeft(works, 1000, clock=lambda: 0.0)
    for number in range(1000):
        # Half stop after 5 steps, the others go on to 20; here they have 6 behind them.
        steps = 5 if number % 2 else 6
        for step in range(1, steps + 1):
            left.step(str(number), step, float(step))
        if number % 2:
            left.finish(str(number), 5, 5.0)
    assert left.left() == pytest.approx(14, rel=0.01)


def test_lines_without_a_terminal_end_with_the_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines: list[str] = []
    works = {"a": Work(2), "b": Work(2)}
    with Progress(works, 1, "epochs", lines.append) as progress:
        progress.step("a", 1, 300.0)
        progress.step("a", 2, 600.0)
        progress.finish("a", 2, 600.0, "a: good")
        progress.step("b", 2, 600.0)
        progress.finish("b", 2, 600.0, "b: better")
    assert lines == ["2/4 epochs: a: good; about 10 min left", "4/4 epochs: b: better"]


def test_words_round_to_what_can_be_known() -> None:
    assert in_words(3599.0) == "about 60 min left"
    assert in_words(1.0) == "about 10 s left"
