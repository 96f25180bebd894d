"""Continuations of several prompts, generated together and read one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch

from vislang.capabilities import Continuation, Decoding
from vislang.models.flamingo.decoding import Text, TextBatch
from vislang.models.flamingo.detokenizing import Detokenizer
from vislang.models.flamingo.prefill import DecodeState, Runner

MOST_COLUMNS = 2**14
"""Greatest number of columns of a batch, padding included: 16,384 take 0.7 GB with SmolLM2-135M in float32. One long
prompt would otherwise pad all others to its length; it gets a batch of its own."""


class Together:
    """Continues prompts together that are asked for one by one; see :class:`~vislang.capabilities.ContinuesTogether`.

    Args:
        runner: the bridge's runner.
        detokenizer: makes texts of tokens.
        ends: tokens that end a text.
        arithmetic: the context in which the model computes.
        fitting: the settings of a text, with at most as many tokens as there is room for after a state.
    """

    def __init__(
        self,
        runner: Runner,
        detokenizer: Detokenizer,
        ends: frozenset[int],
        arithmetic: Callable[[], AbstractContextManager],
        fitting: Callable[[Decoding, DecodeState], Decoding],
    ):
        self._runner, self._detokenizer, self._ends = runner, detokenizer, ends
        self._arithmetic, self._fitting = arithmetic, fitting
        self._batches: list[TextBatch] = []

    @property
    def texts(self) -> int:
        """The number of texts that are being generated."""
        return sum(len(batch.texts) for batch in self._batches)

    def continuations(
        self, state: DecodeState, decoding: Decoding, top_tokens: int | None = None
    ) -> Iterator[list[Continuation]]:
        """The continuations of a prompt, each time that they have grown.

        If they have not grown since the last time, all texts get their next token, also those of other iterators. So
        iterators that are advanced in turn share the passes through the language model. An iterator that is closed
        takes its texts out.

        Args:
            state: of one prompt; its cache may grow.
            decoding: how text is decoded, without beams.
            top_tokens: how many of the most likely tokens at each position to list; None lists no tokens at all.

        Raises:
            UserError: the model's output is not a number.
        """
        decoding = self._fitting(decoding, state)
        copies = decoding.returns
        stops = self._detokenizer.stops(decoding.stop)
        texts = [Text(decoding, self._ends, stops, top_tokens or 0, copy) for copy in range(copies)]
        shown = [Continuation("", 0)] * copies
        batch = self._batch_for(state, copies)
        try:
            # Between two items, the caller's autocast and gradient modes are in effect.
            with torch.no_grad(), self._arithmetic():
                batch.join(state.of(torch.zeros(copies, dtype=torch.long, device=state.lengths.device)), texts)
            while True:
                for text in texts:
                    if text.error is not None:
                        raise text.error
                grown = [(len(text.tokens), text.over) for text in texts]
                shown = [
                    self._detokenizer.continuation(
                        text.generated(), before, decoding.stop, text.over, top_tokens is not None
                    )
                    for text, before in zip(texts, shown, strict=True)
                ]
                yield shown
                # Meanwhile other iterators may have given these texts more tokens.
                if all(over for _, over in grown):
                    return
                if grown == [(len(text.tokens), text.over) for text in texts]:
                    with torch.no_grad(), self._arithmetic():
                        batch.step()
        finally:
            for text in texts:
                batch.leave(text)
            self._batches = [batch for batch in self._batches if batch.texts]

    def _batch_for(self, state: DecodeState, rows: int) -> TextBatch:
        for batch in self._batches:
            if max(batch.columns, state.ids.shape[1]) * (len(batch.texts) + rows) <= MOST_COLUMNS:
                return batch
        self._batches.append(TextBatch(self._runner))
        return self._batches[-1]
