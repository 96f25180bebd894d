"""Flamingo's studies: their tables."""

import json
from types import SimpleNamespace

import pytest
import torch

from vislang.metrics.figure import figures_as_json, plain, share
from vislang.studies import few_shot, heads, in_context, mixing
from vislang.studies.in_context import EARLY, HELD_OUT, LATE, SHOTS, TASK


def test_the_table_of_shots_has_a_column_a_number_of_them():
    rows = []
    for arm, right in ((EARLY, 50), (LATE, 25)):
        for seed in (0, 1):
            keys = {"arm": arm, "seed": seed}
            found = {"exact_match": share(2 * (right + 10 * seed), 200)}
            rows.append({**keys, "task": HELD_OUT, "figures": figures_as_json(found)})
            rows += [
                {**keys, "task": TASK, "shots": s, "figures": figures_as_json({"accuracy": share(right + s, 100)})}
                for s in SHOTS
            ]
    heading, _, early, late = in_context.markdown(rows).splitlines()
    assert heading == f"| | 200 {HELD_OUT} | 100 images of new groups, shots: 0 | 4 | 8 | 16 | 32 |"
    cells = [cell.strip() for cell in early.strip("|").split("|")]
    assert cells[0] == EARLY
    assert cells[1].startswith("55.0 (")
    assert cells[1].endswith("seeds 50.0 to 60.0)")
    assert [cell.partition(" ")[0] for cell in cells[2:]] == ["50.0", "54.0", "58.0", "66.0", "82.0"]
    assert late.startswith(f"| {LATE} | 30.0 (")


class Looking:
    """A language model of one layer and two heads: one attends to the previous token, one repeats."""

    config = SimpleNamespace(vocab_size=10)

    def set_attn_implementation(self, name):
        assert name == "eager"

    def __call__(self, input_ids, output_attentions):
        tokens = input_ids.shape[1]
        weights = torch.zeros(len(input_ids), 2, tokens, tokens)
        later = torch.arange(1, tokens)
        weights[:, 0, later, later - 1] = 0.75
        second = torch.arange(tokens // 2, tokens - 1)
        assert (input_ids[:, second] == input_ids[:, second - tokens // 2]).all()
        weights[:, 1, second, second - tokens // 2 + 1] = 0.5
        return SimpleNamespace(attentions=(weights, weights.flip(1) / 5))


def test_the_strongest_head_of_a_layer_counts():
    rows = heads.strongest(Looking())
    assert rows[0] == {"layer": 0, "previous_token": pytest.approx(0.75), "induction": pytest.approx(0.5)}
    assert rows[1] == {"layer": 1, "previous_token": pytest.approx(0.15), "induction": pytest.approx(0.1)}
    assert heads.markdown(rows).splitlines()[2:] == ["| 0 | 0.75 | 0.50 |"]


def metrics_of(loss: float, blind: float):
    def both(extra: float = 0.0, n: int = 10):
        found = {"loss_per_token": plain(loss + extra, n), "loss_per_token_blind": plain(blind + extra, n)}
        return figures_as_json(found)

    questions = {
        "figures": figures_as_json({"accuracy": share(50, 100)}),
        "blind": figures_as_json({"accuracy": share(25, 100)}),
    }
    return {
        "steps": 3,
        "train_seconds": 1.0,
        "tasks": {"questions": questions},
        "held_out": {"pages": both(), "questions": both(n=100)},
    }


def test_every_arm_of_a_mixture_is_shown_with_images_and_without(monkeypatch, tmp_path):
    losses = {mixing.SUM: (1.0, 4.0), mixing.SAME_STEPS: (3.0, 3.5), mixing.SAME_EXAMPLES: (2.0, 2.25)}

    def trained(arm, arms, seed, runs):
        folder = runs / f"{arm.name}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        seen, blind = losses[arm.name]
        (folder / "metrics.json").write_text(json.dumps(metrics_of(seen + seed, blind + 2 * seed)))
        return folder

    monkeypatch.setattr(mixing, "trained", trained)
    mixing.run([0, 1], tmp_path / "out", tmp_path / "runs")
    first = (tmp_path / "out" / "results.json").read_text()
    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert len(table) == 2 + 3 * 3
    assert table[2] == (
        f"| pages | 10 | loss per token | {mixing.SUM} | 1.500 (seeds 1.000 to 2.000) | 5.000 (seeds 4.000 to 6.000) "
        "| 3.500 (seeds 3.000 to 4.000) |"
    )
    assert f"{mixing.SAME_EXAMPLES} | 2.500 (seeds 2.000 to 3.000) | 3.250 (seeds 2.250 to 4.250) | 0.750" in table[4]
    assert table[-1].startswith(f"| questions | 100 | accuracy | {mixing.SAME_EXAMPLES} | 50.0 (")
    assert table[-1].endswith("| 25.0 (seeds 25.0 to 25.0) |")
    monkeypatch.setattr(mixing, "trained", lambda *_: pytest.fail("trained again"))
    mixing.run([0, 1], tmp_path / "out", tmp_path / "runs")
    assert (tmp_path / "out" / "results.json").read_text() == first


def test_one_arm_in_turn_takes_the_steps_of_the_sum_and_one_meets_its_examples():
    steps = {arm.name: next(c for c in arm.changes if c.startswith("--train.steps")) for arm in mixing.ARMS}
    assert steps[mixing.SUM] == steps[mixing.SAME_STEPS] == f"--train.steps={mixing.STEPS}"
    assert steps[mixing.SAME_EXAMPLES] == f"--train.steps={3 * mixing.STEPS}"


def test_shots_that_were_not_measured_leave_their_cells_empty():
    def point(shots, select, blind, right):
        figures = figures_as_json({"accuracy": share(right, 10)})
        return {"shots": shots, "select": select, "blind": blind, "figures": figures}

    found = {
        "task": "things",
        "n": 10,
        "points": [point(0, "random", False, 1), point(4, "random", False, 5), point(4, "retrieved", False, 9)],
        "baselines": {"most_frequent_answer": figures_as_json({"accuracy": share(3, 10)})},
    }
    heading, _, random, retrieved, blind = few_shot.markdown([found]).splitlines()
    assert heading == "| shots: | | 0 | 4 | most frequent answer |"
    assert random == "| `things`, 10 queries, accuracy | random | 10.0 % | 50.0 % | 30.0 % |"
    assert retrieved == "|  | retrieved |  | 90.0 % |  |"
    assert blind == "|  | random, without images |  |  |  |"
