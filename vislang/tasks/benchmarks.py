"""The benchmarks that are known, by the name that a command or a recipe calls them."""

from __future__ import annotations

from vislang.tasks.entailment import SNLIVE
from vislang.tasks.memes import HatefulMemes
from vislang.tasks.navigation import R2R
from vislang.tasks.nlvr2 import NLVR2
from vislang.tasks.official import Benchmark
from vislang.tasks.referring import Referring
from vislang.tasks.sentiment import MVSA, SentimentNumbers
from vislang.tasks.vcr import VCR
from vislang.tasks.vqa import VQA

BENCHMARKS: dict[str, type[Benchmark]] = {
    made.name: made for made in (VQA, VCR, Referring, NLVR2, SNLIVE, HatefulMemes, MVSA, SentimentNumbers, R2R)
}
"""RefCOCO, RefCOCO+ and RefCOCOg have one format and one name here: ``refcoco``."""
