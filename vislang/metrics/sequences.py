"""Metrics of transcripts and of word tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vislang.errors import UserError
from vislang.metrics.figure import Figures, plain, share


def transcripts(predicted: Sequence[str], truth: Sequence[str]) -> Figures:
    """``word_error_rate`` and ``character_error_rate``, over all words and characters together.

    Args:
        predicted: transcripts.
        truth: the reference transcripts; they are compared in lower case and with single spaces, as models write.

    Raises:
        UserError: jiwer is not installed.
    """
    jiwer, tidy = _jiwer(), _tidy(truth)
    return {
        "word_error_rate": plain(jiwer.wer(tidy, list(predicted)), len(tidy)),
        "character_error_rate": plain(jiwer.cer(tidy, list(predicted)), len(tidy)),
    }


def word_error_rates(predicted: Sequence[str], truth: Sequence[str]) -> np.ndarray:
    """(transcripts,) the word error rate of each; see :func:`transcripts`."""
    jiwer = _jiwer()
    return np.array([jiwer.wer(true, said) for said, true in zip(predicted, _tidy(truth), strict=True)])


def _tidy(texts: Sequence[str]) -> list[str]:
    return [" ".join(text.lower().split()) for text in texts]


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError:
        raise UserError("error rates of transcripts need jiwer. Run: pip install 'vislang[audio]'") from None
    return jiwer


def tagging(predicted: Sequence[str], truth: Sequence[str]) -> Figures:
    """``accuracy`` over the words of the truth; a word without a predicted tag counts as wrong.

    Args:
        predicted, truth: for each text the tags of its words, with spaces between them.
    """
    right = words = 0
    for tags, true in zip(predicted, truth, strict=True):
        right += sum(p == t for p, t in zip(tags.split(), true.split(), strict=False))
        words += len(true.split())
    return {"accuracy": share(right, words)}
