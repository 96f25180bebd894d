"""It learns: a tiny bridge tells two colours apart, and cannot when it is blind."""

import torch

from vislang.data.jsonl import read_jsonl
from vislang.evaluate.evaluation import evaluate
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.tasks.catalogue import open_task
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics
from vislang.train.loop import train


class Silent:
    def step(self, step, row):
        pass

    def evaluated(self, step, row):
        pass


def test_it_learns_what_it_sees(towers, pictures, tmp_path):
    torch.manual_seed(0)
    bridge = FlamingoConfig(
        gated_layers=[1, 2], latents=4, resampler_width=16, resampler_depth=1, heads=2, head_width=8
    )
    model = FlamingoRecipe(*towers, bridge=bridge).build()
    examples = read_jsonl(pictures / "my.jsonl", [])
    model.prepare(examples[:16])
    model.fit(examples[:16])
    config = TrainConfig(steps=150, batch_size=8, lr=3e-3, lr_scale={"gates": 20}, checkpoint_every=150)
    outcome = train(model, [Stream("text", examples[:16], 1.0, 8)], config, tmp_path, Silent())
    assert (outcome.steps, outcome.interrupted) == (150, False)
    losses = [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert losses[-1] < 0.1 * losses[0]
    found = evaluate(model, open_task(str(pictures / "my.jsonl")), examples[16:])
    assert found.figures["accuracy"].value == 1
    assert found.blind["accuracy"].value <= 0.5
    gates = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert any(abs(gates[name]) > 0.01 for name in gates if name.startswith("gate/"))
