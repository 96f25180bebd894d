"""CMU-MOSI and CMU-MOSEI."""

import numpy as np
import pytest

from tests import tiny
from tests.tasks.families.family import Bad, Family, last_line_twice, scored
from tests.tasks.official import lines, write

SCORES = {"train": (-2.4, 0.0, 1.8, 3.0), "valid": (-1.0, 0.0, 1.4, 2.2), "test": (0.6,)}
HEADER = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"


def folder(path):
    """Clips of one video for each split; those of the last two splits have the names of CMU's archive."""
    import soundfile

    rng = np.random.default_rng(0)
    rows = [HEADER]
    for number, (mode, scores) in enumerate(SCORES.items()):
        video = f"v_{number}"
        for clip, score in enumerate(scores):
            feeling = "Neutral" if score == 0 else "Positive" if score > 0 else "Negative"
            rows.append(f'{video},{clip},"a film, so {clip}",{score},,,,{feeling},{mode}')
            archive = path / "Raw" / "Video" / "Segmented" / f"{video}_{clip}.mp4"
            place = path / "Raw" / video / f"{clip}.mp4" if mode == "train" else archive
            sound = path / "Raw" / "Audio" / "WAV_16000" / "Segmented" / f"{video}_{clip}.wav"
            for file in (place, sound):
                file.parent.mkdir(parents=True, exist_ok=True)
            tiny.write_video(place, [50 * clip, 10], frames_each=2)
            soundfile.write(sound, 0.1 * rng.standard_normal(3200), 16_000)
    write(path / "label.csv", "\n".join(rows) + "\n")


def family(name, cells, bad=()):
    sent = [{"id": f"v_1_{clip}", "score": score} for clip, score in enumerate((-0.6, 0.4, -0.2, 4.0))]
    return Family(
        name,
        folder,
        ("sent.jsonl", lines(sent)),
        f"{name.replace('-', '_')}_predictions.jsonl",
        cells,
        ("label.csv", last_line_twice),
        bad,
        ("label.csv",),
    )


BAD = (
    Bad("label.csv", "Negative,valid", "Negative,dev", "record 5: 'dev' is none of train, valid, test"),
    Bad("label.csv", "-1.0", "-3.5", "label of v_1_0 is -3.5, not from -3 to 3"),
    Bad("label.csv", "-1.0", "nan", 'label is "nan", not a number'),
    Bad("label.csv", "-1.0", "", 'label is "", not a number'),
    Bad("label.csv", "video_id", "video", 'has no "video_id"'),
)
VIDEO, TEXT, AUDIO = (
    {"flamingo of videos": "generate"},
    {"flamingo": "generate", "flamingo of videos": "generate", "data2vec of text, regression": "decide"},
    {"data2vec of speech, regression": "decide"},
)
ALL = [
    family(f"cmu-{which}{part}", cells, BAD if which == "mosi" else ())
    for which in ("mosi", "mosei")
    for part, cells in (("", VIDEO), ("-text", TEXT), ("-audio", AUDIO))
]
MOSI, MOSI_TEXT, MOSI_AUDIO, MOSEI, MOSEI_TEXT, MOSEI_AUDIO = ALL


def test_both_readings_of_two_classes(tmp_path):
    task = MOSI_TEXT.opened(tmp_path)
    assert [len(task.examples(split)) for split in ("train", "val", "test")] == [4, 4, 1]
    assert task.examples("val")[2].text == "a film, so 2"
    found = scored(task, {"v_1_0": -0.6, "v_1_1": 0.4, "v_1_2": -0.2, "v_1_3": 4.0})
    assert found["mae"] == pytest.approx((0.4 + 0.4 + 1.6 + 1.8) / 4)
    # Rounded: -1, 0, 0 for 1, and 3 (clipped) for 2.
    assert found["accuracy_7"] == 0.5
    # Negative or not: -1, 0 and 2.2 are right. Without the clip at 0: -1 and 2.2 of three.
    assert found["accuracy_2_has0"] == 0.75
    assert found["accuracy_2_non0"] == pytest.approx(2 / 3)


def test_clips_have_the_names_of_both_archives(tmp_path):
    task = MOSI.opened(tmp_path)
    assert task.examples("train")[0].media[0].name.endswith("/Raw/v_0/0.mp4")
    assert task.examples("test")[0].media[0].name.endswith("/Raw/Video/Segmented/v_2_0.mp4")
    spoken = type(MOSI_AUDIO.opened(tmp_path / "again"))(tmp_path)
    assert spoken.examples("test")[0].media[0].name.endswith("/WAV_16000/Segmented/v_2_0.wav")
