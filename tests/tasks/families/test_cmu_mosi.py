"""CMU-MOSI and CMU-MOSEI."""

import numpy as np
import pytest

from tests import tiny
from tests.tasks.families.family import Bad, Family, last_line_twice, scored
from tests.tasks.official import lines, write
from vislang.data.problems import DataError
from vislang.tasks.benchmarks import BENCHMARKS

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


# CMU's own files


def write_csd(path, root, videos):
    """A computational sequence, as CMU's SDK writes it: for each video its values and their intervals."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group(f"{root}/data")
        for video, (features, intervals) in videos.items():
            own = data.create_group(video)
            own.create_dataset("features", data=np.array(features), compression="gzip", compression_opts=9)
            own.create_dataset("intervals", data=np.array(intervals, dtype=np.float32), compression="gzip")
        metadata = file.create_group(f"{root}/metadata")
        metadata.create_dataset("root name", (1,), dtype=h5py.special_dtype(vlen=str))[0] = f'"{root}"'


WORDS = (
    [[word] for word in (b"sp", b"a", b"fine", b"film", b"sp", b"but", b"long", b"sp")],
    [[0, 1], [1, 1.5], [1.5, 2.5], [2.5, 3], [3, 4], [4, 4.5], [4.5, 6], [6, 9]],
)
"""The words of a video; "fine" is said from 1.5 to 2.5 s."""

INTERVALS = [[4, 6], [1, 2], [2, 3], [7, 8], [5, 5]]
"""Labelled segments: the second and the third share a word, the fourth has none, and the fifth has no length."""

FOLDS = "standard_train_fold=['v_0', 'v_1']\n\nstandard_valid_fold=['v_2']\n\nstandard_test_fold=['v_3', 'gone']\n"


def csd_folder(path, name, emotions=0):
    """Five videos; the last one is in none of the official lists."""
    labels = {
        f"v_{n}": ([[score, *[0.5] * emotions] for score in (-1.5, 2.0, 0.0, 1.0, 3.0)], INTERVALS) for n in range(5)
    }
    which = f"CMU_{name.upper()}"
    root = "All Labels" if emotions else "Opinion Segment Labels"
    file = "Labels" if emotions else "Opinion_Labels"
    write_csd(path / "labels" / f"{which}_{file}.csd", root, labels)
    write_csd(path / "language" / f"{which}_TimestampedWords.csd", "words", dict.fromkeys(labels, WORDS))
    write(path / f"cmu_{name}_std_folds.py", FOLDS)
    return path


def test_labels_words_and_splits_of_cmu(tmp_path):
    task = BENCHMARKS["cmu-mosi-text"](csd_folder(tmp_path, "mosi"))
    assert task.splits == ("train", "val", "test")
    assert (task.default_split, task.support_split) == ("val", "train")
    train = task.examples("train")
    assert [own.id for own in train] == [f"v_{video}_{clip}" for video in (0, 1) for clip in (1, 2, 3)]
    assert [(own.text, own.target.number, own.group) for own in train[:3]] == [
        ("but long", -1.5, "v_0"),
        ("a fine", 2.0, "v_0"),
        ("fine film", 0.0, "v_0"),
    ]
    assert [own.group for own in task.examples("test")] == ["v_3"] * 3
    found = scored(task, {"v_2_1": -1.0, "v_2_2": 2.0, "v_2_3": 1.0})
    assert found["mae"] == pytest.approx(0.5)


def test_clips_of_mosi_are_numbered_in_the_order_of_their_labels(tmp_path):
    task = BENCHMARKS["cmu-mosi"](csd_folder(tmp_path, "mosi"))
    assert task.examples("val")[2].media[0].name.endswith("v_2_3.mp4")
    spoken = BENCHMARKS["cmu-mosi-audio"](tmp_path)
    assert spoken.examples("val")[0].media[0].name.endswith("Raw/Audio/WAV_16000/Segmented/v_2_1.wav")


def test_clips_of_mosei_are_found_by_their_times(tmp_path):
    csd_folder(tmp_path, "mosei", emotions=6)
    words = BENCHMARKS["cmu-mosei-text"](tmp_path)
    assert [own.id for own in words.examples("val")] == ["v_2[0]", "v_2[1]", "v_2[2]"]
    transcripts = tmp_path / "Raw" / "Transcript" / "Segmented" / "Combined"
    for video in range(4):
        rows = [
            f"v_{video}___{clip}___{a}___{b}___any___words" for clip, (a, b) in enumerate(((1, 2), (2.0, 3), (4, 6)))
        ]
        write(transcripts / f"v_{video}.txt", "\n".join(rows) + "\n")
    videos = BENCHMARKS["cmu-mosei"](tmp_path).examples("val")
    assert [own.id for own in videos] == [own.id for own in words.examples("val")]
    assert [own.media[0].name.rpartition("/")[2] for own in videos] == ["v_2_2.mp4", "v_2_0.mp4", "v_2_1.mp4"]
    write(transcripts / "v_3.txt", "v_3___0___1___2.5___any\n")
    with pytest.raises(DataError, match=r"v_3\.txt: no line has the times of v_3\[0\], 4 to 6"):
        BENCHMARKS["cmu-mosei"](tmp_path)


def test_the_edition_with_a_table_comes_first(tmp_path):
    csd_folder(tmp_path, "mosi")
    folder(tmp_path)
    assert BENCHMARKS["cmu-mosi-text"](tmp_path).examples("val")[2].text == "a film, so 2"


def cut(path):
    path.write_bytes(path.read_bytes()[:1500])


def other_videos(path):
    write_csd(path, "labels", {"another": ([[1.0]], [[0, 1]])})


def without_intervals(path):
    import h5py

    with h5py.File(path, "a") as file:
        del file["Opinion Segment Labels/data/v_1/intervals"]


def uneven(path):
    write_csd(path, "labels", {"v_0": ([[1.0], [2.0]], [[0, 1]])})


def backwards(path):
    write_csd(path, "labels", {"v_0": ([[1.0]], [[2, 1]])})


def too_strong(path):
    write_csd(path, "labels", {"v_2": ([[1.0], [float("nan")]], [[1, 2], [4, 6]])})


LABELS, SPOKEN = "labels/CMU_MOSI_Opinion_Labels.csd", "language/CMU_MOSI_TimestampedWords.csd"
LISTS = "cmu_mosi_std_folds.py"


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        (LABELS, cut, "not an HDF5 file, or cut off"),
        (LABELS, lambda path: write(path, "video,label"), "not an HDF5 file, or cut off"),
        (LABELS, other_videos, f"labels none of the videos in {LISTS}"),
        (LABELS, without_intervals, "v_1: has no features and intervals"),
        (LABELS, uneven, r"v_0: features of the shape \(2, 1\) and intervals of the shape \(1, 2\) do not belong"),
        (LABELS, backwards, "v_0: an interval ends before it begins"),
        (LABELS, too_strong, "record 2: label of v_2_2 is nan, not from -3 to 3"),
        (SPOKEN, other_videos, "has no words of v_0, which CMU_MOSI_Opinion_Labels.csd labels"),
        (SPOKEN, lambda path: path.unlink(), "contains no file CMU_MOSI_TimestampedWords.csd"),
        (LISTS, lambda path: path.unlink(), f"contains no file {LISTS}"),
        (LISTS, lambda path: write(path, "import os\n"), "has no lists standard_train_fold"),
        (LISTS, lambda path: write(path, FOLDS.replace("v_3", "v_1")), "the video v_1 is listed twice"),
        (LISTS, lambda path: write(path, FOLDS.replace("['v_2']", "load()")), "has no lists standard_train_fold"),
    ],
)
def test_damaged_files_of_cmu(tmp_path, file, damage, message):
    csd_folder(tmp_path, "mosi")
    damage(tmp_path / file)
    with pytest.raises(DataError, match=message):
        BENCHMARKS["cmu-mosi-text"](tmp_path).examples("val")
