"""Bad files of every benchmark: each fault is named with its file and record, and nothing is scored.

A case changes one value in one file of a small folder in the official format, or in a file of predictions. The same
files are scored if nothing is changed. Errors are raised by the functions of the tasks, and by ``vislang eval`` in one
line.
"""

import copy
import json
import math
import pickle
import shutil

import pytest

from tests.tasks.official import (
    karpathy_folder,
    lines,
    meme,
    mvsa_folder,
    nlvr2_record,
    r2r_folder,
    refcoco_folder,
    sentiment_record,
    snli_ve_record,
    vcr_record,
    vqa_folder,
    write,
)
from vislang.cli import main
from vislang.errors import UserError
from vislang.tasks.catalogue import open_task


class MISSING:
    """Stands for a field that is removed."""


NOT_TEXT = (None, 5, 1.5, True, ["x"], {"x": 1}, MISSING, "\ud800")
NOT_ID = (None, 1.5, True, [], ["x"], {"x": 1}, "", " ", MISSING)
NOT_WHOLE = (None, 1.5, True, -1, "x", "5", [1], {}, MISSING)
NOT_NUMBER = (None, True, "x", "1", [1], {}, math.nan, math.inf, -math.inf, 10**400, MISSING)
NOT_LIST = (None, 5, "x", {}, [], MISSING)
NOT_CHOICE = (None, 7, -1, 1.5, True, "0", [0], MISSING)
NOT_LABEL = (None, 1, True, "entails", "Positive ", "ENTAILMENT", ["neutral"], {}, "", MISSING)
NOT_BOX = (
    *NOT_LIST,
    [1, 2, 3],
    [1, 2, 3, 4, 5],
    [1, 2, 3, math.nan],
    [1, 2, math.inf, 4],
    [1, 2, "3", 4],
    [1, 2, -3, 4],
)


# ------------------------------------------------------------------------------------- good folders and predictions


def _vqa(folder):
    vqa_folder(folder)
    return [{"question_id": 90, "answer": "the dog"}, {"question_id": 91, "answer": "no"}]


def _vcr(folder):
    write(folder / "val.jsonl", lines(vcr_record(n, answer_label=n, rationale_label=1) for n in range(2)))
    return


def _refcoco(folder):
    refcoco_folder(folder)
    return [{"sent_id": 13, "box": [10, 10, 14, 10]}]


def _nlvr2(folder):
    write(folder / "dev.json", lines([nlvr2_record(0, 0, "True"), nlvr2_record(1, 0, "False")]))
    return


def _snli_ve(folder):
    write(folder / "snli_ve_dev.jsonl", lines([snli_ve_record(1, "entailment"), snli_ve_record(2, "neutral")]))
    return [{"pairID": f"{n}.jpg#0r1", "prediction": "neutral"} for n in (1, 2)]


def _memes(folder):
    write(folder / "dev_seen.jsonl", lines([meme(1, 1), meme(2, 0)]))
    return


def _mvsa(folder):
    mvsa_folder(folder, dict.fromkeys(range(1, 11), "positive,positive"))
    return [{"id": 9, "label": "negative"}]


def _sentiment(folder):
    write(folder / "val.jsonl", lines([sentiment_record("a", -1.0), sentiment_record("b", 2.0)]))
    return [{"id": "a", "score": -0.5}, {"id": "b", "score": 1.0}]


def _r2r(folder):
    r2r_folder(folder)
    steps = [[view, 0.0, 0.0] for view in "abb"]
    return [{"instr_id": f"1_{n}", "trajectory": steps} for n in range(3)]


def _captions(folder):
    karpathy_folder(folder, {"test": 2})
    return


FOLDERS = {
    "vqa": _vqa,
    "vcr": _vcr,
    "refcoco": _refcoco,
    "nlvr2": _nlvr2,
    "snli-ve": _snli_ve,
    "hateful-memes": _memes,
    "mvsa": _mvsa,
    "sentiment": _sentiment,
    "r2r": _r2r,
    "captions": _captions,
}

SENT = {"snli-ve": "sent.jsonl", "mvsa": "sent.jsonl", "sentiment": "sent.jsonl"}
"""Names of files of predictions that are JSON Lines; the others are ``sent.json``."""

CSV = {
    "nlvr2": ["dev-1-0-0,True", "dev-1-1-0,True"],
    "hateful-memes": ["id,proba,label", "1,0.9,1", "2,0.4,0"],
    "vcr": [
        ",".join(["annot_id", *(f"answer_{n}" for n in range(4))])
        + ","
        + ",".join(f"rationale_conditioned_on_a{a}_{r}" for a in range(4) for r in range(4)),
        *(",".join([f"val-{n}", *["0.25"] * 20]) for n in range(2)),
    ],
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """For each benchmark a folder with a good file of predictions."""
    root = tmp_path_factory.mktemp("good")
    for name, make in FOLDERS.items():
        records = make(root / name)
        if name in CSV:
            write(root / name / "sent.csv", "\n".join(CSV[name]) + "\n")
        elif records is not None:
            sent = SENT.get(name, "sent.json")
            write(root / name / sent, lines(records) if sent.endswith("l") else records)
    return root


@pytest.fixture
def folder_of(good, tmp_path):
    def copied(name):
        return shutil.copytree(good / name, tmp_path / name)

    return copied


def read(name, folder):
    """All examples of a folder; its file of predictions is removed, because its name could be that of a split."""
    for sent in folder.glob("sent.*"):
        sent.unlink()
    task = open_task(f"{name}:{folder}")
    return [example for split in task.splits for example in task.examples(split)]


def score(name, folder, sent=None):
    """The figures of the file of predictions in a folder."""
    task = open_task(f"{name}:{folder}")
    examples = task.examples(task.default_split)
    sent = sent or next(folder.glob("sent.*"))
    return task.score(examples, task.read_predictions(sent, examples))


# ------------------------------------------------------------------------------------------- changing files of JSON


def load(path):
    if path.suffix == ".p":
        return pickle.loads(path.read_bytes())
    text = path.read_text(encoding="utf-8")
    return (
        json.loads(text)
        if text.lstrip()[0] == "[" or text.count("\n") == 0
        else [json.loads(x) for x in text.split("\n") if x]
    )


def save(path, content, as_lines):
    if path.suffix == ".p":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        path.write_text(lines(content) if as_lines else json.dumps(content), encoding="utf-8")


def change(path, keys, value):
    """Replace the value under some keys and indices; MISSING removes it."""
    as_lines = (
        path.suffix != ".p" and path.read_text(encoding="utf-8").lstrip()[0] == "{" and path.read_text().count("\n") > 0
    )
    content = load(path)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    save(path, content, as_lines)


VQA_Q, VQA_A = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"
R2R_C = "connectivity/s_connectivity.json"

FIELDS = [
    ("vqa", VQA_Q, ("questions",), NOT_LIST, "questions"),
    ("vqa", VQA_Q, ("questions", 1), (None, 5, "x", []), "record 2"),
    ("vqa", VQA_Q, ("questions", 1, "question_id"), (*NOT_WHOLE, 77), "record 2|annotation"),
    ("vqa", VQA_Q, ("questions", 1, "image_id"), NOT_WHOLE, "record 2"),
    ("vqa", VQA_Q, ("questions", 1, "question"), NOT_TEXT, "record 2"),
    ("vqa", VQA_A, ("annotations",), NOT_LIST, "annotations"),
    ("vqa", VQA_A, ("annotations", 1), (None, 5, "x", []), "record 2"),
    ("vqa", VQA_A, ("annotations", 1, "question_id"), NOT_WHOLE, "record 2"),
    ("vqa", VQA_A, ("annotations", 1, "answers"), NOT_LIST, "record 2"),
    ("vqa", VQA_A, ("annotations", 1, "answers", 3), (None, 5, "x", []), "record 2"),
    ("vqa", VQA_A, ("annotations", 1, "answers", 3, "answer"), NOT_TEXT, "record 2"),
    ("vqa", VQA_A, ("annotations", 1, "answers", 3, "answer_id"), (1,), "record 2"),
    ("vqa", VQA_A, ("annotations", 1, "answer_type"), (None, 5, ["x"]), "record 2"),
    ("vqa", "sent.json", (1, "question_id"), NOT_ID, "record 2"),
    ("vqa", "sent.json", (1, "answer"), NOT_TEXT, "record 2"),
    ("vqa", "sent.json", (1,), (None, 5, "x", []), "record 2"),
    ("vcr", "val.jsonl", (1, "annot_id"), NOT_ID, "record 2"),
    ("vcr", "val.jsonl", (1, "img_fn"), NOT_TEXT, "record 2"),
    ("vcr", "val.jsonl", (1, "objects"), (*NOT_LIST, [5], [None]), "record 2"),
    ("vcr", "val.jsonl", (1, "question"), (*NOT_LIST, [5], [[7]], [[-1]], [[True]], [[]], [None]), "record 2"),
    ("vcr", "val.jsonl", (1, "answer_choices"), (*NOT_LIST, [["a"]] * 3, ["a"] * 4), "record 2"),
    ("vcr", "val.jsonl", (1, "rationale_choices"), (*NOT_LIST, [["a"]] * 3, [5] * 4), "record 2"),
    ("vcr", "val.jsonl", (1, "answer_label"), NOT_CHOICE[:-1], "record 2"),
    ("vcr", "val.jsonl", (1, "rationale_label"), NOT_CHOICE, "record 2"),
    ("refcoco", "refs(unc).p", (1,), (None, 5, "x", []), "record 2"),
    ("refcoco", "refs(unc).p", (1, "split"), NOT_TEXT[:-1], "record 2"),
    ("refcoco", "refs(unc).p", (1, "ann_id"), (*NOT_ID, 6), "record"),
    ("refcoco", "refs(unc).p", (1, "image_id"), (*NOT_ID, 6), "record"),
    ("refcoco", "refs(unc).p", (1, "sentences"), NOT_LIST, "record"),
    ("refcoco", "refs(unc).p", (1, "sentences", 0), (None, 5, "x", []), "record"),
    ("refcoco", "refs(unc).p", (1, "sentences", 0, "sent_id"), NOT_ID, "record"),
    ("refcoco", "refs(unc).p", (1, "sentences", 0, "sent"), NOT_TEXT, "record"),
    ("refcoco", "instances.json", ("annotations",), NOT_LIST, "annotations|records"),
    ("refcoco", "instances.json", ("annotations", 0, "id"), NOT_ID, "record 1"),
    ("refcoco", "instances.json", ("annotations", 0, "bbox"), (*NOT_BOX, [1, 2, 0, 4]), "annotation 5"),
    ("refcoco", "instances.json", ("images",), NOT_LIST, "images|records"),
    ("refcoco", "instances.json", ("images", 0, "id"), NOT_ID, "record 1"),
    ("refcoco", "instances.json", ("images", 0, "file_name"), NOT_TEXT, "record 1"),
    ("refcoco", "sent.json", (0, "sent_id"), NOT_ID, "record 1"),
    ("refcoco", "sent.json", (0, "box"), NOT_BOX, "record 1"),
    ("nlvr2", "dev.json", (1, "identifier"), (*NOT_TEXT, "", "dev-1-0", "dev-1-0-0-0"), "record 2"),
    ("nlvr2", "dev.json", (1, "sentence"), NOT_TEXT, "record 2"),
    ("nlvr2", "dev.json", (1, "label"), (None, 1, True, "yes", "", "Tru", ["True"]), "record 2"),
    ("snli-ve", "snli_ve_dev.jsonl", (1, "pairID"), NOT_ID, "record 2"),
    ("snli-ve", "snli_ve_dev.jsonl", (1, "Flickr30K_ID"), NOT_ID, "record 2"),
    ("snli-ve", "snli_ve_dev.jsonl", (1, "sentence2"), NOT_TEXT, "record 2"),
    ("snli-ve", "snli_ve_dev.jsonl", (1, "gold_label"), (*NOT_LABEL, "-"), "record 2"),
    ("snli-ve", "sent.jsonl", (1, "pairID"), NOT_ID, "record 2"),
    ("snli-ve", "sent.jsonl", (1, "prediction"), NOT_LABEL, "record 2"),
    ("hateful-memes", "dev_seen.jsonl", (1, "id"), NOT_ID, "record 2"),
    ("hateful-memes", "dev_seen.jsonl", (1, "img"), NOT_TEXT, "record 2"),
    ("hateful-memes", "dev_seen.jsonl", (1, "text"), NOT_TEXT, "record 2"),
    ("hateful-memes", "dev_seen.jsonl", (1, "label"), (None, 2, -1, 0.5, True, "1", [1]), "record 2"),
    ("mvsa", "sent.jsonl", (0, "id"), NOT_ID, "record 1"),
    ("mvsa", "sent.jsonl", (0, "label"), NOT_LABEL, "record 1"),
    ("sentiment", "val.jsonl", (1, "id"), NOT_ID, "record 2"),
    ("sentiment", "val.jsonl", (1, "image"), NOT_TEXT, "record 2"),
    ("sentiment", "val.jsonl", (1, "text"), NOT_TEXT, "record 2"),
    ("sentiment", "val.jsonl", (1, "score"), (*NOT_NUMBER, 3.5, -4), "record 2"),
    ("sentiment", "sent.jsonl", (1, "id"), NOT_ID, "record 2"),
    ("sentiment", "sent.jsonl", (1, "score"), NOT_NUMBER, "record 2"),
    ("r2r", "R2R_val.json", (0,), (None, 5, "x", []), "record 1"),
    ("r2r", "R2R_val.json", (0, "scan"), (*NOT_TEXT, "t", "*", "?"), "record 1|connectivity"),
    ("r2r", "R2R_val.json", (0, "path_id"), (*NOT_ID, 2), "record 1|beams"),
    ("r2r", "R2R_val.json", (0, "path"), (*NOT_LIST, [5], ["zz"], ["x"], [["a"]], ["a", "c"]), "record 1"),
    (
        "r2r",
        "R2R_val.json",
        (0, "instructions"),
        (*NOT_LIST, ["go"], ["go", "walk"], ["go"] * 4, ["", "", ""]),
        "record 1",
    ),
    ("r2r", "R2R_val.json", (0, "instructions", 1), (None, 5, ["x"], " "), "record 1"),
    ("r2r", R2R_C, (1,), (None, 5, "x", []), "record 2"),
    ("r2r", R2R_C, (1, "image_id"), NOT_TEXT, "record 2"),
    ("r2r", R2R_C, (1, "included"), (None, 1, "yes", MISSING), "record 2"),
    (
        "r2r",
        R2R_C,
        (1, "pose"),
        (*NOT_LIST, [0.0] * 15, [0.0] * 15 + [math.nan], [math.inf] * 16, ["0"] * 16),
        "record 2",
    ),
    ("r2r", R2R_C, (1, "unobstructed"), (*NOT_LIST, [True], [1] * 6), "record 2|viewpoint b"),
    ("r2r", R2R_C, (1, "unobstructed", 2), (False,), "viewpoint c: sees b, which does not see it"),
    ("r2r", "beams_val.json", (0, "instr_id"), NOT_ID, "record 1"),
    ("r2r", "beams_val.json", (0, "instr_id"), ("9_9",), "no paths for 1_0"),
    ("r2r", "beams_val.json", (0, "ranked_paths"), NOT_LIST, "record 1"),
    ("r2r", "beams_val.json", (0, "ranked_paths", 1), (*NOT_LIST[:-1], [5], [["a"]]), "record 1"),
    (
        "r2r",
        "beams_val.json",
        (0, "ranked_paths", 1),
        (["zz"], ["b"], ["a", "c"], ["a", "b", "x"]),
        "beams_val.json, 1_0",
    ),
    ("r2r", "sent.json", (1, "instr_id"), NOT_ID, "record 2"),
    ("r2r", "sent.json", (1, "trajectory"), (*NOT_LIST, ["a"], [[]], [[5, 0, 0]], [["a"], None]), "record 2"),
    ("r2r", "sent.json", (1, "trajectory", 1), (["zz", 0, 0], ["x", 0, 0], [["x"], 0, 0], ["d", 0, 0]), "1_1|record 2"),
    ("r2r", "sent.json", (1, "trajectory", 1), (["b", math.nan, 0], ["b", 0, None]), "record 2"),
    ("r2r", "sent.json", (1, "trajectory", 0), (["b", 0, 0],), "1_1: the path must start at a"),
    ("captions", "dataset_flickr30k.json", ("images",), NOT_LIST, "images|records"),
    ("captions", "dataset_flickr30k.json", ("images", 1), (None, 5, "x", []), "record 2"),
    ("captions", "dataset_flickr30k.json", ("images", 1, "filename"), NOT_TEXT, "record 2"),
    ("captions", "dataset_flickr30k.json", ("images", 1, "split"), NOT_TEXT, "record 2"),
    ("captions", "dataset_flickr30k.json", ("images", 1, "sentences"), NOT_LIST, "record 2"),
    ("captions", "dataset_flickr30k.json", ("images", 1, "sentences", 0, "raw"), NOT_TEXT, "record 2"),
]


@pytest.mark.parametrize("name", FOLDERS)
def test_the_good_files_are_scored(name, good):
    """Otherwise the cases below would pass whatever is changed."""
    if name != "captions":
        assert score(name, good / name)
    else:
        assert len(open_task(f"captions:{good / name}").examples("test")) == 2


@pytest.mark.parametrize(
    ("name", "file", "keys", "values", "where"),
    FIELDS,
    ids=[f"{number} {name} {file} {'.'.join(map(str, keys))}" for number, (name, file, keys, *_) in enumerate(FIELDS)],
)
def test_a_field_of_another_type_is_named(name, file, keys, values, where, folder_of):
    folder = folder_of(name)
    path = folder / file
    before = path.read_bytes()
    for value in values:
        path.write_bytes(before)
        change(path, keys, copy.deepcopy(value))
        with pytest.raises(UserError, match=where) as raised:
            score(name, folder) if name != "captions" else open_task(f"captions:{folder}")
        said = str(raised.value)
        assert path.name in said or "beams_val.json" in said or "connectivity" in said or "refs(unc)" in said, said
        assert "\n" not in said


# --------------------------------------------------------------------------------------------- files as a whole


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_that_is_cut_off_or_in_another_encoding_is_named(name, folder_of):
    folder = folder_of(name)
    for path in [
        p for p in folder.rglob("*") if p.suffix in (".json", ".jsonl", ".p", ".csv") or p.name.startswith("label")
    ]:
        whole = path.read_bytes()
        text = whole.decode("utf-8", "replace")
        damaged = [b"", b"\x00\x01\x02", text.encode("utf-16"), whole[: len(whole) // 2], whole.rstrip()[:-1]]
        if path.suffix in (".csv", ".txt"):
            # The last byte of these may only shorten a number.
            damaged.pop()
        for content in damaged:
            path.write_bytes(content)
            with pytest.raises(UserError) as raised:
                score(name, folder) if name != "captions" else open_task(f"captions:{folder}")
            # A file of lines that is cut off between two of them lacks records.
            assert path.name in str(raised.value) or "no record for 1 of" in str(raised.value)
        path.unlink()
        path.mkdir()
        if not path.name.startswith("beams") and (path.suffix != ".p" or "sent" in path.name):
            with pytest.raises(UserError):
                score(name, folder, path if path.name.startswith("sent") else None)
        path.rmdir()
        path.write_bytes(whole)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_byte_order_mark_changes_nothing(name, folder_of, good):
    folder = folder_of(name)
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".csv") or path.name.startswith("label"):
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    if name == "captions":
        assert len(open_task(f"captions:{folder}").examples("test")) == 2
    else:
        assert score(name, folder) == score(name, good / name)


# ---------------------------------------------------------------------------------- ids: duplicate, extra, missing

REPEATED = [
    ("vqa", VQA_Q, ("questions",), "id 90|90"),
    ("vqa", VQA_A, ("annotations",), "record 3: its id 90 is also that of record 1"),
    ("vcr", "val.jsonl", (), "two records have the id val-0 answer"),
    ("refcoco", "refs(unc).p", (), "two records have the id 11"),
    ("refcoco", "instances.json", ("annotations",), "record 2: its id 5 is also that of record 1"),
    ("refcoco", "instances.json", ("images",), "record 2: its id 7 is also that of record 1"),
    ("nlvr2", "dev.json", (), "two records have the id dev-1-0-0"),
    ("snli-ve", "snli_ve_dev.jsonl", (), "two records have the id 1.jpg#0r1"),
    ("hateful-memes", "dev_seen.jsonl", (), "two records have the id 1 "),
    ("sentiment", "val.jsonl", (), "two records have the id a "),
    ("r2r", "R2R_val.json", (), "two records have the id 1_0"),
    ("r2r", "beams_val.json", (), "record 4: its id 1_0 is also that of record 1"),
    ("r2r", R2R_C, (), "record 7: its id a is also that of record 1"),
    ("captions", "dataset_flickr30k.json", ("images",), "record 3: its id 0.jpg is also that of record 1"),
]


def inside(content, keys):
    for key in keys:
        content = content[key]
    return content


def edited(path, keys, edit):
    """Edit the list under some keys of a file."""
    as_lines = path.suffix != ".p" and path.read_text(encoding="utf-8").lstrip()[0] == "{" and not keys
    content = load(path)
    edit(inside(content, keys))
    save(path, content, as_lines)


@pytest.mark.parametrize(("name", "file", "keys", "where"), REPEATED)
def test_an_id_that_occurs_twice_in_official_files_is_named(name, file, keys, where, folder_of):
    folder = folder_of(name)
    edited(folder / file, keys, lambda records: records.append(copy.deepcopy(records[0])))
    with pytest.raises(UserError, match=where) as raised:
        read(name, folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("edges", [[10, 10, 20, 10], [0, 0, 1, 1]])
def test_boxes_with_the_same_id_are_an_error_whether_they_agree_or_not(edges, folder_of):
    folder = folder_of("refcoco")
    edited(folder / "instances.json", ("annotations",), lambda known: known.append({"id": 5, "bbox": edges}))
    with pytest.raises(UserError, match=r"instances\.json, record 2: its id 5 is also that of record 1"):
        score("refcoco", folder)


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "captions"])
def test_predictions_that_are_missing_extra_or_duplicate_are_named(name, folder_of):
    folder = folder_of(name)
    sent = next(folder.glob("sent.*"))
    if sent.suffix == ".csv":
        rows = sent.read_text().splitlines()
        last = rows[-1]
        other = (
            last.replace("dev-1-1-0", "dev-9-1-0").replace("val-1", "val-9") if name != "hateful-memes" else "9,0.4,0"
        )
        variants = {"no prediction": rows[:-1], "no record": [*rows, other], "several predictions": [*rows, last]}
        contents = {fault: "\n".join(own) for fault, own in variants.items()}
    else:
        records = load(sent)
        key = next(key for key in ("question_id", "sent_id", "pairID", "instr_id", "id") if key in records[0])
        stray = {**records[-1], key: "999"}
        variants = {
            "no prediction": records[:-1],
            "no record": [*records, stray],
            "several predictions": [*records, records[-1]],
        }
        as_lines = sent.suffix == ".jsonl"
        contents = {fault: lines(own) if as_lines else json.dumps(own) for fault, own in variants.items()}
    for fault, content in contents.items():
        sent.write_text(content)
        # A file without any record says so.
        with pytest.raises(UserError, match=f"{fault}|contains no records") as raised:
            score(name, folder)
        assert sent.name in str(raised.value)


def test_questions_and_annotations_of_vqa_are_the_same(folder_of):
    folder = folder_of("vqa")
    edited(folder / VQA_Q, ("questions",), lambda questions: questions.pop())
    with pytest.raises(UserError, match=rf"{VQA_A}: annotations of 1 questions that are not in {VQA_Q}: 91"):
        score("vqa", folder)


# ------------------------------------------------------------------------------------------------- rows and cells


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("nlvr2", "dev-1-0-0,True\ndev-1-1-0", "record 2: 1 cells"),
        ("nlvr2", "dev-1-0-0,True\ndev-1-1-0,True,0.9", "record 2: 3 cells"),
        ("nlvr2", "dev-1-0-0,True\ndev-1-1-0,Tru", "record 2: 'Tru' is none of True, False"),
        ("nlvr2", "dev-1-0-0,True\ndev-1-1-0,", "record 2: '' is none of True, False"),
        ("nlvr2", 'dev-1-0-0,True\n"dev-1-1-0,True', "not CSV"),
        ("hateful-memes", "3,0.9,1\n2,0.4,0", 'record 1: has no "proba"'),
        ("hateful-memes", "id,proba,label\n1,0.9,1\n2,0.4", "record 2: 2 cells; the first line names 3 columns"),
        ("hateful-memes", "id,proba,label\n1,0.9,1\n2,0.4,0,5", "record 2: 4 cells"),
        ("hateful-memes", "id,proba,label,label\n1,0.9,1,1\n2,0.4,0,1", "names a column twice"),
        ("hateful-memes", "id,proba,label\n1,0.9,1\n2,1.4,0", "record 2: proba is 1.4"),
        ("hateful-memes", "id,proba,label\n1,0.9,1\n2,inf,0", "record 2: proba"),
        ("hateful-memes", "id,proba,label\n1,0.9,1\n2,x,0", 'record 2: proba is "x", not a number'),
        ("hateful-memes", "id,proba,label\n1,0.9,1\n2,0.4,2", "record 2: '2' is none of 0, 1"),
        ("hateful-memes", "id,proba,label\n1,0.9,1\n,0.4,0", "record 2"),
        ("hateful-memes", "id,label\n1,1\n2,0", 'record 1: has no "proba"'),
    ],
)
def test_a_bad_row_of_predictions_is_named(name, content, where, folder_of):
    folder = folder_of(name)
    (folder / "sent.csv").write_text(content)
    with pytest.raises(UserError, match=rf"sent\.csv.*({where})"):
        score(name, folder)


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "x", "", "1e999"])
@pytest.mark.parametrize("column", [1, 4, 5, 9])
def test_a_score_of_vcr_that_is_no_number_never_wins(cell, column, folder_of):
    folder = folder_of("vcr")
    rows = [row.split(",") for row in (folder / "sent.csv").read_text().split()]
    rows[1][column] = cell
    (folder / "sent.csv").write_text("\n".join(",".join(row) for row in rows))
    if column in (1, 4, 5):
        with pytest.raises(UserError, match=rf"sent\.csv, record 1: {rows[0][column]}"):
            score("vcr", folder)
    else:
        # The reasons for a wrong answer are not scored.
        assert score("vcr", folder)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("1\tpositive,positive\n2\tpositive,positive\n", "first line does not begin with ID"),
        ("", "first line does not begin with ID"),
        ("ID\ttext,image\n", "no records"),
        ("ID\ttext,image\n1\tpositive,positive\n2\tpositive\n", "record 2: 'positive' is not a label of the text"),
        ("ID\ttext,image\n1\tpositive,positive\n2\tPositive,positive\n", "record 2: 'Positive' is none of"),
        ("ID\ttext,image\n1\tpositive,positive\n2\tpositive,postive\n", "record 2: 'postive' is none of"),
        ("ID\ttext,image\n1\tpositive,positive\n2\tpositive,positive,neutral\n", "record 2"),
        ("ID\ttext,image\n1\tpositive,positive\n2\n", "record 2: 1 columns; the first line names 2"),
        ("ID\ttext,image\n1\tpositive,positive\n2\tpositive,positive\tneutral,neutral\n", "record 2: 3 columns"),
        ("ID\ttext,image\n1\tpositive,positive\n1\tneutral,neutral\n", "record 2: its id 1 is also that of record 1"),
        ("ID\ttext,image\n1\tpositive,positive\n99\tneutral,neutral\n", r"99\.txt: cannot be read"),
    ],
)
def test_a_bad_line_of_mvsa_is_named(content, where, folder_of):
    folder = folder_of("mvsa")
    (folder / "labelResultAll.txt").write_text(content)
    with pytest.raises(UserError, match=where):
        read("mvsa", folder)


# --------------------------------------------------------------------------- predictions.jsonl, and the command line

OURS = {
    "vqa": [("90", "dog"), ("91", "no")],
    "vcr": [(f"val-{n} {part}", 0) for n in range(2) for part in ("answer", "rationale")],
    "refcoco": [("13", {"left": 10, "top": 10, "right": 24, "bottom": 20})],
    "snli-ve": [("1.jpg#0r1", "neutral"), ("2.jpg#0r1", "neutral")],
    "hateful-memes": [("1", "0"), ("2", "1")],
    "sentiment": [("a", 0.5), ("b", 2)],
    "r2r": [("1_0", 0), ("1_1", ["a", "b"]), ("1_2", 1)],
    "captions": [("0.jpg", "a red shape"), ("1.jpg", "a cat")],
    "retrieval": [*((f"text {n}", 1) for n in range(4)), *((f"image {n}", 2) for n in range(2))],
}

NEVER = (True, {"x": 1}, [5], {"left": 1, "top": 1, "right": 2}, {"left": "1", "top": 1, "right": 2, "bottom": 2})
WRONG = {
    "vqa": (5, 1.5, ["x"]),
    "vcr": (4, -1, 1.5, "0", ["0"]),
    "refcoco": (None, "x", 5, [1, 2, 3, 4], {"left": math.nan, "top": 1, "right": 2, "bottom": 2}),
    "snli-ve": (1, "entails", "Neutral", ["neutral"]),
    "hateful-memes": (1, "2", "yes"),
    "sentiment": ("1.5", math.nan, math.inf, ["1"]),
    "r2r": (None, 7, -1, "a", 1.5, [], ["b"], ["a", "zz"], ["a", "c"]),
    "captions": (5, ["x"]),
    "retrieval": (None, 0, -1, 1.5, 5, "1"),
}


def ours(folder, rows):
    path = folder / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", OURS)
def test_predictions_of_another_kind_are_named_by_the_command_line(name, folder_of, capsys):
    folder = folder_of("captions" if name == "retrieval" else name)
    rows = [{"id": key, "answer": answer} for key, answer in OURS[name]]
    path = ours(folder, rows)
    command = ["eval", str(path), "--task", f"{name}:{folder}", "--json"]
    assert main(command) == 0
    json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    # The second record, or the only one.
    bad = min(1, len(rows) - 1)
    cases = [{"answer": answer} for answer in (*NEVER, *WRONG[name])]
    cases += [{"id": key} for key in (None, True, 1.5, ["x"], {}, "")]
    cases += [{"candidates": ["a"], "scores": [score]} for score in (math.nan, math.inf, "1", None, True)]
    cases += [{"candidates": "ab", "scores": [1, 2]}, {"candidates": ["a"]}, {"kind": "guess"}]
    for case in cases:
        ours(folder, [{**row, **case} if number == bad else row for number, row in enumerate(rows)])
        assert main(command) == 2, case
        out, err = capsys.readouterr()
        assert out == ""
        assert f"{path}, record {bad + 1}: " in err, (case, err)
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "captions"])
def test_bad_files_are_one_line_of_the_command_line(name, folder_of, capsys):
    folder = folder_of(name)
    sent = next(folder.glob("sent.*"))
    command = ["eval", str(sent), "--task", f"{name}:{folder}", "--json"]
    assert main(command) == 0
    capsys.readouterr()
    for arguments, message in (
        (["eval", str(folder / "none.json"), *command[2:]], "none.json: no such file. Give a file of predictions"),
        ([*command, "--split", "none"], "no split 'none'. The splits are"),
        ([*command, "--split", "*"], "no split '*'. The splits are"),
        ([*command[:3], f"{name}:{folder}:no*"], "no split 'no*'"),
        ([*command[:3], f"{name}:{folder / 'none'}"], "no such folder"),
    ):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert message in err
    sent.write_bytes(sent.read_bytes()[:-12])
    assert main(command) == 2
    assert sent.name in capsys.readouterr().err


def test_a_limit_draws_records_and_never_scores_a_part_of_a_file(folder_of, capsys):
    folder = folder_of("hateful-memes")
    assert main(["eval", str(folder / "sent.csv"), "--task", f"hateful-memes:{folder}", "--limit", "1"]) == 2
    said = capsys.readouterr().err
    assert "no record for 1 of 2 predictions" in said
    assert "--limit 1 and --seed 0 draw 1 records. Leave --limit out" in said


def test_trajectories_need_no_beam_file_and_models_do(folder_of, good, capsys):
    folder = folder_of("r2r")
    (folder / "beams_val.json").unlink()
    assert score("r2r", folder) == score("r2r", good / "r2r")
    (folder / "model").mkdir()
    assert main(["eval", str(folder / "model"), "--task", f"r2r:{folder}"]) == 2
    assert "R2R_val.json, 1_0: has no paths to choose from. Add beams_SPLIT.json to" in capsys.readouterr().err
    path = ours(folder, [{"id": f"1_{n}", "answer": 0} for n in range(3)])
    with pytest.raises(UserError, match=r"predictions\.jsonl, record 1: prediction 1_0: 0 is not a path"):
        score("r2r", folder, path)


def test_every_turn_of_the_head_counts_for_ndtw(folder_of):
    folder = folder_of("r2r")
    # The path goes 2 m too far, to e; each turn there costs as much again.
    for views, cost in (("abcde", 2), ("abcdeee", 6)):
        steps = [[view, 0.0, 0.0] for view in views]
        write(folder / "sent.json", [{"instr_id": f"1_{n}", "trajectory": steps} for n in range(3)])
        found = score("r2r", folder)
        assert found["ndtw"].value == pytest.approx(math.exp(-cost / 12))
        assert found["trajectory_length"].value == 8
