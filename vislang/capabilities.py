"""What a model can do, as protocols. Tasks, training and evaluation check these, and never a model's class."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from vislang.boxes import Box
from vislang.document import Document, Image, Medium
from vislang.errors import UserError
from vislang.example import Example, Prediction, shown_answer
from vislang.prompt import Prompts, shown

if TYPE_CHECKING:
    # torch takes seconds to import, and commands without a model do not need it.
    import PIL.Image
    import torch
    from torch import Tensor, nn

    from vislang.nn.fake import FakeFloats

Progress = Callable[[int, int], None]
"""Called with (items done, items in all) during long operations."""

LEAST_TEMPERATURE = 1e-3
"""Below this temperature, logits would overflow; 0 takes the most likely token."""

ALTERNATIVES = 8
"""Most answers that a notebook lists beside the one that was given."""

GREATEST_PENALTY = 10.0
"""The greatest absolute length penalty; beyond it, lengths to this power would overflow."""


@runtime_checkable
class Trainable(Protocol):
    """Can be trained by :mod:`vislang.train`: a module whose call returns its losses.

    :class:`~vislang.models.base.TrainableModel` has defaults for the methods that most models do not need.
    """

    collate: Callable[..., Any]
    needs_whole_batch: bool

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """The losses of a batch by name: scalars whose sum is minimised."""
        ...

    def loss_counts(self, batch: Any) -> Mapping[str, int | None]:
        """How many items each loss of a batch is a mean over; None for a sum."""
        ...

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Compute and cache features of these examples; returns the number of media that were processed."""
        ...

    def expand(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The training examples; for example, a model may make one of each reference of a caption."""
        ...

    def fit(self, examples: Sequence[Example]) -> None:
        """Compute statistics, vocabularies and labels from the prepared training examples, before the first step."""
        ...

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """The named parameters that are trained, by group; a recipe may scale the learning rate of a group."""
        ...

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay applies to a parameter."""
        ...

    def is_hidden_matrix(self, name: str, parameter: Tensor) -> bool:
        """Whether a parameter is the matrix of a hidden linear layer, which Muon may update."""
        ...

    def recompute_activations(self) -> None:
        """From now on, keep only the inputs of blocks for the backward pass (gradient checkpointing)."""
        ...

    def after_step(self) -> None:
        """Called after each optimizer step."""
        ...

    def as_prepared(self, batch: Any) -> Any:
        """The batch as :meth:`prepare` would let it be: with cached features, where the model caches them."""
        ...

    def contents(self, batch: Any) -> dict[str, int]:
        """How much a batch contains, by kind: ``tokens``, ``images`` and so on."""
        ...

    def parts(self) -> dict[str, nn.Module]:
        """The parts of the model by name, for a table of their sizes."""
        ...

    def diagnostics(self) -> dict[str, float | Tensor]:
        """Quantities to log during training, by name."""
        ...

    def check(self, diagnostics: Mapping[str, float], updates: int) -> None:
        """Called with the diagnostics of a step; raises an error where training should stop."""
        ...

    def repeated_blocks(self) -> list[nn.Module]:
        """The blocks that the model repeats, an inner one before the one that it is in."""
        ...

    def frozen_towers(self) -> list[nn.Module]:
        """Frozen parts that may be large."""
        ...

    def run_uniformly(self) -> None:
        """From now on run the same blocks equally often for any batch."""
        ...

    def trainable_state(self) -> dict[str, Tensor]:
        """The tensors of the model that a checkpoint must contain."""
        ...

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state` returned."""
        ...

    def extra_state(self) -> dict[str, Any]:
        """Everything else that a checkpoint must contain, as JSON values."""
        ...

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned; called first, because shapes may depend on it."""
        ...

    def save(self, folder: Path) -> None:
        """Write a folder that :func:`vislang.load` opens."""
        ...


class ModelRecipe(ABC):
    """The settings of a model in a recipe: a dataclass that can build the model.

    Attributes:
        needs_targets: whether the model learns from targets. If not, it is given only the media of each record, or the
            text of a record without media.
    """

    # It has no annotation, so it is not a setting of the dataclasses below.
    needs_targets = True

    @abstractmethod
    def build(self, device: torch.device | str = "cpu") -> Any:
        """The untrained model, on the host; ``device`` is where it will run, which decides what ``dtype: auto`` is."""

    @abstractmethod
    def open(self, folder: Path, device: torch.device | str = "cpu") -> Any:
        """The trained model of a run, from the folder that its ``save`` wrote, with the settings of this recipe; on the
        host, see :meth:`build`."""


@runtime_checkable
class Outlines(Protocol):
    """A recipe whose model can be built without weights, because it contains large pretrained models."""

    def outline(self, fakes: FakeFloats, reads: bool = True) -> Any:
        """The untrained model with fake weights: all shapes, in hardly any memory.

        Args:
            fakes: an active mode.
            reads: whether the model makes batches of examples. Otherwise it needs no tokenizer.
        """
        ...


@runtime_checkable
class Generates(Protocol):
    """Continues documents with text."""

    prompts: Prompts

    def generate(
        self, documents: Sequence[Document], max_new_tokens: int = 20, batch_size: int = 64, state: Any = None
    ) -> list[str]:
        """The continuation of each document by greedy decoding; with ``state``, after what was prefilled."""
        ...

    def generate_scored(
        self, documents: Sequence[Document], max_new_tokens: int = 20, batch_size: int = 64, state: Any = None
    ) -> list[Completion]:
        """The same continuations with their log-likelihoods."""
        ...


@dataclass(frozen=True)
class Completion:
    """A generated text, and its log-likelihood in nats, including the end-of-text token if it was generated."""

    text: str
    log_likelihood: float


@runtime_checkable
class Embeds(Protocol):
    """Computes a vector for each document."""

    def embed(self, documents: Sequence[Document], batch_size: int = 64, *, progress: Progress | None = None) -> Tensor:
        """(documents, width)."""
        ...


@runtime_checkable
class EmbedsDepths(Protocol):
    """Computes a vector for each document after any of its blocks."""

    @property
    def depth(self) -> int:
        """The number of blocks."""
        ...

    def embed_at(
        self,
        documents: Sequence[Document],
        depths: Sequence[int],
        batch_size: int = 64,
        encoder: Literal["student", "teacher"] = "student",
        parts: int = 1,
        progress: Progress | None = None,
    ) -> dict[int, Tensor]:
        """Vectors (documents, parts * width) for each depth, in one pass.

        Args:
            documents: each consists of one medium or text, and all have the same modality.
            depths: numbers of blocks, from 1 to :attr:`depth`.
            batch_size: documents at a time.
            encoder: the student's or the teacher's.
            parts: divide each sequence into this many equal parts, and concatenate their means.
            progress: called with (documents done, documents in all).
        """
        ...


@runtime_checkable
class Reveals(Protocol):
    """Shows which positions are masked, and how well they are predicted."""

    def reveal(self, documents: Sequence[Document], seed: int = 0) -> list[Revealed]:
        """One for each document; the masks depend only on the seed."""
        ...


@dataclass(frozen=True)
class Revealed:
    """A document with masked positions.

    Attributes:
        modality: ``text``, ``image`` or ``speech``.
        mask: (rows, columns) of an image's patches, or (1, tokens) of a sequence: True where it was masked.
        agreement: of the same shape, the explained variance at each masked position: 1 is a perfect prediction, 0 is as
            good as predicting the mean of all targets. NaN at positions that are not masked.
        tokens: the tokens of a text.
    """

    modality: str
    mask: Tensor
    agreement: Tensor
    tokens: list[str]


@runtime_checkable
class Caches(Protocol):
    """Caches on disk what it computes of each medium."""

    def keep_in_memory(self, media: int) -> None:
        """From now on cache what is computed of this many media, in memory and not on disk. A server calls it: the
        images of its clients are not to be kept."""
        ...


@runtime_checkable
class Reads(Protocol):
    """Can say which inputs it reads."""

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """Why the model cannot read prompts with these media, as a predicate ("reads no audio"); None if it can.

        Args:
            media: the media in the prompts of a task: ``text``, ``image``, ``several images``, ``video``, ``audio``.
        """
        ...


@runtime_checkable
class Ranks(Protocol):
    """Computes the likelihood of texts that continue a document."""

    prompts: Prompts

    def rank(
        self,
        documents: Sequence[Document],
        options: Sequence[str] | Sequence[Sequence[str]],
        batch_size: int = 16,
        state: Any = None,
        progress: Progress | None = None,
    ) -> list[list[Score]]:
        """The log-likelihood of each option after each document, including the end-of-text token.

        Args:
            documents: prompts.
            options: one list for all documents, or a list for each document.
            batch_size: documents at a time.
            state: a decode state from :meth:`Prefills.prefill` that precedes the documents.
            progress: called with (documents done, documents in all).
        """
        ...


@runtime_checkable
class Prefills(Protocol):
    """Reads the common beginning of many prompts once, and can continue from there any number of times."""

    def prefill(self, document: Document, state: Any = None) -> Any:
        """The decode state after a document, for the argument ``state`` of ``generate`` and ``rank``."""
        ...


@runtime_checkable
class Decides(Protocol):
    """Predicts targets with trained heads: answers, choices, boxes, labels or values.

    Attributes:
        heads: for each head, the kind of target that it predicts (:data:`vislang.example.TARGETS`).
    """

    heads: dict[str, str]

    def head_for(self, kind: str, name: str | None = None) -> str:
        """The head for a kind of target: the one of this name, or the only one.

        Raises:
            UserError: there is no such head, or several; the message lists them.
        """
        ...

    def why_undecided(self, kind: str, labels: Sequence[str] = (), images: int = 1) -> str | None:
        """Why no head predicts this kind of target with these labels from so many images together, as a predicate
        ("has no head for ..."); None if one does."""
        ...

    def decide(
        self,
        examples: Sequence[Example],
        head: str | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """A prediction for each example. The targets are not used.

        Without ``head``, the head is the one of the example's ``task``, or the only one for its kind of target.
        """
        ...


@runtime_checkable
class Matches(Protocol):
    """Compares images with texts."""

    def why_unmatched(self) -> str | None:
        """Why this model cannot compare images with texts, as a predicate ("has no ..."); None if it can."""
        ...

    def match_all(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        candidates: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Scores (images, texts), higher is better. Pairs that are False in ``candidates`` get minus infinity."""
        ...


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


class Together(Protocol):
    """Texts of several prompts that are generated together, and join and leave between two tokens."""

    @property
    def texts(self) -> int:
        """The number of texts that are being generated."""
        ...

    def continuations(
        self, state: Any, decoding: Decoding, top_tokens: int | None = None
    ) -> Iterator[list[Continuation]]:
        """The continuations of a decode state of one prompt, each time that they have grown.

        Iterators that are advanced in turn share their passes through the model. A text is the same as alone; its
        log-probabilities agree within 1e-3 (in float32). Closing an iterator takes its texts out.

        Args:
            state: from :meth:`Prefills.prefill`.
            decoding: how text is decoded, without beams.
            top_tokens: how many of the most likely tokens at each position to list; None lists no tokens at all.
        """
        ...


@runtime_checkable
class Continues(Generates, Prefills, Protocol):
    """Continues prompts token by token, greedily or by sampling."""

    def prefill_each(self, documents: Sequence[Document], state: Any = None) -> list[Any]:
        """The decode state after each of several prompts, as from :meth:`Prefills.prefill`. Prompts of similar lengths
        are read together, which does not change what follows them."""
        ...

    def prompt_tokens(self, state: Any) -> int:
        """The number of tokens of a decode state of one prompt; a medium is one token."""
        ...

    def together(self) -> Together:
        """An empty batch of texts."""
        ...


@dataclass(frozen=True)
class Prefix:
    """The examples at the beginning of a prompt, as a model has read them.

    Attributes:
        document: the examples, each ended by an EndOfChunk.
        state: the decode state after them, as from :meth:`Prefills.prefill`; None if there are none.
    """

    document: Document
    state: Any

    @property
    def is_empty(self) -> bool:
        """Whether there are no examples."""
        return not self.document.parts

    @cached_property
    def text(self) -> str:
        """The examples as one line of text, to record them."""
        return shown(self.document)


class Prefixes(Protocol):
    """A store of prefixes, bounded in bytes.

    Attributes:
        nbytes: bytes that are kept, without those of pinned prefixes.
        hits, misses: prompts with examples whose examples were known, and others.
    """

    nbytes: int
    hits: int
    misses: int

    def pin(self, prefix: Prefix) -> None:
        """Keep a prefix for ever, beside the budget."""
        ...


@runtime_checkable
class Resumes(Prefills, Protocol):
    """Keeps what it has read of the examples in prompts, in memory and in files."""

    def prefixes(self, budget: int) -> Prefixes:
        """An empty store of at most so many bytes."""
        ...

    def resume(self, document: Document, prefixes: Any) -> tuple[Any, Document]:
        """The decode state after the examples of a prompt, from the store if it has it, and the rest of the prompt.
        Without examples, None and the whole prompt."""
        ...

    def pack(self, shots: Sequence[Example], path: Path) -> Prefix:
        """Read examples and write their prefix to a file."""
        ...

    def open_pack(self, path: Path) -> Prefix:
        """The prefix in a file.

        Raises:
            UserError: the file is damaged, or was made by another model.
        """
        ...


@dataclass(frozen=True)
class Continuation:
    """A text that continues a prompt, while it is generated.

    Attributes:
        text: the text so far, as far as no later token can change it.
        length: its number of tokens.
        finish: ``stop`` where an end-of-text token or a stop string ended it, ``length`` where the number of tokens
            did; None while it goes on.
        tokens: its tokens with their likelihoods, if they were asked for.
    """

    text: str
    length: int
    finish: Literal["stop", "length"] | None = None
    tokens: tuple[TokenLikelihood, ...] = ()


@dataclass(frozen=True)
class TokenLikelihood:
    """A token as text, its log-probability in nats, and the most likely tokens at its position with theirs."""

    text: str
    log_probability: float
    top: tuple[tuple[str, float], ...] = ()


@runtime_checkable
class Scores(Protocol):
    """Computes the likelihood of texts."""

    def score(self, documents: Sequence[Document], batch_size: int = 64) -> list[Score]:
        """Log-likelihood of each document's target."""
        ...


@dataclass(frozen=True)
class Score:
    """The ``log_likelihood`` of a text in nats, summed over its ``tokens`` tokens including the end-of-text token."""

    log_likelihood: float
    tokens: int


@runtime_checkable
class Attends(Protocol):
    """Shows what each token of an answer attended to."""

    prompts: Prompts

    def attention(self, document: Document, max_new_tokens: int = 20) -> AttendedAnswer:
        """The answer token by token, with the attention map of each token."""
        ...

    def fitting(self, document: Document, text: str) -> str:
        """The beginning of an answer that the model can read again after a prompt. An answer that fills the context
        loses its last token: it was generated, but there is no position to read it at. Nothing of it fits if the prompt
        alone fills the context."""
        ...

    def frames(self, medium: Medium) -> list[PIL.Image.Image]:
        """The frames of a medium that the model reads; an image is one frame."""
        ...


@dataclass(frozen=True)
class GatedLayer:
    """How far the gates before a layer of the language model are open: the tanh of each, 0 where it is closed.

    Attributes:
        layer: index of the language model's layer.
        attention: of the cross-attention to the media.
        feed_forward: of the feed-forward layer after it.
    """

    layer: int
    attention: float
    feed_forward: float


@runtime_checkable
class ShowsGates(Protocol):
    """Reads media through gated layers (Flamingo, section 2.2)."""

    def gated_layers(self) -> list[GatedLayer]:
        """The gated layers, the lowest first."""
        ...


@runtime_checkable
class AttendsToChunks(Protocol):
    """Shows how much of an answer's attention goes to each chunk of a prompt: a medium with the text after it."""

    def chunk_attention(self, document: Document) -> ChunkAttention:
        """The attention of the document's target, which is the answer."""
        ...


@dataclass(frozen=True)
class ChunkAttention:
    """The mean attention of the tokens that predict an answer, by chunk.

    Attributes:
        text: (1 + media,) the share of the language model's self-attention on the tokens of each chunk, the mean over
            heads and layers. The first entry is the text before all media. None if the language model's attention
            cannot be recorded.
        media: (media,) the share of the cross-attention on each medium.
    """

    text: Tensor | None
    media: Tensor


@runtime_checkable
class Explains(Decides, Protocol):
    """Shows the attention between text and image regions."""

    def explain(self, example: Example, head: str | None = None) -> Explained:
        """The prediction for an example with one image, and its co-attention."""
        ...


@dataclass(frozen=True)
class CoAttention:
    """The attention weights of a co-attention layer.

    Attributes:
        text: (heads, tokens, regions) weights of each token over the regions.
        regions: (heads, regions, tokens) weights of each region over the tokens.
    """

    text: Tensor
    regions: Tensor


@dataclass(frozen=True)
class Explained:
    """A prediction and its co-attention. A notebook shows what each word attended to in the last layer.

    Attributes:
        tokens: the tokens of the text.
        boxes: the boxes of the regions in pixels; the first is the whole image.
        blocks: the co-attention layers in order.
        prediction: the prediction.
        image: the image.
    """

    tokens: list[str]
    boxes: list[Box]
    blocks: list[CoAttention]
    prediction: Prediction
    image: Image

    def _repr_html_(self) -> str:
        """The answer in a notebook with the best alternatives, and the mean attention of each word to the regions."""
        from vislang.attention_maps import emphasis, of_regions, overlay
        from vislang.notebook import KEY, block, note, picture, table, text

        found = self.prediction
        ranked = sorted(zip(found.scores, found.candidates, strict=True), key=lambda pair: -pair[0])[:ALTERNATIVES]
        best = [table("", (found.kind, "answer"), [(f"{score:.3f}", shown_answer(own)) for score, own in ranked])]
        frame = self.image.decode()
        regions = [(box.left, box.top, box.right, box.bottom) for box in self.boxes[1:]]
        shown = [picture(frame, self.image.name, note(self.image.name))]
        for token, row in zip(self.tokens, self.blocks[-1].text.mean(dim=0).numpy(), strict=True):
            over = overlay([frame], of_regions(regions, emphasis(row)[1:].tolist(), frame.size))
            shown.append(picture(over, f"attention of {token} to {self.image.name}", text(token)))
        answer = text(shown_answer(found.answer), strong=True)
        return block(block(answer), *(best if ranked else []), block(*shown), block(note(KEY)))


@dataclass(frozen=True)
class TokenAttention:
    """A token of an answer and its attention maps.

    Attributes:
        token: the token as text.
        maps: for each medium of the document (frames, height, width), the distribution of the token's attention; an
            image is one frame.
    """

    token: str
    maps: list[Tensor]


@dataclass(frozen=True)
class AttendedAnswer(Sequence[TokenAttention]):
    """An answer token by token, with what each token attended to. A notebook shows it over the images.

    Attributes:
        tokens: the tokens.
        media: the media of the document, in the order of the maps.
        frames: gives the frames of a medium, as the model reads them.
    """

    tokens: tuple[TokenAttention, ...]
    media: tuple[Medium, ...]
    frames: Callable[[Medium], list[PIL.Image.Image]]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Any) -> Any:
        return self.tokens[index]

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(token.token for token in self.tokens).strip()

    def _repr_html_(self) -> str:
        """The answer in a notebook; for each medium, what each of its tokens attended to."""
        from vislang.attention_maps import emphasis, overlay, shown_frames, side_by_side
        from vislang.notebook import KEY, block, note, picture, text
        from vislang.pictures import square

        rows = [block(text(self.text, strong=True))]
        for number, medium in enumerate(self.media):
            frames = self.frames(medium)
            shown = shown_frames(len(frames))
            kept = [frames[index] for index in shown]
            strip = side_by_side([square(frame) for frame in kept])
            row = [picture(strip, medium.name, note(medium.name), strip.width)]
            for token in self.tokens:
                over = overlay(kept, emphasis(token.maps[number].numpy())[shown])
                named = f"attention of {token.token!r} to {medium.name}"
                row.append(picture(over, named, text(token.token.strip() or "␣"), strip.width))
            rows.append(block(*row))
        return block(*rows, block(note(KEY)))
