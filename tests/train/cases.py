"""What the tests of several processes train: small models of each kind, in float64, and their streams.

A case is built alike in every process: from files that the test has written, by the same seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw

from tests import tiny
from vislang.boxes import Box
from vislang.document import Document, Image
from vislang.example import Answers, Example, Label, Text
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.decoder import DecoderConfig
from vislang.models.data2vec.front_ends import ImageConfig, Modalities, TextConfig
from vislang.models.data2vec.pretraining import Choices, Data2VecRecipe
from vislang.models.dual_encoder.encoders import DualEncoderConfig
from vislang.models.dual_encoder.model import DualEncoderRecipe
from vislang.models.earlier.inputs import WordsConfig
from vislang.models.earlier.mattnet import MAttNetConfig, MAttNetRecipe
from vislang.models.earlier.scan import SCANConfig, SCANRecipe
from vislang.models.flamingo.collate import CollateConfig
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.prefill import Runner
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.models.regions.readers import RegionsConfig
from vislang.models.regions.sources import ClusteredRegions, GridRegions
from vislang.models.towers.tuning import LoraConfig, TuneConfig
from vislang.models.vilbert.config import TextStreamConfig, ViLBERTConfig, VisionStreamConfig
from vislang.models.vilbert.pretraining import PairMasking, ViLBERTPretrainingRecipe
from vislang.models.vilbert.tasks import ViLBERTRecipe
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics, without_measurements
from vislang.train.loop import train

COLOURS = ("red", "blue", "green", "black")
COUNT = 12


class Silent:
    def step(self, step, row):
        pass

    def evaluated(self, step, row):
        pass


def in_float64(model: Any) -> Any:
    """The model with its batches in float64."""

    class Doubled(type(model.collate)):
        def __call__(self, examples, seed=0, first=0):
            return _doubled(super().__call__(examples, seed, first))

    model.collate.__class__ = Doubled
    return model.double()


def _doubled(values: Any) -> Any:
    if isinstance(values, torch.Tensor):
        return values.double() if values.is_floating_point() else values
    if dataclasses.is_dataclass(values):
        parts = {part.name: _doubled(getattr(values, part.name)) for part in dataclasses.fields(values)}
        return dataclasses.replace(values, **parts)
    if hasattr(values, "_fields"):
        return type(values)(*map(_doubled, values))
    return values


@dataclasses.dataclass
class Case:
    """A model and what it is trained on."""

    model: Any
    streams: list[Stream]
    config: dict[str, Any]
    evaluate: Callable[[], dict[str, float]] = dict


def write_files(folder: Path) -> None:
    """Towers, pictures and clusters that the cases stand on."""
    tiny.save_towers(folder)
    for number in range(COUNT):
        picture = Pillow.new("RGB", (32, 32), "white")
        ImageDraw.Draw(picture).rectangle([number, 8, number + 8, 24], fill=COLOURS[number % 4])
        picture.save(folder / f"{number}.png")
    config = RegionsConfig(tower=str(folder / "vision"), image_size=0)
    source = config.open().source
    assert isinstance(source, GridRegions)
    ClusteredRegions.fit(source, [image.decode() for image in images(folder)], clusters=4).save(
        folder / "clusters.safetensors"
    )


def images(folder: Path) -> list[Image]:
    return [Image(folder / f"{number}.png") for number in range(COUNT)]


def flamingo(folder: Path, pack: int = 0) -> Case:
    """Questions about pictures, of which two thirds have no picture; and captions of pages' length."""
    model = tiny.flamingo((str(folder / "language"), str(folder / "vision")), CollateConfig(pack=pack))
    asked, captions = [], []
    for number, image in enumerate(images(folder)):
        parts = [image, "what color?"] if number % 3 == 0 else [f"what color is number {number}?"]
        asked.append(Example(f"q{number}", Document(parts), Answers({COLOURS[number % 2]: 1.0})))
        captions.append(Example(f"c{number}", Document([image]), Text(("a " + "red cat and " * (number % 5) + "dog",))))
    model.prepare([*asked, *captions])
    model.fit([*asked, *captions])
    # Without the texts that were just read in float32.
    model.runner = Runner(model.bridge)
    streams = [Stream("asked", asked, 1.0, 3), Stream("captions", captions, 0.25, 5)]
    return Case(model, streams, {"accumulate": 2, "lr_scale": {"gates": 5.0}})


def tuned(folder: Path) -> Case:
    """Both towers train, and blocks are recomputed: low-rank updates and frozen weights are in the same blocks."""
    torch.manual_seed(1)
    bridge = FlamingoConfig(**tiny.BRIDGE, scales=[1.0, 1.0])
    tune = TuneConfig("lora", "full", LoraConfig(rank=2))
    recipe = FlamingoRecipe(str(folder / "language"), str(folder / "vision"), bridge=bridge, tune=tune)
    model = recipe.build()
    for block in model.bridge.gated_blocks.values():
        torch.nn.init.ones_(block.attention_gate)
    asked = []
    for number, image in enumerate(images(folder)):
        parts = [image, "what color?"] if number % 3 == 0 else [f"what color is number {number}?"]
        asked.append(Example(f"q{number}", Document(parts), Answers({COLOURS[number % 2]: 1.0})))
    return Case(model, [Stream("asked", asked, 1.0, 3)], {"gradient_checkpointing": True})


def packed(folder: Path) -> Case:
    """The same with documents that share rows: processes have different numbers of rows."""
    return flamingo(folder, pack=40)


def _data2vec(generation: str, modalities: Modalities, folder: Path, **choices) -> Any:
    encoder = EncoderConfig(width=16, depth=2, heads=2, mlp_width=32)
    made = Choices(**{"top_k": 2, "copies": 2, "decay": 0.9, "end_decay": 0.9, "anneal_steps": 1, **choices})
    return Data2VecRecipe(generation, encoder, modalities, made).build()


def _pictures(folder: Path) -> list[Example]:
    return [Example(f"p{n}", Document([image])) for n, image in enumerate(images(folder))]


def data2vec_v1(folder: Path) -> Case:
    """Images with mask tokens; the teacher reads by itself."""
    image = ImageConfig(size=32, patch=8)
    model = _data2vec("v1", Modalities(image=image), folder, layer_norms=["layer"], beta=2.0, scope="all")
    return Case(model, [Stream("p", _pictures(folder), 1.0, 5)], {"accumulate": 3})


def data2vec_v2(folder: Path) -> Case:
    """Images and text in turn, with a class loss, which is a sum and no mean."""
    decoder = DecoderConfig(width=16, layers=1, kernel=3, groups=2, noise=0.0)
    modalities = Modalities(
        text=TextConfig(vocabulary_size=300, max_length=24, decoder=decoder, class_tokens=1),
        image=ImageConfig(size=32, patch=8, positions="fixed", decoder=decoder),
    )
    norms = {"layer_norms": ["instance"], "mean_norms": ["layer"]}
    model = _data2vec("v2", modalities, folder, beta=0.0, class_loss=0.1, scope="all", end_of_block=False, **norms)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["fox", "dog", "lazy", "jumps"], 2 + n)) for n in range(COUNT)]
    prose = [Example(f"t{n}", Document([text])) for n, text in enumerate(texts)]
    model.fit(prose)
    streams = [Stream("pictures", _pictures(folder), 1.0, 4), Stream("prose", prose, 0.5, 5)]
    return Case(model, streams, {"mixing": "round-robin"})


def _streams() -> ViLBERTConfig:
    text = TextStreamConfig(60, 16, width=32, depth=2, heads=2, mlp_width=64, dropout=0.0, attention_dropout=0.0)
    vision = VisionStreamConfig(width=32, depth=2, heads=2, mlp_width=64, dropout=0.0, attention_dropout=0.0)
    return ViLBERTConfig(text, vision, co_attention_layers=((1, 1),), width=32, heads=2)


def vilbert_pretraining(folder: Path) -> Case:
    """Masked words and regions, of which a part of the batch may have none."""
    regions = RegionsConfig(tower=str(folder / "vision"), image_size=0, clusters=str(folder / "clusters.safetensors"))
    pairs = [
        Example(f"pair {n}", Document([image]), Text((f"a {COLOURS[n % 4]} shape" + " on white" * (n % 3),)))
        for n, image in enumerate(images(folder))
    ]
    model = ViLBERTPretrainingRecipe(_streams(), regions, PairMasking()).build()
    model.fit(pairs)
    # The original drops a tenth here, whatever the rates of the streams.
    model.network.dropout.p = 0.0
    return Case(model, [Stream("pairs", pairs, 1.0, 5)], {"accumulate": 2})


def vilbert_tasks(folder: Path) -> Case:
    """Three heads; one of the tasks rests after two evaluations."""
    named = {"answers": [], "boxes": [], "labels": []}
    for n, image in enumerate(images(folder)):
        asked = Document([image, "what colour?"])
        named["answers"].append(Example(f"a{n}", asked, Answers({COLOURS[n % 4]: 1.0, "dark": 0.3}), task="answers"))
        box = Box(n, 8, n + 9, 25)
        named["boxes"].append(Example(f"b{n}", Document([image, "the shape"]), box, task="boxes"))
        label = Label("yes" if n % 4 == 0 else "no")
        named["labels"].append(Example(f"l{n}", Document([image, "is it red?"]), label, task="labels"))
    model = ViLBERTRecipe(_streams(), RegionsConfig(tower=str(folder / "vision"), image_size=0)).build()
    model.fit([example for examples in named.values() for example in examples])
    model.network.dropout.p = 0.0
    batch = {"answers": 5, "boxes": 2, "labels": 1}
    streams = [Stream(name, made, 0.5, batch[name], watched=name) for name, made in named.items()]
    scores = iter(range(100))

    def evaluate():
        return {"answers": 0.5, "boxes": float(next(scores)), "labels": 0.5}

    return Case(model, streams, {"stop_and_go": True, "eval_every": 1}, evaluate)


def dual_encoder(folder: Path) -> Case:
    """A contrast over the pairs of all processes, some of which share a text; with a time budget that all agree on."""
    text = TextStreamConfig(60, 16, width=32, depth=1, heads=2, mlp_width=64, dropout=0.0, attention_dropout=0.0)
    vision = VisionStreamConfig(width=32, depth=1, heads=2, mlp_width=64, dropout=0.0, attention_dropout=0.0)
    regions = RegionsConfig(tower=str(folder / "vision"), image_size=0)
    pairs = [
        Example(f"pair {n}", Document([image]), Text((f"a {COLOURS[n % 4]} shape",)))
        for n, image in enumerate(images(folder))
    ]
    model = DualEncoderRecipe(DualEncoderConfig(text, vision, width=16), regions).build()
    model.fit(pairs)
    return Case(model, [Stream("pairs", pairs, 1.0, 7)], {"minutes": 1.0})


def scan(folder: Path) -> Case:
    """The hardest negatives among the pairs of all processes, some of which share a text; texts differ in length."""
    regions = RegionsConfig(tower=str(folder / "vision"), image_size=0)
    pairs = [
        Example(f"pair {n}", Document([image]), Text((f"a {COLOURS[n % 4]} shape" + " on white" * (n % 3),)))
        for n, image in enumerate(images(folder))
    ]
    model = SCANRecipe(SCANConfig(WordsConfig(60, 16, width=16), width=16), regions).build()
    model.fit(pairs)
    return Case(model, [Stream("pairs", pairs, 1.0, 7)], {})


def mattnet(folder: Path) -> Case:
    """Expressions, some of which refer to no region: the loss is a mean over the others."""
    boxes = [Box(8 * (n % 4), 8, 8 * (n % 4) + (8 if n % 3 else 32), 16) for n in range(COUNT)]
    asked = [
        Example(f"b{n}", Document([image, f"the {COLOURS[n % 4]} shape"]), boxes[n])
        for n, image in enumerate(images(folder))
    ]
    # A small recurrent layer: torch keeps a workspace for it that is not counted.
    network = MAttNetConfig(WordsConfig(60, 16, width=16), recurrent_width=4, width=32, dropout=0.0)
    model = MAttNetRecipe(network, RegionsConfig(tower=str(folder / "vision"), image_size=0)).build()
    model.fit(asked)
    return Case(model, [Stream("boxes", asked, 1.0, 5)], {"accumulate": 2})


CASES = {
    case.__name__: case
    for case in (
        flamingo,
        packed,
        tuned,
        data2vec_v1,
        data2vec_v2,
        vilbert_pretraining,
        vilbert_tasks,
        dual_encoder,
        scan,
        mattnet,
    )
}
STEPS = 4


def run(name: str, folder: Path, out: Path, **settings) -> dict[str, Any]:
    """Train a case; returns its losses by step, and what it learned."""
    torch.manual_seed(0)
    case = CASES[name](folder)
    in_float64(case.model)
    before = {name: tensor.clone() for name, tensor in case.model.trainable_state().items()}
    batch_size = case.streams[0].batch_size
    options = {"steps": STEPS, "batch_size": batch_size, "lr": 1e-3, "warmup_steps": 0, "checkpoint_every": STEPS}
    config = TrainConfig(**{**options, "device": "cpu", **case.config, **settings})
    train(case.model, case.streams, config, out, Silent(), case.evaluate)
    rows = [without_measurements(row) for row in read_metrics(out / "metrics.jsonl")]
    return {"rows": rows, "before": before, "state": case.model.trainable_state()}
