"""vislang: train, evaluate and use Flamingo, ViLBERT and data2vec.

>>> import vislang
>>> model = vislang.load("runs/demo/model")                                    # doctest: +SKIP
>>> model.ask(vislang.Image("photo.png"), "what color is the shape?")           # doctest: +SKIP
'blue'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from vislang.document import Audio, Document, Image, Video

if TYPE_CHECKING:
    from vislang.example import Example
    from vislang.models.loading import load

__all__ = ["Audio", "Document", "Example", "Image", "Video", "load"]
__version__ = "0.2.0.dev0"

_IMPORTED_LATER = {"Example": "vislang.example", "load": "vislang.models.loading"}
"""Public names whose modules import numpy or torch, which takes seconds; the command line's help needs neither."""


def __getattr__(name: str):
    if name in _IMPORTED_LATER:
        return getattr(importlib.import_module(_IMPORTED_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
