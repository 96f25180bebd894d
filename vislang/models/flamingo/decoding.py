"""Decoding: generate text from a decode state, greedily, by sampling or with beam search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vislang.capabilities import Decoding
from vislang.models.flamingo.prefill import DecodeState, NextSteps, Runner


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
    *_, generated = generate_stepwise(runner, state, decoding, ends, stops)
    copies = decoding.returns
    return [generated[start : start + copies] for start in range(0, len(generated), copies)]


def generate_stepwise(
    runner: Runner,
    state: DecodeState,
    decoding: Decoding,
    ends: frozenset[int],
    stops: Stops | None = None,
    top_tokens: int = 0,
) -> Iterator[list[Generated]]:
    """The same without beams: yields all texts after each token; the texts of a prompt are neighbours.

    ``top_tokens`` is how many of the most likely tokens at each position are listed in ``Generated.top``.
    """
    copies = decoding.returns
    if copies > 1:
        state = state.of(torch.arange(len(state.lengths), device=state.lengths.device).repeat_interleave(copies))
    steps = NextSteps(runner, state, copies)
    count = len(state.lengths)
    # Each text has its own generator, whose seed does not depend on the other rows.
    draws = [torch.Generator().manual_seed(decoding.seed * 1_000_003 + row % copies) for row in range(count)]
    texts: list[list[int]] = [[] for _ in range(count)]
    of_tokens: list[list[float]] = [[] for _ in range(count)]
    tops: list[list[list[tuple[int, float]]]] = [[] for _ in range(count)]
    likelihoods = [0.0] * count
    over = [False] * count
    for position in range(decoding.max_new_tokens):
        log_probabilities = runner.next_log_probabilities(state.hidden)
        tokens = _next(log_probabilities, decoding, draws)
        chosen = log_probabilities.gather(1, tokens[:, None])[:, 0].tolist()
        best = log_probabilities.topk(min(top_tokens, log_probabilities.shape[1]), dim=-1) if top_tokens else None
        for row, token in enumerate(tokens.tolist()):
            if over[row]:
                continue
            likelihoods[row] += chosen[row]
            over[row] = token in ends
            if not over[row]:
                texts[row] = [*texts[row], token]
                of_tokens[row] = [*of_tokens[row], chosen[row]]
                if best is not None:
                    pairs = zip(best.indices[row].tolist(), best.values[row].tolist(), strict=True)
                    tops[row] = [*tops[row], list(pairs)]
                over[row] = stops is not None and stops(texts[row])
        yield list(map(Generated, texts, likelihoods, list(over), of_tokens, tops))
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
