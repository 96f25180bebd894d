"""Small folders in the official formats: records as the authors of a benchmark write them, and pictures where a model
is to look at them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ("red", "blue", "green", "black")


def write(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def lines(records) -> str:
    return "\n".join(json.dumps(record) for record in records) + "\n"


def draw(path: Path, number: int) -> None:
    """A square on white; its colour and its position follow from the number."""
    made = Image.new("RGB", (32, 32), "white")
    left = 3 * number % 23
    ImageDraw.Draw(made).rectangle([left, 8, left + 8, 24], fill=COLOURS[number % 4])
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(path)


def vqa_folder(folder: Path, split: str = "val2014", image: int = 9) -> Path:
    """Two questions about an image; ten people say "cat" (7) or "a dog" (3), and "yes"."""
    first = 10 * image
    write(
        folder / f"v2_OpenEnded_mscoco_{split}_questions.json",
        {
            "data_subtype": split,
            "questions": [
                {"image_id": image, "question": "what is it?", "question_id": first},
                {"image_id": image, "question": "is it red?", "question_id": first + 1},
            ],
        },
    )

    def annotation(number, kind, answers):
        given = [{"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(answers, start=1)]
        return {"question_id": number, "image_id": image, "answer_type": kind, "question_type": "is", "answers": given}

    other, closed = ["a dog"] * 3 + ["cat"] * 7, ["yes"] * 10
    annotations = [annotation(first, "other", other), annotation(first + 1, "yes/no", closed)]
    write(folder / f"v2_mscoco_{split}_annotations.json", {"annotations": annotations})
    return folder


def vcr_record(number: int, split: str = "val", image: str = "movie/a.jpg", **labels) -> dict:
    return {
        "annot_id": f"{split}-{number}",
        "img_fn": image,
        "objects": ["person", "dog"],
        "question": ["What", "does", [0], "give", [1], "?"],
        "answer_choices": [["a", "bone"], ["[gr]"], ["food"], [[0, 1]]],
        "rationale_choices": [["because"], ["so"], ["it"], ["is"]],
        **labels,
    }


def refcoco_folder(folder: Path) -> None:
    """Three expressions for one box: two of split testA, one of val."""
    sentences = [{"sent_id": 11, "sent": "left cup"}, {"sent_id": 12, "sent": "the cup"}]
    of_image = {"ann_id": 5, "image_id": 7}
    references = [
        {"ref_id": 1, **of_image, "split": "testA", "sentences": sentences},
        {"ref_id": 2, **of_image, "split": "val", "sentences": [{"sent_id": 13, "sent": "cup"}]},
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(references, protocol=2))
    write(
        folder / "instances.json",
        {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [{"id": 5, "bbox": [10, 10, 20, 10]}]},
    )


def nlvr2_record(pair: int, sentence: int, label: str, split: str = "dev", text: str = "two dogs") -> dict:
    return {"identifier": f"{split}-1-{pair}-{sentence}", "sentence": text, "label": label, "left_url": "x"}


def snli_ve_record(number: int, label: str, text: str = "a dog") -> dict:
    return {"pairID": f"{number}.jpg#0r1", "Flickr30K_ID": number, "sentence2": text, "gold_label": label}


def meme(number: int, label: int, image: str = "a.png", text: str = "x") -> dict:
    return {"id": number, "img": image, "label": label, "text": text}


def mvsa_folder(folder: Path, labels: dict[int, str]) -> None:
    """Posts with one annotator each, whose label is "TEXT,IMAGE"."""
    rows = [f"{number}\t{label}" for number, label in labels.items()]
    write(folder / "labelResultAll.txt", "ID\ttext,image\n" + "\n".join(rows) + "\n")
    for number in labels:
        write(folder / "data" / f"{number}.txt", "a fine day")


def sentiment_record(name: str, score: float, text: str = "so") -> dict:
    return {"id": name, "image": f"{name}.jpg", "text": text, "score": score}


def r2r_folder(folder: Path, split: str = "val", path_id: int = 1) -> Path:
    """Five viewpoints in a row, 2 m apart, and one that is not included; three instructions for the first four."""
    views = "abcdex"

    def viewpoint(number):
        pose = [0.0] * 16
        pose[3] = 2.0 * number
        seen = [abs(number - other) == 1 for other in range(len(views))]
        return {"image_id": views[number], "included": views[number] != "x", "pose": pose, "unobstructed": seen}

    write(folder / "connectivity" / "s_connectivity.json", [viewpoint(n) for n in range(len(views))])
    record = {
        "scan": "s",
        "path_id": path_id,
        "path": list("abcd"),
        "heading": 0,
        "distance": 6,
        "instructions": ["go", "walk", "turn"],
    }
    write(folder / f"R2R_{split}.json", [record])
    beams = [
        {"instr_id": f"{path_id}_0", "ranked_paths": [["a", "b"], ["a", "b", "c", "d"], ["a", "b", "c", "d", "e"]]},
        {"instr_id": f"{path_id}_1", "ranked_paths": [["a"], ["a", "b"]]},
        {"instr_id": f"{path_id}_2", "ranked_paths": [["a", "b", "c"], ["a"]]},
    ]
    write(folder / f"beams_{split}.json", beams)
    return folder


def karpathy_folder(folder: Path, sizes: dict[str, int]) -> None:
    """Images with two captions each, so many of each split."""
    images = []
    for split, size in sizes.items():
        for _ in range(size):
            name = f"{len(images)}.jpg"
            colour = COLOURS[len(images) % 4]
            captions = [f"a {colour} shape", f"image of a {colour} cat"]
            images.append({"filename": name, "split": split, "sentences": [{"raw": c} for c in captions]})
            draw(folder / name, len(images))
    write(folder / "dataset_flickr30k.json", {"images": images})


# ------------------------------------------------------------------------ folders with pictures, to learn and to ask


def _vqa(folder: Path) -> None:
    for split, image in (("train2014", 4), ("val2014", 9)):
        vqa_folder(folder, split, image)
        draw(folder / f"COCO_{split}_{image:012d}.jpg", image)
    # A second image to draw shots from.
    path = folder / "v2_OpenEnded_mscoco_train2014_questions.json"
    annotated = folder / "v2_mscoco_train2014_annotations.json"
    questions, annotations = json.loads(path.read_text()), json.loads(annotated.read_text())
    for number, colour in enumerate(COLOURS):
        asked = {"image_id": 20 + number, "question_id": 200 + number}
        questions["questions"].append({**asked, "question": "what color?"})
        given = [{"answer": colour, "answer_confidence": "yes", "answer_id": n} for n in range(10)]
        annotations["annotations"].append({**asked, "answer_type": "other", "question_type": "what", "answers": given})
        draw(folder / f"COCO_train2014_{20 + number:012d}.jpg", number)
    write(path, questions)
    write(annotated, annotations)


def _vcr(folder: Path) -> None:
    for split, count in (("train", 4), ("val", 3)):
        records = []
        for n in range(count):
            image = f"{split}/{n}.jpg"
            records.append(vcr_record(n, split, image, answer_label=n % 4, rationale_label=(n + 1) % 4))
            draw(folder / "vcr1images" / image, n)
        write(folder / f"{split}.jsonl", lines(records))


def _refcoco(folder: Path) -> None:
    refcoco_folder(folder)
    draw(folder / "a.jpg", 3)


def _nlvr2(folder: Path) -> None:
    for split, count in (("train", 4), ("dev", 4)):
        records = [
            nlvr2_record(n // 2, n % 2, ("True", "False")[n * n % 3 % 2], split, ("two dogs", "a red cat")[n % 2])
            for n in range(count)
        ]
        write(folder / f"{split}.json", lines(records))
        for pair in range((count + 1) // 2):
            for side in (0, 1):
                draw(folder / f"{split}-1-{pair}-img{side}.png", 2 * pair + side)


def _snli_ve(folder: Path) -> None:
    labels = ("entailment", "neutral", "contradiction")
    for split, start in (("train", 1), ("dev", 7)):
        numbers = range(start, start + 4)
        records = [snli_ve_record(n, labels[n % 3], f"a {COLOURS[n % 4]} dog") for n in numbers]
        write(folder / f"snli_ve_{split}.jsonl", lines(records))
        for number in numbers:
            draw(folder / f"{number}.jpg", number)


def _hateful_memes(folder: Path) -> None:
    for split, start in (("train", 1), ("dev_seen", 11)):
        records = [meme(n, n % 2, f"img/{n}.png", ("a cat", "what is it?")[n % 2]) for n in range(start, start + 4)]
        write(folder / f"{split}.jsonl", lines(records))
        for number in range(start, start + 4):
            draw(folder / "img" / f"{number}.png", number)


def _mvsa(folder: Path) -> None:
    labels = ("positive,positive", "neutral,negative", "neutral,neutral")
    mvsa_folder(folder, {number: labels[number % 3] for number in range(1, 21)})
    for number in range(1, 21):
        draw(folder / "data" / f"{number}.jpg", number)


def _sentiment(folder: Path) -> None:
    for split, names in (("train", "mnop"), ("val", "abcd")):
        records = [sentiment_record(name, ord(name) % 7 - 3.0, f"a {name} day") for name in names]
        write(folder / f"{split}.jsonl", lines(records))
        for name in names:
            draw(folder / f"{name}.jpg", ord(name))


def _r2r(folder: Path) -> None:
    r2r_folder(folder, "train", 2)
    r2r_folder(folder, "val_unseen", 1)
    beams = folder / "beams_train.json"
    # All instructions to learn from have a candidate that arrives.
    records = json.loads(beams.read_text())
    records[1]["ranked_paths"].append(list("abcd"))
    write(beams, records)
    for number, view in enumerate("abcde"):
        draw(folder / f"s-{view}.jpg", number)


def _karpathy(folder: Path) -> None:
    karpathy_folder(folder, {"train": 4, "test": 3})


FOLDERS: dict[str, Callable[[Path], None]] = {
    "vqa": _vqa,
    "vcr": _vcr,
    "refcoco": _refcoco,
    "nlvr2": _nlvr2,
    "snli-ve": _snli_ve,
    "hateful-memes": _hateful_memes,
    "mvsa": _mvsa,
    "sentiment": _sentiment,
    "r2r": _r2r,
    "retrieval": _karpathy,
    "captions": _karpathy,
}
"""For each task that is given its data, what writes a small folder of it: a split to learn from and one to answer."""
