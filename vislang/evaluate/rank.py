"""Answers by ranking: the alternative whose text is most likely after its prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vislang.capabilities import Progress, Ranks
from vislang.evaluate.alternatives import Alternative, alternatives
from vislang.evaluate.prefix import NOTHING, Prefix
from vislang.example import Example, Prediction
from vislang.prompt import shown


def rank(
    model: Ranks,
    examples: Sequence[Example],
    labels: Sequence[str] = (),
    *,
    blind: bool = False,
    shots: Sequence[Sequence[Sequence[Example]]] | None = None,
    prefixes: Sequence[Prefix] = (NOTHING,),
    batch_size: int = 16,
    progress: Progress | None = None,
) -> list[Prediction]:
    """A prediction for each example, with the log-likelihoods of its alternatives in nats.

    Args:
        model: a model that gives likelihoods.
        examples: examples to answer.
        labels: the alternatives of examples without choices.
        blind: remove all media and keep their positions.
        shots: for each example, its shots in each of several orders (Alayrac et al. 2022, section B.1.5).
        prefixes: the shots that all examples share, in each of several orders.
        batch_size: examples at a time; it does not change the result.
        progress: called with (examples done, examples in all).
    """
    found: list[Prediction] = []
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        options = [alternatives(example, labels) for example in part]
        own = None if shots is None else shots[start : start + batch_size]
        orders = len(prefixes) if own is None else len(own[0])
        sums: list[Float[Tensor, "alternatives"]] = [torch.zeros(len(each)) for each in options]
        prompts: list[list[str]] = []
        for order in range(orders):
            before = [()] * len(part) if own is None else [each[order] for each in own]
            prefix = prefixes[order] if own is None else NOTHING
            likelihoods, sent = _likelihoods(model, options, before, prefix, blind, batch_size)
            prompts = prompts or sent
            for total, row in zip(sums, likelihoods, strict=True):
                total += torch.tensor(row) / orders
        for example, each, total, own_prompts in zip(part, options, sums, prompts, strict=True):
            best = int(total.argmax())
            candidates = tuple(option.answer for option in each)
            scores = tuple(total.tolist())
            answer, prompt = candidates[best], own_prompts[best]
            found.append(Prediction(example.id, answer, candidates, scores, "log_likelihood", prompt))
        if progress is not None:
            progress(len(found), len(examples))
    return found


def _likelihoods(
    model: Ranks,
    options: Sequence[Sequence[Alternative]],
    shots: Sequence[Sequence[Example]],
    prefix: Prefix,
    blind: bool,
    batch_size: int,
) -> tuple[list[list[float]], list[list[str]]]:
    """The log-likelihoods of each example's alternatives, and the prompt of each alternative."""
    documents, texts, owners = [], [], []
    for number, (each, before) in enumerate(zip(options, shots, strict=True)):
        together: dict[int, list[str]] = {}
        given: dict[int, Example] = {}
        for option in each:
            # Alternatives with the same prompt are ranked together.
            key = id(option.given.prompt)
            given[key] = option.given
            together.setdefault(key, []).append(option.text)
        for key, own in together.items():
            document = model.prompts.render(given[key], before)
            documents.append(document.without_media() if blind else document)
            texts.append(own)
            owners.append(number)
    scores = model.rank(documents, texts, batch_size, state=prefix.state)
    found: list[list[float]] = [[] for _ in options]
    prompts: list[list[str]] = [[] for _ in options]
    for number, document, row in zip(owners, documents, scores, strict=True):
        found[number] += [score.log_likelihood for score in row]
        prompts[number] += [prefix.text + shown(document)] * len(row)
    return found, prompts
