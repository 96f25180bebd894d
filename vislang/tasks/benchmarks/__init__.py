"""The official benchmarks: each module of this package declares one or a few, and nothing else lists them.

To add one, add a module with a :class:`~vislang.tasks.benchmark.Benchmark` that has a ``name``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

from vislang.tasks.benchmark import Benchmark


def _declared() -> Iterator[type[Benchmark]]:
    """The classes with a name of their own in the modules of this package."""
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        for made in vars(module).values():
            own = inspect.isclass(made) and made.__module__ == module.__name__
            if own and issubclass(made, Benchmark) and "name" in vars(made):
                yield made


BENCHMARKS: dict[str, type[Benchmark]] = {made.name: made for made in sorted(_declared(), key=lambda made: made.name)}
"""The benchmarks by name; each is opened with a folder of its official files."""
