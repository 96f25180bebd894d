"""Tokens to texts: where a text stops, and how much of it can be shown while it is generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from transformers import PreTrainedTokenizerBase

from vislang.capabilities import Continuation, TokenLikelihood
from vislang.models.flamingo.decoding import Generated


class Detokenizer:
    """Texts of generated tokens.

    Args:
        tokenizer: the language model's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer

    def text(self, tokens: list[int], stop: Sequence[str]) -> str:
        """The text before the first stop string, without spaces around it."""
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        ends = [text.index(each) for each in stop if each in text]
        return text[: min(ends)].strip() if ends else text.strip()

    def stops(self, stop: Sequence[str]) -> Callable[[list[int]], bool] | None:
        """Whether a text has a stop string, from its tokens so far; None without stop strings."""
        if not stop:
            return None

        def stops(tokens: list[int]) -> bool:
            text = self._tokenizer.decode(tokens, skip_special_tokens=True)
            return any(each in text for each in stop)

        return stops

    def continuation(
        self, generated: Generated, before: Continuation, stop: Sequence[str], over: bool, listed: bool
    ) -> Continuation:
        """A text as far as no later token can change it.

        Args:
            generated: its tokens so far.
            before: what was shown of it before.
            stop: strings that end it.
            over: whether it gets no more tokens.
            listed: whether its tokens are listed with their likelihoods.
        """
        text = self.text(generated.tokens, stop)
        if not over:
            # The last character may be incomplete, and the last characters may be the beginning of a stop.
            text = text.rstrip("\ufffd")
            text = text[: len(text) - _beginning_of_stop(text, stop)]
        finish: Literal["stop", "length"] | None = "stop" if generated.ended else "length" if over else None
        shown = text if text.startswith(before.text) else before.text
        known = len(before.tokens)
        tokens = [self._likelihood(generated, place) for place in range(known, len(generated.tokens))] if listed else []
        return Continuation(shown, len(generated.tokens), finish, (*before.tokens, *tokens))

    def _likelihood(self, generated: Generated, place: int) -> TokenLikelihood:
        """A token of a text, with its likelihood and its alternatives."""
        decode = self._tokenizer.decode
        top = generated.top[place] if generated.top else []
        return TokenLikelihood(
            decode([generated.tokens[place]]),
            generated.log_probabilities[place],
            tuple((decode([token]), log_probability) for token, log_probability in top),
        )


def _beginning_of_stop(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a stop string."""
    most = max((len(stop) for stop in stops), default=1) - 1
    return next((n for n in range(min(most, len(text)), 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0)
