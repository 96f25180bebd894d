"""What the tests of the launcher start: ``python -m tests.train.launched FOLDER STEPS [fail]``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.train.line import run
from vislang.errors import UserError
from vislang.train.processes import OtherProcessFailed, joined


def main(folder: str, steps: str, how: str = "") -> int:
    torch.set_num_threads(1)
    try:
        with joined() as processes:
            if how == "fail" and processes.rank == 1:
                raise UserError("a record that only this process reads is bad")
            run(Path(folder), int(steps), parallel="ddp", checkpoint_every=10**6)
    except UserError as error:
        print(f"vislang: {error}")
        return 2
    except OtherProcessFailed:
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
