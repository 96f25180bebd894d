"""What a model can do, as protocols: tasks, training and serving ask for these, never for a model's name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from vislang.boxes import Box
from vislang.document import Document, Image, Medium
from vislang.example import Example, Prediction
from vislang.prompt import Prompts

if TYPE_CHECKING:
    # torch takes seconds to import, and commands that need no model do without it.
    import PIL.Image
    from torch import Tensor, nn

    from vislang.nn.fake import FakeFloats

Progress = Callable[[int, int], None]
"""Called with (done, of how many) while something takes long."""


@runtime_checkable
class Trainable(Protocol):
    """Can be trained by :mod:`vislang.train`: a module whose call gives its losses. See
    :class:`~vislang.models.base.TrainableModel`, which has defaults for what most models leave empty."""

    collate: Callable[[Sequence[Example], int], Any]

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """The losses of a batch by name: scalars whose sum is minimised."""
        ...

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Compute what is computed once for these examples; returns for how many media it was."""
        ...

    def expand(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The examples that a step draws from: the same ones, or a pair for each reference, say."""
        ...

    def fit(self, examples: Sequence[Example]) -> None:
        """Measure on the prepared examples what is measured and not learned; once, before the first step."""
        ...

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """The named parameters that train, by group; a recipe may give a group its own rate."""
        ...

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay applies to a parameter."""
        ...

    def after_step(self) -> None:
        """Called after each optimizer step."""
        ...

    def as_prepared(self, batch: Any) -> Any:
        """The batch as it is once :meth:`prepare` has been called for its examples."""
        ...

    def contents(self, batch: Any) -> dict[str, int]:
        """How much a batch holds, by kind: ``tokens``, ``images`` and so on."""
        ...

    def parts(self) -> dict[str, nn.Module]:
        """The parts of the model by name, for a table of their sizes; what is in none of them is small."""
        ...

    def diagnostics(self) -> dict[str, float]:
        """Numbers worth watching in training, by name."""
        ...

    def trainable_state(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint must hold of the model."""
        ...

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state` gave."""
        ...

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside tensors, as JSON values."""
        ...

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` gave; called first, since shapes may depend on it."""
        ...

    def save(self, folder: Path) -> None:
        """Write a folder that :func:`vislang.load` opens."""
        ...


class ModelRecipe(ABC):
    """What a recipe says of a model: a dataclass of settings that can build it."""

    @abstractmethod
    def build(self) -> Any:
        """The untrained model."""

    @abstractmethod
    def open(self, folder: Path) -> Any:
        """The trained model of a run, from the folder that its ``save`` wrote, as the run had it."""


@runtime_checkable
class Outlines(Protocol):
    """A recipe's model that stands on large frozen ones, and can be built without any weights."""

    def outline(self, fakes: FakeFloats, reads: bool = True) -> Any:
        """The untrained model with fake weights: all its shapes, in hardly any memory.

        Args:
            fakes: an active mode.
            reads: whether it makes batches of examples. Otherwise tokenizers and the like need not be here.
        """
        ...


@runtime_checkable
class Generates(Protocol):
    """Continues documents with text."""

    prompts: Prompts

    def generate(
        self, documents: Sequence[Document], max_new_tokens: int = 20, batch_size: int = 64, state: Any = None
    ) -> list[str]:
        """The text that follows each document, decoded greedily, after what was prefilled."""
        ...


@runtime_checkable
class Embeds(Protocol):
    """Gives each document a vector."""

    def embed(self, documents: Sequence[Document], batch_size: int = 64, *, progress: Progress | None = None) -> Tensor:
        """(documents, width)."""
        ...


@runtime_checkable
class EmbedsDepths(Protocol):
    """Gives each document a vector after any of its blocks."""

    @property
    def depth(self) -> int:
        """How many blocks there are."""
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
        """(documents, parts * width) by depth, in one pass.

        Args:
            documents: each one medium or text; all of the same modality.
            depths: after how many blocks, from 1 to :attr:`depth`.
            batch_size: documents at a time.
            encoder: whose.
            parts: cut each sequence into so many equal parts, and give the mean of each, end to end.
            progress: called with (documents done, of how many).
        """
        ...


@runtime_checkable
class Reveals(Protocol):
    """Shows what was masked, and how well it was predicted."""

    def reveal(self, documents: Sequence[Document], seed: int = 0) -> list[Revealed]:
        """One a document; the masks follow from the seed."""
        ...


@dataclass(frozen=True)
class Revealed:
    """A document with masked positions.

    Attributes:
        modality: ``text``, ``image`` or ``speech``.
        mask: (rows, columns) of an image's patches, or (1, tokens) of a sequence: True where it was masked.
        agreement: of the same shape, the explained variance at each masked position: 1 is all of it, 0 is no more than
            the mean of all targets explains; NaN where nothing was masked.
        tokens: of a text.
    """

    modality: str
    mask: Tensor
    agreement: Tensor
    tokens: list[str]


@runtime_checkable
class Reads(Protocol):
    """Knows what it can read."""

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """Why the model cannot read prompts of this kind, in a clause that follows its name; None where it can.

        Args:
            media: what the prompts of a task hold: of ``text``, ``image``, ``several images``, ``video``, ``audio``.
        """
        ...


@runtime_checkable
class Ranks(Protocol):
    """Gives the likelihood of texts after a document."""

    prompts: Prompts

    def rank(
        self,
        documents: Sequence[Document],
        options: Sequence[str] | Sequence[Sequence[str]],
        batch_size: int = 16,
        state: Any = None,
        progress: Progress | None = None,
    ) -> list[list[Score]]:
        """The log-likelihood of each option after each document, the end of text included.

        Args:
            documents: prompts.
            options: the same for all documents, or a list for each.
            batch_size: documents at a time.
            state: what was prefilled before them, from :meth:`Prefills.prefill`.
            progress: called with (documents done, of how many).
        """
        ...


@runtime_checkable
class Prefills(Protocol):
    """Reads what many prompts begin with once, and continues from there as often as is wanted."""

    def prefill(self, document: Document, state: Any = None) -> Any:
        """The decode state after a document; given as ``state`` to ``generate`` and ``rank``."""
        ...


@runtime_checkable
class Decides(Protocol):
    """Decides by heads that were trained for it: answers, chooses, points, labels or measures.

    Attributes:
        heads: for each head, the kind of target that it decides (:data:`vislang.example.TARGETS`).
    """

    heads: dict[str, str]

    def head_for(self, kind: str, name: str | None = None) -> str:
        """The head that decides targets of a kind: the one that is named, or the only one.

        Raises:
            UserError: there is none, or there are several; the message lists them.
        """
        ...

    def why_undecided(self, kind: str, labels: Sequence[str] = ()) -> str | None:
        """Why no head decides targets of this kind, or none knows one of these labels, in a clause that follows the
        model's name; None where one does."""
        ...

    def decide(
        self,
        examples: Sequence[Example],
        head: str | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """One prediction an example; targets are not looked at.

        Without ``head``, the ``task`` of an example names it, or it is the only head of the kind of its target.
        """
        ...


@runtime_checkable
class Matches(Protocol):
    """Compares images with texts."""

    def why_unmatched(self) -> str | None:
        """Why the model as it was trained compares nothing, in a clause that follows its name; None where it does."""
        ...

    def match_all(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        candidates: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """(images, texts) scores, the higher the better; minus infinity where a pair is no candidate (a mask)."""
        ...


@runtime_checkable
class Scores(Protocol):
    """Gives the likelihood of texts."""

    def score(self, documents: Sequence[Document], batch_size: int = 64) -> list[Score]:
        """Log-likelihood of each document's target."""
        ...


@dataclass(frozen=True)
class Score:
    """How likely a text is: ``log_likelihood`` in nats, summed over ``tokens`` tokens, the end included."""

    log_likelihood: float
    tokens: int


@runtime_checkable
class Attends(Protocol):
    """Shows what it attended to."""

    prompts: Prompts

    def attention(self, document: Document, max_new_tokens: int = 20) -> list[TokenAttention]:
        """What is answered, token by token, and what each token attended to."""
        ...

    def frames(self, medium: Medium) -> list[PIL.Image.Image]:
        """The frames that it reads: one of an image, several of a video."""
        ...


@runtime_checkable
class Explains(Decides, Protocol):
    """Shows how text and image attended to each other."""

    def explain(self, example: Example, head: str | None = None) -> Explained:
        """The prediction for an example of one image, and the co-attention that led to it."""
        ...


@dataclass(frozen=True)
class CoAttention:
    """What each head of a co-attentional block attended to.

    Attributes:
        text: (heads, tokens, regions), of each token over the regions.
        regions: (heads, regions, tokens), of each region over the tokens.
    """

    text: Tensor
    regions: Tensor


@dataclass(frozen=True)
class Explained:
    """A prediction and how it came about.

    Attributes:
        tokens: of the text, as the model reads it.
        boxes: of the regions, in pixels; the first is the whole image.
        blocks: the co-attentional blocks, first to last.
        prediction: what was decided.
    """

    tokens: list[str]
    boxes: list[Box]
    blocks: list[CoAttention]
    prediction: Prediction


@dataclass(frozen=True)
class TokenAttention:
    """One token of an answer and what it attended to.

    Attributes:
        token: the token as text.
        maps: (frames, height, width) for each medium of the document, in shares of the token's attention; an image is
            one frame.
    """

    token: str
    maps: list[Tensor]
