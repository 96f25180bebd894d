"""The study: both generations with the same training time, every checkpoint probed, nothing repeated."""

import json

import numpy as np
import pytest
from PIL import Image as Pillow

from vislang.studies import data2vec as study

RECIPE = """
model:
  class_path: vislang.models.data2vec.pretraining.Data2VecRecipe
  init_args:
    encoder: {{width: 16, depth: 2, heads: 2, mlp_width: 32}}
    modalities:
      image: {{size: 32, patch: 8, decoder: {{width: 16, layers: 1, groups: 2}}, positions: fixed}}
    choices: {{top_k: 2, copies: 2, decay: 0.9, end_decay: 0.9, anneal_steps: 4}}
data: [{{sources: [{folder}], name: pictures}}]
train: {{steps: 16, batch_size: 4}}
"""


@pytest.fixture
def tiny(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for n in range(30):
        noise = rng.normal(0, 30, (16, 16, 3)) + ((200, 40, 40) if n % 2 else (40, 40, 200))
        Pillow.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{n:02}.png")
        rows.append({"image": f"pictures/{n:02}.png", "label": "red" if n % 2 else "blue"})
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return study.Study(tmp_path / "recipe.yaml", (str(tmp_path / "labels.jsonl"),), ("v2", "v1"))


def test_a_study_probes_every_checkpoint_once_and_continues_where_it_stopped(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "POINTS", 4)
    monkeypatch.setattr(study, "MEASURED", 10)
    out, runs = tmp_path / "out", tmp_path / "runs"
    study.run_study(tiny, [0], out, runs)
    results = json.loads((out / "results.json").read_text())
    rows = results["rows"]
    assert [point["step"] for point in results["training"]["v2, seed 0"]] == list(range(1, 17))
    for generation in ("v1", "v2"):
        steps = [row["step"] for row in rows if row["representation"] == generation and row["kind"] == "linear"]
        assert len(steps) == len(set(steps)) > study.POINTS // 2
        before = [row for row in rows if row["representation"] == f"{generation}, before training"]
        assert [row["seconds"] for row in before] == [0.0, 0.0]
    assert results["schema"] == 1
    baselines = {"pixels, 16 x 16", "EfficientNet-Lite0, ImageNet labels", "most frequent label"}
    assert baselines <= {row["representation"] for row in rows}
    for row in rows:
        accuracy = row["figures"]["accuracy"]
        assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
        assert accuracy["n"] == 30
    point = results["training"]["v2, seed 0"][0]
    assert {"loss", "target_std", "prediction_std", "explained_variance"} <= point.keys()
    assert (out / "curves.png").is_file()
    # Run it again: nothing is trained or probed twice, and a second seed is added.
    before = (runs / "v1-0" / "metrics.json").stat().st_mtime_ns
    capsys.readouterr()
    study.run_study(tiny, [0, 1], out, runs)
    shown = capsys.readouterr().out
    assert "seed 0, step" not in shown
    assert "seed 1, step" in shown
    assert (runs / "v1-0" / "metrics.json").stat().st_mtime_ns == before
    again = json.loads((out / "results.json").read_text())["rows"]
    assert again[: len(rows)] == rows
