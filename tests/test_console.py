"""What training shows: bars on a terminal, lines elsewhere, nothing from any but the first process."""

import io

import pytest
from rich.console import Console

from vislang import console as shown
from vislang.console import TrainingMonitor, reporting

ROW = {
    "loss": 3.0,
    "loss/pages/text": 2.0,
    "loss/captions/text": 0.5,
    "loss/captions/length": 0.25,
    "lr": 0.1,
    "speed/examples_per_second": 31.25,
    "speed/tokens_per_second": 4096.0,
    "speed/matmul_share": 0.62,
    "memory/peak_gib": 1.94,
}


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    return now


def output(terminal: bool, quiet: bool = False) -> Console:
    options = {"width": 100, "highlight": False, "color_system": None, "quiet": quiet}
    return Console(file=io.StringIO(), force_terminal=terminal, **options)


def train(console, clock, rows=(ROW,) * 21, first=1, every=10):
    with TrainingMonitor(steps=first + len(rows) - 1, log_every=every, output=console) as monitor:
        for step, row in enumerate(rows, start=first):
            monitor.step(step, row)
            clock[0] += 30.0
        monitor.evaluated(step, {"step": step, "eval/pages/accuracy": 0.8125, "eval/loss_per_token": 1.5})
    return console.file.getvalue()


def test_lines_say_all_that_is_known(clock):
    lines = train(output(False), clock).splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["10/21", "20/21", "21/21"]
    # 9 steps took 270 s; 11 are left.
    assert lines[0] == (
        "step 10/21  loss 3.000 (pages 2.000, captions 0.750)  31.2 samples/s  4,096 tokens/s  "
        "62 % of the matrix rate  1.9 GiB peak memory  ETA 5:30"
    )
    assert lines[-1] == "step 21: pages/accuracy 81.2 %  loss_per_token 1.500"


def test_what_is_not_known_is_left_out(clock):
    # The first step has no rate yet.
    assert train(output(False), clock, [ROW], every=1).splitlines()[0].endswith("peak memory")
    plain = {"loss": 3.0, "loss/regression": 3.0, "speed/examples_per_second": 5.0}
    assert train(output(False), clock, [plain] * 2, every=1).splitlines()[1] == (
        "step 2/2  loss 3.000  5.0 samples/s  ETA 0:00"
    )


def test_a_stream_that_was_not_in_a_step_keeps_its_mean(clock):
    other = {"loss": 1.0, "loss/captions/text": 0.75}
    assert "(pages 2.000, captions 0.750)" in train(output(False), clock, [ROW, other], every=2)


def test_the_time_left_of_a_resumed_run_goes_by_its_own_steps(clock):
    assert "ETA 0:30\n" in train(output(False), clock, [ROW] * 3, first=1000, every=1001)
    assert "ETA 1:00:30" in train(output(False), clock, [ROW] * 123, first=1, every=2)


def test_a_terminal_has_a_bar_and_the_same_figures(clock):
    text = train(output(True), clock)
    for part in ("training", "21/21", "ETA 0:00", "(pages 2.000, captions 0.750)", "62 % of the matrix rate"):
        assert part in text
    assert "step 21: pages/accuracy 81.2 %" in text


def test_rows_that_come_at_once_are_timed_by_their_own_seconds(clock):
    """As from a GPU, which is asked every so many steps only."""
    console = output(False)
    with TrainingMonitor(100, log_every=10, output=console) as monitor:
        for step in range(1, 11):
            monitor.step(step, {"loss": 1.0, "seconds": 2.0 * step})
    assert "ETA 3:00" in console.file.getvalue()


def test_the_number_of_steps_may_be_chosen_later(clock):
    for terminal in (False, True):
        console = output(terminal)
        with TrainingMonitor(0, log_every=1, output=console) as monitor:
            monitor.expect(4)
            monitor.step(1, {"loss": 1.0})
        assert "1/4" in console.file.getvalue()


def test_a_quiet_process_shows_nothing(clock, monkeypatch, capsys):
    for terminal in (False, True):
        assert train(output(terminal, quiet=True), clock) == ""
    monkeypatch.setattr(shown.messages, "quiet", True)
    with reporting("counting", every=1.0) as report:
        report(0, 4)
        clock[0] += 20.0
        report(2, 4)
    assert capsys.readouterr().err == ""


def test_the_first_line_says_how_long_the_rest_takes(clock, capsys):
    """The first batch took 20 seconds before anything was reported."""
    with reporting("embedding") as report:
        clock[0] += 20
        report(10, 40)
        clock[0] += 20
        report(20, 40)
    assert capsys.readouterr().err == "embedding: 10/40, 1:00 left\nembedding: 20/40, 0:40 left\n"


def test_a_count_that_starts_at_zero_is_timed_from_there(clock, capsys):
    """Opening a file is no part of what is counted, and each file is counted by itself."""
    with reporting("reading") as report:
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
