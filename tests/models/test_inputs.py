"""Documents to tensors: text, images and sound, and unusable inputs."""

import io
import warnings

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow

from vislang.document import Audio, AudioNotice, Document, Image, MediaError
from vislang.errors import UserError
from vislang.models.data2vec.inputs import ImageInput, Inputs, InputsConfig, SpeechInput, TextInput, TooLong
from vislang.models.settings import settings_of

PROSE = ["The quick brown fox jumps over the lazy dog.", "Pack my box with five dozen liquor jugs."] * 4


def sound(samples: np.ndarray, rate: int = 16_000, format: str = "WAV", subtype: str | None = None) -> Audio:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return Audio(buffer.getvalue())


def tone(seconds: float = 0.5, rate: int = 16_000, level: float = 0.3, hertz: float = 440) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def picture(colour, mode: str = "RGB", size=(20, 10)) -> Image:
    buffer = io.BytesIO()
    Pillow.new(mode, size, colour).save(buffer, "PNG")
    return Image(buffer.getvalue())


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG"])
def test_sound_at_its_own_rate_is_read_without_a_notice(format):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples = sound(tone(), format=format).decode()
    assert samples.shape == (8000,)
    assert np.abs(samples - tone()).max() < 0.05


def test_another_rate_is_resampled_with_a_notice_and_channels_are_averaged():
    both = np.stack([tone(rate=44_100), np.zeros(22_050, np.float32)], axis=1)
    with pytest.warns(AudioNotice, match="44,100 Hz is resampled to 16,000 Hz"):
        samples = sound(both, 44_100).decode()
    assert len(samples) == 8000
    # The same tone at half the level, except at the edges.
    assert np.abs(samples - 0.5 * tone())[200:-200].max() < 0.01


def test_clipped_sound_is_used_with_a_notice():
    with pytest.warns(AudioNotice, match="clipped"):
        samples = sound(tone(level=3.0).clip(-1, 1), subtype="FLOAT").decode()
    assert samples.max() == 1


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(8000, np.float32), "silent"),
        (np.zeros(0, np.float32), "no samples"),
        (np.full(800, np.nan, np.float32), "NaN or infinite"),
        (np.array([0.1, np.inf] * 400, np.float32), "NaN or infinite"),
    ],
)
def test_unusable_sound_is_an_error(samples, message):
    with pytest.raises(MediaError, match=message):
        sound(samples, subtype="FLOAT").decode()


def test_files_that_are_not_sound_are_errors(tmp_path):
    (tmp_path / "a.wav").write_text("no sound at all")
    with pytest.raises(MediaError, match=r"a\.wav: not a recording, of an unknown format, or damaged"):
        Audio(tmp_path / "a.wav").decode()
    with pytest.raises(MediaError, match=r"2 seconds, and the limit is 1"):
        sound(tone(2.0)).decode(max_seconds=1)


def test_grey_and_transparent_pictures_become_what_a_viewer_shows():
    image = ImageInput(size=4, mean=(0, 0, 0), std=(1, 1, 1))
    inputs = Inputs(image=image)
    grey = inputs.read([Document([picture(128, "L")])]).values
    assert torch.allclose(grey, torch.full((1, 3, 4, 4), 128 / 255))
    clear = inputs.read([Document([picture((255, 0, 0, 0), "RGBA")])]).values
    assert torch.equal(clear, torch.ones(1, 3, 4, 4))
    assert picture((255, 0, 0, 0), "RGBA").decode(background=(0, 0, 255)).getpixel((0, 0)) == (0, 0, 255)


def test_the_central_square_is_what_is_read():
    wide = Pillow.new("RGB", (30, 10), (255, 0, 0))
    wide.paste((0, 0, 255), (10, 0, 20, 10))
    values = ImageInput(10, (0, 0, 0), (1, 1, 1))(wide)
    assert torch.equal(values[2], torch.ones(10, 10))
    assert torch.equal(values[0], torch.zeros(10, 10))


def test_speech_is_normalised_and_padded():
    inputs = Inputs(speech=SpeechInput())
    whole = inputs.read([Document([sound(tone(0.5))]), Document([sound(tone(0.25))])])
    assert whole.modality == "speech"
    assert whole.values.shape == (2, 8000)
    assert whole.padding.sum(dim=1).tolist() == [0, 4000]
    short = whole.values[1, :4000]
    assert (short.mean().item(), short.std().item()) == (pytest.approx(0, abs=1e-4), pytest.approx(1, abs=1e-2))


def test_a_vocabulary_is_learned_saved_and_opened_again(tmp_path):
    text = TextInput.train(PROSE, 300, max_length=16)
    assert text.tokenizer.get_vocab_size() <= 300
    ids = text("The lazy fox 🦊")
    assert (ids[0], ids[-1]) == (text.start, text.end)
    assert text.tokenizer.decode(ids.tolist()) == "The lazy fox 🦊", "byte-level: nothing is unknown"
    inputs = Inputs(text=text)
    values = inputs.save(tmp_path)
    again = Inputs.load(tmp_path, settings_of(InputsConfig, values, "config.json"))
    assert torch.equal(again.text("The lazy fox"), text("The lazy fox"))


def test_text_over_the_length_is_cut_with_a_notice():
    text = TextInput.train(PROSE, 300, max_length=8)
    with pytest.warns(TooLong, match="texts of more than 6 tokens are cut"):
        ids = text(PROSE[0])
    assert len(ids) == 8
    assert ids[-1] == text.end


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["words", picture(0, "L")], "contains image and text"),
        ([], "contains nothing"),
        ([picture(0, "L"), picture(0, "L")], "contains 2 media"),
        (["words"], "is text, and this model reads only image"),
    ],
)
def test_documents_that_the_model_does_not_read(parts, message):
    with pytest.raises(UserError, match=message):
        Inputs(image=ImageInput()).read([Document(parts, name="a record")])


def test_a_file_that_is_no_tokenizer(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        TextInput.load(tmp_path / "none.json", 8)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match=r"bad\.json: not a tokenizer"):
        TextInput.load(tmp_path / "bad.json", 8)
