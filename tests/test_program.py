"""How a program ends."""

import errno
import subprocess
import sys

import pytest

from vislang.errors import UserError
from vislang.program import run_program


def failing(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("photo.png: no such file"), 2, "vislang: photo.png: no such file\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out.json"), 2, "Free some space"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_status(error, status, message, capsys):
    assert run_program(failing(error)) == status
    assert message in capsys.readouterr().err


def test_an_error_of_ours_keeps_its_traceback():
    for error in (KeyError("x"), OSError(errno.EIO, "Input/output error")):
        with pytest.raises(type(error)):
            run_program(failing(error))


def test_the_status_of_a_program_is_its_own():
    assert [run_program(lambda status=status: status) for status in (None, 0, 1)] == [0, 0, 1]


def test_a_program_of_a_study_names_the_mistake(tmp_path):
    """A results folder that is a file."""
    (tmp_path / "out").write_text("mine")
    command = [sys.executable, "-m", "vislang.studies.grounding", "--out", str(tmp_path / "out"), "--seeds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("vislang: ")
    assert str(tmp_path / "out") in done.stderr
    assert "Traceback" not in done.stderr
