"""The official benchmarks by name; each is opened with a folder of its files."""

from __future__ import annotations

from vislang.tasks.benchmark import Benchmark
from vislang.tasks.hateful_memes import HatefulMemes
from vislang.tasks.mvsa import MVSA
from vislang.tasks.nlvr2 import NLVR2
from vislang.tasks.r2r import R2R
from vislang.tasks.refcoco import RefCOCO
from vislang.tasks.sentiment import Sentiment
from vislang.tasks.snli_ve import SNLIVE
from vislang.tasks.vcr import VCR
from vislang.tasks.vqa import VQA

BENCHMARKS: dict[str, type[Benchmark]] = {
    benchmark.name: benchmark for benchmark in (VQA, VCR, RefCOCO, NLVR2, SNLIVE, HatefulMemes, MVSA, Sentiment, R2R)
}
"""RefCOCO, RefCOCO+ and RefCOCOg have the same format; all are ``refcoco`` here."""
