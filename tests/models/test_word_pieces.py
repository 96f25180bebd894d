"""Word pieces: pairs of texts, long texts, learned and opened vocabularies."""

import subprocess
import sys

import pytest

from vislang.errors import UserError
from vislang.models.data2vec.inputs import TooLong
from vislang.models.vilbert.word_pieces import WordPieces

TEXTS = ["the left cat", "the right cat", "a dog that barks at cats", "Räder und Äpfel"]


def words(length: int = 12) -> WordPieces:
    return WordPieces.train(TEXTS, 60, length)


def test_one_text_and_a_pair():
    made = words()
    pieces = made([("the cat",), ("the dog", "a cat")])
    assert pieces.ids[:, 0].tolist() == [made.start] * 2
    row = [made.tokenizer.id_to_token(number) for number in pieces.ids[1].tolist()]
    assert row.count("[SEP]") == 2
    second = row.index("[SEP]") + 1
    assert pieces.segments[1].tolist() == [0] * second + [1] * (len(row) - second)
    assert pieces.segments[0].sum() == 0
    assert pieces.padding[0].any()
    assert not pieces.padding[1].any()
    assert made([("the cat",)]).padding is None


def test_case_and_accents_do_not_matter():
    made = words()
    assert made([("RADER UND APFEL",)]).ids.tolist() == made([("Räder und Äpfel",)]).ids.tolist()


def test_of_a_pair_that_is_too_long_the_longer_is_cut():
    made = words(8)
    with pytest.warns(TooLong, match="texts of more than 5 word pieces are cut"):
        pieces = made([("the cat", "a dog that barks at cats")])
    assert pieces.ids.shape == (1, 8)
    assert pieces.ids[0, -1] == made.end
    short = made([("the cat",)]).ids[0]
    assert pieces.ids[0, : len(short)].tolist() == short.tolist()


def test_the_same_texts_give_the_same_vocabulary_in_every_process():
    code = (
        "from vislang.models.vilbert.word_pieces import WordPieces\n"
        f"made = WordPieces.train({TEXTS!r}, 60, 12)\n"
        "print(sorted(made.tokenizer.get_vocab().items(), key=lambda pair: pair[1]))"
    )
    found = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(4)}
    assert len(found) == 1
    assert "[CLS]" in found.pop()


def test_what_was_learned_can_be_written_and_opened(tmp_path):
    made = words()
    (tmp_path / "tokenizer.json").write_text(made.tokenizer.to_str())
    again = WordPieces.load(tmp_path / "tokenizer.json", 12)
    assert again([("the dog", "barks")]).ids.tolist() == made([("the dog", "barks")]).ids.tolist()
    vocabulary = sorted(made.tokenizer.get_vocab(), key=made.tokenizer.get_vocab().get)
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    berts = WordPieces.load(tmp_path / "vocab.txt", 12)
    assert berts([("the dog",)]).ids.tolist() == made([("the dog",)]).ids.tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.json", None, "cannot be read"),
        ("bad.json", "{}", "not a tokenizer"),
        ("vocab.txt", "a\nb\n", r"has no \[PAD\], \[UNK\]"),
        ("vocab.txt", "a\n[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", r"\[PAD\] has the id 1"),
    ],
)
def test_files_that_are_no_tokenizer(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        WordPieces.load(tmp_path / name, 12)


def test_whole_words_are_in_two_texts_and_keep_their_numbers():
    texts = ["A red apple.", "a red car", "Red car, blue", "zebra zebra"]
    words = WordPieces.of_whole_words(texts, 100, 16)
    assert words.has_whole_words
    assert words.size == 5 + 2
    pieces = words([("a red zebra, CAR",)])
    assert words.are_words(pieces.ids).tolist() == [[False, False, True, False, False, True, False]]
    opened = WordPieces.parse(words.tokenizer.to_str(), 16)
    assert opened.has_whole_words
    assert opened([("a red zebra, CAR",)]).ids.tolist() == pieces.ids.tolist()
    more = WordPieces.of_whole_words(["blue apple", "apple blue car"], 8, 16, words)
    assert more.size == 8, "one more word than before, of the two that are new"
    assert more([("red car",)]).ids.tolist() == words([("red car",)]).ids.tolist()
    assert more.are_words(more([("apple blue",)]).ids).tolist() == [[False, True, False, False]]
    assert not WordPieces.train(texts, 60, 16).has_whole_words
    for learned, room in ((texts, 5), (["one", "two", "a a"], 100)):
        with pytest.raises(UserError, match="a bag of words needs words"):
            WordPieces.of_whole_words(learned, room, 16)
