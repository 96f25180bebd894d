"""What could be had without a model in context: frequent answers, similar images, and a linear probe on the same
shots. None of them prompts a model; they share one set of image features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vislang.capabilities import Embeds, Progress
from vislang.document import Document, Medium
from vislang.errors import UserError
from vislang.example import Answer, Example, Label, Prediction, Value, reference_text
from vislang.tasks.retrieval import Retrieval
from vislang.tasks.task import Task

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties of the linear probe, as multiples of the mean squared norm of the centred features."""

PROBED = ("label", "answers")
"""Kinds of target that a probe can predict: several shots have the same answer."""


class ImageFeatures:
    """Frozen features of images, each computed once.

    Args:
        model: it gives a vector for an image.

    Raises:
        UserError: it gives none.
    """

    def __init__(self, model: Any):
        if not isinstance(model, Embeds):
            raise UserError(f"--selector: a {type(model).__name__} gives no vectors, so it cannot compare images.")
        self.model = model
        self._known: dict[Medium, Tensor] = {}

    def of(self, examples: Sequence[Example], progress: Progress | None = None) -> Float[Tensor, "examples width"]:
        """The normalised vector of each example's last medium.

        Raises:
            UserError: an example has no image or video.
        """
        for example in examples:
            if not example.prompt.media:
                raise UserError(f"{example.name}: its prompt has no image, so no shots can be retrieved for it.")
        media = [example.prompt.media[-1] for example in examples]
        missing = [medium for medium in dict.fromkeys(media) if medium not in self._known]
        if missing:
            documents = [Document([medium]) for medium in missing]  # type: ignore[list-item]
            vectors = torch.nn.functional.normalize(self.model.embed(documents, progress=progress).float(), dim=-1)
            self._known.update(zip(missing, vectors, strict=True))
        return torch.stack([self._known[medium] for medium in media])


def similarities(
    model: Embeds, queries: Sequence[Example], support: Sequence[Example], progress: Progress | None = None
) -> Float[Tensor, "queries support"]:
    """Cosine similarities of the queries' images and the support's images; each image is embedded once.

    Raises:
        UserError: an example has no image or video.
    """
    vectors = ImageFeatures(model).of([*queries, *support], progress)
    return vectors[: len(queries)] @ vectors[len(queries) :].t()


def baselines(
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    similarity: Float[Tensor, "queries support"] | None = None,
) -> dict[str, list[Prediction]]:
    """Predictions from the whole support: the most frequent answer, and the answer to the most similar image.

    Retrieval has none, because ranks cannot be guessed; nor have queries without targets.
    """
    if isinstance(task, Retrieval) or not task.can_score(queries):
        return {}
    answers = [plain_answer(example) for example in support]
    known = [answer for answer in answers if answer is not None]
    found: dict[str, list[Answer]] = {}
    if known:
        found["most_frequent_answer"] = [Counter(known).most_common(1)[0][0]] * len(queries)
    if known and similarity is not None:
        found["answer_of_the_most_similar_image"] = [answers[index] for index in similarity.argmax(dim=-1).tolist()]
    return {name: _predictions(queries, own) for name, own in found.items()}


def from_shots(
    task: Task, shots: Sequence[Example], queries: Sequence[Example], features: ImageFeatures
) -> Mapping[str, list[Prediction]]:
    """Predictions from the images and answers of the shots alone: ``most_similar_shot`` and, for labels and short
    answers, ``linear_probe``. None if the answers of shots mean nothing for other examples."""
    answers = [plain_answer(shot) for shot in shots]
    if any(answer is None for answer in answers):
        return {}
    known, asked = features.of(shots), features.of(queries)
    nearest = (asked @ known.t()).argmax(dim=-1).tolist()
    found = {"most_similar_shot": _predictions(queries, [answers[index] for index in nearest])}
    if task.kind in PROBED:
        found["linear_probe"] = _predictions(queries, linear_probe(known, answers, asked))
    return found


def linear_probe(
    known: Float[Tensor, "shots width"], answers: Sequence[Answer], asked: Float[Tensor, "queries width"]
) -> list[Answer]:
    """The answers of a ridge classifier on a few examples: regression on one-hot answers, both centred.

    The penalty is the one with the smallest leave-one-out error, which has a closed form: with the kernel matrix K and
    G = K + penalty, the residual of an example is (G^-1 Y)_i / (G^-1)_ii (Rifkin and Lippert 2007, section 3.3). The
    dual form costs shots^3, whatever the width.
    """
    classes = list(dict.fromkeys(answers))
    if len(classes) == 1:
        return [classes[0]] * len(asked)
    one_hot = torch.zeros(len(answers), len(classes), dtype=torch.double)
    one_hot[range(len(answers)), [classes.index(answer) for answer in answers]] = 1
    centre, prior = known.double().mean(dim=0), one_hot.mean(dim=0)
    inputs, targets = known.double() - centre, one_hot - prior
    kernel = inputs @ inputs.t()
    scale = kernel.diagonal().mean().clamp(min=1e-12)
    errors, weights = [], []
    for penalty in PENALTIES:
        inverse = torch.linalg.inv(kernel + penalty * scale * torch.eye(len(answers), dtype=torch.double))
        weights.append(inverse @ targets)
        errors.append(float((weights[-1] / inverse.diagonal()[:, None]).square().sum()))
    best = weights[min(range(len(errors)), key=errors.__getitem__)]
    scores = (asked.double() - centre) @ inputs.t() @ best + prior
    return [classes[index] for index in scores.argmax(dim=-1).tolist()]


def plain_answer(example: Example) -> Answer:
    """The ground truth in the form of a prediction; None if it means nothing for other examples, as an index does."""
    if isinstance(example.target, Label):
        return example.target.name
    if isinstance(example.target, Value):
        return example.target.number
    return None if example.choices else reference_text(example)


def _predictions(queries: Sequence[Example], answers: Sequence[Answer]) -> list[Prediction]:
    return [Prediction(query.id, answer) for query, answer in zip(queries, answers, strict=True)]
