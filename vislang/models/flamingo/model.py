"""Flamingo: Documents of text, images and videos in, text out (Alayrac et al. 2022).

The bridge between the two frozen towers is :mod:`vislang.models.flamingo.bridge`; how Documents become tokens,
:mod:`vislang.models.flamingo.collate`; how text is written, :mod:`vislang.models.flamingo.decoding`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import PIL.Image
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vislang.cache import cache_folder
from vislang.capabilities import ModelRecipe, Progress, Score, TokenAttention
from vislang.document import Document, Image, Medium, Video
from vislang.errors import UserError
from vislang.models.base import read_config, write_model
from vislang.models.flamingo.bridge import Bridge, FlamingoConfig, Reading
from vislang.models.flamingo.collate import IGNORED, Batch, CollateConfig, Collator, PromptNotice, stack_frames
from vislang.models.flamingo.decoding import Decoding, grow, write_on
from vislang.models.precision import Precision, autocast, dtype_of
from vislang.models.towers.causal_lm import CausalLMWithRows
from vislang.models.towers.feature_cache import FeatureCache
from vislang.models.towers.language import LanguageTower, load_language_tower
from vislang.models.towers.packaged import EFFICIENTNET_LITE0, SMOLLM2, TowerError
from vislang.models.towers.vision import VisionTower, load_vision_tower
from vislang.prompt import Prompts, Shot


@dataclass(frozen=True)
class Completion:
    """A text that was written, and its log-likelihood in nats."""

    text: str
    log_likelihood: float


class Flamingo(nn.Module):
    """Documents in, text out: the bridge with its towers, its tokenizer and its prompts.

    Args:
        config: shape of the bridge.
        language: the frozen language model.
        vision: the frozen vision tower.
        prompts: the words around media that it is trained and asked with.
        collate: how documents are read.
        cache_features: keep features of media on disk, so that each is encoded once.
        origin: where converted weights came from, for the record.
    """

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
        self.prompts = prompts or Prompts()
        self.language_name, self.language_fingerprint = language.name, language.fingerprint
        self.quantized = language.quantized or vision.quantized
        self.tokenizer = language.tokenizer
        self.vision = vision
        if config.media_token is not None:
            media = torch.tensor([[config.media_token]])
        else:
            media = self.tokenizer(" image", add_special_tokens=False, return_tensors="pt")["input_ids"]
        self.bridge = Bridge(config, language.lm, vision.width, language.lm.embed(media)[0].mean(dim=0))
        cache = None
        if cache_features:
            folder = f"{vision.fingerprint[:32]}-{vision.image_size}{'-int8' if vision.quantized else ''}"
            cache = FeatureCache(cache_folder("features", folder))
        self.collate = Collator(
            self.tokenizer,
            vision,
            cache,
            self.bridge.media_token,
            self.bridge.chunk_token,
            language.lm.context_length,
            read_prefix_apart=not config.gate_all_text,
            config=collate or CollateConfig(),
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

        Media that no run has encoded yet are encoded and kept on disk; texts that occur more than once are
        read by the language model and kept in memory.

        Args:
            documents: those to come, with targets for training and without for generating.
            progress: called with (media done, media to do).
            chunk: frames, or texts, at a time.

        Returns:
            The number of media encoded.

        Raises:
            MediaError: a medium cannot be used; those before it are kept.
        """
        self._read_repeated(documents, chunk)
        cache = self.collate.cache
        if cache is None:
            return 0
        media = {self.collate.key(medium): medium for d in documents for medium in _seen(d)}
        missing = [(mark, medium) for mark, medium in media.items() if mark not in cache]
        if progress is not None and missing:
            progress(0, len(missing))
        waiting: list[tuple[str, Tensor]] = []
        for done, (mark, medium) in enumerate(missing, start=1):
            waiting.append((mark, self.collate.pixels(medium)))
            if sum(len(pixels) for _, pixels in waiting) >= chunk or done == len(missing):
                encoded = self.vision(torch.cat([pixels for _, pixels in waiting]).to(self.device)).cpu()
                for (known, _), features in zip(waiting, encoded.split([len(p) for _, p in waiting]), strict=True):
                    # An image's features are kept without a dimension of frames, as regions are.
                    cache.put(known, features if isinstance(media[known], Video) else features[0])
                waiting = []
            if progress is not None:
                progress(done, len(missing))
        return len(missing)

    def fit(self, lessons: Sequence[Document], media: int = 1000) -> None:
        """Measure on the training media what is not learned: mean and deviation of each channel of features.

        Args:
            lessons: the training documents, prepared.
            media: media to measure on, evenly spread over the lessons.
        """
        known = {medium.content_hash: medium for d in lessons for medium in _seen(d)}
        chosen = list(known.values())[:: max(1, len(known) // media)]
        measured = []
        for start in range(0, len(chosen), 64):
            batch = self._with_features(self.collate([Document([medium]) for medium in chosen[start : start + 64]]))
            assert batch.features is not None
            frames = torch.ones(len(batch.features), dtype=torch.long) if batch.frames is None else batch.frames
            measured += [medium[:count].flatten(0, 1) for medium, count in zip(batch.features, frames, strict=True)]
        if measured:
            self.bridge.resampler.standardise(torch.cat(measured)[None])

    def _read_repeated(self, documents: Sequence[Document], chunk: int) -> None:
        words = (tuple(None if isinstance(part, Medium) else part for part in d.parts) for d in documents)
        texts = list(zip(words, (d.target for d in documents), strict=True))
        repeated = {text for text, count in Counter(texts).items() if count > 1}
        chosen = {text: d for text, d in zip(texts, documents, strict=True) if text in repeated}
        for to_continue in (False, True):
            group = [d.without_media() for d in chosen.values() if (d.target is None) == to_continue]
            group.sort(key=lambda d: sum(len(part) for part in d.parts if isinstance(part, str)))
            for start in range(0, len(group), chunk):
                batch = self._with_features(self.collate(group[start : start + chunk]))
                if batch.segments is None:
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
        for start in range(0, len(documents), batch_size):
            part = documents[start : start + batch_size]
            scores += [found for (found,) in self._ranked(part, [[d.target or ""] for d in part], None)]
        return scores

    def rank(
        self,
        documents: Sequence[Document],
        options: Sequence[str],
        batch_size: int = 16,
        after: Reading | None = None,
        progress: Progress | None = None,
    ) -> list[list[Score]]:
        """How likely each of the given answers is to follow each document, its end included; the document is read once.

        Args:
            documents: prompts.
            options: answers.
            batch_size: documents at a time.
            after: what was read before them, from :meth:`read`.
            progress: called with (documents done, of how many).
        """
        found: list[list[Score]] = []
        for start in range(0, len(documents), batch_size):
            part = documents[start : start + batch_size]
            found += self._ranked(part, [list(options)] * len(part), after)
            if progress is not None:
                progress(len(found), len(documents))
        return found

    def _ranked(
        self, documents: Sequence[Document], options: Sequence[Sequence[str]], after: Reading | None
    ) -> list[list[Score]]:
        """As many options for each document."""
        said = [
            [self.collate.answer(document, option) for option in own]
            for document, own in zip(documents, options, strict=True)
        ]
        flat = [tokens for own in said for tokens in own]
        most = max(len(tokens) for tokens in flat)
        ids = torch.zeros(len(flat), most, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(flat):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        reading = self._begun(documents, after)
        if (room := self._room(reading)) is not None and most > room:
            raise UserError(
                f"{documents[0].name or 'a document'} or one beside it: an answer of {most} tokens, and the language "
                f"model has positions for {room} more. Shorten the prompt, or give fewer examples."
            )
        with self._arithmetic():
            found = self.bridge.log_likelihoods_after(reading, ids.to(self.device), mask.to(self.device)).tolist()
        scores = [Score(value, len(tokens)) for value, tokens in zip(found, flat, strict=True)]
        each = len(scores) // len(documents)
        return [scores[start : start + each] for start in range(0, len(scores), each)]

    def read(self, document: Document, after: Reading | None = None) -> Reading:
        """Read the beginning that many prompts share, examples say, once for all of them.

        Give the result as ``after`` to :meth:`generate`, :meth:`write` or :meth:`rank`, any number of times.
        """
        return self._begun([document], after)

    def _begun(self, documents: Sequence[Document], after: Reading | None) -> Reading:
        """Prompts as the bridge has read them."""
        begun = 0 if after is None else int(after.lengths.max())
        batch = self._with_features(self.collate([document.without_target() for document in documents], begun=begun))
        with torch.no_grad(), self._arithmetic():
            return self.bridge.read(batch) if after is None else self.bridge.read_on(after, batch)

    def generate(
        self,
        documents: Sequence[Document],
        max_new_tokens: int = 20,
        batch_size: int = 64,
        after: Reading | None = None,
    ) -> list[str]:
        """The text that follows each document, most likely token by most likely token.

        Raises:
            MediaError: a medium cannot be used.
            UserError: a document is empty or too long for the language model.
        """
        written = self.write(documents, Decoding(max_new_tokens), batch_size, after)
        return [texts[0].text for texts in written]

    def write(
        self,
        documents: Sequence[Document],
        decoding: Decoding,
        batch_size: int = 64,
        after: Reading | None = None,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """Texts that follow each document, as many as ``decoding.returns``.

        Args:
            documents: prompts.
            decoding: how to write.
            batch_size: prompts at a time.
            after: what was read before them, from :meth:`read`.
            progress: called with (prompts done, of how many).

        Raises:
            MediaError: a medium cannot be used.
            UserError: a document is empty or too long for the language model.
        """
        found: list[list[Completion]] = []
        for start in range(0, len(documents), batch_size):
            part = documents[start : start + batch_size]
            reading = self._begun(part, after)
            fitting = self._fitting(decoding, reading)
            with torch.no_grad(), self._arithmetic():
                texts = write_on(self.bridge, reading, fitting, self._ends, self._stops(decoding))
            for own in texts:
                found.append([Completion(self._text(w.tokens, decoding), w.log_likelihood) for w in own])
            if progress is not None:
                progress(len(found), len(documents))
        return found

    def stream(
        self, document: Document, decoding: Decoding | None = None, after: Reading | None = None
    ) -> Iterator[str]:
        """The text that follows a document, piece by piece, as it is written.

        Raises:
            UserError: beams were asked for, whose text is not known before its end.
        """
        decoding = decoding or Decoding()
        if decoding.beams > 1 or decoding.returns > 1:
            raise UserError("a text is streamed one at a time, and without beams.")
        reading = self._begun([document], after)
        growing = grow(self.bridge, reading, self._fitting(decoding, reading), self._ends, self._stops(decoding))
        shown, text = "", ""
        while True:
            # The caller's own arithmetic and gradients are left alone between two pieces.
            with torch.no_grad(), self._arithmetic():
                texts = next(growing, None)
            if texts is None:
                break
            text = self._text(texts[0].tokens, decoding)
            # Half a character may be there, or the beginning of what ends the text.
            sure = text.rstrip("\ufffd")
            sure = sure[: len(sure) - _begun_stop(sure, decoding.stop)]
            if len(sure) > len(shown) and sure.startswith(shown):
                yield sure[len(shown) :]
                shown = sure
        if text.startswith(shown) and len(text) > len(shown):
            yield text[len(shown) :]

    def _room(self, reading: Reading) -> int | None:
        """How many tokens can follow what was read; None for any number.

        The last one written is not read again, so there may be one more than there are positions.
        """
        length = self.collate.context_length
        return None if length is None else length - int(reading.lengths.max()) + 1

    def _fitting(self, decoding: Decoding, reading: Reading) -> Decoding:
        """The same, with no more tokens than the language model has positions for."""
        room = self._room(reading)
        if room is None or decoding.max_new_tokens <= room:
            return decoding
        warnings.warn(
            f"no more than {room} tokens are written: the language model has positions for "
            f"{self.collate.context_length}, the prompt included.",
            PromptNotice,
            stacklevel=3,
        )
        return replace(decoding, max_new_tokens=room)

    @property
    def _ends(self) -> frozenset[int]:
        return frozenset({self.tokenizer.eos_token_id, self.collate.chunk_token})

    def _stops(self, decoding: Decoding):
        if not decoding.stop:
            return None

        def stops(tokens: list[int]) -> bool:
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            return any(stop in text for stop in decoding.stop)

        return stops

    def _text(self, tokens: list[int], decoding: Decoding) -> str:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        places = [text.index(stop) for stop in decoding.stop if stop in text]
        return text[: min(places)].strip() if places else text.strip()

    def ask(
        self,
        image: Image | Video,
        question: str | None = None,
        shots: Sequence[Shot] = (),
        max_new_tokens: int = 20,
    ) -> str:
        """Answer a question about an image or a video, or caption it where no question is asked, after any examples."""
        return self.generate([self.prompts.ask(image, question, shots)], max_new_tokens)[0]

    @torch.no_grad()
    def embed(
        self, documents: Sequence[Document], batch_size: int = 64, *, progress: Progress | None = None
    ) -> Float[Tensor, "documents features_width"]:
        """The vision tower's mean feature of each document's last image or video; it chooses shots, say.

        Raises:
            UserError: a document without an image or a video.
        """
        rows = []
        for start in range(0, len(documents), batch_size):
            part = documents[start : start + batch_size]
            for document in part:
                if not _seen(document):
                    raise UserError(f"{document.name or 'a document'}: no image in it to embed.")
            batch = self._with_features(self.collate([Document(_seen(document)[-1:]) for document in part]))
            assert batch.features is not None
            frames = torch.ones(len(batch.features)) if batch.frames is None else batch.frames
            # Frames that are padding are zeros.
            means = batch.features.mean(dim=2).sum(dim=1) / frames[:, None]
            rows.append(means[batch.media_index[:, 0]].cpu())
            if progress is not None:
                progress(start + len(part), len(documents))
        return torch.cat(rows)

    def attention(self, document: Document, max_new_tokens: int = 20) -> list[TokenAttention]:
        """What is answered, token by token, and where each token looked; see :meth:`Bridge.attention_maps`.

        A token's map is that of the position which predicted it.
        """
        answer = document.target
        if answer is None:
            answer = self.generate([document], max_new_tokens)[0]
        batch = self._with_features(self.collate([replace(document, target=answer)]))
        assert batch.features is not None
        with self._arithmetic():
            maps = self.bridge.attention_maps(batch)[0].float()
        maps = maps.unflatten(-1, batch.features.shape[1:3])
        side = round(maps.shape[-1] ** 0.5)
        # Of videos with fewer frames than others the rest is padding.
        frames = (
            [maps.shape[2]] * maps.shape[1] if batch.frames is None else batch.frames[batch.media_index[0]].tolist()
        )
        shown = []
        for column in (batch.targets[0] != IGNORED).nonzero()[:, 0].tolist():
            token = self.tokenizer.decode([int(batch.targets[0, column])], skip_special_tokens=True)
            if token:
                read = zip(maps[column], frames, strict=True)
                grids = [grid[:count].unflatten(1, (side, side)).cpu() for grid, count in read]
                shown.append(TokenAttention(token, grids))
        return shown

    def frames(self, medium: Medium) -> list[PIL.Image.Image]:
        """See :meth:`Collator.frames <vislang.models.flamingo.collate.Collator.frames>`."""
        return self.collate.frames(medium)

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
            language_model: where the language model lies now, if no longer where it was.
            vision_tower: where the vision tower lies now, likewise.

        Raises:
            TowerError: a tower was not found, or its weights are not those that the bridge was trained on.
            UserError: the weights do not fit the config.
        """
        config = read_config(folder)
        quantize = config["quantize"]
        language = load_language_tower(
            language_model or config["language_model"]["name"], getattr(torch, config["dtype"]), quantize
        )
        _same_tower("language model", language.name, language.fingerprint, config["language_model"])
        seen = config["vision_tower"]
        vision = load_vision_tower(vision_tower or seen["name"], seen["image_size"], quantize)
        _same_tower("vision tower", vision.name, vision.fingerprint, seen)
        state = safetensors.torch.load_file(folder / "model.safetensors")
        if "row_ids" in state:
            language.lm = CausalLMWithRows(language.lm.lm, state.pop("row_ids"), state.pop("rows"))
        prompts, collate = Prompts(**config["prompts"]), CollateConfig(**config["collate"])
        model = cls(FlamingoConfig(**config["bridge"]), language, vision, prompts, collate, origin=config["origin"])
        model.load_trainable_state(state)
        return model.eval()

    def _trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.bridge.named_parameters() if p.requires_grad)

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._trainable()
        for name, measured in self.bridge.resampler.named_buffers():
            yield f"resampler.{name}", measured

    def _with_features(self, batch: Batch) -> Batch:
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
        language_model: a folder, a packaged name or a Hub id; see :mod:`vislang.models.towers.packaged`.
        vision_tower: likewise.
        image_size: side of the square that images are resized to; None takes the tower's own.
        dtype: arithmetic of language model and bridge; ``auto`` takes bfloat16 where the machine multiplies it in
            hardware. What trains is kept, and updated, in float32.
        quantize: keep the linear maps of both towers in 8 bits: a quarter of the memory, for a little accuracy.
        bridge: shape of what trains.
        prompts: the words around media.
        collate: how documents are read.
    """

    language_model: str = SMOLLM2
    vision_tower: str = EFFICIENTNET_LITE0
    image_size: int | None = None
    dtype: Precision = "float32"
    quantize: bool = False
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
        return Flamingo(self.bridge, language, vision, self.prompts, self.collate)

    def open(self, folder: Path) -> Flamingo:
        """A trained Flamingo."""
        return Flamingo.load(folder)


def _seen(document: Document) -> list[Image | Video]:
    """The media of a document that a vision tower can look at."""
    return [part for part in document.parts if isinstance(part, Image | Video)]


def _begun_stop(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a stop."""
    most = max((len(stop) for stop in stops), default=1) - 1
    return next((n for n in range(min(most, len(text)), 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0)


def _portable(name: str) -> str:
    """A tower's name as another process can use it: a local folder by its full path."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _same_tower(kind: str, name: str, found: str, recorded: dict[str, Any]) -> None:
    if found != recorded["fingerprint"]:
        raise TowerError(
            f"{kind} {name!r} is not the one that this bridge was trained on: its weights hash to {found[:16]}..., "
            f"and {recorded['fingerprint'][:16]}... was recorded. Restore the original weights, or train again."
        )
