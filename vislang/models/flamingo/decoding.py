"""Decoding: generate text from a decode state, greedily, by sampling or with beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vislang.capabilities import Decoding
from vislang.errors import UserError
from vislang.models.base import must_be_numbers
from vislang.models.flamingo.drafting import draft
from vislang.models.flamingo.prefill import DecodeState, NextSteps, Runner, joined

TOKENS_A_PASS = 8
"""Greatest number of tokens, of all texts together, in a pass with guesses. A pass reads all weights, which takes most
of its time as long as it has few tokens."""

FIRST_DRAFT = 3
"""Greatest number of tokens of a text's first guess."""


@dataclass(frozen=True)
class Generated:
    """A generated text.

    Attributes:
        tokens: its tokens, without the end-of-text token.
        log_likelihood: in nats, including the end-of-text token if it was generated.
        ended: whether an end-of-text token or a stop string ended it. It and the next two are not set by beam search.
        log_probabilities: of each token, in nats, before any temperature.
        top: for each token, the most likely tokens at its position with their log-probabilities, if they were asked
            for.
    """

    tokens: list[int]
    log_likelihood: float
    ended: bool = False
    log_probabilities: list[float] = field(default_factory=list)
    top: list[list[tuple[int, float]]] = field(default_factory=list)


Stops = Callable[[list[int]], bool]
"""Whether a text is complete, from its tokens so far."""


def generate(
    runner: Runner, state: DecodeState, decoding: Decoding, ends: frozenset[int], stops: Stops | None = None
) -> list[list[Generated]]:
    """Generate ``returns`` texts for each row of a state; with beams, the best first.

    Args:
        runner: the bridge's runner.
        state: the state to continue; its cache may grow.
        decoding: the settings.
        ends: tokens that end a text.
        stops: called after each token.

    Raises:
        UserError: the model's output is not a number.
    """
    if decoding.beams > 1:
        return _beams(runner, state, decoding, ends, stops)
    copies, device = decoding.returns, state.lengths.device
    if copies > 1:
        state = state.of(torch.arange(len(state.lengths), device=device).repeat_interleave(copies))
    texts = [Text(decoding, ends, stops, copy=row % copies) for row in range(len(state.lengths))]
    batch = TextBatch(runner)
    batch.join(state, texts)
    while batch.texts:
        batch.step()
    for text in texts:
        if text.error is not None:
            raise text.error
    return [[text.generated() for text in texts[start : start + copies]] for start in range(0, len(texts), copies)]


class Text:
    """A text while it is generated.

    Args:
        decoding: how its tokens are chosen, without beams.
        ends: tokens that end it.
        stops: whether it is complete; called after each token.
        top_tokens: how many of the most likely tokens at each position to list.
        copy: the number of the text among those of its prompt; each draws its own tokens.

    Attributes:
        tokens, log_likelihood, ended, log_probabilities, top: see :class:`Generated`.
        over: whether it gets no more tokens.
        error: what kept it from being completed.
        draft_length: greatest number of tokens to guess next.
    """

    def __init__(
        self, decoding: Decoding, ends: frozenset[int], stops: Stops | None = None, top_tokens: int = 0, copy: int = 0
    ):
        self.decoding, self.ends = decoding, ends
        self._stops, self._top_tokens = stops, top_tokens
        # Its seed does not depend on other texts of a batch.
        self._rng = torch.Generator().manual_seed(decoding.seed * 1_000_003 + copy)
        self.tokens: list[int] = []
        self.log_probabilities: list[float] = []
        self.top: list[list[tuple[int, float]]] = []
        self.log_likelihood = 0.0
        self.ended = self.over = False
        self.error: Exception | None = None
        self.draft_length = FIRST_DRAFT

    def append(self, log_probabilities: Float[Tensor, "..."]) -> int:
        """Choose the next token by its distribution (types,), and append it unless it ends the text; returns it."""
        token = int(_next(log_probabilities[None], self.decoding, [self._rng]))
        value = float(log_probabilities[token])
        self.log_likelihood += value
        self.ended = token in self.ends
        if not self.ended:
            self.tokens.append(token)
            self.log_probabilities.append(value)
            if self._top_tokens:
                best = log_probabilities.topk(min(self._top_tokens, len(log_probabilities)))
                self.top.append(list(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
            self.ended = self._stops is not None and self._stops(self.tokens)
        self.over = self.ended or len(self.tokens) == self.decoding.max_new_tokens
        return token

    def generated(self) -> Generated:
        """The text."""
        return Generated(self.tokens, self.log_likelihood, self.ended, self.log_probabilities, self.top)


class TextBatch:
    """Texts that are generated together; they join and leave between two steps (Yu et al. 2022, section 4.1).

    A step gives each text a token, or several: where the last tokens occurred before, those that followed them there
    are tried in the same pass (:func:`draft`). A text gets the same tokens as alone; log-probabilities may differ in
    their last bits, because the order of summation in a matrix product depends on its number of rows.

    Args:
        runner: the bridge's runner.
        drafts: whether tokens are guessed.

    Attributes:
        texts: the texts that get more tokens, in the order of the state's rows.
        passes: how often the language model has run.
    """

    def __init__(self, runner: Runner, drafts: bool = True):
        self.runner, self.drafts = runner, drafts
        self.texts: list[Text] = []
        self.passes = 0
        self._state: DecodeState | None = None
        self._steps: NextSteps | None = None

    @property
    def columns(self) -> int:
        """The number of tokens of the longest text with its prompt."""
        return 0 if self._state is None else self._state.ids.shape[1]

    def join(self, state: DecodeState, texts: Sequence[Text]) -> None:
        """Begin a text for each row of a state; each gets its first token.

        Args:
            state: its cache may grow from now on.
            texts: those of the rows, in order.
        """
        log_probabilities = self.runner.next_log_probabilities(state.hidden, checked=False)
        for text, own in zip(texts, log_probabilities, strict=True):
            _append(text, own)
        going = [row for row, text in enumerate(texts) if not text.over]
        if not going:
            return
        if len(going) < len(texts):
            state = state.of(torch.tensor(going, device=state.lengths.device)).without_padding()
        self.texts += [texts[row] for row in going]
        self._become(state if self._state is None else joined([self._state, state]))

    def leave(self, text: Text) -> None:
        """Take a text out, if it is still in."""
        text.over = True
        self._drop_over()

    def step(self) -> None:
        """Give each text its next token, or several; those that are over leave.

        If the model fails, every text gets the error, and all leave.
        """
        assert self._state is not None
        assert self._steps is not None
        try:
            self._step(self._state, self._steps)
        except Exception as error:
            for text in self.texts:
                text.error, text.over = error, True
        self._drop_over()

    def _step(self, state: DecodeState, steps: NextSteps) -> None:
        device = state.lengths.device
        guesses = self._guesses(state)
        longest = max(map(len, guesses))
        tokens = torch.zeros(len(guesses), 1 + longest, dtype=torch.long)
        real = torch.zeros_like(tokens)
        for row, (text, guess) in enumerate(zip(self.texts, guesses, strict=True)):
            tokens[row, : 1 + len(guess)] = torch.tensor([text.tokens[-1], *guess])
            real[row, : 1 + len(guess)] = 1
        self.passes += 1
        state, hidden = self.runner.try_tokens(state, tokens.to(device), real.to(device), steps)
        log_probabilities = self.runner.next_log_probabilities(hidden[real.to(device).bool()][:, None], checked=False)
        kept = [
            _accept(text, guess, own)
            for text, guess, own in zip(
                self.texts, guesses, log_probabilities.split([1 + len(guess) for guess in guesses]), strict=True
            )
        ]
        self._state = self.runner.keep(state, hidden, kept)

    def _guesses(self, state: DecodeState) -> list[list[int]]:
        """For each text, the tokens that may follow its last one."""
        room = TOKENS_A_PASS // len(self.texts) - 1
        if not self.drafts or room < 1:
            return [[] for _ in self.texts]
        media = self.runner.bridge.media_token
        found = []
        for text, ids, length in zip(self.texts, state.ids.tolist(), state.lengths.tolist(), strict=True):
            # The last token of a pass gives one more, for which there must be room.
            most = min(room, text.draft_length, text.decoding.max_new_tokens - len(text.tokens) - 1)
            found.append(draft([*ids[len(ids) - length :], text.tokens[-1]], most, text.ends | {media}))
        return found

    def _drop_over(self) -> None:
        going = [row for row, text in enumerate(self.texts) if not text.over]
        if len(going) == len(self.texts):
            return
        self.texts = [self.texts[row] for row in going]
        if not going:
            self._state = self._steps = None
            return
        assert self._state is not None
        self._become(self._state.of(torch.tensor(going, device=self._state.lengths.device)).without_padding())

    def _become(self, state: DecodeState) -> None:
        self._state, self._steps = state, NextSteps(self.runner, state)


def _append(text: Text, log_probabilities: Float[Tensor, "..."]) -> int:
    """The next token of a text; where the model's output is not a number, the text alone gets the error."""
    try:
        must_be_numbers(log_probabilities, "the next token")
    except UserError as error:
        text.error, text.over = error, True
        return 0
    return text.append(log_probabilities)


def _accept(text: Text, guess: list[int], log_probabilities: Float[Tensor, "tokens types"]) -> int:
    """Append tokens as long as the guess is right, and one more; returns how many tokens of the pass were right."""
    for position, own in enumerate(log_probabilities):
        token = _append(text, own)
        if text.over or position == len(guess) or token != guess[position]:
            break
    if guess:
        # A guess that was wrong costs little next time, and one that was right may be a long one.
        text.draft_length = 2 * position + 1
    return position + 1


def _next(
    log_probabilities: Float[Tensor, "rows types"], decoding: Decoding, draws: list[torch.Generator]
) -> Int[Tensor, "..."]:
    if decoding.temperature == 0:
        return log_probabilities.argmax(dim=-1)
    kept = top(log_probabilities / decoding.temperature, decoding.top_k, decoding.top_p)
    # The argmax of log-probability plus Gumbel noise is a sample (Maddison et al. 2014).
    uniform = torch.stack([torch.rand(kept.shape[1], generator=draw) for draw in draws]).to(kept.device)
    return (kept - (-uniform.clamp(min=1e-20).log()).log()).argmax(dim=-1)


def top(logits: Float[Tensor, "rows types"], k: int, p: float) -> Float[Tensor, "rows types"]:
    """Keep the logits of the k most likely types (0: all) and, of these, of the most likely ones up to probability p;
    set the others to minus infinity."""
    if k:
        least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(dim=-1)
        # A type is kept if the types before it do not reach p; the first is always kept.
        beyond = probabilities.cumsum(dim=-1) - probabilities >= p
        logits = logits.masked_fill(beyond.gather(1, order.argsort(dim=-1)), -torch.inf)
    return logits


@dataclass
class _Hypotheses:
    """The best finished texts of a prompt."""

    most: int
    penalty: float
    kept: list[tuple[float, Generated]]

    def add(self, generated: Generated, length: int) -> None:
        self.kept.append((generated.log_likelihood / length**self.penalty, generated))
        self.kept = sorted(self.kept, key=lambda pair: -pair[0])[: self.most]

    def beaten_by(self, likelihood: float, length: int) -> bool:
        """Whether an unfinished text may still become one of the best."""
        return len(self.kept) < self.most or likelihood / length**self.penalty > self.kept[-1][0]


def _beams(
    runner: Runner, state: DecodeState, decoding: Decoding, ends: frozenset[int], stops: Stops | None
) -> list[list[Generated]]:
    prompts, beams = len(state.lengths), decoding.beams
    device = state.lengths.device
    state = state.of(torch.arange(prompts, device=device).repeat_interleave(beams))
    steps = NextSteps(runner, state, beams)
    finished = [_Hypotheses(beams, decoding.length_penalty, []) for _ in range(prompts)]
    texts: list[list[int]] = [[] for _ in range(prompts * beams)]
    # At first all beams of a prompt are equal, so only one of them may branch.
    likelihoods = torch.full((prompts, beams), -torch.inf)
    likelihoods[:, 0] = 0.0
    done = [False] * prompts
    for position in range(decoding.max_new_tokens):
        log_probabilities = runner.next_log_probabilities(state.hidden).cpu()
        types = log_probabilities.shape[-1]
        reached = likelihoods[..., None] + log_probabilities.view(prompts, beams, types)
        # Each end token can take one candidate of each beam, so more candidates are needed.
        best, candidates = reached.flatten(1).topk(min(beams * (1 + len(ends)), beams * types), dim=-1)
        rows: list[int] = []
        tokens: list[int] = []
        followed: list[list[int]] = []
        for prompt in range(prompts):
            unfinished: list[tuple[float, int, list[int], int]] = []
            for likelihood, candidate in zip(best[prompt].tolist(), candidates[prompt].tolist(), strict=True):
                if done[prompt] or len(unfinished) == beams or likelihood == -torch.inf:
                    break
                beam, token = divmod(candidate, types)
                text = texts[prompt * beams + beam]
                if token in ends:
                    finished[prompt].add(Generated(text, likelihood), position + 1)
                elif stops is not None and stops([*text, token]):
                    finished[prompt].add(Generated([*text, token], likelihood), position + 1)
                else:
                    unfinished.append((likelihood, prompt * beams + beam, [*text, token], token))
            if not unfinished or not finished[prompt].beaten_by(unfinished[0][0], position + 1):
                done[prompt] = True
            # A prompt that is done, or has few candidates, keeps its number of rows; their likelihood is 0.
            unfinished += [(-torch.inf, prompt * beams, [], next(iter(ends), 0))] * (beams - len(unfinished))
            likelihoods[prompt] = torch.tensor([each[0] for each in unfinished])
            rows += [each[1] for each in unfinished]
            followed += [each[2] for each in unfinished]
            tokens += [each[3] for each in unfinished]
        texts = followed
        if all(done) or position + 1 == decoding.max_new_tokens:
            break
        state = state.of(torch.tensor(rows, device=device))
        state = runner.advance(state, torch.tensor(tokens, device=device), steps)
    for prompt in range(prompts):
        for beam, likelihood in enumerate(likelihoods[prompt].tolist()):
            text = texts[prompt * beams + beam]
            if not done[prompt] and likelihood > -torch.inf:
                finished[prompt].add(Generated(text, likelihood), len(text))
    return [[generated for _, generated in each.kept[: decoding.returns]] for each in finished]
