"""``vislang doctor``: what is installed, what is missing, and how to install it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import requires

from vislang.cache import cache_folder, writing
from vislang.console import console
from vislang.errors import UserError

MODULES = {
    "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
    "easy-vqa": "easy_vqa",
    "prometheus-client": "prometheus_client",
    "scikit-learn": "sklearn",
}
"""Import names of packages whose import name differs from the package's name."""

EXTRAS = {
    "report": "HTML reports",
    "eval": "probes, Parquet tables, BLEU",
    "audio": "recordings",
    "video": "videos",
    "data": "Parquet files, region features in LMDB files",
    "remote": "data at https:// and s3:// addresses",
    "serve": "vislang serve",
    "search": "an index of more than a million images",
    "track": "train --track tensorboard",
    "tune": "low-rank updates (LoRA)",
    "demo": "the packaged towers and the demo's data",
}
"""The extras of vislang, and what each is needed for."""


@dataclass(frozen=True)
class Doctor:
    """List what is installed, what is missing, and how to install it."""

    def run(self) -> int:
        """Print the list; returns 0 if the demo can run, else 1."""
        import torch

        from vislang.models.towers.packaged import PACKAGED
        from vislang.runs.folder import versions

        for package, number in versions().items():
            console.print(f"{package:14} {number}")
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU found"
        console.print(f"{'torch build':14} {build}, {device}")
        console.print(f"{'threads':14} {torch.get_num_threads()} of {os.cpu_count()} processors")
        missing = 0
        try:
            cache = cache_folder()
            with writing(cache), tempfile.TemporaryFile(dir=cache):
                free = shutil.disk_usage(cache).free
            console.print(f"{'cache':14} {cache}, {free / 2**30:.0f} GiB free")
        except UserError as error:
            missing += 1
            console.print(f"{'cache':14} {error}", markup=False)
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
    """The packages that an extra of vislang installs, from the metadata of the installed vislang."""
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
