"""Flamingo: Documents of text, images and videos in, text out (Alayrac et al. 2022).

Here the parts are put together. Then read :mod:`vislang.models.flamingo.bridge` (what trains, as the paper has it),
:mod:`~vislang.models.flamingo.collate` (documents to tokens), :mod:`~vislang.models.flamingo.prefill` (the same results
with less work) and :mod:`~vislang.models.flamingo.decoding` (how text is written).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vislang.cache import cache_folder
from vislang.capabilities import ModelRecipe, Progress, Score, TokenAttention
from vislang.document import Document, Image, Learned, Medium, Video
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.base import TrainableModel, read_settings, read_weights, write_model
from vislang.models.flamingo.bridge import Bridge, FlamingoConfig
from vislang.models.flamingo.collate import IGNORED, Batch, CollateConfig, Collator, PromptNotice, stack_frames
from vislang.models.flamingo.decoding import Decoding, Stops, generate, generate_stepwise
from vislang.models.flamingo.prefill import DecodeState, Runner
from vislang.models.precision import Precision, autocast, dtype_of
from vislang.models.towers.causal_lm import CausalLMWithRows
from vislang.models.towers.feature_cache import FeatureCache
from vislang.models.towers.language import LanguageTower, load_language_tower, outline_language_tower
from vislang.models.towers.packaged import EFFICIENTNET_LITE0, SMOLLM2, TowerError
from vislang.models.towers.vision import VisionTower, load_vision_tower, outline_vision_tower
from vislang.nn.fake import FakeFloats
from vislang.prompt import Prompts

RANKED_AT_ONCE = 64
"""Answers whose likelihoods are computed at a time: each has a copy of its prompt's keys and values."""

MEASURED_MEDIA = 1000
"""Media that the mean and the standard deviation of features are measured on."""


@dataclass(frozen=True)
class Completion:
    """A text that was written, and its log-likelihood in nats."""

    text: str
    log_likelihood: float


class Flamingo(TrainableModel):
    """Documents in, text out: the bridge with its towers, its tokenizer and its prompts.

    Args:
        config: shape of the bridge.
        language: the frozen language model.
        vision: the frozen vision tower.
        prompts: the templates around media and questions, in training and afterwards.
        collate: how documents become batches.
        cache_features: keep features of media on disk, so that each is encoded once.
        origin: where converted weights came from, for the record.
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
    ):
        super().__init__()
        self.origin = origin
        self.language_name, self.language_fingerprint = language.name, language.fingerprint
        self.quantized = language.quantized or vision.quantized
        self.tokenizer = language.tokenizer
        self.vision = vision
        if config.media_token is not None:
            media = torch.tensor([[config.media_token]])
        else:
            media = self.tokenizer(" image", add_special_tokens=False, return_tensors="pt")["input_ids"]
        self.bridge = Bridge(config, language.lm, vision.width, language.lm.embed(media)[0].mean(dim=0))
        self.runner = Runner(self.bridge)
        self.caches_features = cache_features
        cache = None
        if cache_features:
            folder = f"{vision.fingerprint[:32]}-{vision.image_size}{'-int8' if vision.quantized else ''}"
            cache = FeatureCache(cache_folder("features", folder))
        self.collate = Collator(
            prompts or Prompts(),
            self.tokenizer,
            vision,
            cache,
            self.bridge.media_token,
            self.bridge.chunk_token,
            language.lm.context_length,
            prefix_apart=not config.gate_all_text,
            config=collate or CollateConfig(),
        )

    @property
    def prompts(self) -> Prompts:
        """The templates around media and questions."""
        return self.collate.prompts

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the arithmetic in language model and bridge; what trains is kept in float32."""
        return self.bridge.lm.lm.dtype

    def _arithmetic(self) -> torch.autocast:
        return autocast(self.device, self.dtype)

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """Why the model cannot read prompts with these media; see :class:`vislang.capabilities.Reads`."""
        if "audio" in media:
            return "reads text, images and videos, and no audio"
        if "video" in media and not self.bridge.config.frames:
            return "was trained for images alone (bridge.frames is 0)"
        return None

    def drop_examples(self) -> None:
        """From now on leave the first examples of a prompt out where it is too long, with a warning."""
        self.collate.config = dataclasses.replace(self.collate.config, too_long="drop")

    # Training

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Mean cross-entropy over the targets, in nats."""
        batch = self.with_features(batch)
        with self._arithmetic():
            return self.runner.losses(batch)

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Compute once what these examples need again and again; see :meth:`prepare_documents`.

        Examples with a target, and pages, are rendered as in training; others as prompts.
        """
        learned = [e.target is not None or any(isinstance(p, Learned) for p in e.prompt.parts) for e in examples]
        rendered = [self.prompts.render(e, learn=learn) for e, learn in zip(examples, learned, strict=True)]
        return self.prepare_documents(rendered, progress)

    def prepare_documents(
        self, documents: Sequence[Document], progress: Progress | None = None, chunk: int = 32
    ) -> int:
        """Compute once what these documents need again and again.

        Media that are not in the cache are encoded and kept on disk. Texts that occur more than once are read by the
        language model and kept in memory.

        Args:
            documents: with targets for training, and without for generating.
            progress: called with (media done, media to do).
            chunk: frames, or texts, at a time.

        Returns:
            The number of media encoded.

        Raises:
            MediaError: a medium cannot be used; those before it are kept.
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
                    # An image's features are kept without a dimension of frames, as regions are.
                    cache.put(known, features if isinstance(media[known], Video) else features[0])
                waiting = []
            if progress is not None:
                progress(done, len(missing))
        return len(missing)

    def fit(self, examples: Sequence[Example]) -> None:
        """Measure the mean and the standard deviation of each channel of features, on media spread evenly over the
        prepared training examples."""
        documents = [self.prompts.render(example, learn=True) for example in examples]
        distinct = {medium.content_hash: medium for document in documents for medium in _visual(document)}
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

    def _keep_repeated(self, documents: Sequence[Document], chunk: int) -> None:
        words = (tuple(None if isinstance(part, Medium) else part for part in d.parts) for d in documents)
        texts = list(zip(words, (d.target for d in documents), strict=True))
        repeated = {text for text, count in Counter(texts).items() if count > 1}
        chosen = {text: d for text, d in zip(texts, documents, strict=True) if text in repeated}
        for to_continue in (False, True):
            group = [d.without_media() for d in chosen.values() if (d.target is None) == to_continue]
            group.sort(key=lambda d: sum(len(part) for part in d.parts if isinstance(part, str)))
            for start in range(0, len(group), chunk):
                batch = self.with_features(self.collate.documents(group[start : start + chunk]))
                if batch.segments is None:
                    with self._arithmetic():
                        self.runner.keep_texts(batch, to_continue)

    # Ranking

    def score(self, documents: Sequence[Document], batch_size: int = 64) -> list[Score]:
        """How likely each document's target is, its end included.

        Raises:
            UserError: a document without a target.
        """
        for document in documents:
            if document.target is None:
                raise UserError(f"{document.name or 'a document'}: has no target to score.")
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
        """How likely each option is to follow each document, its end included; a document is read once.

        Args:
            documents: prompts.
            options: the same for all documents, or a list for each.
            batch_size: documents at a time.
            state: what was read before them, from :meth:`prefill`.
            progress: called with (documents done, of how many).

        Raises:
            UserError: an option is too long for the language model after its prompt, or a likelihood is not finite.
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
                        f"{document.name or 'a document'}: an answer of {len(tokens)} tokens, and the language model "
                        f"has positions for {room} more. Shorten the prompt, or give fewer examples."
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

    # Writing

    def prefill(self, document: Document, state: DecodeState | None = None) -> DecodeState:
        """Read once what many prompts begin with, examples say.

        Give the result as ``state`` to :meth:`generate`, :meth:`complete`, :meth:`stream` or :meth:`rank`, any number
        of times.
        """
        return self._prefill([document], state)

    def _prefill(self, documents: Sequence[Document], state: DecodeState | None) -> DecodeState:
        """The decode state after each of several prompts."""
        prefilled = 0 if state is None else int(state.lengths.max())
        prompts = [document.without_target() for document in documents]
        batch = self.with_features(self.collate.documents(prompts, prefilled=prefilled))
        with torch.no_grad(), self._arithmetic():
            return self.runner.prefill(batch) if state is None else self.runner.extend(state, batch)

    def generate(
        self,
        documents: Sequence[Document],
        max_new_tokens: int = 20,
        batch_size: int = 64,
        state: DecodeState | None = None,
    ) -> list[str]:
        """The text that follows each document, decoded greedily.

        Raises:
            MediaError: a medium cannot be used.
            UserError: a document is empty or too long for the language model, or the model's output is not finite.
        """
        completions = self.complete(documents, Decoding(max_new_tokens), batch_size, state)
        return [own[0].text for own in completions]

    def complete(
        self,
        documents: Sequence[Document],
        decoding: Decoding,
        batch_size: int = 64,
        state: DecodeState | None = None,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """Texts that follow each document, as many as ``decoding.returns``.

        Args:
            documents: prompts.
            decoding: how text is decoded.
            batch_size: prompts at a time.
            state: what was read before them, from :meth:`prefill`.
            progress: called with (prompts done, of how many).

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
        """Continue each row, by no more tokens than there are positions for after it, whatever the other rows are."""
        rows_by_length: dict[int, list[int]] = {}
        for row, room in enumerate(self._rooms(state)):
            rows_by_length.setdefault(self._fitting(decoding, room).max_new_tokens, []).append(row)
        found: dict[int, list[Completion]] = {}
        for length, rows in rows_by_length.items():
            own = state if len(rows_by_length) == 1 else state.of(torch.tensor(rows, device=self.device))
            with torch.no_grad(), self._arithmetic():
                texts = generate(
                    self.runner, own, replace(decoding, max_new_tokens=length), self._ends, self._stops(decoding)
                )
            for row, generated in zip(rows, texts, strict=True):
                found[row] = [Completion(self._text(text.tokens, decoding), text.log_likelihood) for text in generated]
        return [found[row] for row in sorted(found)]

    def stream(
        self, document: Document, decoding: Decoding | None = None, state: DecodeState | None = None
    ) -> Iterator[str]:
        """The text that follows a document, piece by piece, as it is written.

        Raises:
            UserError: beams, whose text is not known before its end, or several texts.
        """
        decoding = decoding or Decoding()
        if decoding.beams > 1 or decoding.returns > 1:
            raise UserError("a text is streamed one at a time, and without beams.")
        after = self._prefill([document], state)
        fitting = self._fitting(decoding, self._rooms(after)[0])
        stepwise = generate_stepwise(self.runner, after, fitting, self._ends, self._stops(decoding))
        shown, text = "", ""
        while True:
            # The caller's own arithmetic and gradients are left alone between two pieces.
            with torch.no_grad(), self._arithmetic():
                texts = next(stepwise, None)
            if texts is None:
                break
            text = self._text(texts[0].tokens, decoding)
            # The last character may be incomplete, and the last characters may be the beginning of a stop.
            certain = text.rstrip("\ufffd")
            certain = certain[: len(certain) - _beginning_of_stop(certain, decoding.stop)]
            if len(certain) > len(shown) and certain.startswith(shown):
                yield certain[len(shown) :]
                shown = certain
        if text.startswith(shown) and len(text) > len(shown):
            yield text[len(shown) :]

    def _rooms(self, state: DecodeState) -> list[int | None]:
        """How many tokens can follow each row; None for any number.

        The last token that is written is not an input any more, so there may be one more than there are positions.
        """
        length = self.collate.context_length
        return [None if length is None else length - count + 1 for count in state.lengths.tolist()]

    def _fitting(self, decoding: Decoding, room: int | None) -> Decoding:
        """The same, with no more tokens than the language model has positions for."""
        if room is None or decoding.max_new_tokens <= room:
            return decoding
        warnings.warn(
            f"no more than {room} tokens are written: the language model has positions for "
            f"{self.collate.context_length}, the prompt included.",
            PromptNotice,
            stacklevel=4,
        )
        return replace(decoding, max_new_tokens=room)

    @property
    def _ends(self) -> frozenset[int]:
        return frozenset({self.tokenizer.eos_token_id, self.collate.chunk_token})

    def _stops(self, decoding: Decoding) -> Stops | None:
        if not decoding.stop:
            return None

        def stops(tokens: list[int]) -> bool:
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            return any(stop in text for stop in decoding.stop)

        return stops

    def _text(self, tokens: list[int], decoding: Decoding) -> str:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        ends = [text.index(stop) for stop in decoding.stop if stop in text]
        return text[: min(ends)].strip() if ends else text.strip()

    def ask(
        self,
        image: Image | Video,
        question: str | None = None,
        shots: Sequence[Example] = (),
        max_new_tokens: int = 20,
    ) -> str:
        """Answer a question about an image or a video, or caption it where there is no question, after any shots."""
        example = Example(image.name, Document([image, question] if question else [image]))
        return self.generate([self.prompts.render(example, shots)], max_new_tokens)[0]

    @torch.no_grad()
    def embed(
        self, documents: Sequence[Document], batch_size: int = 64, *, progress: Progress | None = None
    ) -> Float[Tensor, "documents features_width"]:
        """The vision tower's mean feature of each document's last image or video, to retrieve shots by, say.

        Raises:
            UserError: a document without an image or a video.
        """
        rows = []
        for start in range(0, len(documents), batch_size):
            part = documents[start : start + batch_size]
            for document in part:
                if not _visual(document):
                    raise UserError(f"{document.name or 'a document'}: no image in it to embed.")
            batch = self.with_features(self.collate.documents([Document(_visual(document)[-1:]) for document in part]))
            assert batch.features is not None
            frames = torch.ones(len(batch.features)) if batch.frames is None else batch.frames
            # Frames that are padding are zeros.
            means = batch.features.mean(dim=2).sum(dim=1) / frames[:, None]
            rows.append(means[batch.media_index[:, 0]].cpu())
            if progress is not None:
                progress(start + len(part), len(documents))
        return torch.cat(rows)

    def attention(self, document: Document, max_new_tokens: int = 20) -> list[TokenAttention]:
        """The answer, token by token, and what each token attended to; see :meth:`Bridge.attention_maps`.

        A token's map is that of the position that predicted it.
        """
        answer = document.target
        if answer is None:
            answer = self.generate([document], max_new_tokens)[0]
        batch = self.with_features(self.collate.documents([replace(document, target=answer)]))
        assert batch.features is not None
        with self._arithmetic():
            maps = self.bridge.attention_maps(batch)[0].float()
        maps = maps.unflatten(-1, batch.features.shape[1:3])
        side = round(maps.shape[-1] ** 0.5)
        # Videos with fewer frames than others end in padding.
        frames = (
            [maps.shape[2]] * maps.shape[1] if batch.frames is None else batch.frames[batch.media_index[0]].tolist()
        )
        shown = []
        for column in (batch.targets[0] != IGNORED).nonzero()[:, 0].tolist():
            token = self.tokenizer.decode([int(batch.targets[0, column])], skip_special_tokens=True)
            if token:
                of_media = zip(maps[column], frames, strict=True)
                grids = [grid[:count].unflatten(1, (side, side)).cpu() for grid, count in of_media]
                shown.append(TokenAttention(token, grids))
        return shown

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
        return {"tokens": int(batch.attention_mask.sum()), "images": int(frames.sum())}

    def parts(self) -> dict[str, nn.Module]:
        """As in the paper's table 5."""
        bridge = self.bridge
        return {
            "language model": bridge.lm,
            "vision encoder": self.vision,
            "gated blocks": bridge.gated_blocks,
            "resampler": bridge.resampler,
        }

    def rate_group(self, name: str) -> str:
        """``gates`` for the gates, whose learning rate decides how soon the bridge has an effect; ``other``."""
        return "gates" if name.endswith("_gate") else "other"

    def diagnostics(self) -> dict[str, float]:
        """tanh of every gate."""
        return self.bridge.gates()

    def trainable_state(self) -> dict[str, Tensor]:
        """Every parameter that trains and what was measured on the training media, by name; no towers."""
        trained = {name: p.detach() for name, p in self.bridge.named_parameters() if p.requires_grad}
        return trained | {f"resampler.{name}": value for name, value in self.bridge.resampler.named_buffers()}

    def save(self, folder: Path | str) -> None:
        """Write config, trained weights, tokenizer and a model card. The towers are recorded by name and hash."""
        folder = Path(folder)
        settings = {
            "bridge": dataclasses.asdict(self.bridge.config),
            "prompts": dataclasses.asdict(self.prompts),
            "collate": dataclasses.asdict(self.collate.config),
            "dtype": str(self.dtype).removeprefix("torch."),
            "quantize": self.quantized,
            "origin": self.origin,
            "language_model": {"name": _portable(self.language_name), "fingerprint": self.language_fingerprint},
            "vision_tower": {
                "name": _portable(self.vision.name),
                "fingerprint": self.vision.fingerprint,
                "image_size": self.vision.image_size,
            },
        }
        state = self.trainable_state()
        if isinstance(self.bridge.lm, CausalLMWithRows):
            state |= {"row_ids": self.bridge.lm.row_ids, "rows": self.bridge.lm.rows}
        write_model(folder, self, settings, state)
        self.tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(self._card(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, language_model: str | None = None, vision_tower: str | None = None) -> Flamingo:
        """Open a folder that :meth:`save` wrote.

        Args:
            folder: the folder.
            language_model: where the language model lies now, if it has moved.
            vision_tower: where the vision tower lies now, if it has moved.

        Raises:
            TowerError: a tower was not found, or its weights are not those that the bridge was trained on.
            UserError: a setting of the config is wrong, or the weights do not fit it.
        """
        saved, state = read_settings(SavedFlamingo, folder), read_weights(folder)
        language = load_language_tower(
            language_model or saved.language_model.name, getattr(torch, saved.dtype), saved.quantize
        )
        saved.language_model.check("language model", language.name, language.fingerprint)
        recorded = saved.vision_tower
        vision = load_vision_tower(vision_tower or recorded.name, recorded.image_size, saved.quantize)
        recorded.check("vision tower", vision.name, vision.fingerprint)
        if "row_ids" in state:
            language.lm = CausalLMWithRows(language.lm.lm, state.pop("row_ids"), state.pop("rows"))
        model = cls(saved.bridge, language, vision, saved.prompts, saved.collate, origin=saved.origin)
        model.load_trainable_state(state)
        return model.eval()

    def with_features(self, batch: Batch) -> Batch:
        """The batch on the model's device, its pixels (if it still has any) encoded."""
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

    def _card(self) -> str:
        trained = sum(p.numel() for p in self.bridge.parameters() if p.requires_grad)
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


@dataclass(frozen=True)
class SavedTower:
    """A frozen tower that a bridge was trained on, as its config records it."""

    name: str
    fingerprint: str
    image_size: int | None = None

    def check(self, kind: str, name: str, found: str) -> None:
        """Compare it with the tower that was opened.

        Raises:
            TowerError: that has other weights.
        """
        if found != self.fingerprint:
            raise TowerError(
                f"{kind} {name!r} is not the one that this bridge was trained on: its weights hash to {found[:16]}..., "
                f"and {self.fingerprint[:16]}... was recorded. Restore the original weights, or train again."
            )


@dataclass(frozen=True)
class SavedFlamingo:
    """The settings in a saved model's config.json; see :meth:`Flamingo.save`."""

    bridge: FlamingoConfig
    prompts: Prompts
    collate: CollateConfig
    dtype: Literal["float32", "bfloat16"]
    quantize: bool
    language_model: SavedTower
    vision_tower: SavedTower
    origin: dict[str, Any] | None = None


class Depth(NamedTuple):
    """How many layers of each kind a Flamingo has; its gated blocks are before the lowest of the language model's."""

    language: int
    gated: int
    resampler: int
    vision: int


@dataclass
class FlamingoRecipe(ModelRecipe):
    """The settings of a Flamingo in a recipe.

    Attributes:
        language_model: a folder, a packaged name or a Hub id; see :mod:`vislang.models.towers.packaged`.
        vision_tower: a folder, a packaged name or a Hub id; the folder of a trained dual encoder serves too.
        image_size: side of the square that images are resized to; None takes the tower's own.
        dtype: number type of the arithmetic in language model and bridge; ``auto`` takes bfloat16 where the machine
            multiplies it in hardware. What trains is kept, and updated, in float32.
        quantize: keep the linear maps of both towers in 8 bits: a quarter of the memory, at slightly lower accuracy.
        cache_features: encode each image once and keep its features on disk; otherwise it is encoded in every step.
        bridge: shape of what trains.
        prompts: the templates around media and questions.
        collate: how documents become batches.
    """

    language_model: str = SMOLLM2
    vision_tower: str = EFFICIENTNET_LITE0
    image_size: int | None = None
    dtype: Precision = "float32"
    quantize: bool = False
    cache_features: bool = True
    bridge: FlamingoConfig = field(default_factory=FlamingoConfig)
    prompts: Prompts = field(default_factory=Prompts)
    collate: CollateConfig = field(default_factory=CollateConfig)

    def build(self) -> Flamingo:
        """An untrained Flamingo between the two towers; its gates are shut.

        Raises:
            TowerError: a tower was not found.
        """
        language = load_language_tower(self.language_model, dtype_of(self.dtype), self.quantize)
        vision = load_vision_tower(self.vision_tower, self.image_size, self.quantize)
        return Flamingo(self.bridge, language, vision, self.prompts, self.collate, self.cache_features)

    def outline(self, fakes: FakeFloats, reads: bool = True, depth: Depth | None = None) -> Flamingo:
        """See :class:`~vislang.capabilities.Outlines`.

        Args:
            fakes: an active mode.
            reads: whether it makes batches of examples.
            depth: build no more layers than these; None builds all.

        Raises:
            TowerError: a tower was not found.
        """
        dtype, bridge = dtype_of(self.dtype), self.bridge
        if depth is not None:
            gated = list(range(depth.gated))
            bridge = replace(bridge, gated_layers=gated, scales=[1.0] * depth.gated, resampler_depth=depth.resampler)
        language = outline_language_tower(
            self.language_model, fakes, reads, dtype, self.quantize, depth and depth.language
        )
        vision = outline_vision_tower(
            self.vision_tower, fakes, reads, self.image_size, self.quantize, depth and depth.vision
        )
        with fakes.building():
            model = Flamingo(bridge, language, vision, self.prompts, self.collate, cache_features=False)
        model.caches_features = self.cache_features
        fakes.empty(model)
        return model

    def open(self, folder: Path) -> Flamingo:
        """A trained Flamingo."""
        return Flamingo.load(folder)


def _visual(document: Document) -> list[Image | Video]:
    """The media of a document that a vision tower can encode."""
    return [part for part in document.parts if isinstance(part, Image | Video)]


def _options_of_each(options: Sequence[str] | Sequence[Sequence[str]], documents: int) -> list[list[str]]:
    """A list of options for each document.

    Raises:
        ValueError: there are lists, and not one for each document.
    """
    if options and all(isinstance(option, str) for option in options):
        return [list(options)] * documents  # type: ignore[arg-type]
    if len(options) != documents:
        raise ValueError(f"{len(options)} lists of options for {documents} documents")
    return [list(own) for own in options]


def _padded(texts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids of several texts, padded on the right, and a mask of the real ones, both (texts, tokens)."""
    ids = torch.zeros(len(texts), max(len(tokens) for tokens in texts), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(texts):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids.to(device), mask.to(device)


def _beginning_of_stop(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a stop."""
    most = max((len(stop) for stop in stops), default=1) - 1
    return next((n for n in range(min(most, len(text)), 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0)


def _portable(name: str) -> str:
    """A tower's name as another process can use it: a local folder by its full path."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
