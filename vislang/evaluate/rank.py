"""Answers by ranking: the alternative whose text is most likely after its prompt."""

from __future__ import annotations

from collections.abc import Sequence

from vislang.capabilities import Prefix, Progress, Ranks
from vislang.document import Document
from vislang.evaluate.alternatives import alternatives
from vislang.evaluate.prefix import NOTHING, distinct
from vislang.example import Example, Prediction
from vislang.prompt import shown


def rank(
    model: Ranks,
    examples: Sequence[Example],
    labels: Sequence[str] = (),
    *,
    blind: bool = False,
    shots: Sequence[Sequence[Example]] | None = None,
    prefix: Prefix = NOTHING,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> list[Prediction]:
    """A prediction for each example, with the log-likelihoods of its alternatives in nats.

    Args:
        model: a model that gives likelihoods.
        examples: examples to answer; prompts that are equal are ranked once.
        labels: the alternatives of examples without choices.
        blind: remove all media and keep their positions.
        shots: for each example, the shots of its prompt.
        prefix: the shots that all prompts share.
        batch_size: prompts at a time; it does not change the result.
        progress: called with (prompts done, prompts in all).
    """
    options = [alternatives(example, labels) for example in examples]
    before = [()] * len(examples) if shots is None else shots
    documents: list[Document] = []
    texts: list[tuple[str, ...]] = []
    owned: list[list[int]] = []
    for each, own in zip(options, before, strict=True):
        # Alternatives with the same prompt are ranked together.
        together: dict[int, list[str]] = {}
        given: dict[int, Example] = {}
        for option in each:
            given[id(option.given.prompt)] = option.given
            together.setdefault(id(option.given.prompt), []).append(option.text)
        owned.append(list(range(len(documents), len(documents) + len(given))))
        rendered = [model.prompts.render(example, own, after_shots=not prefix.is_empty) for example in given.values()]
        documents += [document.without_media() for document in rendered] if blind else rendered
        texts += map(tuple, together.values())
    first, position = distinct([(document.parts, own) for document, own in zip(documents, texts, strict=True)])
    ranked = model.rank(
        [documents[n] for n in first], [texts[n] for n in first], batch_size, state=prefix.state, progress=progress
    )
    found = []
    for example, each, numbers in zip(examples, options, owned, strict=True):
        scores = tuple(score.log_likelihood for n in numbers for score in ranked[position[n]])
        prompts = [document for n in numbers for document in [documents[n]] * len(texts[n])]
        best = max(range(len(scores)), key=scores.__getitem__)
        candidates = tuple(option.answer for option in each)
        sent = prefix.text + shown(prompts[best])
        found.append(Prediction(example.id, candidates[best], candidates, scores, "log_likelihood", sent))
    return found


def mean_of_orders(predictions: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    """Ranked predictions by the mean log-likelihoods over several orders of the shots (Alayrac et al. 2022, section
    B.1.5).

    Args:
        predictions: for each order, the predictions of the same examples.

    Returns:
        A prediction for each example; its prompt is that of the first order.
    """
    found = []
    for own in zip(*predictions, strict=True):
        scores = tuple(sum(values) / len(own) for values in zip(*(p.scores for p in own), strict=True))
        best = own[0].candidates[max(range(len(scores)), key=scores.__getitem__)]
        found.append(Prediction(own[0].id, best, own[0].candidates, scores, "log_likelihood", own[0].prompt))
    return found
