"""Processes that the launcher starts: one that fails ends the other, a signal reaches both, none outlives it."""

import signal
import subprocess
import sys
import time

from vislang.runs.child import Child
from vislang.train.checkpoint import list_checkpoints
from vislang.train.launch import launch

CODE = "import sys; from vislang.train.launch import launch; sys.exit(launch(sys.argv[1:], 2))"


def test_a_process_that_fails_ends_the_other_with_its_status(tmp_path, capfd):
    started = time.monotonic()
    assert launch(["-m", "tests.train.launched", str(tmp_path), "1000000", "fail"], 2) == 2
    # On a busy machine most of it is the start of both processes.
    assert time.monotonic() - started < 180
    said = capfd.readouterr()
    assert said.out.count("a record that only this process reads is bad") == 1
    assert "Traceback" not in said.err


def test_a_signal_stops_both_after_they_have_saved(tmp_path):
    words = ["-m", "tests.train.launched", str(tmp_path), "1000000"]
    process = subprocess.Popen([sys.executable, "-c", CODE, *words])
    metrics, deadline = tmp_path / "metrics.jsonl", time.monotonic() + 120
    try:
        while not metrics.exists() or metrics.read_text().count("\n") < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=180) == 130
    (saved,) = list_checkpoints(tmp_path / "checkpoints")
    assert int(saved.name.removeprefix("step-")) == len(metrics.read_text().splitlines())


def test_none_outlives_a_launcher_that_is_killed(tmp_path):
    child = Child(["-c", CODE, "-m", "tests.train.launched", str(tmp_path), "1000000"], tmp_path / "log")
    metrics, deadline = tmp_path / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count("\n") < 5:
        assert not child.ended()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(child.members()) >= 3
    child.send(signal.SIGKILL)
    took = child.wait_for_all(60)
    left = subprocess.run(
        ["ps", "-A", "-o", "pid,ppid,stat,wchan,args"], capture_output=True, text=True, check=True
    ).stdout
    assert took is not None, f"{child.members()} still run; {child.said()}; all processes: {left}"
    assert "its launcher was killed, and it ends, too" in child.said()
