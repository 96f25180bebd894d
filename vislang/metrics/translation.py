"""Translations: BLEU (Papineni et al. 2002) and chrF (Popović 2015) of sacreBLEU (Post 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vislang.errors import needs
from vislang.metrics.figure import Figures, plain

METRICS = ("bleu", "chrf")


def translation(predicted: Sequence[str], references: Sequence[str]) -> Figures:
    """``bleu`` and ``chrf`` of all sentences together, from 0 to 1, with sacreBLEU's defaults: BLEU-4 with the tokens
    of ``13a``, upper and lower case distinct, and chrF2 without word n-grams.

    Args:
        predicted: a translation of each sentence.
        references: the reference of each.

    Raises:
        UserError: sacreBLEU is not installed.
    """
    needs("sacrebleu", "eval", "the scoring of translations")
    import sacrebleu

    # Some are fragments without a full stop, which the program would take for tokenized text and warn about.
    bleu = sacrebleu.corpus_bleu(list(predicted), [list(references)], force=True)
    chrf = sacrebleu.corpus_chrf(list(predicted), [list(references)])
    return {"bleu": plain(bleu.score / 100, len(references)), "chrf": plain(chrf.score / 100, len(references))}


def sentence_chrf(predicted: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """(sentences,) chrF of each, from 0 to 1.

    Raises:
        UserError: sacreBLEU is not installed.
    """
    needs("sacrebleu", "eval", "the scoring of translations")
    import sacrebleu

    pairs = zip(predicted, references, strict=True)
    return np.array([sacrebleu.sentence_chrf(said, [true]).score / 100 for said, true in pairs])
