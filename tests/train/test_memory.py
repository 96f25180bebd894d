"""What is freed is kept: taking it again costs few page faults."""

import subprocess
import sys

from vislang.train.memory import keep_freed_memory

CODE = """
import random, resource, sys
import torch
from vislang.train.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
draw = random.Random(0)
for step in range(60):
    if step == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(draw.randrange(1_000_000, 20_000_000)) for _ in range(4)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_is_taken_again_with_few_page_faults():
    if not sys.platform.startswith("linux"):
        # Only glibc can be told; elsewhere it says that it did nothing.
        assert not keep_freed_memory()
        return
    faults = {
        how: int(subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "give back")
    }
    assert faults["keep"] < faults["give back"] / 4
