"""Decoding: generate text from a decode state, greedily, by sampling or with beam search."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vislang.errors import UserError
from vislang.models.flamingo.prefill import DecodeState, NextSteps, Runner

LEAST_TEMPERATURE = 1e-3
"""Below this temperature, logits would overflow; 0 takes the most likely token."""

GREATEST_PENALTY = 10.0
"""The greatest absolute length penalty; beyond it, lengths to this power would overflow."""


@dataclass(frozen=True)
class Decoding:
    """Settings of text generation.

    Attributes:
        max_new_tokens: greatest number of new tokens.
        temperature: 0 takes the most likely token; otherwise logits are divided by it and a token is sampled.
        top_k: sample among the k most likely tokens; 0 for all.
        top_p: sample among the most likely tokens whose probabilities add up to this (Holtzman et al. 2020).
        beams: number of beams; 1 for no beam search.
        length_penalty: beams are ranked by log-likelihood / length ** penalty, from -10 to 10. 0 ranks by likelihood
            alone, as OpenFlamingo does.
        returns: number of texts for each prompt; more than one needs beams or a temperature.
        stop: strings that end a text; they are not part of it.
        seed: seed of sampling. Each text has its own generator, so the other texts of a batch have no effect on it.

    Raises:
        UserError: a setting is out of range, or settings contradict each other.
    """

    max_new_tokens: int = 20
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    beams: int = 1
    length_penalty: float = 1.0
    returns: int = 1
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self):
        for name in ("max_new_tokens", "beams", "returns"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not (self.temperature == 0 or LEAST_TEMPERATURE <= self.temperature < math.inf):
            raise UserError(f"temperature is {self.temperature}; it must be 0 or at least {LEAST_TEMPERATURE}.")
        if not abs(self.length_penalty) <= GREATEST_PENALTY:
            greatest = f"{GREATEST_PENALTY:g}"
            raise UserError(
                f"length_penalty is {self.length_penalty}; it must be a number from -{greatest} to {greatest}."
            )
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}; it must not be negative.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if self.temperature == 0 and (self.top_k > 0 or self.top_p < 1):
            raise UserError("top_k and top_p have an effect only where tokens are drawn. Set a temperature.")
        if self.beams == 1 and self.length_penalty != 1:
            raise UserError("length_penalty ranks beams. Set beams to 2 or more, or leave it out.")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed is {self.seed}; it must be at least 0 and below 2**32.")
        if self.beams > 1 and self.temperature > 0:
            raise UserError("beam search does not sample; set temperature to 0, or beams to 1.")
        if self.returns > 1 and self.temperature == 0 and self.returns > self.beams:
            raise UserError(f"{self.returns} texts of one prompt would be equal; set a temperature, or more beams.")
        if any(not text for text in self.stop):
            raise UserError("stop must not contain an empty string.")


@dataclass(frozen=True)
class Generated:
    """The tokens of a text without the end-of-text token, and its log-likelihood in nats, including that token if it
    was generated."""

    tokens: list[int]
    log_likelihood: float


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
    *_, generated = generate_stepwise(runner, state, decoding, ends, stops)
    copies = decoding.returns
    return [generated[start : start + copies] for start in range(0, len(generated), copies)]


def generate_stepwise(
    runner: Runner, state: DecodeState, decoding: Decoding, ends: frozenset[int], stops: Stops | None = None
) -> Iterator[list[Generated]]:
    """The same without beams: yields all texts after each token; the texts of a prompt are neighbours."""
    copies = decoding.returns
    if copies > 1:
        state = state.of(torch.arange(len(state.lengths), device=state.lengths.device).repeat_interleave(copies))
    steps = NextSteps(runner, state, copies)
    count = len(state.lengths)
    # Each text has its own generator, whose seed does not depend on the other rows.
    draws = [torch.Generator().manual_seed(decoding.seed * 1_000_003 + row % copies) for row in range(count)]
    texts: list[list[int]] = [[] for _ in range(count)]
    likelihoods = [0.0] * count
    over = [False] * count
    for position in range(decoding.max_new_tokens):
        log_probabilities = runner.next_log_probabilities(state.hidden)
        tokens = _next(log_probabilities, decoding, draws)
        chosen = log_probabilities.gather(1, tokens[:, None])[:, 0].tolist()
        for row, token in enumerate(tokens.tolist()):
            if over[row]:
                continue
            likelihoods[row] += chosen[row]
            over[row] = token in ends
            if not over[row]:
                texts[row] = [*texts[row], token]
                over[row] = stops is not None and stops(texts[row])
        yield [Generated(text, likelihood) for text, likelihood in zip(texts, likelihoods, strict=True)]
        if all(over) or position + 1 == decoding.max_new_tokens:
            return
        state = runner.advance(state, tokens, steps)


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
