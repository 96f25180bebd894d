"""BERT's word pieces (Devlin et al. 2019, section 3), from a vocabulary file or learned from texts."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from vislang.errors import UserError
from vislang.models.data2vec.inputs import TooLong, parse_tokenizer

PADDING, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
FILE = "tokenizer.json"


class Pieces(NamedTuple):
    """Texts as word pieces, padded on the right.

    Attributes:
        ids: of the pieces.
        segments: 0, and 1 for the second text of a pair.
        padding: True at padding; None without padding.
    """

    ids: Int[Tensor, "texts tokens"]
    segments: Int[Tensor, "texts tokens"]
    padding: Bool[Tensor, "texts tokens"] | None

    @property
    def tokens(self) -> int:
        """How many pieces there are, padding not counted."""
        return self.ids.numel() - (0 if self.padding is None else int(self.padding.sum()))


class WordPieces:
    """Turns texts into ids: lower case, without accents, between ``[CLS]`` and ``[SEP]``.

    Args:
        tokenizer: WordPiece with BERT's special tokens, padding being 0.
        max_length: greatest number of pieces of a text or pair of texts, including special tokens.

    Raises:
        UserError: a special token is missing, or padding is not 0.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int):
        needed = (PADDING, UNKNOWN, START, END, MASK)
        ids = [tokenizer.token_to_id(token) for token in needed]
        missing = [token for token, number in zip(needed, ids, strict=True) if number is None]
        if missing:
            raise UserError(f"the tokenizer has no {', '.join(missing)}. Give a tokenizer for BERT.")
        if ids[0] != 0:
            raise UserError(f"the tokenizer's {PADDING} has the id {ids[0]}; it must be 0, as for BERT.")
        # A text that spells [MASK] or [SEP] stays text.
        tokenizer.encode_special_tokens = True
        self.tokenizer, self.max_length = tokenizer, max_length
        _, self.unknown, self.start, self.end, self.mask = (number for number in ids if number is not None)

    @property
    def size(self) -> int:
        """The number of pieces in the vocabulary."""
        return self.tokenizer.get_vocab_size()

    @property
    def has_whole_words(self) -> bool:
        """Whether the vocabulary has only whole words; see :meth:`of_whole_words`."""
        return isinstance(self.tokenizer.model, models.WordLevel)

    def unknown_in(self, texts: Sequence[str]) -> list[str]:
        """The words of two or more letters that are not in the vocabulary, in the order of the texts."""
        words = dict.fromkeys(word for text in texts for word in _words(self.tokenizer, text))
        return [word for word in words if self.tokenizer.token_to_id(word) is None]

    def are_words(self, ids: Int[Tensor, "texts tokens"]) -> Bool[Tensor, "texts tokens"]:
        """Which ids are words: not special tokens and not the unknown token."""
        return ~torch.isin(ids, torch.tensor([0, self.unknown, self.start, self.end, self.mask], device=ids.device))

    def __call__(self, texts: Sequence[Sequence[str]]) -> Pieces:
        """Encode texts of one or two strings each. If a pair is too long, its longer string is cut first."""
        rows = [self._row(text) for text in texts]
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        segments = torch.zeros(len(rows), longest, dtype=torch.long)
        padding = torch.zeros(len(rows), longest, dtype=torch.bool)
        for number, (row, first) in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            segments[number, first : len(row)] = 1
            padding[number, len(row) :] = True
        return Pieces(ids, segments, padding if padding.any() else None)

    def _row(self, text: Sequence[str]) -> tuple[list[int], int]:
        """Ids, and where the second text begins."""
        encoded = [self.tokenizer.encode(part, add_special_tokens=False).ids for part in text]
        room = self.max_length - 1 - len(encoded)
        if sum(map(len, encoded)) > room:
            warnings.warn(f"texts of more than {room} word pieces are cut.", TooLong, stacklevel=4)
            while sum(map(len, encoded)) > room:
                max(encoded, key=len).pop()
        row = [self.start]
        first = 0
        for part in encoded:
            first = len(row)
            row += [*part, self.end]
        return row, first if len(encoded) > 1 else len(row)

    @classmethod
    def train(cls, texts: Sequence[str], vocabulary_size: int, max_length: int) -> WordPieces:
        """Learn a vocabulary of at most this size; the result is deterministic.

        Raises:
            UserError: the texts have more different letters.
        """
        learner = _bert(models.WordPiece(unk_token=UNKNOWN))
        special = [PADDING, UNKNOWN, START, END, MASK]
        # The trainer numbers letters within words in a random order and breaks ties by these numbers. As special
        # tokens, they get fixed numbers.
        within = [f"##{letter}" for letter in sorted(_letters_within(learner, texts))]
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[*special, *within],
            show_progress=False,
            continuing_subword_prefix="##",
        )
        learner.train_from_iterator(texts, trainer)
        if (size := learner.get_vocab_size()) > vocabulary_size:
            raise UserError(
                f"vocabulary_size is {vocabulary_size}, and the single letters of these texts already make {size} "
                "pieces. Raise it."
            )
        tokenizer = _bert(models.WordPiece(learner.get_vocab(), unk_token=UNKNOWN))
        tokenizer.add_special_tokens(special)
        return cls(tokenizer, max_length)

    @classmethod
    def of_whole_words(
        cls, texts: Sequence[str], vocabulary_size: int, max_length: int, known: WordPieces | None = None
    ) -> WordPieces:
        """A vocabulary of whole words: those with two or more letters that occur in two or more texts.

        Args:
            texts: the texts.
            vocabulary_size: greatest number of words, including special tokens; the most frequent words are taken.
            max_length: see above.
            known: a vocabulary of whole words to extend; its words keep their ids.

        Raises:
            UserError: there is no such word, or no room for one.
        """
        special = [PADDING, UNKNOWN, START, END, MASK]
        vocabulary = {token: number for number, token in enumerate(special)}
        if known is not None:
            vocabulary = dict(sorted(known.tokenizer.get_vocab().items(), key=lambda item: item[1]))
        tokenizer = _bert(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(set(_words(tokenizer, text)))
        for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            if count >= 2 and len(vocabulary) < vocabulary_size:
                vocabulary.setdefault(word, len(vocabulary))
        if len(vocabulary) == len(special):
            raise UserError(
                "a bag of words needs words of two or more letters that occur in two or more texts, and a "
                f"vocabulary_size above {len(special)} (it is {vocabulary_size}); there are none."
            )
        tokenizer.model = models.WordLevel(vocabulary, unk_token=UNKNOWN)
        tokenizer.add_special_tokens(special)
        return cls(tokenizer, max_length)

    @classmethod
    def load(cls, file: Path, max_length: int) -> WordPieces:
        """Open a ``tokenizer.json``, or BERT's ``vocab.txt`` (lower case).

        Raises:
            UserError: the file does not exist, or is not a tokenizer.
        """
        try:
            if file.suffix == ".txt":
                vocabulary = {line: number for number, line in enumerate(file.read_text("utf-8").splitlines())}
                return cls(_bert(models.WordPiece(vocabulary, unk_token=UNKNOWN)), max_length)
            return cls.parse(file.read_text("utf-8"), max_length)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: cannot be read ({error}). Give a tokenizer.json or BERT's vocab.txt.") from None
        except UserError as error:
            raise UserError(f"{file}: {error}") from None

    @classmethod
    def parse(cls, content: str, max_length: int) -> WordPieces:
        """Open the content of a ``tokenizer.json``.

        Raises:
            UserError: it is not a tokenizer.
        """
        return cls(parse_tokenizer(content), max_length)


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of a text with two or more letters."""
    split = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    return [word for word, _ in split if len(word) > 1 and word.isalnum()]


def _letters_within(tokenizer: Tokenizer, texts: Sequence[str]) -> set[str]:
    """All letters that occur in a word after its first letter."""
    found: set[str] = set()
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            found.update(word[1:])
    return found


def _bert(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
