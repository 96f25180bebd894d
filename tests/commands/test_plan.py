"""The paper's sizes, counted by hand from the shapes."""

import json

import pytest

from vislang.cli import main


def gated(width: int, inner: int, media: int = 1536) -> int:
    """Attention without biases, two norms, feed-forward of four widths, two gates."""
    return 2 * width * inner + 2 * media * inner + 8 * width**2 + 4 * width + 2


@pytest.mark.parametrize(
    ("name", "width", "heads", "blocks"),
    [("flamingo-3b", 2048, 16, 24), ("flamingo-9b", 4096, 32, 10), ("flamingo-80b", 8192, 64, 12)],
)
def test_parts_are_counted_as_by_hand(name, width, heads, blocks, capsys):
    assert main(["plan", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    built = {part["part"]: part["built"] for part in found["parts"]}
    assert built["gated blocks"] == blocks * gated(width, width)
    by_reading = found["gated_blocks_by_reading_of_heads"]
    assert by_reading["64 a head"] == blocks * gated(width, 64 * heads)
    # Six layers: attention with keys and values alike for media and latents, three norms, feed-forward.
    layer = 4 * 1536**2 + 2 * 1536 * 4 * 1536 + 3 * 2 * 1536
    assert built["resampler"] == 6 * layer + (64 + 8) * 1536 + 2 * 1536
    assert found["trained"] == built["gated blocks"] + built["resampler"]
    assert abs(found["total"] / found["paper_total"] - 1) < 0.05
    stated = next(part["paper"] for part in found["parts"] if part["part"] == "gated blocks")
    assert min(by_reading, key=lambda reading: abs(by_reading[reading] - stated)) == found["nearest_reading"]


def test_the_table_and_a_name_that_is_none(capsys):
    assert main(["plan", "flamingo-9b"]) == 0
    assert "the nearest" in capsys.readouterr().out
    assert main(["plan", "flamingo-7b"]) == 2
    assert "The presets are flamingo-3b, flamingo-9b, flamingo-80b" in capsys.readouterr().err
