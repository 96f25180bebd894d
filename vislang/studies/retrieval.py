"""Image and text retrieval: two streams, one stream or two encoders; with and without pretraining.

    python -m vislang.studies.retrieval --seeds 0 1 2 --out docs/results/vilbert-retrieval

All arms train on the same pictures and captions (Google's emoji, clip art) and rank unseen pictures: half of the
stamps, and Twitter's emoji. "Zero-shot" is the pretrained model. "Fine-tuned" has also trained on the other half of the
stamps, by choosing one caption of four (the dual encoder with its own objective). "Mean features and whole words" is
the dual encoder of version 0.1.0. The rows without pretraining correspond to those that Lu et al. 2019 mark with a
dagger (table 1). Finished measurements are not repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislang.console import console
from vislang.data.sources import load_source
from vislang.document import Image
from vislang.evaluate.evaluation import evaluate
from vislang.example import Example, reference_text
from vislang.metrics.figure import Figures, figures_as_json, metric, show
from vislang.metrics.retrieval import METRICS
from vislang.models.loading import load
from vislang.runs.folder import read_json
from vislang.studies.arms import Arm, command_line, trained
from vislang.studies.line import mean_line
from vislang.studies.results import Results
from vislang.studies.tower import mean_features
from vislang.tasks.catalogue import open_task
from vislang.tasks.retrieval import Retrieval, sides

# Six layers of one stream have fewer parameters than four, two and two co-attention layers, and take more time.
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
# The recipe of version 0.1.0.
EARLIER = (
    "--model.encoders.pooling=mean",
    "--model.encoders.feature_dropout=0",
    "--model.encoders.pieces=0",
    "--train.steps=500",
    "--train.lr=5e-4",
    "--train.warmup_steps=50",
)

ARMS = (
    Arm("dual encoder, zero-shot", DUAL, (FEW,)),
    Arm("dual encoder of mean features and whole words, zero-shot", DUAL, (FEW, *EARLIER)),
    Arm("two streams, zero-shot", PRETRAIN, SHORT),
    Arm("one stream, zero-shot", PRETRAIN, (*SHORT, *ONE_STREAM)),
    Arm(
        "dual encoder of mean features and whole words, fine-tuned",
        DUAL,
        (*WITH_STAMPS, *EARLIER),
        start="dual encoder of mean features and whole words, zero-shot",
    ),
    Arm("two streams, fine-tuned", CHOOSE, (FEW,), start="two streams, zero-shot"),
    Arm("one stream, fine-tuned", CHOOSE, (FEW,), start="one stream, zero-shot"),
    Arm("two streams, fine-tuned, not pretrained", CHOOSE, (FEW,)),
    Arm("one stream, fine-tuned, not pretrained", CHOOSE, (FEW, *ONE_STREAM)),
)
WORDS = "bag of words from the untrained tower"
"""A strong baseline: ridge regression from the mean features of the tower to the words of the training captions."""

LEARNED = ("emoji-google-names", "clip-art-titles")
TESTS = ("stamp-pictures-test", "emoji-twitter-names")
MAX_PAIRS = 250
"""The greatest number of pairs of a test, chosen by the hash of their captions."""

STRENGTHS = tuple(10.0**power for power in range(1, 6))
"""The strengths of the ridge penalty to choose from."""


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train and rank what is missing; write ``results.json`` after each measurement, and ``table.md``."""
    results = Results(out)
    for seed in seeds:
        for arm in ARMS:
            for test in TESTS:
                if results.known(test=test, arm=arm.name, seed=seed):
                    continue
                folder = trained(arm, ARMS, seed, runs)
                task, examples = opened(test)
                figures = evaluate(load(folder / "model"), task, examples).figures
                seconds = read_json(folder / "metrics.json")["train_seconds"]
                results.add(row(test, arm.name, examples, figures, seed=seed, seconds=seconds))
                first = METRICS[0]
                console.print(f"{test}: {arm.name}, seed {seed}: {metric(first).title} {show(first, figures[first])}")
    for test in TESTS:
        if not results.known(test=test, arm=WORDS):
            task, examples = opened(test)
            learned = [pair for name in LEARNED for pair in load_source(name)]
            figures = task.score(examples, task.ranked(examples, by_words(learned, examples)))
            results.add(row(test, WORDS, examples, figures))
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def opened(test: str) -> tuple[Retrieval, list[Example]]:
    """The task of a test, and at most ``MAX_PAIRS`` of its pairs."""
    task = open_task(f"retrieval:{test}")
    assert isinstance(task, Retrieval)
    pairs = task.examples(task.default_split)
    return task, sorted(pairs, key=lambda pair: hashlib.sha256(caption(pair).encode()).digest())[:MAX_PAIRS]


def row(test: str, arm: str, examples: Sequence[Example], figures: Figures, **about: Any) -> dict[str, Any]:
    """A row of the results."""
    images, texts, _ = sides(examples)
    sizes = {"images": len(images), "texts": len(texts)}
    return {"test": test, "arm": arm, **about, **sizes, "figures": figures_as_json(figures)}


def by_words(learned: Sequence[Example], examples: Sequence[Example]) -> np.ndarray:
    """(images, texts): similarity of the words of a text to those that a linear map predicts from an image."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    words = TfidfVectorizer(min_df=2)
    targets = words.fit_transform([caption(pair) for pair in learned]).toarray().astype(np.float32)
    features = mean_features([image_of(pair) for pair in learned])
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6

    def similarity(strength: float, fitted: np.ndarray, queries: np.ndarray, texts: np.ndarray) -> np.ndarray:
        linear = Ridge(alpha=strength).fit((features[fitted] - mean) / std, targets[fitted])
        return normalised(linear.predict((queries - mean) / std)) @ normalised(texts).T

    # The strength is chosen on every tenth pair, with a fit on the others.
    held = np.arange(len(learned)) % 10 == 0

    def rank(strength: float) -> float:
        scores = similarity(strength, ~held, features[held], targets[held])
        return float((scores >= np.diag(scores)[:, None]).sum(axis=1).mean())

    images, texts, _ = sides(examples)
    expected = words.transform(texts).toarray().astype(np.float32)
    return similarity(min(STRENGTHS, key=rank), np.ones(len(learned), dtype=bool), mean_features(images), expected)


def caption(pair: Example) -> str:
    """The text of a pair."""
    return reference_text(pair) or ""


def image_of(pair: Example) -> Image:
    """The image of a pair."""
    (image,) = pair.media
    assert isinstance(image, Image)
    return image


def normalised(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; rows of length 0 are left."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table for each test, in the order of the arms."""
    parts = []
    for test in dict.fromkeys(row["test"] for row in rows):
        here = [row for row in rows if row["test"] == test]
        size = f"{here[0]['images']} images, {here[0]['texts']} captions"
        lines = [f"| {test}, {size} | {' | '.join(metric(name).title for name in METRICS)} |"]
        lines.append(f"|{'---|' * (len(METRICS) + 1)}")
        for arm in (*(arm.name for arm in ARMS), WORDS):
            own = [row for row in here if row["arm"] == arm]
            if own:
                cells = [str(mean_line(own, name)) for name in METRICS]
                lines.append(f"| {arm} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    command_line(__doc__ or "", Path("runs/studies/retrieval"), run)
