"""ImageNet's three layouts."""

import pytest

from tests.tasks.families.family import Bad, Family, last_line_twice, values
from tests.tasks.official import draw, write
from vislang.data.problems import DataError
from vislang.example import Label, Prediction
from vislang.tasks.benchmarks.image_net import ImageNet

CLASSES = {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish, Carassius auratus"}
NAMES = "LOC_synset_mapping.txt"


def kaggle(path):
    """Kaggle's edition: two images of each class for each split."""
    for split in ("train", "val"):
        rows = ["ImageId,PredictionString"]
        for number in range(4):
            label = list(CLASSES)[number // 2]
            name = f"{label}_{number}" if split == "train" else f"ILSVRC2012_val_{number:08d}"
            rows.append(f"{name},{label} 85 1 499 272 {label} 1 2 3 4 ")
            place = f"{label}/{name}" if split == "train" else name
            draw(path / "ILSVRC/Data/CLS-LOC" / split / f"{place}.JPEG", number)
        write(path / f"LOC_{split}_solution.csv", "\n".join(rows) + "\n")
    write(path / NAMES, "".join(f"{label} {names}\n" for label, names in CLASSES.items()))


VAL = "LOC_val_solution.csv"
FAMILY = Family(
    "imagenet",
    kaggle,
    None,
    None,
    {
        "flamingo": "rank",
        "dual encoder": "match",
        "data2vec of images": "embed",
        "data2vec of images, fine-tuned": "decide",
    },
    (VAL, last_line_twice),
    (
        Bad(VAL, "ImageId", "Image", 'record 1: has no "filename"'),
        Bad(VAL, "n01440764 85 1 499 272 n01440764 1 2 3 4 ", "", "record 1: has no image or no class"),
        Bad(VAL, ",n01440764", "", "record 1: 1 cells; the first line names 2 columns"),
        Bad(NAMES, " tench, Tinca tinca", "", "record 1: 'n01440764' is not a class and its names"),
        Bad(NAMES, "n01440764", "n01443537", "record 2: its id n01443537 is also that of record 1"),
        Bad(NAMES, "n01440764", "n0", "has no name for the class n01440764"),
    ),
    (VAL, "LOC_train_solution.csv", NAMES),
)


def test_classes_have_names(tmp_path):
    task = FAMILY.opened(tmp_path)
    assert task.labels == tuple(CLASSES)
    example = task.examples("val")[2]
    assert (example.id, example.target) == ("ILSVRC2012_val_00000002", Label("n01443537"))
    assert example.wording.labels["n01443537"] == "goldfish"
    assert example.wording.captions["n01443537"] == "a photo of goldfish"


def test_top_five_of_more_than_five_classes(tmp_path):
    for number in range(7):
        draw(tmp_path / "val" / f"c{number}" / "a.jpg", number)
        draw(tmp_path / "train" / f"c{number}" / "b.PNG", number)
    write(tmp_path / "val" / "c0" / "notes.txt", "no image")
    task = ImageNet(tmp_path)
    assert (task.splits, task.default_split, task.support_split) == (("train", "val"), "val", "train")
    examples = task.examples("val")
    assert [(e.id, e.target) for e in examples[:2]] == [("c0/a.jpg", Label("c0")), ("c1/a.jpg", Label("c1"))]
    assert examples[0].wording.captions["c0"] == "a photo of c0"
    # The scores fall from c0 to c6: c0 is right, c1 to c4 are among the best five.
    scores = tuple(float(-n) for n in range(7))
    made = [Prediction(example.id, "c0", task.labels, scores) for example in examples]
    assert values(task.score(examples, made)) == pytest.approx({"accuracy": 1 / 7, "accuracy_top_5": 5 / 7})
    assert set(task.score(examples, [Prediction(e.id, "c0") for e in examples])) == {"accuracy"}


def test_labels_in_a_file_for_each_split(tmp_path):
    """As of mini-ImageNet."""
    for split, label in (("train", "n1"), ("val", "n2")):
        write(tmp_path / f"{split}.csv", f"filename,label\n{label}a.jpg,{label}\n")
        draw(tmp_path / "images" / f"{label}a.jpg", 1)
    task = ImageNet(tmp_path)
    assert task.labels == ("n1", "n2")
    (example,) = task.examples("val")
    assert (example.id, example.media[0].is_there) == ("n2a.jpg", True)
    write(tmp_path / "val.csv", "filename,label\na.jpg,\n")
    with pytest.raises(DataError, match=r"val\.csv, record 1: has no image or no class"):
        ImageNet(tmp_path)
