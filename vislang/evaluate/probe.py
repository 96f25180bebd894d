"""Probes of frozen features: logistic regression and nearest neighbours, with intervals.

Hyper-parameters (the penalty, the number of neighbours, the depth of the features) are chosen on held-out groups of the
training part; the test part is used once.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from threadpoolctl import threadpool_limits

from vislang.capabilities import Embeds, Progress
from vislang.errors import UserError
from vislang.example import Example, Label, Prediction
from vislang.metrics.figure import Figure, share
from vislang.prompt import shown
from vislang.tasks.probes import ProbeTask
from vislang.tasks.task import Task

PENALTIES = (1e-3, 1e-2, 1e-1)
"""Inverse penalties of the linear probe that are tried."""

NEIGHBOURS = (1, 5, 20)
"""Numbers of neighbours that are tried."""


@dataclass(frozen=True)
class Probed:
    """The result of a probe.

    Attributes:
        accuracy: accuracy on all test items, with its 95 % interval.
        right: whether each test item was predicted correctly, in order.
        features: name of the chosen features in each fold.
    """

    accuracy: Figure
    right: list[bool]
    features: list[str]


@threadpool_limits.wrap(limits=1)
def probe(features: Mapping[str, np.ndarray], task: ProbeTask, kind: str = "linear") -> Probed:
    """Cross-validated accuracy of a probe on frozen features.

    Args:
        features: sets of features by name (such as a depth), each (items, width), in the order of the task's items.
        task: the labels, the groups, and which items may be used for training and for testing.
        kind: ``linear`` (logistic regression on standardised features) or ``knn`` (by cosine).
    """
    labels = np.array(task.targets)
    right = np.zeros(len(labels), dtype=bool)
    tested = np.zeros(len(labels), dtype=bool)
    chosen: list[str] = []
    for train, test in task.folds():
        inner_train, inner_test = task.inner(train)
        best = max(
            ((name, setting) for name in features for setting in _settings(kind, len(inner_train))),
            key=lambda pair: _fit_score(features[pair[0]], labels, inner_train, inner_test, kind, pair[1]),
        )
        chosen.append(best[0])
        classifier = _classifier(kind, best[1])
        predicted = _fit(classifier, features[best[0]][train], labels[train]).predict(features[best[0]][test])
        right[test] = predicted == labels[test]
        tested[test] = True
    outcome = right[tested].tolist()
    return Probed(share(sum(outcome), len(outcome)), outcome, chosen)


def both_probes(features: Mapping[str, np.ndarray], task: ProbeTask) -> dict[str, Probed]:
    """The linear probe and the nearest neighbours, under ``linear`` and ``neighbours``."""
    return {"linear": probe(features, task), "neighbours": probe(features, task, "knn")}


def majority(task: ProbeTask) -> Probed:
    """The accuracy of the most frequent label of the training part, in the same folds."""
    labels = np.array(task.targets)
    outcome: list[bool] = []
    for train, test in task.folds():
        names, counts = np.unique(labels[train], return_counts=True)
        outcome += (labels[test] == names[counts.argmax()]).tolist()
    return Probed(share(sum(outcome), len(outcome)), outcome, [])


def _settings(kind: str, examples: int) -> Sequence[float]:
    """The hyper-parameters that are tried; at most as many neighbours as training examples."""
    if kind == "linear":
        return PENALTIES
    return [number for number in NEIGHBOURS if number <= examples]


def _classifier(kind: str, setting: float | int):
    if kind == "linear":
        return make_pipeline(StandardScaler(), LogisticRegression(C=setting, max_iter=100))
    return make_pipeline(Normalizer(), KNeighborsClassifier(int(setting), weights="distance"))


def _fit(classifier, features: np.ndarray, labels: np.ndarray):
    """Fit a classifier. Callers use one thread: with several threads, problems of this size take ten times as long (71
    ms against 7 ms for 1,500 items of 192 features on two cores)."""
    with warnings.catch_warnings():
        # Early stopping is a form of regularisation; the penalty is chosen with it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(features, labels)


def _fit_score(
    features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, kind: str, setting: float
) -> float:
    return float(_fit(_classifier(kind, setting), features[train], labels[train]).score(features[test], labels[test]))


def classify_embeddings(
    model: Embeds,
    task: Task,
    support: Sequence[Example],
    examples: Sequence[Example],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[Prediction]:
    """Predict labels by a linear classifier on a model's embeddings, fitted on the support.

    Its penalty is chosen on every fourth example of the support, with a classifier fitted on the others; it is the
    strongest one if the others have a single label.

    Raises:
        UserError: the support has fewer than two labels.
    """
    labelled = [(example, example.target.name) for example in support if isinstance(example.target, Label)]
    if len({label for _, label in labelled}) < 2:
        raise UserError(f"{task.name}: a classifier on embeddings needs training examples with two or more labels.")
    documents = [example.prompt for example, _ in labelled] + [example.prompt for example in examples]
    vectors = model.embed(documents, batch_size, progress=progress).numpy()
    known, queries = vectors[: len(labelled)], vectors[len(labelled) :]
    labels = np.array([label for _, label in labelled])
    inner = np.arange(len(labels)) % 4 == 0
    train, held = np.flatnonzero(~inner), np.flatnonzero(inner)
    with threadpool_limits(1):
        penalty = PENALTIES[0]
        if len(set(labels[train])) > 1:
            penalty = max(PENALTIES, key=lambda setting: _fit_score(known, labels, train, held, "linear", setting))
        classifier = _fit(_classifier("linear", penalty), known, labels)
    classes = tuple(str(name) for name in classifier.classes_)
    shares = classifier.predict_proba(queries)
    return [
        Prediction(example.id, classes[int(row.argmax())], classes, tuple(row.tolist()), prompt=shown(example.prompt))
        for example, row in zip(examples, shares, strict=True)
    ]
