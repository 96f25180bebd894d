"""A search that learns from marks: logistic regression on frozen vectors, with the query's own score as an offset.

The log-odds that image x is right are ``score_weight * z + bias + w . (x - mean)``, where z is the similarity of the
query and the image, standardised over the index. The prior of w and of the bias is normal, around 0 and
:attr:`Prior.bias`. Without marks, the order is therefore that of the query; each mark moves it a little. As the
log-odds are linear in x, a corrected search is a search with another vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEPS = 50
"""Greatest number of Newton steps; a fit takes about ten."""

SAMPLE = 2048
"""Rows on which similarities are standardised, spread evenly over an index."""


@dataclass(frozen=True)
class Prior:
    """What is assumed before any mark. The values were chosen by ``vislang.studies.corrections``.

    Attributes:
        score_weight: log-odds for each standard deviation of similarity.
        bias: log-odds at the mean similarity.
        bias_variance: how uncertain the bias is.
        variance: of the weights of vectors.
        cutoff: least probability of an image that is still shown.
    """

    score_weight: float = 2.0
    bias: float = -6.0
    bias_variance: float = 4.0
    variance: float = 10.0
    cutoff: float = 0.1


@dataclass(frozen=True)
class Corrected:
    """A search after corrections.

    Attributes:
        vector: (width,) float32, with which the index is searched; its length is not 1.
        constant: what is added to the product of ``vector`` and an image's vector to give log-odds.
        cutoff: least probability of an image that is still shown.
    """

    vector: np.ndarray
    constant: float
    cutoff: float

    def probabilities(self, products: np.ndarray) -> np.ndarray:
        """The probability that an image is right, from the product of its vector with :attr:`vector`."""
        return sigmoid(products + self.constant)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))


def correct(
    query: np.ndarray, marked: np.ndarray, right: np.ndarray, sample: np.ndarray, prior: Prior | None = None
) -> Corrected:
    """Fit the weights to marks.

    Args:
        query: (width,) vector of the query, of length 1.
        marked: (marks, width) vectors of marked images.
        right: (marks,) whether each is right.
        sample: (rows, width) vectors of images of the index, on which similarities are standardised.
        prior: what is assumed before any mark.

    Returns:
        The vector of the corrected search, and the cutoff.
    """
    prior = prior or Prior()
    query, marked = (np.asarray(each, dtype=np.float64) for each in (query, marked))
    # Enough digits for a mean and a standard deviation, in a quarter of the time.
    sample = np.asarray(sample, dtype=np.float32)
    similarity = (sample @ query.astype(np.float32)).astype(np.float64)
    # In a tiny or uniform index all similarities are equal.
    mean, scale = sample.mean(axis=0).astype(np.float64), prior.score_weight / max(float(similarity.std()), 1e-6)
    offset = scale * (marked @ query - similarity.mean()) + prior.bias
    features = marked - mean
    dual = fit(
        prior.variance * features @ features.T + prior.bias_variance, offset, np.asarray(right, dtype=np.float64)
    )
    weights = prior.variance * features.T @ dual
    vector = scale * query + weights
    bias = prior.bias + prior.bias_variance * float(dual.sum())
    constant = bias - scale * float(similarity.mean()) - float(weights @ mean)
    return Corrected(vector.astype(np.float32), constant, prior.cutoff)


def fit(kernel: np.ndarray, offset: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The most probable weights of logistic regression with a normal prior, in the dual (Rasmussen and Williams 2006,
    algorithm 3.1): log-odds of the marks are ``kernel @ dual + offset``.

    Args:
        kernel: (marks, marks) covariance of their log-odds in the prior.
        offset: (marks,) their mean in the prior.
        right: (marks,) 1 or 0.

    Returns:
        (marks,) the dual weights.
    """
    dual = np.zeros(len(right))
    for _ in range(STEPS):
        logits = kernel @ dual + offset
        probabilities = sigmoid(logits)
        # At the solution, dual weights equal what is left to explain.
        residual = right - probabilities - dual
        if np.abs(residual).max(initial=0) < 1e-9:
            break
        slopes = probabilities * (1 - probabilities)
        step = np.linalg.solve(np.eye(len(right)) + slopes[:, None] * kernel, residual)
        # Far from the solution, a whole step could go too far.
        size = 1.0
        while size > 1e-4 and objective(dual + size * step, kernel, offset, right) < objective(
            dual, kernel, offset, right
        ):
            size /= 2
        dual = dual + size * step
    return dual


def objective(dual: np.ndarray, kernel: np.ndarray, offset: np.ndarray, right: np.ndarray) -> float:
    """The log-posterior of dual weights, up to a constant."""
    logits = kernel @ dual + offset
    fitted = -np.logaddexp(0, np.where(right > 0, -logits, logits)).sum()
    return float(fitted - 0.5 * dual @ kernel @ dual)


def spread(rows: int) -> np.ndarray:
    """The numbers of at most :data:`SAMPLE` rows, spread evenly over an index."""
    return np.unique(np.linspace(0, rows - 1, min(rows, SAMPLE)).astype(np.int64))
