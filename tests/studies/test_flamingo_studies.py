"""Flamingo's studies: what their tables show of the rows."""

import json
from types import SimpleNamespace

import pytest
import torch

from vislang.studies import heads, in_context, mixing
from vislang.studies.in_context import ABOVE, BEFORE, HELD_OUT, SHOTS, TASK


def test_the_table_of_examples_has_a_column_a_number_of_shots():
    rows = []
    for who, worth in ((BEFORE, 0.5), (ABOVE, 0.25)):
        for seed in (0, 1):
            rows.append({"who": who, "seed": seed, "task": HELD_OUT, "accuracy": worth + seed / 10, "items": 200})
            rows += [
                {"who": who, "seed": seed, "task": TASK, "shots": shots, "accuracy": worth + shots / 100, "items": 100}
                for shots in SHOTS
            ]
    heads, _, before, above = in_context.markdown(rows).splitlines()
    assert heads == f"| | 200 {HELD_OUT} | 100 of new groups, examples: 0 | 4 | 8 | 16 | 32 |"
    cells = [cell.strip() for cell in before.strip("|").split("|")]
    assert cells[0] == BEFORE
    assert cells[1].startswith("55.0 (")
    assert cells[1].endswith("seeds 50.0 to 60.0)")
    assert [cell.partition(" ")[0] for cell in cells[2:]] == ["50.0", "54.0", "58.0", "66.0", "82.0"]
    assert above.startswith(f"| {ABOVE} | 30.0 (")


class Looking:
    """A language model of one layer and two heads, which look where they are told."""

    config = SimpleNamespace(vocab_size=10)

    def set_attn_implementation(self, name):
        assert name == "eager"

    def __call__(self, input_ids, output_attentions):
        tokens = input_ids.shape[1]
        weights = torch.zeros(len(input_ids), 2, tokens, tokens)
        places = torch.arange(1, tokens)
        weights[:, 0, places, places - 1] = 0.75
        again = torch.arange(tokens // 2, tokens - 1)
        assert (input_ids[:, again] == input_ids[:, again - tokens // 2]).all()
        weights[:, 1, again, again - tokens // 2 + 1] = 0.5
        return SimpleNamespace(attentions=(weights, weights.flip(1) / 5))


def test_the_strongest_head_of_a_layer_counts():
    rows = heads.strongest(Looking())
    assert rows[0] == {"layer": 0, "token before": pytest.approx(0.75), "repeats": pytest.approx(0.5)}
    assert rows[1] == {"layer": 1, "token before": pytest.approx(0.15), "repeats": pytest.approx(0.1)}
    assert heads.markdown(rows).splitlines()[2:] == ["| 0 | 0.75 | 0.50 |"]


def test_both_ways_of_mixing_stand_side_by_side_and_the_blind_beside_them(monkeypatch, tmp_path):
    def trained(arm, arms, seed, runs):
        folder = runs / f"{arm.name}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        loss = 1.0 if arm.name == mixing.SUM else 2.0
        pages = {"n": 10, "nats a token": loss + seed, "nats a token, blind": 3.0}
        questions = {**pages, "n": 100, "accuracy": 0.5, "accuracy, blind": 0.25}
        metrics = {"steps": 3, "train_seconds": 1.0, "tasks": {"pages": pages, "questions": questions}}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    monkeypatch.setattr(mixing, "trained", trained)
    mixing.run([0, 1], tmp_path / "out", tmp_path / "runs")
    first = (tmp_path / "out" / "results.json").read_text()
    _, _, pages, questions, right = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert pages == (
        "| pages | 10 | nats a token | 1.500 (seeds 1.000 to 2.000) | 2.500 (seeds 2.000 to 3.000) "
        "| 3.000 (seeds 3.000 to 3.000) |"
    )
    assert questions.startswith("| questions | 100 | nats a token |")
    assert right.startswith("| questions | 100 | accuracy | 50.0 (")
    monkeypatch.setattr(mixing, "trained", lambda *_: pytest.fail("trained again"))
    mixing.run([0, 1], tmp_path / "out", tmp_path / "runs")
    assert (tmp_path / "out" / "results.json").read_text() == first
