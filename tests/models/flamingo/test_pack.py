"""Packs: examples in a file are those that were read, bit for bit; another model and a damaged file are named."""

from __future__ import annotations

import json

import pytest
import safetensors
import safetensors.torch
import torch

from tests import tiny
from tests.models.flamingo.test_collate import image
from vislang.capabilities import Decoding
from vislang.errors import UserError
from vislang.evaluate.generate import generate
from vislang.evaluate.prefix import NOTHING
from vislang.evaluate.rank import rank
from vislang.evaluate.shots import prefill
from vislang.models.flamingo.model import Flamingo


@pytest.fixture
def model(towers):
    return tiny.flamingo(towers, frames=4)


def shots(pictures, count: int = 3):
    return [tiny.question(image(pictures, n), "what color?", ("red", "blue")[n % 2]) for n in range(count)]


@pytest.fixture
def pack(model, pictures):
    path = pictures / "colours.pack"
    model.pack(shots(pictures), path)
    return path


def test_answers_are_those_of_the_examples_bit_for_bit(model, pictures):
    """In another process, as it were: the model that opens the pack has read nothing."""
    model.save(pictures / "model")
    model, reopened = Flamingo.load(pictures / "model"), Flamingo.load(pictures / "model")
    model.pack(shots(pictures), pictures / "colours.pack")
    prefix = reopened.open_pack(pictures / "colours.pack")
    sent = model.prompts.render(tiny.question(image(pictures, 9), "what color?"), shots(pictures))
    state, rest = model.resume(sent, model.prefixes(0))
    prefixes = reopened.prefixes(0)
    prefixes.pin(prefix)
    packed_state, packed_rest = reopened.resume(sent, prefixes)
    assert prefixes.hits == 1
    assert packed_rest == rest
    texts = []
    for own, read in ((model, state), (reopened, packed_state)):
        *_, last = own.together().continuations(own.prefill(rest, read), Decoding(8), 3)
        texts.append(
            (last, own.rank([rest], ["red", "a blue shape"], state=read), own.generate_scored([rest], 8, state=read))
        )
    assert texts[0] == texts[1]


def test_an_evaluation_after_a_pack_is_that_after_the_examples(model, pictures, pack):
    queries = [tiny.question(image(pictures, n), "what color?", "red") for n in range(9, 14)]
    prefix = model.open_pack(pack)
    expected = prefill(model, shots(pictures))
    for answered in (
        lambda prefix: generate(model, queries, prefix=prefix),
        lambda prefix: rank(model, queries, ["red", "blue"], prefix=prefix),
    ):
        ours, theirs, without = (answered(each) for each in (prefix, expected, NOTHING))
        assert [(p.answer, p.scores, p.log_likelihood) for p in ours] == [
            (p.answer, p.scores, p.log_likelihood) for p in theirs
        ]
        assert [p.log_likelihood or p.scores for p in ours] != [p.log_likelihood or p.scores for p in without]


def test_the_examples_themselves_are_in_it(model, pictures, pack):
    """Their images as they were encoded, so that whoever has the pack can look at them."""
    document = model.open_pack(pack).document
    expected = model.prompts.examples(shots(pictures))
    assert len(document.parts) == len(expected)
    for ours, theirs in zip(document.parts, expected, strict=True):
        if hasattr(theirs, "content_hash"):
            assert ours.read() == theirs.read()
            assert ours.name == f"{pack}: {theirs.source.name}"
        else:
            assert ours == theirs
    with safetensors.safe_open(pack, "pt") as file:
        assert file.get_slice("latents").get_shape() == [3, 4, 16]
        names = set(file.keys())
    assert {"gated.1.keys", "gated.2.values", "layer.0.keys", "layer.2.values", "media.2"} <= names
    # Equal images are in it once.
    twice = pictures / "twice.pack"
    model.pack([*shots(pictures, 1), *shots(pictures, 1)], twice)
    with safetensors.safe_open(twice, "pt") as file:
        assert "media.1" not in set(file.keys())
    assert len(model.open_pack(twice).document.media) == 2


def test_videos_and_texts(model, pictures):
    from vislang.document import Document, Video
    from vislang.example import Example, Text

    film = Video(tiny.write_video(pictures / "film.mp4", [0, 200]))
    told = [tiny.question(film, "what color?", "blue"), Example("text", Document(["cat?"]), Text(("dog",)))]
    model.pack(told, pictures / "film.pack")
    prefix = model.open_pack(pictures / "film.pack")
    expected = model.prefill(Document(model.prompts.examples(told)))
    assert torch.equal(prefix.state.hidden, expected.hidden)
    assert prefix.document.media[0].read() == film.read()


def test_another_tower_or_bridge_is_named(model, pictures, pack, tmp_path_factory):
    language, vision = tiny.save_towers(tmp_path_factory.mktemp("others"))
    same = tiny.flamingo((language, vision), frames=4)
    assert same.open_pack(pack)
    changes = {
        "language model": lambda own: setattr(own, "language_fingerprint", "0" * 64),
        "vision tower": lambda own: setattr(own.vision, "fingerprint", "0" * 64),
        "bridge": lambda own: own.bridge.gated_blocks["1"].attention_gate.data.add_(0.1),
    }
    for part, change in changes.items():
        other = tiny.flamingo((language, vision), frames=4)
        change(other)
        with pytest.raises(UserError, match=rf"colours.pack: was made with another {part} \(hash "):
            other.open_pack(pack)


def test_another_setting_is_named(towers, model, pictures, pack):
    from dataclasses import replace

    model.collate.prompts = replace(model.prompts, separator="\n")
    with pytest.raises(UserError, match=r"was made with the setting prompts .*'separator': ''"):
        model.open_pack(pack)
    other = tiny.flamingo(towers, frames=4)
    other.bridge.config.attend_to = "all"
    with pytest.raises(UserError, match="was made with the setting attend_to 'latest', and this model has 'all'"):
        other.open_pack(pack)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_damaged_file_is_named(model, pack, share):
    content = bytearray(pack.read_bytes())
    content[int(share * len(content))] ^= 0x40
    pack.write_bytes(content)
    with pytest.raises(UserError, match=r"colours.pack: (no pack, or damaged|damaged: |not a pack)"):
        model.open_pack(pack)


@pytest.mark.parametrize("length", [0, 5, 2000, -1])
def test_a_file_that_is_cut_off_is_named(model, pack, length):
    pack.write_bytes(pack.read_bytes()[:length])
    with pytest.raises(UserError, match=r"colours.pack: no pack, or damaged"):
        model.open_pack(pack)


def test_other_files_are_named(model, pictures, pack):
    safetensors.torch.save_file({"a": torch.zeros(1)}, pictures / "other.pack")
    with pytest.raises(UserError, match=r"other.pack: not a pack of this version"):
        model.open_pack(pictures / "other.pack")
    with pytest.raises(UserError, match=r"none.pack: cannot be read"):
        model.open_pack(pictures / "none.pack")
    with pytest.raises(UserError, match=r"is a folder. Give a pack"):
        model.open_pack(pictures)


def test_a_description_that_was_changed_is_damaged(model, pack):
    with safetensors.safe_open(pack, "pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load(pack.read_bytes())
    description = json.loads(tensors["description"].numpy().tobytes())
    description["makers"]["bridge"] = "0" * 64
    tensors["description"] = torch.frombuffer(bytearray(json.dumps(description).encode()), dtype=torch.uint8)
    safetensors.torch.save_file(tensors, pack, metadata)
    with pytest.raises(UserError, match="damaged: its content does not match its hash"):
        model.open_pack(pack)


def test_nothing_is_left_of_a_pack_that_failed(model, pictures):
    from vislang.document import Image, MediaError

    (pictures / "bad.png").write_bytes(b"no image")
    broken = tiny.question(Image(pictures / "bad.png"), "what?", "red")
    with pytest.raises(MediaError, match=r"bad.png"):
        model.pack([*shots(pictures), broken], pictures / "failed.pack")
    assert not list(pictures.glob("*failed*"))
