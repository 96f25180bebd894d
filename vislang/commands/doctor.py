"""``vislang doctor``: what is installed, what was found, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import requires

from vislang.cache import cache_folder
from vislang.console import console

MODULES = {
    "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
    "easy-vqa": "easy_vqa",
    "scikit-learn": "sklearn",
}
"""Import names of packages that are imported by another name than their own."""

EXTRAS = {
    "report": "draws reports",
    "eval": "probes, embeds into Parquet tables, scores BLEU",
    "audio": "reads recordings",
    "video": "reads videos",
    "data": "reads region features in LMDB files",
    "demo": "opens the packaged towers, and brings the demo's data",
}
"""The optional parts of vislang, and what each of them is for."""


@dataclass(frozen=True)
class Doctor:
    """Say what is installed, what was found, what is missing and how to get it."""

    def run(self) -> int:
        """Print it; returns 0 where the demo could run, else 1."""
        import torch

        from vislang.models.towers.packaged import PACKAGED
        from vislang.runs.folder import versions

        for package, number in versions().items():
            console.print(f"{package:14} {number}")
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU found"
        console.print(f"{'torch build':14} {build}, {device}")
        console.print(f"{'threads':14} {torch.get_num_threads()} of {os.cpu_count()} processors")
        cache = cache_folder()
        writable = "" if os.access(cache, os.W_OK) else ", NOT writable (VISLANG_CACHE names another folder)"
        console.print(f"{'cache':14} {cache}, {shutil.disk_usage(cache).free / 2**30:.0f} GiB free{writable}")
        missing = 0
        for name, weights in PACKAGED.items():
            path = weights.find()
            missing += path is None
            console.print(f"{name}: {'found' if path else f'missing; run: {weights.install}'}")
        for extra, purpose in EXTRAS.items():
            absent = [package for package in packages_of(extra) if not is_installed(package)]
            missing += bool(absent) and extra in ("demo", "report")
            remedy = f"missing {', '.join(absent)}; run: pip install 'vislang\\[{extra}]'"
            console.print(f"{extra:14} {remedy if absent else 'installed'} ({purpose})")
        console.print("the demo can run" if not missing else f"the demo cannot run: {missing} missing")
        return 1 if missing else 0


def packages_of(extra: str) -> list[str]:
    """The packages that an extra of vislang installs, as the installed package states them."""
    found: list[str] = []
    for requirement in requires("vislang") or []:
        package, _, marker = requirement.partition(";")
        if re.search(rf"extra == [\"']{extra}[\"']", marker):
            name = re.split(r"[\s<>=!\[]", package.strip())[0]
            inner = re.search(r"vislang\[([\w,]+)\]", package)
            found += [p for part in inner[1].split(",") for p in packages_of(part)] if inner else [name]
    return found


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(MODULES.get(package, package)) is not None
