"""Texts as whole words and as word pieces at once, for a bag of words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vislang.models.vilbert.word_pieces import Pieces, WordPieces

FILE = "pieces.json"


class WordsAndPieces(WordPieces):
    """The ids of a text's whole words, followed by those of its word pieces.

    A word that is in no training caption still has pieces, so a bag of both knows something of it.

    Args:
        words: a vocabulary of whole words.
        pieces: a vocabulary of word pieces.
        offset: what is added to the ids of pieces; at least the greatest number of words.
    """

    def __init__(self, words: WordPieces, pieces: WordPieces, offset: int):
        super().__init__(words.tokenizer, words.max_length)
        self.words, self.pieces, self.offset = words, pieces, offset

    def unknown_in(self, texts: Sequence[str]) -> list[str]:
        """None: every word has pieces."""
        return []

    def are_words(self, ids: Int[Tensor, "texts tokens"]) -> Bool[Tensor, "texts tokens"]:
        """Which ids are words or pieces: not special tokens and not the unknown token."""
        own = ids - self.offset
        return torch.where(own < 0, self.words.are_words(ids), self.pieces.are_words(own))

    def __call__(self, texts: Sequence[Sequence[str]]) -> Pieces:
        """Encode texts. Segments are those of the words; a bag does not read them."""
        words, pieces = self.words(texts), self.pieces(texts)
        ids = torch.cat([words.ids, pieces.ids + self.offset], dim=1)
        padding = [
            torch.zeros_like(part.ids, dtype=torch.bool) if part.padding is None else part.padding
            for part in (words, pieces)
        ]
        return Pieces(ids, torch.cat([words.segments, pieces.segments], dim=1), torch.cat(padding, dim=1))
