import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from vislang import Document, Image, Video
from vislang.document import Absent, MediaError


def encoded(picture: Pillow.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparent_parts_become_white():
    picture = Pillow.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 255, 0))
    decoded = Image(encoded(picture)).decode()
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_a_transparent_palette_colour_becomes_white():
    picture = Pillow.new("P", (1, 1))
    picture.putpalette([10, 20, 30] * 256)
    assert Image(encoded(picture, transparency=0)).decode().getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_levels():
    levels = np.array([[0, 32768, 65535]], dtype=np.uint16)
    decoded = Image(encoded(Pillow.fromarray(levels))).decode()
    assert [decoded.getpixel((x, 0))[0] for x in range(3)] == [0, 127, 255]


def test_a_photograph_is_turned_upright():
    exif = Pillow.Exif()
    exif[0x0112] = 6
    assert Image(encoded(Pillow.new("RGB", (4, 2)), "JPEG", exif=exif)).decode().size == (2, 4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert Image(encoded(Pillow.new(mode, (3, 2)), kind)).decode().mode == "RGB"


def test_a_truncated_image_is_an_error_that_names_it(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "half.png"
    path.write_bytes(encoded(Pillow.fromarray(noise))[:3000])
    with pytest.raises(MediaError, match=r"half\.png: .*Copy the original again"):
        Image(path).decode()


def test_a_decompression_bomb_is_found_by_its_header():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (8_000, 60_000):
        # The header has far more pixels than the data.
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        with pytest.raises(MediaError, match="and the limit is"):
            Image(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 99))).decode()


def test_the_pixel_limit_holds_exactly():
    picture = Image(encoded(Pillow.new("RGB", (10, 10))))
    assert picture.decode(max_pixels=100).size == (10, 10)
    with pytest.raises(MediaError, match="10 x 10 pixels, and the limit is 99"):
        picture.decode(max_pixels=99)


@pytest.mark.parametrize("content", [b"", b"hello", b"<svg/>"])
def test_a_file_that_is_not_an_image_is_an_error(content):
    with pytest.raises(MediaError):
        Image(content).decode()


@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_end_in_another_error(content):
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\x00"):
        with contextlib.suppress(MediaError):
            Image(start + content).decode()


def test_a_missing_file_and_a_folder_have_different_errors(tmp_path):
    with pytest.raises(MediaError, match="no such file"):
        Image(tmp_path / "none.png").decode()
    with pytest.raises(MediaError, match="cannot be read"):
        Image(tmp_path).decode()


def test_the_content_hash_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"same")
    assert Image(tmp_path / "a").content_hash == Image(tmp_path / "b").content_hash == Image(b"same").content_hash
    assert Image(b"same").content_hash != Image(b"other").content_hash


def test_removing_media_keeps_their_positions():
    document = Document(["a", Image(b"x"), "b", Video(b"y")], target="c", name="n")
    blind = document.without_media()
    assert blind.parts == ("a", Absent(), "b", Absent())
    assert (blind.target, blind.name) == ("c", "n")
    assert len(document.media) == 2
    assert blind.media == ()


def test_an_invalid_part_is_an_error():
    with pytest.raises(TypeError, match=r"rec:3: a part is a int"):
        Document([3], name="rec:3")  # type: ignore[list-item]
