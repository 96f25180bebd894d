"""CoLA and SST-2 of GLUE."""

import pytest

from tests.tasks.families.family import Bad, Family, last_line_twice, scored
from tests.tasks.official import write

SENTENCES = ("The cat sat.", "Cat the sat.", "It is red.", "Is red it.")
TEST = "index\tsentence\n" + "".join(f"{n}\t{text}\n" for n, text in enumerate(SENTENCES))


def cola(path):
    rows = [f"gj04\t{1 - n % 2}\t{'*' if n % 2 else ''}\t{text}\n" for n, text in enumerate(SENTENCES)]
    for split in ("train", "dev"):
        write(path / f"{split}.tsv", "".join(rows))
    write(path / "test.tsv", TEST)


def sst2(path):
    rows = [f"{text.lower()} \t{n % 2}\n" for n, text in enumerate(SENTENCES)]
    for split in ("train", "dev"):
        write(path / f"{split}.tsv", "sentence\tlabel\n" + "".join(rows))
    write(path / "test.tsv", TEST)


SENT = "index\tprediction\n0\t1\n1\t0\n2\t1\n3\t1\n"
CELLS = {
    "flamingo": "rank",
    "flamingo of videos": "rank",
    "data2vec of text": "embed",
    "data2vec of text, fine-tuned": "decide",
}
WHOLE = ("train.tsv", "dev.tsv", "test.tsv")
COLA = Family(
    "cola",
    cola,
    ("sent.tsv", SENT),
    "CoLA.tsv",
    CELLS,
    None,
    (
        Bad("dev.tsv", "gj04\t0", "gj04\t2", "record 2: '2' is none of 0, 1"),
        Bad("dev.tsv", "gj04\t1\t\t", "gj04\t1\t", "record 1: 3 columns; there must be 4"),
        Bad("dev.tsv", "Is red it.", " ", "record 4: its sentence is empty"),
        Bad("test.tsv", "index", "id", "its first line is not index sentence"),
        Bad("test.tsv", "2\tIt", "3\tIt", "record 3: its index is 3; the file is complete if it is 2"),
    ),
    WHOLE,
)
SST2 = Family(
    "sst-2",
    sst2,
    ("sent.tsv", SENT),
    "SST-2.tsv",
    CELLS,
    None,
    (
        Bad("dev.tsv", "sentence\tlabel\n", "", "its first line is not sentence label"),
        Bad("dev.tsv", "\t1\n", "\tpositive\n", "record 2: 'positive' is none of 0, 1"),
        Bad("dev.tsv", "\t1\n", "\n", "record 2: 1 columns; there must be 2"),
    ),
    WHOLE,
)


@pytest.mark.parametrize("own", [COLA, SST2], ids=lambda own: own.name)
def test_an_index_of_predictions_that_occurs_twice_is_named(own, tmp_path):
    task = own.opened(tmp_path)
    (tmp_path / "sent.tsv").write_text(last_line_twice(SENT))
    with pytest.raises(ValueError, match=r"sent\.tsv: several predictions for 1 of 4 records: 3"):
        task.read_predictions(tmp_path / "sent.tsv", task.examples("dev"))


def test_matthews_correlation(tmp_path):
    task = COLA.opened(tmp_path)
    labels = {"0": "acceptable", "1": "unacceptable", "2": "acceptable", "3": "acceptable"}
    # 2 true positives, 1 true negative, 1 false positive: (2 * 1 - 1 * 0) / sqrt(3 * 2 * 2 * 1).
    assert scored(task, labels) == pytest.approx({"matthews": 2 / 12**0.5, "accuracy": 0.75})
    assert scored(task, dict.fromkeys(labels, "acceptable")) == {"matthews": 0, "accuracy": 0.5}
    assert {example.target for example in task.examples("test")} == {None}


def test_sentiment(tmp_path):
    task = SST2.opened(tmp_path)
    assert task.examples("dev")[1].text == "cat the sat."
    assert scored(task, {"0": "negative", "1": "positive", "2": None, "3": "positive"}) == {"accuracy": 0.75}
