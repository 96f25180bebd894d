"""Pictures and their words: two streams, one stream or two encoders; with pretraining and without.

    python -m vislang.studies.retrieval --seeds 0 1 2 --out docs/runs/vilbert-retrieval

Each arm learns from the same pictures and captions (emoji by Google's hand, clip art), and ranks what it has not seen:
half of the stamps, and emoji by Twitter's hand. "Zero-shot" is straight from pretraining; "fine-tuned" has seen the
other half of the stamps too, and chosen one caption of four (the dual encoder goes on as before). The rows with and
without pretraining are those that Lu et al. 2019 mark with a dagger (table 1). Whatever was done already is not done
again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vislang.capabilities import Matches
from vislang.commands.figures import figures
from vislang.console import console
from vislang.document import Document, Image
from vislang.models.towers.packaged import EFFICIENTNET_LITE0
from vislang.models.towers.vision import load_vision_tower
from vislang.recipe import read_recipe
from vislang.studies.arms import Arm, command_line, trained
from vislang.studies.line import Line, mean_line
from vislang.studies.results import Results
from vislang.tasks.captioned import captioned
from vislang.tasks.retrieval import RANKS, Collection, of_documents, recalls

# Six layers of one stream have fewer parameters than four, two, and two meetings of both, and take more time.
ONE_STREAM = ("--model.streams.single_stream=true", "--model.streams.text.depth=6")
DUAL, PRETRAIN, CHOOSE = (
    Path(f"recipes/{name}.yaml") for name in ("dual-encoder", "vilbert-pretrain", "vilbert-retrieval")
)
FEW = "--eval_limit=64"
SHORT = ("--train.steps=1500", "--train.warmup_steps=150", FEW)
WITH_STAMPS = (
    "--data=[{sources: [emoji-google-names, clip-art-titles, stamp-pictures-train], name: pairs}]",
    FEW,
)

ARMS = (
    Arm("dual encoder, zero-shot", DUAL, (FEW,)),
    Arm("two streams, zero-shot", PRETRAIN, SHORT),
    Arm("one stream, zero-shot", PRETRAIN, (*SHORT, *ONE_STREAM)),
    Arm("dual encoder, fine-tuned", DUAL, WITH_STAMPS, start="dual encoder, zero-shot"),
    Arm("two streams, fine-tuned", CHOOSE, (FEW,), start="two streams, zero-shot"),
    Arm("one stream, fine-tuned", CHOOSE, (FEW,), start="one stream, zero-shot"),
    Arm("two streams, fine-tuned, not pretrained", CHOOSE, (FEW,)),
    Arm("one stream, fine-tuned, not pretrained", CHOOSE, (FEW, *ONE_STREAM)),
)
WORDS = "bag of words from the untrained tower"
"""A baseline that could win: ridge regression from the tower's mean features to the words of the training captions."""

TESTS = ("stamp-pictures-test", "emoji-twitter-names")
MOST = 250
"""Pairs of a test, chosen by hash."""


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train and rank what is missing; write ``results.json`` after each step of that, and ``table.md``."""
    results = Results(out)
    for seed in seeds:
        for arm in ARMS:
            missing = [test for test in TESTS if not results.known(test=test, who=arm.name, seed=seed)]
            if not missing:
                continue
            folder = trained(arm, ARMS, seed, runs)
            for test in missing:
                model = read_recipe(arm.recipe, [])[0].model.open(folder / "model")
                assert isinstance(model, Matches)
                collection = of_documents(chosen(test))
                scores = model.match_all(collection.images, collection.texts)
                found = figures(recalls(scores.numpy(), collection))
                seconds = json.loads((folder / "metrics.json").read_text("utf-8"))["train_seconds"]
                items = {"images": len(collection.images), "texts": len(collection.texts)}
                results.add({"test": test, "who": arm.name, "seed": seed, "seconds": seconds, **items, **found})
                console.print(f"{test}: {arm.name}, seed {seed}: R@1 {100 * found['R@1, text to image']:.1f} %")
    for test in TESTS:
        if not results.known(test=test, who=WORDS):
            collection = of_documents(chosen(test))
            learned = [pair for name in ("emoji-google-names", "clip-art-titles") for pair in captioned(name, [])]
            found = figures(recalls(by_words(learned, collection), collection))
            items = {"images": len(collection.images), "texts": len(collection.texts)}
            results.add({"test": test, "who": WORDS, **items, **found})
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def by_words(learned: Sequence[Document], collection: Collection) -> np.ndarray:
    """(images, texts) likeness of the words that a linear map reads off an image and the words of a text."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    tower = load_vision_tower(EFFICIENTNET_LITE0, 128)

    def seen(images: Sequence[Image]) -> np.ndarray:
        parts = []
        for start in range(0, len(images), 64):
            pixels = torch.stack([tower.preprocess(image.decode()) for image in images[start : start + 64]])
            parts.append(tower(pixels).mean(dim=1))
        return torch.cat(parts).numpy()

    words = TfidfVectorizer(min_df=2)
    targets = words.fit_transform([str(pair.parts[1]) for pair in learned]).toarray().astype(np.float32)
    images = [image for pair in learned for image in pair.media if isinstance(image, Image)]
    features = seen(images)
    middle, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    # Of a few strengths the one whose words fit best on every tenth pair, which the others are learned without.
    held = np.arange(len(images)) % 10 == 0

    def likeness(strength: float, rows: np.ndarray, asked: np.ndarray, said: np.ndarray) -> np.ndarray:
        linear = Ridge(alpha=strength).fit((features[rows] - middle) / spread, targets[rows])
        read = linear.predict((asked - middle) / spread)
        return normalised(read) @ normalised(said).T

    def rank(strength: float) -> float:
        scores = likeness(strength, ~held, features[held], targets[held])
        return float((scores >= np.diag(scores)[:, None]).sum(axis=1).mean())

    best = min((10.0**power for power in range(1, 6)), key=rank)
    said = words.transform(collection.texts).toarray().astype(np.float32)
    return likeness(best, np.ones(len(images), dtype=bool), seen(collection.images), said)


def normalised(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; those of length 0 stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def chosen(test: str) -> list[Document]:
    """At most so many pairs of a test."""
    documents = captioned(test, [])
    return sorted(documents, key=lambda d: hashlib.sha256(str(d.parts[1]).encode()).digest())[:MOST]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """One table a test, in the order of the arms."""
    parts = []
    names = [f"R@{rank}, {way}" for way in ("text to image", "image to text") for rank in RANKS]
    for test in dict.fromkeys(row["test"] for row in rows):
        here = [row for row in rows if row["test"] == test]
        size = f"{here[0]['images']} pictures, {here[0]['texts']} captions"
        lines = [f"| {test}, {size} | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
        for who in (*(arm.name for arm in ARMS), WORDS):
            of = [row for row in here if row["who"] == who]
            if not of:
                continue
            cells = [str(line_of(of, name)) for name in names]
            lines.append(f"| {who} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def line_of(rows: Sequence[dict[str, Any]], name: str) -> Line:
    """The mean over seeds, with the interval that so many items allow."""
    items = rows[0]["texts" if name.endswith("text to image") else "images"]
    return mean_line([row[name] for row in rows], items)


if __name__ == "__main__":
    command_line(__doc__ or "", Path("runs/studies/retrieval"), run)
