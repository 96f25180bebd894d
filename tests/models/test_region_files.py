"""Region files in the formats of the original code, whole and damaged."""

import base64
import os
import pickle

import lmdb
import numpy as np
import pytest

from vislang.models.region_files import RegionFiles
from vislang.pickles import PickleError
from vislang.regions import RegionError

FEATURES = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
BOXES = np.array([[0, 0, 10, 10], [5, 5, 40, 30], [1, 2, 3, 4]], dtype=np.float32)
CLASSES = np.full((3, 5), 0.2, dtype=np.float32)


def npy_record(**changes):
    """As vilbert-multi-task's extraction writes it."""
    record = {
        "bbox": BOXES,
        "num_boxes": 3,
        "objects": np.array([1, 2, 3]),
        "image_width": 40,
        "image_height": 30,
        "cls_prob": CLASSES,
        "image_id": "7",
        "features": FEATURES,
    }
    return {**record, **changes}


def lmdb_record(encode=None, **changes):
    values = {"features": FEATURES, "boxes": BOXES}
    values = {name: encode(value) if encode else value for name, value in values.items()}
    return {"image_id": "7", "image_h": 30, "image_w": 40, "num_boxes": 3, **values, **changes}


def write_lmdb(path, records, listed=None):
    with lmdb.open(str(path), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for name, record in records.items():
            transaction.put(name.encode(), record if isinstance(record, bytes) else pickle.dumps(record))
        transaction.put(b"keys", pickle.dumps([name.encode() for name in listed or records]))
    return path


def base64_text(value):
    return base64.b64encode(value.tobytes())


def check(files, classes=True):
    assert list(files) == ["7"]
    found = files["7"]
    np.testing.assert_array_equal(found.features, FEATURES)
    np.testing.assert_array_equal(found.boxes, BOXES)
    assert (found.width, found.height) == (40, 30)
    assert (found.classes is not None) == classes


def test_a_folder_of_arrays(tmp_path):
    np.save(tmp_path / "7.npy", npy_record())
    check(RegionFiles(tmp_path))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("encode", [None, base64_text])
def test_both_encodings_of_an_lmdb(tmp_path, encode, protocol):
    path = write_lmdb(tmp_path / "regions.lmdb", {"7": pickle.dumps(lmdb_record(encode), protocol)})
    files = RegionFiles(path)
    check(files, classes=False)
    with pytest.raises(KeyError):
        files["8"]


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("run",)


def test_a_pickle_with_foreign_classes_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "7.npy", npy_record(image_id=Hostile()))
    write_lmdb(tmp_path / "regions.lmdb", {"7": lmdb_record(image_id=Hostile())})
    for path in (tmp_path, tmp_path / "regions.lmdb"):
        with pytest.raises(PickleError, match=r"7.*it wants (posix|nt)\.mkdir"):
            RegionFiles(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (lmdb_record(num_boxes=5), "states 5 boxes and holds 3"),
        (lmdb_record(image_w=20), "does not lie in an image of 20 x 30"),
        (lmdb_record(features=np.full((3, 8), np.nan)), "no numbers"),
        (lmdb_record(features=np.zeros(25)), "25 numbers of features do not divide among 3 boxes"),
        (lmdb_record(features="not base64!"), "neither an array nor base64"),
        ({"boxes": BOXES}, "has no features; its fields are boxes"),
        ([1, 2], "is a list, not a record"),
    ],
)
def test_bad_records_are_named(tmp_path, record, message):
    path = write_lmdb(tmp_path / "regions.lmdb", {"7": record})
    with pytest.raises(RegionError, match=f"regions.lmdb, image 7: .*{message}"):
        RegionFiles(path)["7"]


def test_fewer_boxes_than_features_have_rows_are_taken_as_stated(tmp_path):
    np.save(tmp_path / "7.npy", npy_record(num_boxes=2))
    assert len(RegionFiles(tmp_path)["7"].features) == 2


def test_files_that_are_not_there_or_damaged(tmp_path):
    with pytest.raises(RegionError, match="no such file or folder"):
        RegionFiles(tmp_path / "nothing")
    with pytest.raises(RegionError, match=r"neither \.npy files nor an LMDB"):
        RegionFiles(tmp_path)
    (tmp_path / "file.lmdb").write_bytes(b"nonsense" * 2000)
    with pytest.raises(RegionError, match="cannot be opened as an LMDB"):
        RegionFiles(tmp_path / "file.lmdb")
    np.save(tmp_path / "7.npy", npy_record())
    whole = (tmp_path / "7.npy").read_bytes()
    (tmp_path / "7.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PickleError, match=r"7\.npy.*(damaged|cannot be read)"):
        RegionFiles(tmp_path)["7"]
    path = write_lmdb(tmp_path / "short.lmdb", {"7": lmdb_record()}, listed=["7", "8"])
    with pytest.raises(RegionError, match="lists image 8 among its keys, and has no record"):
        RegionFiles(path)["8"]
