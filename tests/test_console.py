"""Progress where there is no terminal: lines that say how much is done, and how long the rest takes."""

import pytest

from vislang import console


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_the_first_line_says_how_long_the_rest_takes(clock, capsys):
    """The first batch took 20 seconds before anything was reported."""
    with console.reporting("embedding") as report:
        clock[0] += 20
        report(10, 40)
        clock[0] += 20
        report(20, 40)
    assert capsys.readouterr().err == "embedding: 10/40, 1:00 left\nembedding: 20/40, 0:40 left\n"


def test_a_count_that_starts_at_zero_is_timed_from_there(clock, capsys):
    """Opening a file is no part of what is counted, and each file is counted by itself."""
    with console.reporting("reading") as report:
        clock[0] += 100
        report(0, 4)
        clock[0] += 12
        report(1, 4)
        clock[0] += 2
        report(4, 4)
        clock[0] += 12
        report(1, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["reading: 0/4", "reading: 1/4, 0:36 left", "reading: 1/3, 0:24 left"]


def test_the_first_step_of_training_has_no_rate_yet(clock, capsys):
    """That step pays for what later ones find done; a resumed run begins at any step."""
    with console.TrainingMonitor(4, log_every=1) as monitor:
        for step in (2, 3, 4):
            clock[0] += 2
            monitor.step(step, {"loss": 1.0})
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == "step 2/4  loss 1.000"
    assert second == "step 3/4  loss 1.000  2000 ms/step  ETA 0:02"
    assert last.endswith("ETA 0:00")
