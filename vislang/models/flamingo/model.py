"""Flamingo: Documents of text, images and videos in, text out (Alayrac et al. 2022).

This file puts the parts together: :mod:`vislang.models.flamingo.bridge` (what is trained, as in the paper),
:mod:`~vislang.models.flamingo.collate` (documents to tokens), :mod:`~vislang.models.flamingo.prefill` (the same results
with less work) and :mod:`~vislang.models.flamingo.decoding` (text generation). Recipes are in
:mod:`~vislang.models.flamingo.recipe`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vislang.capabilities import (
    AttendedAnswer,
    ChunkAttention,
    Completion,
    Decoding,
    GatedLayer,
    Prefix,
    Progress,
    Score,
)
from vislang.document import Document, Image, Learned, Medium, Video
from vislang.errors import UserError
from vislang.example import Example
from vislang.files import write_text
from vislang.models.base import TrainableModel, fingerprint, read_settings, read_weights, write_model
from vislang.models.flamingo.bridge import Bridge
from vislang.models.flamingo.collate import IGNORED, Batch, CollateConfig, Collator, PromptNotice, stack_frames
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.continuing import Together
from vislang.models.flamingo.decoding import generate
from vislang.models.flamingo.detokenizing import Detokenizer
from vislang.models.flamingo.explaining import chunk_shares, token_maps
from vislang.models.flamingo.pack import read_pack, write_pack
from vislang.models.flamingo.prefill import DecodeState, Runner
from vislang.models.flamingo.prefixes import Prefixes, split
from vislang.models.flamingo.saved import SavedFlamingo, SavedTower, model_card, portable
from vislang.models.precision import autocast
from vislang.models.towers.causal_lm import CausalLMWithRows
from vislang.models.towers.feature_cache import cache_of
from vislang.models.towers.language import LanguageTower, load_language_tower
from vislang.models.towers.tuning import TuneConfig, merge_updates
from vislang.models.towers.vision import VisionTower, load_vision_tower
from vislang.prompt import Prompts, as_generation

RANKED_AT_ONCE = 64
"""Answers that are ranked at once; each needs a copy of its prompt's keys and values."""

READ_AT_ONCE = 2048
"""Greatest number of tokens of prompts that are read together, padding included."""

MEASURED_MEDIA = 1000
"""Most media on which the mean and standard deviation of the features are measured."""

MEASURED_QUESTIONS = 256
"""About how many questions the mean and standard deviation of the gated blocks' inputs are measured on."""


class Flamingo(TrainableModel):
    """Documents in, text out: the bridge with its towers, its tokenizer and its prompts.

    Args:
        config: shape of the bridge.
        language: the language model.
        vision: the vision tower.
        prompts: the templates for questions and captions.
        collate: how documents become batches.
        cache_features: keep the features of media on disk, so each medium is encoded once. The features of a vision
            tower that is trained are never kept.
        origin: the origin of converted weights, for the record.
        tuned: how the towers are trained, for the record; see :func:`~vislang.models.towers.tuning.tune`.
    """

    collate: Collator

    def __init__(
        self,
        config: FlamingoConfig,
        language: LanguageTower,
        vision: VisionTower,
        prompts: Prompts | None = None,
        collate: CollateConfig | None = None,
        cache_features: bool = True,
        origin: dict[str, Any] | None = None,
        tuned: TuneConfig | None = None,
    ):
        super().__init__()
        self.origin = origin
        self.tuned = tuned or TuneConfig()
        self.language_name, self.language_fingerprint = language.name, language.fingerprint
        self.quantized = language.quantized or vision.quantized
        self.tokenizer = language.tokenizer
        self._detokenizer = Detokenizer(self.tokenizer)
        self.vision = vision
        if config.media_token is not None:
            media = torch.tensor([[config.media_token]])
        else:
            media = self.tokenizer(" image", add_special_tokens=False, return_tensors="pt")["input_ids"]
        self.bridge = Bridge(config, language.lm, vision.width, language.lm.embed(media)[0].mean(dim=0))
        self.runner = Runner(self.bridge)
        # These are saved, whether or not a recipe freezes some of them.
        self._own = [name for name, parameter in self.bridge.named_parameters() if parameter.requires_grad]
        self._own_of_vision = [name for name, parameter in vision.named_parameters() if parameter.requires_grad]
        self.caches_features = cache_features and not vision.trains
        cache = cache_of(vision, vision.fingerprint) if self.caches_features else None
        self.collate = Collator(
            prompts or Prompts(),
            self.tokenizer,
            vision,
            cache,
            media_token=self.bridge.media_token,
            chunk_token=self.bridge.chunk_token,
            context_length=language.lm.context_length,
            prefix_apart=not config.gate_all_text,
            config=collate or CollateConfig(),
        )

    @property
    def prompts(self) -> Prompts:
        """The templates for questions and captions."""
        return self.collate.prompts

    @property
    def dtype(self) -> torch.dtype:
        """The number type in which language model and bridge compute; trained parameters are kept in float32."""
        return self.bridge.lm.dtype

    def _arithmetic(self) -> torch.autocast:
        return autocast(self.device, self.dtype)

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """Why the model cannot read prompts with these media; see :class:`vislang.capabilities.Reads`."""
        if "audio" in media:
            return "reads text, images and videos, but no audio"
        if "video" in media and not self.bridge.config.frames:
            return "was trained on images only (bridge.frames is 0)"
        return None

    def drop_examples(self) -> None:
        """From now on, drop the first examples of a prompt that is too long, with a warning."""
        self.collate.config = dataclasses.replace(self.collate.config, too_long="drop")

    # Training

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Mean cross-entropy over the targets, in nats."""
        batch = self.with_features(batch)
        with self._arithmetic():
            return self.runner.losses(batch)

    def loss_counts(self, batch: Batch) -> dict[str, int | None]:
        """The targets."""
        return {"text": int((batch.targets != IGNORED).sum())}

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Encode the media of examples and cache repeated texts; see :meth:`prepare_documents`.

        Examples with a target, and pages, are rendered as in training, others as prompts.

        Raises:
            UserError: an example has a target and no text to learn.
            MediaError: a medium cannot be used; those before it are kept.
        """
        learned = [e.target is not None or any(isinstance(p, Learned) for p in e.prompt.parts) for e in examples]
        rendered = [
            self.collate.to_learn(example) if learn else self.prompts.render(example)
            for example, learn in zip(examples, learned, strict=True)
        ]
        return self.prepare_documents(rendered, progress)

    def prepare_documents(
        self, documents: Sequence[Document], progress: Progress | None = None, chunk: int = 32
    ) -> int:
        """Encode the media of documents, and cache repeated texts.

        Media that are not in the cache are encoded and kept on disk. The language model's states of texts that occur
        more than once are kept in memory.

        Args:
            documents: with targets for training, without targets for generation.
            progress: called with (media done, media in all).
            chunk: number of frames, or texts, at a time.

        Returns:
            The number of media encoded.

        Raises:
            MediaError: a medium cannot be used; the media before it stay in the cache.
        """
        self._keep_repeated(documents, chunk)
        cache = self.collate.cache
        if cache is None:
            return 0
        media = {self.collate.key(medium): medium for document in documents for medium in _visual(document)}
        missing = [(key, medium) for key, medium in media.items() if key not in cache]
        if progress is not None and missing:
            progress(0, len(missing))
        waiting: list[tuple[str, Tensor]] = []
        for done, (key, medium) in enumerate(missing, start=1):
            waiting.append((key, self.collate.pixels(medium)))
            if sum(len(pixels) for _, pixels in waiting) >= chunk or done == len(missing):
                encoded = self.vision(torch.cat([pixels for _, pixels in waiting]).to(self.device)).cpu()
                for (known, _), features in zip(waiting, encoded.split([len(p) for _, p in waiting]), strict=True):
                    # The features of an image are stored without a dimension of frames.
                    cache.put(known, features if isinstance(media[known], Video) else features[0])
                waiting = []
            if progress is not None:
                progress(done, len(missing))
        return len(missing)

    @torch.no_grad()
    def fit(self, examples: Sequence[Example]) -> None:
        """Measure the mean and standard deviation of each feature channel, on media evenly spaced over the prepared
        training examples; with ``standardise_text``, also those of the text."""
        prompts = (as_generation(each).prompt for example in examples for each in (*example.shots, example))
        distinct = {medium.content_hash: medium for prompt in prompts for medium in _visual(prompt)}
        chosen = list(distinct.values())[:: max(1, len(distinct) // MEASURED_MEDIA)]
        measured = []
        for start in range(0, len(chosen), 64):
            one_each = [Document([medium]) for medium in chosen[start : start + 64]]
            batch = self.with_features(self.collate.documents(one_each))
            assert batch.features is not None
            frames = torch.ones(len(batch.features), dtype=torch.long) if batch.frames is None else batch.frames
            measured += [medium[:count].flatten(0, 1) for medium, count in zip(batch.features, frames, strict=True)]
        if measured:
            self.bridge.resampler.standardise(torch.cat(measured)[None])
        if self.bridge.config.standardise_text:
            self._standardise_text(examples)

    def _standardise_text(self, examples: Sequence[Example]) -> None:
        """Standardise the input of the gated blocks, on questions evenly spaced over the distinct ones of the examples.

        Raises:
            UserError: the examples do not have two different questions about media.
        """
        distinct = list({each.text: each for each in examples if each.text and each.media and each.target}.values())
        if len(distinct) < 2:
            raise UserError(
                f"bridge.standardise_text: the training examples have {len(distinct)} different questions about media; "
                "two are needed. Turn standardise_text off."
            )
        chosen = distinct[:: max(1, len(distinct) // MEASURED_QUESTIONS)]
        measured = []
        for start in range(0, len(chosen), 32):
            prompts = [self.prompts.render(example.without_target()) for example in chosen[start : start + 32]]
            with self._arithmetic():
                measured.append(self.runner.gate_inputs(self.with_features(self.collate.documents(prompts))))
        for layer in self.bridge.gated_layers:
            self.bridge.block(layer).standardise(torch.cat([found[layer] for found in measured]))

    def _keep_repeated(self, documents: Sequence[Document], chunk: int) -> None:
        if not self.runner.texts_are_frozen:
            return
        words = (tuple(None if isinstance(part, Medium) else part for part in d.parts) for d in documents)
        texts = list(zip(words, (d.target for d in documents), strict=True))
        repeated = {text for text, count in Counter(texts).items() if count > 1}
        chosen = {text: d for text, d in zip(texts, documents, strict=True) if text in repeated}
        # Prompts first: a prompt with its answer is then computed from the answer on.
        for to_continue in (True, False):
            group = [d.without_media() for d in chosen.values() if (d.target is None) == to_continue]
            group.sort(key=lambda d: sum(len(part) for part in d.parts if isinstance(part, str)))
            for start in range(0, len(group), chunk):
                batch = self.with_features(self.collate.documents(group[start : start + chunk]))
                if batch.segments is None:
                    with self._arithmetic():
                        self.runner.keep_texts(batch, to_continue)

    # Ranking

    def score(self, documents: Sequence[Document], batch_size: int = 64) -> list[Score]:
        """The log-likelihood of each document's target, including the end-of-text token.

        Raises:
            UserError: a document has no target.
        """
        for document in documents:
            if document.target is None:
                raise UserError(f"{document.name or 'a document'}: has no target, so there is nothing to score.")
        targets = [[document.target or ""] for document in documents]
        return [own for (own,) in self.rank(documents, targets, batch_size)]

    def rank(
        self,
        documents: Sequence[Document],
        options: Sequence[str] | Sequence[Sequence[str]],
        batch_size: int = 16,
        state: DecodeState | None = None,
        progress: Progress | None = None,
    ) -> list[list[Score]]:
        """The log-likelihood of each option after each document, including the end-of-text token.

        Args:
            documents: prompts; each is read once.
            options: one list for all documents, or a list for each document.
            batch_size: documents at a time.
            state: a decode state from :meth:`prefill` that precedes the documents.
            progress: called with (documents done, documents in all).

        Raises:
            UserError: prompt and option together are too long for the language model, or a likelihood is not finite.
        """
        each = _options_of_each(options, len(documents))
        found: list[list[Score]] = []
        for start in range(0, len(documents), batch_size):
            part = slice(start, start + batch_size)
            found += self._rank(documents[part], each[part], state)
            if progress is not None:
                progress(len(found), len(documents))
        return found

    def _rank(
        self, documents: Sequence[Document], options: Sequence[Sequence[str]], state: DecodeState | None
    ) -> list[list[Score]]:
        after = self._prefill(documents, state)
        rooms = self._rooms(after)
        answers: list[tuple[int, list[int]]] = []
        for row, (document, own, room) in enumerate(zip(documents, options, rooms, strict=True)):
            for option in own:
                tokens = self.collate.answer(document, option)
                if room is not None and len(tokens) > room:
                    raise UserError(
                        f"{document.name or 'a document'}: an answer of {len(tokens)} tokens does not fit; the "
                        f"language model has room for {room} more. Shorten the prompt, or give fewer examples."
                    )
                answers.append((row, tokens))
        scores: list[list[Score]] = [[] for _ in documents]
        for start in range(0, len(answers), RANKED_AT_ONCE):
            part = answers[start : start + RANKED_AT_ONCE]
            rows = torch.tensor([row for row, _ in part], device=self.device)
            ids, mask = _padded([tokens for _, tokens in part], self.device)
            with self._arithmetic():
                found = self.runner.log_likelihoods_after(after, rows, ids, mask).tolist()
            for (row, tokens), value in zip(part, found, strict=True):
                scores[row].append(Score(value, len(tokens)))
        return scores

    # Generation

    def prefill(self, document: Document, state: DecodeState | None = None) -> DecodeState:
        """Read the common beginning of many prompts, such as examples.

        The result is the argument ``state`` of :meth:`generate`, :meth:`complete`, :meth:`stream` and :meth:`rank`; it
        can be used any number of times.
        """
        return self._prefill([document], state)

    def prefill_each(self, documents: Sequence[Document], state: DecodeState | None = None) -> list[DecodeState]:
        """See :meth:`vislang.capabilities.Continues.prefill_each`."""
        if len(documents) == 1:
            return [self.prefill(documents[0], state)]
        found: dict[int, DecodeState] = {}
        for group in _of_similar_length([self.collate.length(document) for document in documents]):
            read = self._prefill([documents[index] for index in group], state)
            for row, index in enumerate(group):
                own = torch.tensor([row], device=self.device)
                found[index] = read if len(group) == 1 else read.of(own).without_padding()
        return [found[index] for index in range(len(documents))]

    def prefixes(self, budget: int) -> Prefixes:
        """See :class:`~vislang.capabilities.Resumes`."""
        return Prefixes(budget)

    def resume(self, document: Document, prefixes: Prefixes) -> tuple[DecodeState | None, Document]:
        """The decode state after the examples of a prompt, and the rest of the prompt.

        The longest beginning in ``prefixes`` is not read again. What is read is kept there.

        Raises:
            MediaError: a medium cannot be used.
            UserError: the examples are too long for the language model.
        """
        examples, rest = split(document)
        if examples is None or self.collate.config.too_long == "drop":
            # Which examples are dropped depends on the whole prompt.
            return None, document
        read, state = prefixes.longest(examples) or (0, None)
        if read == len(examples.parts):
            prefixes.hits += 1
            return state, rest
        prefixes.misses += 1
        state = self.prefill(replace(examples, parts=examples.parts[read:]), state)
        prefixes.put(examples, state)
        return state, rest

    def pack(self, shots: Sequence[Example], path: Path) -> Prefix:
        """Read examples and write them, with all that the model computes of them, to a file; see
        :mod:`~vislang.models.flamingo.pack`.

        Args:
            shots: examples with their answers.
            path: the file.

        Raises:
            MediaError: a medium cannot be used.
            UserError: a shot has no answer in words, or the examples are too long for the language model.
        """
        document = Document(self.prompts.examples(shots), name=str(path))
        prefix = Prefix(document, self.prefill(document))
        batch = self.with_features(self.collate.documents([document]))
        with torch.no_grad(), self._arithmetic():
            latents = self.bridge.resampler(batch.features, batch.frames)
        write_pack(path, prefix, latents, self._makers(), self._pack_settings())
        return prefix

    def open_pack(self, path: Path) -> Prefix:
        """The examples of a file that :meth:`pack` wrote.

        Raises:
            UserError: it is damaged, or was made with another tower, bridge or other settings.
        """
        return read_pack(path, self._makers(), self._pack_settings(), self.device)

    def _makers(self) -> dict[str, str]:
        """The hashes of all that a decode state depends on."""
        return {
            "language model": self.language_fingerprint,
            "vision tower": self.vision.fingerprint,
            "bridge": fingerprint(self._saved_state()),
        }

    def _pack_settings(self) -> dict[str, Any]:
        """The settings that a decode state depends on, beside those that decide the shapes of weights."""
        bridge, collate = self.bridge.config, self.collate.config
        return {
            "prompts": dataclasses.asdict(self.prompts),
            "dtype": str(self.dtype).removeprefix("torch."),
            "quantize": self.quantized,
            "image_size": self.vision.image_size,
            "attend_to": bridge.attend_to,
            "gate_all_text": bridge.gate_all_text,
            "gated_layers": bridge.gated_layers,
            "scales": bridge.scales,
            "frames_per_second": collate.frames_per_second,
            "max_frames": collate.max_frames,
        }

    def _prefill(self, documents: Sequence[Document], state: DecodeState | None) -> DecodeState:
        """The decode state after several prompts."""
        prefilled = 0 if state is None else int(state.lengths.max())
        prompts = [document.without_target() for document in documents]
        with torch.no_grad():
            batch = self.with_features(self.collate.documents(prompts, prefilled=prefilled))
            with self._arithmetic():
                return self.runner.prefill(batch) if state is None else self.runner.extend(state, batch)

    def generate(
        self,
        documents: Sequence[Document],
        max_new_tokens: int = 20,
        batch_size: int = 64,
        state: DecodeState | None = None,
    ) -> list[str]:
        """The continuation of each document by greedy decoding.

        Raises:
            MediaError: a medium cannot be used.
            UserError: a document is empty or too long for the language model, or the model's output is not finite.
        """
        return [found.text for found in self.generate_scored(documents, max_new_tokens, batch_size, state)]

    def generate_scored(
        self,
        documents: Sequence[Document],
        max_new_tokens: int = 20,
        batch_size: int = 64,
        state: DecodeState | None = None,
    ) -> list[Completion]:
        """The same continuations with their log-likelihoods."""
        return [own[0] for own in self.complete(documents, Decoding(max_new_tokens), batch_size, state)]

    def complete(
        self,
        documents: Sequence[Document],
        decoding: Decoding,
        batch_size: int = 64,
        state: DecodeState | None = None,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """``decoding.returns`` continuations of each document.

        Args:
            documents: prompts.
            decoding: how text is decoded.
            batch_size: prompts at a time.
            state: a decode state from :meth:`prefill` that precedes the prompts.
            progress: called with (prompts done, prompts in all).

        Raises:
            MediaError: a medium cannot be used.
            UserError: a document is empty or too long for the language model, or the model's output is not finite.
        """
        found: list[list[Completion]] = []
        for start in range(0, len(documents), batch_size):
            part = documents[start : start + batch_size]
            found += self._complete(self._prefill(part, state), decoding)
            if progress is not None:
                progress(len(found), len(documents))
        return found

    def _complete(self, state: DecodeState, decoding: Decoding) -> list[list[Completion]]:
        """Continue each row by at most as many tokens as the context has room for; rows do not affect each other."""
        rows_by_length: dict[int, list[int]] = {}
        for row, room in enumerate(self._rooms(state)):
            rows_by_length.setdefault(self._fitting(decoding, room).max_new_tokens, []).append(row)
        found: dict[int, list[Completion]] = {}
        for length, rows in rows_by_length.items():
            own = state if len(rows_by_length) == 1 else state.of(torch.tensor(rows, device=self.device))
            with torch.no_grad(), self._arithmetic():
                stops = self._detokenizer.stops(decoding.stop)
                texts = generate(self.runner, own, replace(decoding, max_new_tokens=length), self._ends, stops)
            for row, generated in zip(rows, texts, strict=True):
                found[row] = [
                    Completion(self._detokenizer.text(text.tokens, decoding.stop), text.log_likelihood)
                    for text in generated
                ]
        return [found[row] for row in sorted(found)]

    def stream(
        self, document: Document, decoding: Decoding | None = None, state: DecodeState | None = None
    ) -> Iterator[str]:
        """The continuation of a document, piece by piece while it is generated.

        Raises:
            UserError: ``decoding`` has beams, whose text is not known before the end, or returns several texts.
        """
        decoding = decoding or Decoding()
        if decoding.beams > 1 or decoding.returns > 1:
            raise UserError("streaming gives one text, without beams; set beams and returns to 1.")
        shown = ""
        for (text,) in self.together().continuations(self._prefill([document], state), decoding):
            if len(text.text) > len(shown):
                yield text.text[len(shown) :]
                shown = text.text

    def together(self) -> Together:
        """See :class:`~vislang.capabilities.ContinuesTogether`."""
        return Together(self.runner, self._detokenizer, self._ends, self._arithmetic, self._fitting_after)

    def prompt_tokens(self, state: DecodeState) -> int:
        """The number of tokens of a state of one prompt; a medium is one token."""
        return int(state.lengths[0])

    def _rooms(self, state: DecodeState) -> list[int | None]:
        """How many tokens can follow each row; None means any number.

        The last generated token is not read again, so there may be one more token than positions.
        """
        length = self.collate.context_length
        return [None if length is None else length - count + 1 for count in state.lengths.tolist()]

    def _fitting_after(self, decoding: Decoding, state: DecodeState) -> Decoding:
        """See :meth:`_fitting`, for a state of one prompt."""
        return self._fitting(decoding, self._rooms(state)[0])

    def _fitting(self, decoding: Decoding, room: int | None) -> Decoding:
        """The same settings, with at most as many new tokens as the language model has positions for."""
        if room is None or decoding.max_new_tokens <= room:
            return decoding
        warnings.warn(
            f"at most {room} tokens are generated: the language model has {self.collate.context_length} positions, "
            "including the prompt.",
            PromptNotice,
            stacklevel=4,
        )
        return replace(decoding, max_new_tokens=room)

    @property
    def _ends(self) -> frozenset[int]:
        return frozenset({self.tokenizer.eos_token_id, self.collate.chunk_token})

    def ask(
        self,
        image: Image | Video,
        question: str | None = None,
        shots: Sequence[Example] = (),
        max_new_tokens: int = 20,
    ) -> str:
        """Answer a question about an image or a video, or write a caption without a question; after ``shots``."""
        example = Example(image.name, Document([image, question] if question else [image]))
        return self.generate([self.prompts.render(example, shots)], max_new_tokens)[0]

    @torch.no_grad()
    def embed(
        self, documents: Sequence[Document], batch_size: int = 64, *, progress: Progress | None = None
    ) -> Float[Tensor, "documents features_width"]:
        """The mean feature of each document's last image or video, for example to retrieve shots.

        Raises:
            UserError: a document has no image or video.
        """
        rows = []
        for start in range(0, len(documents), batch_size):
            part = documents[start : start + batch_size]
            for document in part:
                if not _visual(document):
                    raise UserError(f"{document.name or 'a document'}: contains no image to embed.")
            batch = self.with_features(self.collate.documents([Document(_visual(document)[-1:]) for document in part]))
            assert batch.features is not None
            frames = batch.features.new_ones(len(batch.features)) if batch.frames is None else batch.frames
            # Padded frames are zeros.
            means = batch.features.mean(dim=2).sum(dim=1) / frames[:, None]
            rows.append(means[batch.media_index[:, 0]].cpu())
            if progress is not None:
                progress(start + len(part), len(documents))
        return torch.cat(rows)

    def fitting(self, document: Document, text: str) -> str:
        """See :meth:`vislang.capabilities.Attends.fitting`."""
        return self.collate.fitting(document, text)

    @torch.no_grad()
    def attention(self, document: Document, max_new_tokens: int = 20) -> AttendedAnswer:
        """The answer token by token, with attention maps; see :meth:`Bridge.attention_maps`.

        The map of a token is that of the position that predicted it.
        """
        answer = document.target
        if answer is None:
            answer = self.fitting(document, self.generate([document], max_new_tokens)[0])
        batch = self.with_features(self.collate.documents([replace(document, target=answer)]))
        with self._arithmetic():
            shown = token_maps(self.bridge, batch, self._decode)
        return AttendedAnswer(shown, document.media, self.frames)

    def _decode(self, token: int) -> str:
        return self.tokenizer.decode([token], skip_special_tokens=True)

    @torch.no_grad()
    def chunk_attention(self, document: Document) -> ChunkAttention:
        """The attention of the document's target to each medium, and to each medium's text; see
        :class:`~vislang.capabilities.ChunkAttention`.

        Raises:
            UserError: the document has no target or no media.
        """
        if document.target is None or not document.media:
            raise UserError(f"{document.name or 'a document'}: needs media, and a target whose attention is shown.")
        batch = self.with_features(self.collate.documents([document]))
        with self._arithmetic():
            return chunk_shares(self.bridge, batch, len(document.media))

    def frames(self, medium: Medium) -> list[PIL.Image.Image]:
        """See :meth:`Collator.frames <vislang.models.flamingo.collate.Collator.frames>`."""
        return self.collate.frames(medium)

    def as_prepared(self, batch: Batch) -> Batch:
        """The batch with the features of its media, unless they are computed in every step."""
        return self.with_features(batch) if self.caches_features else batch

    def contents(self, batch: Batch) -> dict[str, int]:
        """Tokens without padding, and images; a video counts as its frames."""
        media = batch.media_index[batch.media_index >= 0].unique()
        frames = torch.ones(len(media)) if batch.frames is None else batch.frames[media]
        return {"tokens": batch.tokens, "images": int(frames.sum())}

    def parts(self) -> dict[str, nn.Module]:
        """As in the paper's table 5."""
        bridge = self.bridge
        return {
            "language model": bridge.lm,
            "vision encoder": self.vision,
            "gated blocks": bridge.gated_blocks,
            "resampler": bridge.resampler,
        }

    def recompute_activations(self) -> None:
        """Recompute the resampler's layers, the language model's with the gated blocks before them, and those of a
        vision tower that is trained."""
        super().recompute_activations()
        self.bridge.lm.recompute = True
        if self.vision.trains:
            self.vision.recompute_activations()

    def repeated_blocks(self) -> list[nn.Module]:
        """The resampler's layers, the gated blocks, and the language model's layers."""
        # A gated block's keys and values are projected before the block itself runs.
        gated = [
            (self.bridge.block(n).attention.to_keys_values, self.bridge.block(n)) for n in self.bridge.gated_layers
        ]
        return [*self.bridge.resampler.layers, *(part for parts in gated for part in parts), *self.bridge.lm.layers]

    def frozen_towers(self) -> list[nn.Module]:
        """The language model and the vision tower, unless they are trained. The latter runs for media without cached
        features alone, so that its blocks are none that every batch runs."""
        towers = (self.bridge.lm, self.vision)
        return [tower for tower in towers if not tower.trains]

    def run_uniformly(self) -> None:
        """Recall no texts: the language model reads each batch whole."""
        self.runner.recalls = False

    def rate_group(self, name: str) -> str:
        """``gates`` for the gates, whose learning rate decides how soon the bridge takes effect; ``language_model`` and
        ``vision_tower`` for the trained parameters of the towers; otherwise ``other``."""
        if name.endswith("_gate"):
            return "gates"
        towers = {"bridge.lm.": "language_model", "vision.": "vision_tower"}
        return next((group for start, group in towers.items() if name.startswith(start)), "other")

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Matrices and kernels, but no embeddings, whatever their names are in a tuned tower."""
        owner = self.get_submodule(name.rpartition(".")[0])
        return super().decays(name, parameter) and not isinstance(owner, nn.Embedding)

    def is_hidden_matrix(self, name: str, parameter: Tensor) -> bool:
        """See :meth:`TrainableModel.is_hidden_matrix`; the language model's output layer does not count."""
        head = self.bridge.lm.lm.get_output_embeddings()
        return super().is_hidden_matrix(name, parameter) and parameter is not head.weight

    def diagnostics(self) -> dict[str, float | Tensor]:
        """tanh of every gate."""
        return self.bridge.gates()

    def gated_layers(self) -> list[GatedLayer]:
        """How far each gate is open; see :meth:`Bridge.gates`."""
        gates = self.bridge.gates()
        return [
            GatedLayer(layer, float(gates[f"gate/{layer}/attention"]), float(gates[f"gate/{layer}/feed_forward"]))
            for layer in self.bridge.gated_layers
        ]

    def trainable_state(self) -> dict[str, Tensor]:
        """The parameters of the bridge, the trained parameters of the towers, and the feature statistics, by name."""
        own = {name: self.bridge.get_parameter(name).detach() for name in self._own}
        own |= {f"vision.{name}": self.vision.get_parameter(name).detach() for name in self._own_of_vision}
        return own | {f"resampler.{name}": value for name, value in self.bridge.resampler.named_buffers()}

    def save(self, folder: Path | str) -> None:
        """Write config, trained weights, tokenizer and a model card. The config records the towers' names and hashes;
        the weights include what was trained of the towers."""
        folder = Path(folder)
        settings = {
            "bridge": dataclasses.asdict(self.bridge.config),
            "prompts": dataclasses.asdict(self.prompts),
            "collate": dataclasses.asdict(self.collate.config),
            "dtype": str(self.dtype).removeprefix("torch."),
            "quantize": self.quantized,
            "tune": dataclasses.asdict(self.tuned),
            "origin": self.origin,
            "language_model": {"name": portable(self.language_name), "fingerprint": self.language_fingerprint},
            "vision_tower": {
                "name": portable(self.vision.name),
                "fingerprint": self.vision.fingerprint,
                "image_size": self.vision.image_size,
            },
        }
        write_model(folder, self, settings, self._saved_state())
        self.tokenizer.save_pretrained(folder)
        trained = sum(tensor.numel() for tensor in self.trainable_state().values())
        language = SavedTower(self.language_name, self.language_fingerprint)
        vision = SavedTower(self.vision.name, self.vision.fingerprint, self.vision.image_size)
        write_text(folder / "README.md", model_card(trained, language, vision, self.tuned))

    def _saved_state(self) -> dict[str, Tensor]:
        """The weights that are saved."""
        state = self.trainable_state()
        if isinstance(self.bridge.lm, CausalLMWithRows):
            state |= {"row_ids": self.bridge.lm.row_ids, "rows": self.bridge.lm.rows}
        return state

    @classmethod
    def load(cls, folder: Path, language_model: str | None = None, vision_tower: str | None = None) -> Flamingo:
        """Open a folder that :meth:`save` wrote. Tuned towers are frozen, and low-rank updates are merged.

        Args:
            folder: the folder.
            language_model: new location of the language model, if it has moved.
            vision_tower: new location of the vision tower, if it has moved.

        Raises:
            TowerError: a tower was not found, or has other weights than the one that the bridge was trained with.
            UserError: a setting of the config is wrong, or the weights do not fit it.
        """
        saved, state = read_settings(SavedFlamingo, folder), read_weights(folder)
        tuned = saved.tune
        language = load_language_tower(
            language_model or saved.language_model.name,
            getattr(torch, saved.dtype),
            saved.quantize,
            tuned.language_model,
            tuned.lora,
        )
        saved.language_model.check("language model", language.name, language.fingerprint)
        recorded = saved.vision_tower
        vision = load_vision_tower(
            vision_tower or recorded.name, recorded.image_size, saved.quantize, tuned.vision_tower, tuned.lora
        )
        recorded.check("vision tower", vision.name, vision.fingerprint)
        if "row_ids" in state:
            language.lm = CausalLMWithRows(language.lm.lm, state.pop("row_ids"), state.pop("rows"))
        model = cls(saved.bridge, language, vision, saved.prompts, saved.collate, origin=saved.origin, tuned=tuned)
        model.load_trainable_state(state)
        model._freeze_towers()
        return model.eval()

    def _freeze_towers(self) -> None:
        """Stop training the towers, so that features and text states may be kept again."""
        for tower in (self.bridge.lm, self.vision):
            tower.requires_grad_(False)
            merge_updates(tower)
        if self._own_of_vision:
            # The features of a tuned tower differ from those of the original tower.
            self.collate.cache = cache_of(self.vision, fingerprint(self.vision.state_dict()))

    def with_features(self, batch: Batch) -> Batch:
        """The batch on the model's device; pixels are encoded to features."""
        moved: dict[str, Any] = {
            part.name: value.to(self.device)
            for part in dataclasses.fields(batch)
            if isinstance(value := getattr(batch, part.name), Tensor)
        }
        batch = replace(batch, **moved)
        if batch.pixels is not None:
            assert batch.frames is not None
            features, frames = stack_frames(self.vision(batch.pixels).split(batch.frames.tolist()))
            batch = replace(batch, features=features, frames=frames, pixels=None)
        return batch


def _of_similar_length(lengths: Sequence[int]) -> list[list[int]]:
    """The indices of prompts in groups that are read together: each has at most :data:`READ_AT_ONCE` tokens, and at
    most half of them are padding."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        longest = lengths[groups[-1][0]] if groups else 0
        if groups and longest <= 2 * lengths[index] and longest * (len(groups[-1]) + 1) <= READ_AT_ONCE:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _visual(document: Document) -> list[Image | Video]:
    """The media of a document that a vision tower can encode."""
    return [part for part in document.parts if isinstance(part, Image | Video)]


def _options_of_each(options: Sequence[str] | Sequence[Sequence[str]], documents: int) -> list[list[str]]:
    """A list of options for each document.

    Raises:
        ValueError: the number of lists differs from that of documents.
    """
    if options and all(isinstance(option, str) for option in options):
        return [list(options)] * documents  # type: ignore[arg-type]
    if len(options) != documents:
        raise ValueError(f"{len(options)} lists of options for {documents} documents")
    return [list(own) for own in options]


def _padded(texts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids of several texts, padded on the right, and a mask that is 1 for real tokens; both (texts, tokens)."""
    ids = torch.zeros(len(texts), max(len(tokens) for tokens in texts), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(texts):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids.to(device), mask.to(device)
