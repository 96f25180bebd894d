"""Flamingo: a frozen vision tower and a frozen language model, bridged (Alayrac et al. 2022).

Read from the top: the resampler turns the features of an image into a few latents; a gated block lets text
tokens look at those latents, before a layer of the frozen language model; the bridge puts the two between
any causal language model and any vision tower. Only resampler and gated blocks train.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from vislang.cache import cache_folder
from vislang.capabilities import ModelRecipe, Progress, Score, TokenAttention
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.models.arithmetic import Precision, autocast, dtype_of
from vislang.models.backbones import (
    EFFICIENTNET_LITE0,
    SMOLLM2,
    LanguageTower,
    TowerError,
    VisionTower,
    load_language_tower,
    load_vision_tower,
)
from vislang.models.causal_lm import FrozenCausalLM, Step, positions_of
from vislang.models.feature_cache import FeatureCache
from vislang.models.flamingo_collate import IGNORED, Batch, Collator
from vislang.models.frozen_text import FrozenText, ReadText, add_below, cache_above, stack_entering
from vislang.models.saved import read_config, write_model
from vislang.nn.attention import CrossAttention, KeysValues, attend_to_latest, kernel_for
from vislang.nn.transformer import FeedForward
from vislang.prompt import Prompts, Shot


class PerceiverResampler(nn.Module):
    """Features of a medium, however many, become a fixed number of latents (section 3.1.1, figure 5).

    Learned latents attend to the features and to themselves: keys and values come from both, laid end to end.
    Features are standardised first, channel by channel, by what :meth:`standardise` measured (nothing, at first):
    what all images share would otherwise drown what tells them apart.

    Args:
        features_width: width of the vision tower's features.
        width: width of the latents; features of another width are mapped to it first.
        latents: number of latents of a medium.
        depth: number of layers.
        heads, head_width: shape of the attention.
        expansion: inner width of the feed-forward, in widths.
    """

    features_mean: Tensor
    features_deviation: Tensor

    def __init__(
        self,
        features_width: int,
        width: int,
        latents: int = 64,
        depth: int = 6,
        heads: int = 8,
        head_width: int = 64,
        expansion: int = 4,
    ):
        super().__init__()
        self.register_buffer("features_mean", torch.zeros(features_width))
        self.register_buffer("features_deviation", torch.ones(features_width))
        self.project = nn.Identity() if features_width == width else _small_linear(features_width, width)
        # Small beside what they gather, so that images differ in the latents from the first step.
        self.latents = nn.Parameter(0.02 * torch.randn(latents, width))
        self.layers = nn.ModuleList(ResamplerLayer(width, heads, head_width, expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @torch.no_grad()
    def standardise(self, features: Float[Tensor, "media positions features_width"]) -> None:
        """Measure mean and deviation of each channel, over media and positions."""
        self.features_mean.copy_(features.mean(dim=(0, 1)))
        # A channel that hardly ever moves must not be blown up to noise.
        deviation = features.std(dim=(0, 1))
        self.features_deviation.copy_(deviation.clamp(min=1e-2 * float(deviation.mean()) + 1e-6))

    def forward(
        self,
        features: Float[Tensor, "media positions features_width"],
        weights: list[Tensor] | None = None,
    ) -> Float[Tensor, "media latents width"]:
        """Resample each medium. A list given as ``weights`` receives each layer's attention over positions:
        (media, heads, latents, positions), the share that latents give to each other left out.
        """
        features = self.project((features - self.features_mean) / self.features_deviation)
        latents = self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            latents = layer(features, latents, weights)
        return self.norm(latents)


def _small_linear(width_in: int, width_out: int) -> nn.Linear:
    """A linear map that starts a tenth of the usual size: its output is normalised next, so that only the
    direction of its rows counts, and from a small start they turn ten times as fast."""
    linear = nn.Linear(width_in, width_out)
    with torch.no_grad():
        linear.weight.mul_(0.1)
        linear.bias.zero_()
    return linear


class ResamplerLayer(nn.Module):
    """Latents look at features and at each other, then a feed-forward; both with a residual connection."""

    def __init__(self, width: int, heads: int, head_width: int, expansion: int):
        super().__init__()
        self.norm_features = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.attention = CrossAttention(width, width, heads, head_width)
        self.feed_forward = FeedForward(width, expansion)

    def forward(
        self,
        features: Float[Tensor, "media positions width"],
        latents: Float[Tensor, "media latents width"],
        weights: list[Tensor] | None = None,
    ) -> Float[Tensor, "media latents width"]:
        """One round of looking."""
        queries = self.norm_latents(latents)
        context = self.attention.keys_values(torch.cat([self.norm_features(features), queries], dim=1))
        if weights is not None:
            weights.append(self.attention.weights(queries, context)[..., : features.shape[1]])
        latents = latents + self.attention(queries, context)
        return latents + self.feed_forward(latents)


class GatedCrossAttentionBlock(nn.Module):
    """Text looks at media before a frozen layer, as much as two gates allow (section 3.1.2, figure 4).

    ``x + s tanh(a) * attend(x, media)``, then ``x + s tanh(f) * feed_forward(x)``. Both gates start at 0, so
    the language model starts out as it was.

    The scale s is ours (the paper has 1). A language model's hidden states grow from layer to layer, to a root
    mean square of 8 to 25 in the upper layers of SmolLM2-135M, where a fresh block puts out about 0.1: it would
    spend its training on growing loud enough to be heard. s lets it speak in the layer's own unit.

    Args:
        width: width of the language model.
        media_width: width of the latents.
        heads, head_width: shape of the attention.
        expansion: inner width of the feed-forward, in widths.
        scale: s, the root mean square of the hidden states that enter this layer.
    """

    def __init__(
        self,
        width: int,
        media_width: int,
        heads: int = 8,
        head_width: int = 64,
        expansion: int = 4,
        scale: float = 1.0,
    ):
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(width)
        self.attention = CrossAttention(width, media_width, heads, head_width)
        self.attention_gate = nn.Parameter(torch.zeros(()))
        self.feed_forward = FeedForward(width, expansion)
        self.feed_forward_gate = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        hidden: Float[Tensor, "batch tokens width"],
        media: KeysValues,
        mask: Tensor,
    ) -> Float[Tensor, "batch tokens width"]:
        """Let each token look at the media that ``mask`` (batch, tokens, media * latents) opens to it."""
        attended = self.attention(self.norm(hidden), media, mask)
        hidden = hidden + self.scale * self.attention_gate.tanh() * attended
        return hidden + self.scale * self.feed_forward_gate.tanh() * self.feed_forward(hidden)


@dataclass
class FlamingoConfig:
    """Shape of the bridge. The defaults are OpenFlamingo's; the paper's 3B to 80B have 16 heads of 96.

    Attributes:
        gated_layers: indices of the language model's layers with a gated block before them; None places
            one before each layer i with (i + 1) % gate_every == 0.
        gate_every: see ``gated_layers``.
        latents: latents of a medium.
        resampler_width: width of the latents; None takes the vision tower's.
        resampler_depth: layers of the resampler.
        heads, head_width: shape of every attention, in the resampler and in the gated blocks.
        expansion: inner width of every feed-forward, in widths.
        scales: the unit that each gated block speaks in (see GatedCrossAttentionBlock), in the order of layers;
            None measures them on the language model, 1 for each is the paper's.
        gate_all_text: let the gated blocks' feed-forward act on text before the first medium too, as the paper
            does. Otherwise such text stays exactly what the language model makes of it, which is then computed
            once a text (see :mod:`vislang.models.frozen_text`).
        train_media_token: train the embedding of the media token too. The layers below the first gate then
            depend on it and are computed, and differentiated, at every step.
        media_token: its id, where the language model's vocabulary has it already; None puts it beyond that.
    """

    gated_layers: list[int] | None = None
    gate_every: int = 4
    latents: int = 64
    resampler_width: int | None = None
    resampler_depth: int = 6
    heads: int = 8
    head_width: int = 64
    expansion: int = 4
    scales: list[float] | None = None
    gate_all_text: bool = False
    train_media_token: bool = False
    media_token: int | None = None


class MediaKeysValues:
    """Keys and values of a batch's media for every gated layer, projected once.

    Args:
        by_layer: keys and values (media, heads, latents, head width) of each gated layer.
        media_index: (batch, row media) rows of the media, -1 for none.
    """

    def __init__(self, by_layer: dict[int, KeysValues], media_index: Int[Tensor, "batch row_media"]):
        self.row_media = media_index.shape[1]
        latents = next(iter(by_layer.values())).keys.shape[2]
        self.latents = latents
        self.present = (media_index >= 0).repeat_interleave(latents, dim=1)
        rows = media_index.clamp(min=0)
        self.by_layer = {
            layer: KeysValues(*(side[rows].transpose(1, 2).flatten(2, 3) for side in keys_values))
            for layer, keys_values in by_layer.items()
        }

    def mask(self, media_time: Int[Tensor, "batch tokens"]) -> Bool[Tensor, "batch tokens row_latents"]:
        """(batch, tokens, row media * latents): each token may look at its latest medium, if it is there."""
        latest = attend_to_latest(media_time, self.row_media, self.latents)
        return latest & self.present[:, None]


class Bridge(nn.Module):
    """Everything of Flamingo that trains, around a frozen causal language model, tensors in and tensors out.

    Args:
        config: shape of the bridge.
        lm: the frozen language model.
        features_width: width of the vision tower's features.
        media_embedding: (width of the embeddings) what the media token is read as at first.

    Raises:
        UserError: a gated layer that the language model does not have, or none at all.
    """

    def __init__(self, config: FlamingoConfig, lm: FrozenCausalLM, features_width: int, media_embedding: Tensor):
        super().__init__()
        depth = len(lm.layers)
        gated = config.gated_layers
        if gated is None:
            gated = [i for i in range(depth) if (i + 1) % config.gate_every == 0]
        if not gated or min(gated) < 0 or max(gated) >= depth or len(set(gated)) != len(gated):
            raise UserError(
                f"gated_layers {gated}: name at least one of the language model's layers 0 to {depth - 1}, "
                "each once (gate_every must not exceed their number)."
            )
        self.lm = lm
        width = config.resampler_width or features_width
        shape = {"heads": config.heads, "head_width": config.head_width, "expansion": config.expansion}
        self.resampler = PerceiverResampler(features_width, width, config.latents, config.resampler_depth, **shape)
        scales = config.scales or lm.residual_scales(sorted(gated))
        self.gated_blocks = nn.ModuleDict(
            {
                str(layer): GatedCrossAttentionBlock(lm.width, width, **shape, scale=scale)
                for layer, scale in zip(sorted(gated), scales, strict=True)
            }
        )
        self.config = replace(config, gated_layers=sorted(gated), scales=scales)
        self.media_embedding = nn.Parameter(media_embedding.clone().float(), requires_grad=config.train_media_token)
        self.frozen_text = FrozenText(lm, self.gated_layers[0])

    @property
    def gated_layers(self) -> list[int]:
        """Indices of the language model's layers with a gated block before them, lowest first."""
        return [int(name) for name in self.gated_blocks]

    def block(self, layer: int) -> GatedCrossAttentionBlock:
        """The gated block before a layer."""
        block = self.gated_blocks[str(layer)]
        assert isinstance(block, GatedCrossAttentionBlock)
        return block

    @property
    def media_token(self) -> int:
        """The media token's id: one beyond the language model's vocabulary, unless it has one of its own."""
        return self.lm.vocabulary_size if self.config.media_token is None else self.config.media_token

    def embed(self, input_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens embed_width"]:
        """Embed tokens, the media token included."""
        is_media = input_ids == self.media_token
        embeddings = self.lm.embed(input_ids.masked_fill(is_media, 0))
        return torch.where(is_media[..., None], self.media_embedding.to(embeddings.dtype), embeddings)

    def media_keys_values(
        self, latents: Float[Tensor, "media latents width"], media_index: Int[Tensor, "batch row_media"]
    ) -> MediaKeysValues:
        """Project resampled media for every gated layer."""
        by_layer = {layer: self.block(layer).attention.keys_values(latents) for layer in self.gated_layers}
        return MediaKeysValues(by_layer, media_index)

    def steps(
        self,
        media: MediaKeysValues,
        media_time: Int[Tensor, "batch tokens"],
        looking: dict[int, Tensor] | None = None,
    ) -> dict[int, Step]:
        """What to do before each gated layer, for tokens that stand after ``media_time`` media.

        A dictionary given as ``looking`` receives the attention weights that each gated layer uses:
        (batch, heads, tokens, row media * latents).
        """
        mask = media.mask(media_time)
        reached = None if self.config.gate_all_text else (media_time > 0)[..., None]

        def before(layer: int) -> Step:
            block = self.block(layer)

            def step(hidden: Tensor) -> Tensor:
                if looking is not None:
                    looking[layer] = block.attention.weights(block.norm(hidden), media.by_layer[layer], mask)
                gated = block(hidden, media.by_layer[layer], mask)
                return gated if reached is None else torch.where(reached, gated, hidden)

            return step

        return {layer: before(layer) for layer in self.gated_layers}

    def forward(self, batch: Batch) -> Float[Tensor, "batch tokens types"]:
        """Logits at every position, straight through: the definition that the shortcuts are tested against."""
        return self.lm.logits(self._read_through(batch))

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Mean cross-entropy over the targets, in nats."""
        with kernel_for(batch.input_ids.shape[1], batch.input_ids.device, self.lm.lm.dtype):
            log_likelihoods, _ = self.token_log_likelihoods(batch)
        return {"text": -log_likelihoods.mean()}

    def token_log_likelihoods(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probability of each target, in nats, and the row that it stands in, both (targets,).

        Only what can change is computed with gradients: the tokens from the first medium on, from the first
        gated layer up; and logits only where there is a target.
        """
        if self.config.train_media_token:
            hidden, targets = self._read_through(batch), batch.targets
        else:
            hidden, targets = self._read_on(batch)[0], batch.targets[:, batch.prefix :]
        labelled = targets != IGNORED
        logits = self.lm.logits(hidden[labelled][None])[0]
        log_likelihoods = -F.cross_entropy(logits.float(), targets[labelled], reduction="none")
        return log_likelihoods, labelled.nonzero()[:, 0]

    def keep_texts(self, batch: Batch, to_continue: bool) -> None:
        """Read the texts of a batch now and keep what they leave behind, for all later batches.

        Nothing is kept while the media token trains, since its embedding then changes with every step.
        """
        if not self.config.train_media_token:
            embeddings = self.embed(batch.input_ids)
            self.frozen_text.keep(embeddings, batch.input_ids, batch.attention_mask, batch.prefix, to_continue)

    @torch.no_grad()
    def generate(self, batch: Batch, max_new_tokens: int, end_token: int) -> list[list[int]]:
        """Continue each row greedily, until it ends or ``max_new_tokens`` were added; the end is left out."""
        media = self._media(batch)
        hidden, cache, texts = self._read_on(batch, media, to_continue=True)
        add_below(cache, texts, batch.prefix, batch.input_ids.shape[1])
        rows = torch.arange(len(hidden), device=hidden.device)
        lengths = batch.attention_mask.sum(dim=-1)
        last = batch.attention_mask[:, batch.prefix :].sum(dim=-1) - 1
        steps = self.steps(media, batch.media_time[rows, batch.prefix + last][:, None])
        mask = batch.attention_mask
        ended = torch.zeros_like(lengths, dtype=torch.bool)
        written: list[Tensor] = []
        latest = hidden[rows, last][:, None]
        for position in range(max_new_tokens):
            token = self.lm.logits(latest)[:, -1].argmax(dim=-1)
            ended = ended | (token == end_token)
            written.append(token.masked_fill(ended, end_token))
            if bool(ended.all()) or position + 1 == max_new_tokens:
                break
            mask = F.pad(mask, (0, 1), value=1)
            latest = self.lm.run(
                self.lm.embed(token[:, None]), mask, (lengths + position)[:, None], before=steps, cache=cache
            )
        return [[token for token in row if token != end_token] for row in torch.stack(written, dim=1).tolist()]

    @torch.no_grad()
    def attention_maps(self, batch: Batch) -> Float[Tensor, "batch tokens row_media positions"]:
        """Where each token looks in each medium of its row, as shares of its attention.

        A token's attention to latents, averaged over heads and over gated layers (each as far as its gate is
        open), followed through the latents' attention to positions, averaged over the resampler's layers and
        heads. It shows what was looked at, which is not yet why an answer was given.
        """
        reading: list[Tensor] = []
        latents = self.resampler(batch.features, reading)
        positions = torch.stack(reading).mean(dim=(0, 2))
        positions = positions / positions.sum(dim=-1, keepdim=True)
        media = self.media_keys_values(latents, batch.media_index)
        looking: dict[int, Tensor] = {}
        self._read_through(batch, media, looking)
        opening = torch.stack([self.block(layer).attention_gate.tanh().abs() for layer in looking])
        weights = torch.stack([heads.mean(dim=1) for heads in looking.values()])
        weights = torch.einsum("g,gbtl->btl", opening / opening.sum().clamp(min=1e-12), weights)
        weights = weights.unflatten(-1, (media.row_media, media.latents))
        return torch.einsum("btml,bmlp->btmp", weights, positions[batch.media_index.clamp(min=0)])

    def gates(self) -> dict[str, float]:
        """tanh of every gate: how far each gated block is open, 0 for shut."""
        return {
            f"gate/{layer}/{part}": gate.tanh().item()
            for layer in self.gated_layers
            for part, gate in (
                ("attention", self.block(layer).attention_gate),
                ("feed_forward", self.block(layer).feed_forward_gate),
            )
        }

    def _media(self, batch: Batch) -> MediaKeysValues:
        return self.media_keys_values(self.resampler(batch.features), batch.media_index)

    def _read_through(
        self, batch: Batch, media: MediaKeysValues | None = None, looking: dict[int, Tensor] | None = None
    ) -> Float[Tensor, "batch tokens head_width"]:
        """The decoder's output for all columns, every layer run for every token."""
        return self.lm.run(
            self.embed(batch.input_ids),
            batch.attention_mask,
            positions_of(batch.attention_mask),
            before=self.steps(media or self._media(batch), batch.media_time, looking),
        )

    def _read_on(
        self, batch: Batch, media: MediaKeysValues | None = None, to_continue: bool = False
    ) -> tuple[Float[Tensor, "batch suffix head_width"], DynamicCache, list[ReadText]]:
        """The decoder's output for the columns from the first medium on; what text decides is recalled."""
        prefix = batch.prefix
        embeddings = self.embed(batch.input_ids)
        texts = self.frozen_text.read(embeddings, batch.input_ids, batch.attention_mask, prefix, to_continue)
        cache = cache_above(texts, prefix, self.gated_layers[0])
        hidden = self.lm.run(
            embeddings[:, prefix:],
            batch.attention_mask,
            positions_of(batch.attention_mask)[:, prefix:],
            before=self.steps(media or self._media(batch), batch.media_time[:, prefix:]),
            cache=cache,
            enter=(self.gated_layers[0], stack_entering(texts, embeddings.shape[1] - prefix)),
        )
        return hidden, cache, texts


class Flamingo(nn.Module):
    """Documents in, text out: the bridge with its towers, its tokenizer and its prompts.

    Args:
        config: shape of the bridge.
        language: the frozen language model.
        vision: the frozen vision tower.
        prompts: the words around media that it is trained and asked with.
        cache_features: keep features of images on disk, so that each is encoded once.
    """

    def __init__(
        self,
        config: FlamingoConfig,
        language: LanguageTower,
        vision: VisionTower,
        prompts: Prompts | None = None,
        cache_features: bool = True,
    ):
        super().__init__()
        self.prompts = prompts or Prompts()
        self.language_name, self.language_fingerprint = language.name, language.fingerprint
        self.tokenizer = language.tokenizer
        self.vision = vision
        words = self.tokenizer(" image", add_special_tokens=False, return_tensors="pt")["input_ids"]
        self.bridge = Bridge(config, language.lm, vision.width, language.lm.embed(words)[0].mean(dim=0))
        cache = None
        if cache_features:
            folder = f"{vision.fingerprint[:32]}-{vision.image_size}"
            cache = FeatureCache(cache_folder("features", folder))
        self.collate = Collator(
            self.tokenizer,
            vision,
            cache,
            self.bridge.media_token,
            language.lm.context_length,
            read_prefix_apart=not config.gate_all_text,
        )

    @property
    def device(self) -> torch.device:
        """Where the bridge is."""
        return self.bridge.media_embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """The arithmetic of language model and bridge; what trains is kept in float32 all the same."""
        return self.bridge.lm.lm.dtype

    def _arithmetic(self) -> torch.autocast:
        return autocast(self.device, self.dtype)

    def prepare(self, documents: Sequence[Document], progress: Progress | None = None, chunk: int = 32) -> int:
        """Compute once what these documents will ask for again and again.

        Images that no run has encoded yet are encoded and kept on disk; texts that occur more than once are
        read by the language model and kept in memory.

        Args:
            documents: those to come, with targets for training and without for generating.
            progress: called with (images done, images to do).
            chunk: images, or texts, at a time.

        Returns:
            The number of images encoded.

        Raises:
            MediaError: an image cannot be used; those before it are kept.
        """
        self._read_repeated(documents, chunk)
        cache = self.collate.cache
        if cache is None:
            return 0
        images = {medium.content_hash: medium for d in documents for medium in d.media if isinstance(medium, Image)}
        missing = [(mark, image) for mark, image in images.items() if mark not in cache]
        if progress is not None and missing:
            progress(0, len(missing))
        for start in range(0, len(missing), chunk):
            part = missing[start : start + chunk]
            pixels = torch.stack([self.vision.preprocess(image.decode()) for _, image in part])
            for (mark, _), features in zip(part, self.vision(pixels.to(self.device)).cpu(), strict=True):
                cache.put(mark, features)
            if progress is not None:
                progress(start + len(part), len(missing))
        return len(missing)

    def fit(self, lessons: Sequence[Document], media: int = 1000) -> None:
        """Measure on the training images what is not learned: mean and deviation of each channel of features.

        Args:
            lessons: the training documents, prepared.
            media: images to measure on, evenly spread over the lessons.
        """
        images = {m.content_hash: m for d in lessons for m in d.media if isinstance(m, Image)}
        chosen = list(images.values())[:: max(1, len(images) // media)]
        if chosen:
            batches = self._batches([Document([image]) for image in chosen], 64)
            features = [batch.features for batch in batches if batch.features is not None]
            self.bridge.resampler.standardise(torch.cat(features))

    def _read_repeated(self, documents: Sequence[Document], chunk: int) -> None:
        words = (tuple(part if isinstance(part, str) else None for part in d.parts) for d in documents)
        texts = list(zip(words, (d.target for d in documents), strict=True))
        repeated = {text for text, count in Counter(texts).items() if count > 1}
        chosen = {text: d for text, d in zip(texts, documents, strict=True) if text in repeated}
        for to_continue in (False, True):
            group = [d.without_media() for d in chosen.values() if (d.target is None) == to_continue]
            group.sort(key=lambda d: sum(len(part) for part in d.parts if isinstance(part, str)))
            for start in range(0, len(group), chunk):
                batch = self._with_features(self.collate(group[start : start + chunk]))
                with self._arithmetic():
                    self.bridge.keep_texts(batch, to_continue)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Mean cross-entropy over the targets, in nats."""
        batch = self._with_features(batch)
        with self._arithmetic():
            return self.bridge.losses(batch)

    def score(self, documents: Sequence[Document], batch_size: int = 64) -> list[Score]:
        """How likely each document's target is, its end included.

        Raises:
            UserError: a document without a target.
        """
        for document in documents:
            if document.target is None:
                raise UserError(f"{document.name or 'a document'}: has no target to score.")
        scores = []
        for batch in self._batches(documents, batch_size):
            with torch.no_grad(), self._arithmetic():
                log_likelihoods, rows = self.bridge.token_log_likelihoods(batch)
            for row in range(len(batch.input_ids)):
                own = log_likelihoods[rows == row]
                scores.append(Score(own.sum().item(), len(own)))
        return scores

    def generate(self, documents: Sequence[Document], max_new_tokens: int = 20, batch_size: int = 64) -> list[str]:
        """The text that follows each document, most likely token by most likely token.

        Raises:
            MediaError: an image cannot be used.
            UserError: a document is empty or too long for the language model.
        """
        texts: list[str] = []
        for batch in self._batches([document.without_target() for document in documents], batch_size):
            with self._arithmetic():
                tokens = self.bridge.generate(batch, max_new_tokens, self.tokenizer.eos_token_id)
            texts += [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]
        return texts

    def ask(
        self, image: Image, question: str | None = None, shots: Sequence[Shot] = (), max_new_tokens: int = 20
    ) -> str:
        """Answer a question about an image, or caption it where no question is asked, after any examples."""
        return self.generate([self.prompts.ask(image, question, shots)], max_new_tokens)[0]

    def attention(self, document: Document, max_new_tokens: int = 20) -> list[TokenAttention]:
        """What is answered, token by token, and where each token looked; see :meth:`Bridge.attention_maps`.

        A token's map is that of the position which predicted it.
        """
        answer = document.target
        if answer is None:
            answer = self.generate([document], max_new_tokens)[0]
        batch = self._with_features(self.collate([replace(document, target=answer)]))
        with self._arithmetic():
            maps = self.bridge.attention_maps(batch)[0].float()
        side = round(maps.shape[-1] ** 0.5)
        shown = []
        for column in (batch.targets[0] != IGNORED).nonzero()[:, 0].tolist():
            token = self.tokenizer.decode([int(batch.targets[0, column])], skip_special_tokens=True)
            if token:
                grids = [grid.unflatten(0, (side, side)).cpu() for grid in maps[column]]
                shown.append(TokenAttention(token, grids))
        return shown

    def parameter_groups(self) -> dict[str, list[tuple[str, Tensor]]]:
        """What trains: ``matrices`` (weight decay is for these), ``vectors`` (norms, biases), ``gates``."""
        groups: dict[str, list[tuple[str, Tensor]]] = {"matrices": [], "vectors": [], "gates": []}
        for name, parameter in self._trainable():
            kind = "gates" if name.endswith("_gate") else "matrices" if parameter.ndim > 1 else "vectors"
            groups[kind].append((name, parameter))
        return groups

    def after_step(self) -> None:
        """Nothing follows a step."""

    def diagnostics(self) -> dict[str, float]:
        """tanh of every gate."""
        return self.bridge.gates()

    def trainable_state(self) -> dict[str, Tensor]:
        """Every parameter that trains and what was measured on the training images, by name; no towers."""
        return {name: value.detach() for name, value in self._state()}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state` gave.

        Raises:
            UserError: keys are missing or unexpected, or shapes differ; the message lists them.
        """
        own = dict(self._state())
        faults = [f"missing {name}" for name in own if name not in state]
        faults += [f"unexpected {name}" for name in state if name not in own]
        faults += [
            f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ]
        if faults:
            raise UserError("weights of another bridge: " + "; ".join(faults[:10]))
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])

    def save(self, folder: Path | str) -> None:
        """Write config, trained weights, tokenizer and a model card; the towers are referred to by hash."""
        folder = Path(folder)
        settings = {
            "bridge": dataclasses.asdict(self.bridge.config),
            "prompts": dataclasses.asdict(self.prompts),
            "dtype": str(self.dtype).removeprefix("torch."),
            "language_model": {"name": _portable(self.language_name), "fingerprint": self.language_fingerprint},
            "vision_tower": {
                "name": _portable(self.vision.name),
                "fingerprint": self.vision.fingerprint,
                "image_size": self.vision.image_size,
            },
        }
        write_model(folder, self, settings, self.trainable_state())
        self.tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(self._card(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, language_model: str | None = None, vision_tower: str | None = None) -> Flamingo:
        """Open a folder that :meth:`save` wrote.

        Args:
            folder: the folder.
            language_model: where the language model lies now, if no longer where it was.
            vision_tower: where the vision tower lies now, likewise.

        Raises:
            TowerError: a tower was not found, or its weights are not those that the bridge was trained on.
            UserError: the weights do not fit the config.
        """
        config = read_config(folder)
        language = load_language_tower(
            language_model or config["language_model"]["name"], getattr(torch, config["dtype"])
        )
        _same_tower("language model", language.name, language.fingerprint, config["language_model"])
        vision = load_vision_tower(vision_tower or config["vision_tower"]["name"], config["vision_tower"]["image_size"])
        _same_tower("vision tower", vision.name, vision.fingerprint, config["vision_tower"])
        model = cls(FlamingoConfig(**config["bridge"]), language, vision, Prompts(**config["prompts"]))
        model.load_trainable_state(safetensors.torch.load_file(folder / "model.safetensors"))
        return model.eval()

    def _trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.bridge.named_parameters() if p.requires_grad)

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._trainable()
        for name, measured in self.bridge.resampler.named_buffers():
            yield f"resampler.{name}", measured

    def _batches(self, documents: Sequence[Document], batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(documents), batch_size):
            yield self._with_features(self.collate(documents[start : start + batch_size]))

    def _with_features(self, batch: Batch) -> Batch:
        """The batch on the model's device, its pixels (if it still has any) encoded."""
        moved: dict[str, Any] = {
            part.name: value.to(self.device)
            for part in dataclasses.fields(batch)
            if isinstance(value := getattr(batch, part.name), Tensor)
        }
        batch = replace(batch, **moved)
        if batch.pixels is not None:
            batch = replace(batch, features=self.vision(batch.pixels), pixels=None)
        return batch

    def _card(self) -> str:
        trained = sum(p.numel() for _, p in self._trainable())
        return (
            "---\nlibrary_name: vislang\npipeline_tag: image-text-to-text\n---\n\n"
            "# A Flamingo bridge\n\n"
            f"{trained:,} trained parameters between two frozen towers, which are not in this folder:\n\n"
            f"* language model `{self.language_name}`, SHA-256 of its weights `{self.language_fingerprint}`\n"
            f"* vision tower `{self.vision.name}` at {self.vision.image_size} px, SHA-256 of its weights "
            f"`{self.vision.fingerprint}`\n\n"
            "```python\nimport vislang\n\nmodel = vislang.load(FOLDER)\n"
            'model.ask(vislang.Image("photo.png"), "what is it?")\n```\n'
        )


@dataclass
class FlamingoRecipe(ModelRecipe):
    """What a recipe says of a Flamingo.

    Attributes:
        language_model: a folder, a packaged name or a Hub id; see :mod:`vislang.models.backbones`.
        vision_tower: likewise.
        image_size: side of the square that images are resized to; None takes the tower's own.
        dtype: arithmetic of language model and bridge; ``auto`` takes bfloat16 where the machine multiplies it in
            hardware. What trains is kept, and updated, in float32.
        bridge: shape of what trains.
        prompts: the words around media.
    """

    language_model: str = SMOLLM2
    vision_tower: str = EFFICIENTNET_LITE0
    image_size: int | None = None
    dtype: Precision = "float32"
    bridge: FlamingoConfig = field(default_factory=FlamingoConfig)
    prompts: Prompts = field(default_factory=Prompts)

    def build(self) -> Flamingo:
        """An untrained Flamingo between the two towers; its gates are shut.

        Raises:
            TowerError: a tower was not found.
        """
        language = load_language_tower(self.language_model, dtype_of(self.dtype))
        vision = load_vision_tower(self.vision_tower, self.image_size)
        return Flamingo(self.bridge, language, vision, self.prompts)

    def open(self, folder: Path) -> Flamingo:
        """A trained Flamingo."""
        return Flamingo.load(folder)


def _portable(name: str) -> str:
    """A tower's name as another process can use it: a local folder by its full path."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _same_tower(kind: str, name: str, found: str, recorded: dict[str, Any]) -> None:
    if found != recorded["fingerprint"]:
        raise TowerError(
            f"{kind} {name!r} is not the one that this bridge was trained on: its weights hash to {found[:16]}..., "
            f"and {recorded['fingerprint'][:16]}... was recorded. Restore the original weights, or train again."
        )
