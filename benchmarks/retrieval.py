"""Retrieval with ViLBERT, 1,000 images by 1,000 texts: minutes, memory, and the gain from computing once per item.

The model is that of recipes/vilbert-pretrain.yaml with random weights; images and texts are emoji and their names. The
regions of the images are computed before. The peer computes the whole model for each pair.

    vislang data fetch emoji && python benchmarks/retrieval.py [--quick] [--json FILE]
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from compare import Row, arguments, compare, report
from memory import rise

from vislang.data.sources import load_source
from vislang.document import Image
from vislang.models.vilbert.inputs import encode
from vislang.models.vilbert.pretraining import PretrainedViLBERT, ViLBERTPretrainingRecipe
from vislang.recipe import read_recipe
from vislang.tasks.retrieval import sides

MINUTES = 15
"""The goal for 1,000 by 1,000 on two cores."""

TOGETHER = 256
"""Pairs in a batch of the peer, as many as in ours."""


@torch.inference_mode()
def each_pair_whole(model: PretrainedViLBERT, images: list[Image], texts: list[str]) -> torch.Tensor:
    """The same scores, with the whole model computed for each pair."""
    pairs = [(image, text) for image in images for text in texts]
    regions = {image: model.inputs.regions_of((image,)) for image in images}
    found = []
    for start in range(0, len(pairs), TOGETHER):
        part = pairs[start : start + TOGETHER]
        read = [regions[image] for image, _ in part]
        rows = range(len(part))
        inputs = model.inputs.pairs(model.inputs.text([(text,) for _, text in part]), read, list(rows), rows, [])
        with torch.autocast("cpu", model.dtype, enabled=model.dtype != torch.float32):
            yes, no = model.network.alignment_logits(model.network.fuse(encode(model.network, inputs))).unbind(dim=-1)
        found.append((yes - no).float())
    return torch.cat(found).view(len(images), len(texts))


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "")
    torch.set_num_threads(2)
    torch.manual_seed(0)
    recipe = read_recipe(Path(__file__).parents[1] / "recipes" / "vilbert-pretrain.yaml", [])[0].model
    assert isinstance(recipe, ViLBERTPretrainingRecipe)
    model = recipe.build()
    many = 200 if options.quick else 1000
    pairs = load_source("emoji-google-names")[:many]
    model.fit(pairs)
    model.prepare(pairs)
    model.eval()
    images, texts, _ = sides(pairs)
    few = images[:64], texts[:64]
    torch.testing.assert_close(model.match_all(*few), each_pair_whole(model, *few), atol=2e-2, rtol=0)
    rows = [
        compare(
            "64 x 64, early layers once per image and text",
            lambda: model.match_all(*few),
            lambda: each_pair_whole(model, *few),
            0.8,
            2 if options.quick else 7,
        )
    ]
    part = rise(lambda: model.match_all(images[: many // 4], texts[: many // 4]))
    started = time.perf_counter()
    whole = rise(lambda: model.match_all(images, texts))
    seconds = time.perf_counter() - started
    rows += [
        Row(f"{many} x {many}", seconds / 60, "minutes", f"<= {MINUTES}", seconds <= 60 * MINUTES, seconds, 0.0, 1),
        Row(
            f"memory of {many} x {many} over {many // 4} x {many // 4}: {whole:.0f} and {part:.0f} MiB",
            whole - part,
            "MiB",
            "<= 100",
            whole - part <= 100,
            0.0,
            0.0,
            1,
        ),
    ]
    report(rows, options.json)


if __name__ == "__main__":
    main()
