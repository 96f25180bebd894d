"""``vislang ask``: images and videos, examples, and decoding."""

import pytest

from tests import tiny
from vislang.cli import main


@pytest.fixture
def saved(towers, pictures) -> str:
    tiny.flamingo(towers, frames=4).save(pictures / "model")
    return str(pictures / "model")


def shots(pictures, count: int) -> list[str]:
    return [
        part for n in range(count) for part in ("--shot", str(pictures / f"{n % 20}.png"), "blue" if n % 2 else "red")
    ]


def test_a_question_after_four_examples(saved, pictures, capsys):
    assert main(["ask", saved, str(pictures / "8.png"), "what color?", *shots(pictures, 4)]) == 0
    with_shots = capsys.readouterr().out
    assert main(["ask", saved, str(pictures / "8.png"), "what color?"]) == 0
    assert capsys.readouterr().out != with_shots != "\n"


def test_a_video_is_asked_about_and_may_be_an_example(saved, pictures, capsys):
    film = str(tiny.write_video(pictures / "film.mp4", [0, 100, 200]))
    assert main(["ask", saved, film, "what color?", "--shot", film, "red"]) == 0
    assert capsys.readouterr().out.strip()


def test_several_answers_and_stops(saved, pictures, capsys):
    image = str(pictures / "0.png")
    assert main(["ask", saved, image, "--temperature", "1", "--returns", "3", "--max-new-tokens", "5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 3
    assert main(["ask", saved, image, "--beams", "3", "--returns", "2", "--length-penalty", "0"]) == 0
    capsys.readouterr()
    assert main(["ask", saved, image, "--max-new-tokens", "12"]) == 0
    whole = capsys.readouterr().out.strip()
    stop = whole[len(whole) // 2 :][:2]
    assert main(["ask", saved, image, "--max-new-tokens", "12", f"--stop={stop}"]) == 0
    assert capsys.readouterr().out.strip() == whole[: whole.index(stop)].strip()


def test_given_answers_are_ranked(saved, pictures, capsys):
    assert main(["ask", saved, str(pictures / "8.png"), "what color?", "--options", "red, blue,a cat"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert {answer for _, answer in lines} == {"red", "blue", "a cat"}
    shares = [float(share) for share, _ in lines]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=0.002)


def test_more_examples_than_there_is_room_for(saved, pictures, capsys):
    arguments = ["ask", saved, str(pictures / "8.png"), "what color?", *shots(pictures, 24)]
    assert main(arguments) == 2
    assert "let the first ones be dropped" in capsys.readouterr().err
    assert main([*arguments, "--drop-examples"]) == 0
    shown = capsys.readouterr()
    assert "of its examples were dropped" in shown.err
    assert shown.out.strip()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["none.mp4"], "none.mp4: no such file"),
        (["BROKEN"], "not a video, of an unknown format"),
        (["IMAGE", "--beams", "2", "--temperature", "1"], "beam search does not sample"),
        (["IMAGE", "--shot", "IMAGE", "what?"], "no answer. Write"),
        (["IMAGE", "--options", ","], "two or more different answers"),
        (["IMAGE", "--options", "red,red"], "two or more different answers"),
        (["IMAGE", "--temperature", "nan"], "temperature is nan"),
        (["IMAGE", "--temperature", "1e-40"], "it must be 0 or at least"),
        (["IMAGE", "--temperature", "1", "--seed", "99999999999999999"], "below 2**32"),
        (["IMAGE", "--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["IMAGE", "--beams", "2", "--length-penalty", "1e300"], "length_penalty is 1e+300"),
        (["IMAGE", "--length-penalty", "0"], "length_penalty ranks beams. Set beams to 2 or more"),
        (["IMAGE", "--top-k", "3"], "top_k and top_p have an effect only where tokens are drawn"),
        (["IMAGE", "--top-p", "0.5"], "top_k and top_p have an effect only where tokens are drawn"),
        (["IMAGE", "--options", "red,blue", "--returns", "2", "--beams", "2"], "--beams, --returns: no effect with"),
        (["IMAGE", "--head", "answers"], "--head: "),
        (["IMAGE", "\udcff what?"], "the question is not valid UTF-8"),
        (["IMAGE", "what?", "--shot", "IMAGE", "\udcff"], "the answer is not valid UTF-8"),
    ],
)
def test_mistakes_are_one_line_errors(saved, pictures, capsys, more, message):
    (pictures / "broken.mp4").write_bytes(b"no film")
    names = {"IMAGE": str(pictures / "0.png"), "BROKEN": str(pictures / "broken.mp4")}
    assert main(["ask", saved, *(names.get(word, word) for word in more)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
