"""vislang: three ways of joining images and language, data in and data out.

>>> import vislang
>>> model = vislang.load("runs/demo/model")                                    # doctest: +SKIP
>>> model.ask(vislang.Image("photo.png"), "what color is the shape?")           # doctest: +SKIP
'blue'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vislang.document import Audio, Document, Image, Video

if TYPE_CHECKING:
    from vislang.models.loading import load

__all__ = ["Audio", "Document", "Image", "Video", "load"]
__version__ = "0.1.0"


def __getattr__(name: str):
    # torch takes seconds to import; Documents and the command line's help do without it.
    if name == "load":
        from vislang.models.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
