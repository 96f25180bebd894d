"""Training on records that stay in their files, some of them bad."""

import json

import pytest
import torch

from tests.data.test_index import indexed, lines_of
from tests.data.test_web_pages import png
from tests.train import line
from tests.train.line import Line, Silent
from vislang.cli import main
from vislang.data.bad_records import BadRecords
from vislang.data.problems import DataError
from vislang.document import MediaError
from vislang.train.batches import Steps, Stream
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics
from vislang.train.loop import train


def collate(examples, seed=0, first=0):
    """Scores of images, which are decoded."""
    for example in examples:
        example.media[0].decode()
    return line.collate(examples, seed, first)


@pytest.fixture
def examples(tmp_path):
    (tmp_path / "good.png").write_bytes(png("red"))
    names = ("none.png" if n % 5 == 0 else "good.png" for n in range(30))
    return indexed(lines_of(tmp_path / "my.jsonl", *({"image": name, "score": n / 10} for n, name in enumerate(names))))


def run(examples, folder, bad=None, resume=False, **settings):
    model = Line()
    model.collate = collate
    config = TrainConfig(batch_size=4, warmup_steps=0, checkpoint_every=5, device="cpu", **settings)
    bad = bad or BadRecords(skip=True, max_share=0.5)
    train(model, [Stream("scores", examples, 1.0, 4)], config, folder, Silent(), resume=resume, bad_records=bad)
    losses = [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]
    return losses, (folder / "bad_records.jsonl").read_text()


def test_bad_records_are_replaced_alike_by_any_number_of_workers_and_when_resumed(examples, tmp_path):
    losses, listed = run(examples, tmp_path / "whole", steps=15)
    rows = [json.loads(line) for line in listed.splitlines()]
    # All are met in two epochs, and each is listed once.
    assert sorted(row["line"] for row in rows) == [1, 6, 11, 16, 21, 26]
    assert {row["kind"] for row in rows} == {"missing media"}
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert run(examples, tmp_path / "helped", steps=15, workers=2) == (losses, listed)
    run(examples, tmp_path / "cut", steps=15)
    (tmp_path / "cut" / "checkpoints" / "step-00000015" / "state.json").unlink()
    assert run(examples, tmp_path / "cut", steps=15, resume=True) == (losses, listed)


def test_bad_records_that_may_not_be_replaced_or_are_too_many_stop_the_run(examples, tmp_path):
    with pytest.raises(MediaError, match=r"none\.png: no such file"):
        run(examples, tmp_path / "strict", BadRecords(), steps=15)
    more = indexed(lines_of(tmp_path / "more.jsonl", *({"image": f"{n % 3}.png", "score": n} for n in range(90))))
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png("red"))
    with pytest.raises(DataError, match=r"1\d of \d\d records drawn are bad .*max_bad_share"):
        run(more, tmp_path / "many", BadRecords(skip=True, max_share=0.1), steps=100)


def test_a_recipe_on_indexed_records(recipe, pictures, tmp_path, capsys, monkeypatch):
    # A report takes longer than all the rest.
    monkeypatch.setattr("vislang.runs.run.draw_report", lambda *args: None)
    lines = (pictures / "my.jsonl").read_text() + '{"image": "gone.png", "question": "q", "answer": "a"}\n{"txt": 1}\n'
    (pictures / "long.jsonl").write_text(lines)
    source, out = str(pictures / "long.jsonl"), tmp_path / "run"
    arguments = ["train", str(recipe), "--data", source, "--index_above=0", "--out", str(out)]
    assert main([*arguments, "--train.steps=4"]) == 2
    assert "long.jsonl:26: unknown key" in capsys.readouterr().err
    assert main([*arguments, "--train.steps=4", "--skip-bad-records"]) == 0
    assert "2 bad records" in capsys.readouterr().out
    record, metrics = (json.loads((out / name).read_text()) for name in ("run.json", "metrics.json"))
    assert (record["indexed"], record["bad_records"]) == ([source], 2)
    assert metrics["bad_records"] == {"fields": 1, "missing media": 1}
    assert metrics["examples"]["long"] + metrics["tasks"]["long"]["n"] >= 23
    rows = [json.loads(line) for line in (out / "bad_records.jsonl").read_text().splitlines()]
    assert sorted(row["line"] for row in rows) == [25, 26]
    # A run that was started on indexed records continues with them, whatever their number.
    before = read_metrics(out / "metrics.jsonl")[:4]
    assert main(["train", "--resume", str(out), "--index_above=500000", "--train.steps=6"]) == 0
    assert json.loads((out / "run.json").read_text())["indexed"] == [source]
    assert [row["loss"] for row in read_metrics(out / "metrics.jsonl")[:4] if "loss" in row] == [
        row["loss"] for row in before if "loss" in row
    ]


def test_replacements_are_the_same_in_any_number_of_processes(examples):
    stream = Stream("scores", examples, 1.0, 5)
    replaced = 0
    for step in range(6):
        whole = Steps(collate, [stream], seed=3, replace_bad=True)[step]
        (((batch, _),),) = whole.parts
        replaced += len(whole.problems)
        for count, accumulate in ((2, 1), (3, 2), (12, 1)):
            found = [
                Steps(collate, [stream], 3, rank=rank, count=count, accumulate=accumulate, replace_bad=True)[step]
                for rank in range(count)
            ]
            parts = [part for own in found for part in own.parts[0]]
            assert [name for part, n in parts for name in part.names[:n]] == batch.names
            assert torch.equal(torch.cat([part.x[:n] for part, n in parts]), batch.x)
            # A stand-in of a process without examples is not reported again.
            assert [problem for own in found for problem in own.problems] == whole.problems
    assert replaced >= 5
