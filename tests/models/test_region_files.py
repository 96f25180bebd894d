"""Region files in the formats of the original code, valid and damaged."""

import base64
import os
import pickle

import lmdb
import numpy as np
import pytest

from vislang.document import Image
from vislang.models.regions.files import RegionFiles
from vislang.models.regions.region import RegionError
from vislang.pickles import PickleError

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


def test_a_pickle_with_foreign_classes_is_an_error_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "7.npy", npy_record(image_id=Hostile()))
    write_lmdb(tmp_path / "regions.lmdb", {"7": lmdb_record(image_id=Hostile())})
    for path in (tmp_path, tmp_path / "regions.lmdb"):
        with pytest.raises(PickleError, match=r"7.*it contains (posix|nt)\.mkdir"):
            RegionFiles(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (lmdb_record(num_boxes=5), "states 5 boxes and has 3"),
        (lmdb_record(image_w=20), "is outside the image of 20 x 30"),
        (lmdb_record(features=np.full((3, 8), np.nan)), "not finite"),
        (lmdb_record(num_boxes=0), "states 0 boxes"),
        (lmdb_record(num_boxes=-1), "states -1 boxes"),
        (lmdb_record(num_boxes=2.5), "states 2.5 boxes"),
        (lmdb_record(num_boxes=float("nan")), "states nan boxes"),
        (lmdb_record(num_boxes="abc"), "num_boxes is 'abc', not a number"),
        (lmdb_record(num_boxes=None), "num_boxes is None, not a number"),
        (lmdb_record(image_w=None), "image_width or image_w is None, not a number"),
        (lmdb_record(boxes=np.zeros((0, 4))), "boxes has the shape 0 x 4"),
        (lmdb_record(boxes=np.zeros(10)), "10 numbers for the boxes"),
        (lmdb_record(boxes=np.zeros((4, 3))), "boxes has the shape 4 x 3"),
        (
            lmdb_record(features=np.zeros(25)),
            "features has the shape 25, which does not give a row for each",
        ),
        (lmdb_record(features=np.zeros((2, 12))), "features has the shape 2 x 12"),
        (lmdb_record(features=np.array(["a"] * 24)), "neither an array nor base64"),
        (lmdb_record(cls_prob=np.full(16, 0.2)), "cls_prob has the shape 16"),
        (lmdb_record(features="not base64!"), "neither an array nor base64"),
        ({"boxes": BOXES}, "has no num_boxes; its fields are boxes"),
        ([1, 2], "a list, not a record"),
    ],
)
def test_bad_records_are_named(tmp_path, record, message):
    path = write_lmdb(tmp_path / "regions.lmdb", {"7": record})
    with pytest.raises(RegionError, match=f"regions.lmdb, image 7: .*{message}"):
        RegionFiles(path)["7"]


@pytest.mark.parametrize("field", ["keys", "image 7"])
@pytest.mark.parametrize("damaged", [b"\x8e" + b"\xff" * 8, b"I9e9\n.", b"h\x05.", b"\x80\x04R.", b"\x80\x04\x94."])
def test_pickles_that_fail_in_other_ways(tmp_path, field, damaged):
    """A length that exceeds the memory, an invalid number, references to objects that do not exist."""
    path = write_lmdb(tmp_path / "regions.lmdb", {"7": damaged if field == "image 7" else lmdb_record()})
    if field == "keys":
        with lmdb.open(str(path), map_size=1 << 24) as database, database.begin(write=True) as transaction:
            transaction.put(b"keys", damaged)
    with pytest.raises(PickleError, match=f"{field}: not a pickle of plain values"):
        RegionFiles(path)


@pytest.mark.parametrize(
    "header",
    [b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,)}", b"{'descr': (", b"{'descr': '|O'"],
)
def test_arrays_with_headers_of_nonsense(tmp_path, header):
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (tmp_path / "7.npy").write_bytes(data)
    with pytest.raises(PickleError, match=r"7\.npy: not an \.npy file, or damaged"):
        RegionFiles(tmp_path)


def test_keys_that_are_no_list(tmp_path):
    path = write_lmdb(tmp_path / "regions.lmdb", {"7": lmdb_record()})
    with lmdb.open(str(path), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        transaction.put(b"keys", pickle.dumps(7))
    with pytest.raises(RegionError, match="'keys' is a int, not a list"):
        RegionFiles(path)


def test_images_by_name_or_by_cocos_number(tmp_path):
    for name in ("42", "COCO_val2014_000000000043", "dog"):
        np.save(tmp_path / f"{name}.npy", npy_record())
    files = RegionFiles(tmp_path)
    named = ("COCO_val2014_000000000042.jpg", "000000000042.jpg", "42.png", "dog.jpg", "COCO_val2014_000000000043.jpg")
    assert len(files.read([Image(name) for name in named])) == 5
    files.prepare([Image(name) for name in named])
    with pytest.raises(RegionError, match=r"has no regions of cat, COCO_val2014_000000000044 \(of a/cat\.jpg\)"):
        files.prepare([Image("a/cat.jpg"), Image("dog.jpg"), Image("COCO_val2014_000000000044.jpg")])
    with pytest.raises(RegionError, match="has no regions of dog_43"):
        files.read([Image("dog_43.jpg")])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (npy_record(features=FEATURES[:, :4]), "image b: features of width 4, but image a has 8"),
        (npy_record(cls_prob=CLASSES[:, :0]), "cls_prob has the shape 3 x 0"),
        (npy_record(cls_prob=None), "image b: 0 classes, but image a has 5"),
    ],
)
def test_records_of_another_detector(tmp_path, record, message):
    np.save(tmp_path / "a.npy", npy_record())
    np.save(tmp_path / "b.npy", record)
    files = RegionFiles(tmp_path)
    with pytest.raises(RegionError, match=message):
        files.read([Image("a.jpg"), Image("b.jpg")])


@pytest.mark.parametrize("kind", ["npy", "lmdb"])
def test_another_process_opens_them_for_itself(tmp_path, kind):
    if kind == "npy":
        np.save(tmp_path / "7.npy", npy_record())
        path = tmp_path
    else:
        path = write_lmdb(tmp_path / "regions.lmdb", {"7": lmdb_record()})
    check(pickle.loads(pickle.dumps(RegionFiles(path))), classes=kind == "npy")


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
    with pytest.raises(PickleError, match=r"7\.npy.*(damaged|not a pickle)"):
        RegionFiles(tmp_path)["7"]
    path = write_lmdb(tmp_path / "short.lmdb", {"7": lmdb_record()}, listed=["7", "8"])
    with pytest.raises(RegionError, match="its keys list image 8, but it has no record"):
        RegionFiles(path)["8"]
