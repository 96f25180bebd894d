"""Fine-tuning: a pretrained encoder of one modality with a task head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vislang.capabilities import ModelRecipe, Progress
from vislang.document import Document
from vislang.errors import UserError
from vislang.example import Example, Label, Prediction, Text, Value, kind_of
from vislang.models.base import TrainableModel, fill_model, must_be_numbers, read_settings, write_model
from vislang.models.data2vec.blocks import EncoderConfig, run_blocks
from vislang.models.data2vec.encoder import Encoder
from vislang.models.data2vec.front_ends import Modalities, must_agree
from vislang.models.data2vec.heads import (
    Encoded,
    Head,
    HeadConfig,
    SpeakerHead,
    make_head,
    must_fit,
    outputs_without_labels,
)
from vislang.models.data2vec.inputs import Inputs, InputsConfig, Whole, contents, padded, words
from vislang.models.data2vec.model import Data2Vec
from vislang.models.deciding import head_for, why_undecided
from vislang.models.loading import load
from vislang.nn.device import to_device
from vislang.nn.embed import TokenEmbedding
from vislang.nn.precision import at_least_float32

if TYPE_CHECKING:
    from vislang.models.data2vec.tower import Data2VecTower

BLANK = "<blank>"
"""CTC's blank symbol (Graves et al. 2006, section 3.1); it is the first symbol."""

NO_TAG = -100

DECIDED = {"classification": "label", "speaker": "label", "regression": "value", "tagging": "text", "ctc": "text"}
"""The kind of target that each head predicts; other heads only give logits."""

TRAINED = ("classification", "regression", "tagging", "ctc")
"""The heads that can be trained here; the others exist only with converted weights."""


class Labelled(NamedTuple):
    """A batch with its labels.

    Attributes:
        whole: the inputs.
        targets: the class or the value of each input; or (batch, tokens) the class of each word at its first token and
            NO_TAG elsewhere; or (batch, symbols) transcripts, padded with blanks.
        lengths: lengths of the transcripts.
        names: names of the examples.
    """

    whole: Whole
    targets: Tensor
    lengths: Int[Tensor, "..."] | None
    names: list[str]

    @property
    def tokens(self) -> int:
        """Tokens of texts, padding not counted."""
        return self.whole.tokens


@dataclass
class SavedFineTuned:
    """The settings in the ``config.json`` of a fine-tuned model."""

    encoder: EncoderConfig
    modalities: Modalities
    inputs: InputsConfig
    head: HeadConfig
    labels: list[str]
    origin: dict[str, Any] | None = None

    def __post_init__(self):
        must_agree(self.modalities, self.inputs)


class FineTuned(TrainableModel):
    """An encoder with a head. It Decides and Embeds.

    Args:
        encoder: shape of the blocks.
        modalities: the front end of one modality.
        inputs: how documents are prepared.
        head: configuration of the head.
        labels: names of the classes or tags, or the symbols of transcripts (BLANK first). They are empty before
            :meth:`fit`, and for heads without named outputs.
        frozen: train only the head.
        origin: the origin of converted weights, for the record.

    Raises:
        UserError: there is not exactly one modality, or the head does not fit it.
    """

    collate: Collator

    def __init__(
        self,
        encoder: EncoderConfig,
        modalities: Modalities,
        inputs: Inputs,
        head: HeadConfig,
        labels: Sequence[str] = (),
        frozen: bool = False,
        origin: dict[str, Any] | None = None,
    ):
        super().__init__()
        present = modalities.present()
        if len(present) != 1:
            raise UserError(f"modalities: {', '.join(present) or 'none'}; a fine-tuned model has exactly one.")
        ((self.modality, front_end),) = present.items()
        must_fit(head, self.modality, front_end)
        self.origin = origin
        self.modalities = modalities
        self.inputs = inputs
        self.head_config = head
        self.frozen = frozen
        self.encoder = Encoder(encoder, modalities)
        self.encoder.requires_grad_(not frozen)
        self.labels: list[str] = []
        self.head: Head | None = None
        # Mean and standard deviation of the values: the head predicts (value - mean) / standard deviation.
        self.register_buffer("scale", torch.tensor([0.0, 1.0]))
        self._own_outputs = outputs_without_labels(head, front_end)
        if labels or self._own_outputs:
            self._set_labels(labels)
        self.collate = Collator(self)

    def _set_labels(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        self.head = make_head(self.head_config, self.encoder.config, self._own_outputs or len(self.labels))
        if self.head_config.kind == "language" and self.head_config.tied:
            local = self.encoder.front_end("text").local
            assert isinstance(local, TokenEmbedding)
            self.head.output.weight = local.tokens.weight

    def logits(
        self, values: Tensor, padding: Bool[Tensor, "... inputs"] | None = None
    ) -> Float[Tensor, "batch ... outputs"]:
        """Logits.

        Args:
            values: token ids, pixels or waveforms; for ``choice``, (batch, choices, tokens).
            padding: True at padding, in the units of ``values``.

        Returns:
            Logits for each input; for each token or frame (``tagging``, ``ctc``, ``language``, and ``answering``, with
            start and end); for each choice (``choice``); for ``speaker``, see
            :class:`~vislang.models.data2vec.heads.SpeakerHead`.
        """
        assert self.head is not None
        if self.head_config.kind == "choice":
            flat = self.head(self._encode(values.flatten(0, 1), None if padding is None else padding.flatten(0, 1)))
            return flat.view(values.shape[:2])
        return self.head(self._encode(values, padding))

    def _encode(self, values: Tensor, padding: Tensor | None) -> Encoded:
        encoder = self.encoder
        front_end = encoder.front_end(self.modality)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            local = front_end.local_features(values)
            hidden = front_end(local, None if padding is None else front_end.pad(padding, local.shape[1]))
            keep = len(encoder.blocks) if self.head_config.layer_sum else 0
            tokens, layers = run_blocks(encoder.blocks, hidden, keep, end_of_block=True)
            tokens = tokens if encoder.norm is None else encoder.norm(tokens)
        return Encoded(tokens, hidden.padding, front_end.config.class_tokens, [hidden.tokens, *layers])

    def fit(self, examples: Sequence[Example]) -> None:
        """Find the labels of the examples, or the mean and standard deviation of their values.

        Raises:
            UserError: a target does not fit the head, or all labels or values are the same.
        """
        kind = self.head_config.kind
        if kind == "regression":
            numbers = torch.tensor([number(example) for example in examples])
            if len(numbers.unique()) < 2:
                raise UserError(f"all examples have the same value ({numbers[0]:g}); two or more are needed.")
            self.scale = torch.stack([numbers.mean(), numbers.std().clamp(min=1e-6)])
            self._set_labels([])
            return
        if kind == "classification":
            labels = sorted({label(example) for example in examples})
        elif kind == "tagging":
            labels = sorted({tag for example in examples for tag in tags(example)})
        else:
            labels = [BLANK, *sorted({symbol for example in examples for symbol in transcript(label(example))})]
        if len(labels) < 2:
            raise UserError(f"all examples have the same label ({', '.join(labels)}); two or more are needed.")
        self._set_labels(labels)

    def forward(self, batch: Labelled) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy, squared error (in standard deviations of the values) or CTC loss; the mean over the batch."""
        logits = at_least_float32(self.logits(batch.whole.values, batch.whole.padding))
        kind = self.head_config.kind
        if kind == "classification":
            return {"cross_entropy": F.cross_entropy(logits, batch.targets)}
        if kind == "regression":
            expected = (batch.targets - self.scale[0]) / self.scale[1]
            return {"squared_error": F.mse_loss(logits[:, 0], expected)}
        if kind == "tagging":
            total = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum")
            return {"cross_entropy": total / (batch.targets != NO_TAG).sum().clamp(min=1)}
        assert batch.lengths is not None
        frames = self._frames(batch.whole, logits.shape[1])
        short = (frames < batch.lengths).nonzero()
        if len(short):
            first = int(short[0])
            raise UserError(
                f"{batch.names[first]}: {int(batch.lengths[first])} symbols for {int(frames[first])} frames of "
                "sound: the transcript is too long for this recording. Correct it, or leave it out."
            )
        log_probabilities = logits.log_softmax(dim=-1).transpose(0, 1)
        loss = F.ctc_loss(log_probabilities, batch.targets, frames, batch.lengths, zero_infinity=True)
        return {"ctc": loss}

    def loss_counts(self, batch: Labelled) -> dict[str, int | None]:
        """Tags, where words are tagged; else examples."""
        return {"cross_entropy": int((batch.targets != NO_TAG).sum())} if self.head_config.kind == "tagging" else {}

    def _frames(self, whole: Whole, most: int) -> Int[Tensor, "..."]:
        if whole.padding is None:
            return torch.full((len(whole.values),), most, device=whole.values.device)
        return (~self.encoder.front_end(self.modality).pad(whole.padding, most)).sum(dim=1)

    @property
    def heads(self) -> dict[str, str]:
        """The head, named by its kind, and its kind of target; empty if it only gives logits."""
        kind = self.head_config.kind
        return {kind: DECIDED[kind]} if kind in DECIDED else {}

    def head_for(self, kind: str, name: str | None = None) -> str:
        """See :class:`~vislang.capabilities.Decides`. Tags and transcripts may be given as labels.

        Raises:
            UserError: the head does not predict this kind of target, or has another name.
        """
        return head_for(self.heads, self._decided(kind), name)

    def why_undecided(self, kind: str, labels: Sequence[str] = (), images: int = 1) -> str | None:
        """See :class:`~vislang.capabilities.Decides`; :meth:`why_unreadable` says that it reads one image."""
        kind = self._decided(kind)
        return why_undecided(self.heads, {self.head_config.kind: self.labels}, kind, labels if kind == "label" else ())

    def _decided(self, kind: str) -> str:
        return "text" if kind == "label" and "text" in self.heads.values() else kind

    @torch.inference_mode()
    def decide(
        self,
        examples: Sequence[Example],
        head: str | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """Predict a label with probabilities, a value, a tag for each word, or a transcript, for each example.

        Raises:
            UserError: an example has another modality, or the head only gives logits.
        """
        self.head_for("none", head)
        training = self.training
        self.eval()
        found: list[Prediction] = []
        for start in range(0, len(examples), batch_size):
            part = examples[start : start + batch_size]
            ids = [example.id for example in part]
            if self.head_config.kind == "tagging":
                found += map(Prediction, ids, self._tags([example.prompt for example in part]))
            else:
                whole = to_device(self.inputs.read([example.prompt for example in part]), self.device)
                logits = self.logits(whole.values, whole.padding).float()
                must_be_numbers(logits, f"{part[0].name}, or another record of its batch")
                found += self._predictions(ids, whole, logits)
            if progress is not None:
                progress(len(found), len(examples))
        self.train(training)
        return found

    def _tags(self, documents: Sequence[Document]) -> list[str]:
        rows = [self.collate.tokens_of_words(document) for document in documents]
        logits = self.logits(*to_device(padded([ids for ids, _ in rows], self.collate.text.padding_id), self.device))
        best = [row[first].argmax(dim=-1).tolist() for (_, first), row in zip(rows, logits, strict=True)]
        return [" ".join(self.labels[tag] for tag in row) for row in best]

    def _predictions(self, ids: Sequence[str], whole: Whole, logits: Tensor) -> list[Prediction]:
        kind = self.head_config.kind
        if kind == "regression":
            numbers = (logits[:, 0] * self.scale[1] + self.scale[0]).tolist()
            return list(map(Prediction, ids, numbers))
        if kind == "ctc":
            frames = self._frames(whole, logits.shape[1]).tolist()
            rows = logits.argmax(dim=-1)
            # Repetitions are removed before blanks: a blank separates a symbol that is spoken twice.
            symbols = [row[:count].unique_consecutive().tolist() for row, count in zip(rows, frames, strict=True)]
            return list(map(Prediction, ids, ["".join(self.labels[n] for n in row if n != 0) for row in symbols]))
        if isinstance(self.head, SpeakerHead):
            scores, measure = self.head.similarities(logits), "similarity"
        else:
            scores, measure = logits.softmax(dim=-1), "probability"
        best = [self.labels[n] for n in scores.argmax(dim=-1).tolist()]
        rows_of = zip(ids, best, scores.tolist(), strict=True)
        return [Prediction(id, answer, tuple(self.labels), tuple(row), measure) for id, answer, row in rows_of]

    def embed(
        self, documents: Sequence[Document], batch_size: int = 64, *, progress: Progress | None = None
    ) -> Float[Tensor, "documents width"]:
        """One vector for each document: the mean of the encoder's output over tokens, patches or frames.

        Raises:
            MediaError: a medium cannot be used.
            UserError: the model does not read this modality.
        """
        depth = len(self.encoder.blocks)
        return self.encoder.embed_documents(self.inputs, documents, [depth], batch_size, progress=progress)[depth]

    def vision_tower(self, name: str, image_size: int | None = None) -> Data2VecTower:
        """The encoder as a frozen tower; see :class:`~vislang.models.towers.vision.GivesVisionTower`."""
        # Towers import transformers, which takes seconds.
        from vislang.models.data2vec.tower import Data2VecTower

        return Data2VecTower(name, self.encoder, self.inputs, image_size)

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """See :class:`~vislang.capabilities.Reads`."""
        return self.inputs.why_unreadable(media)

    def contents(self, batch: Labelled) -> dict[str, int]:
        """Texts as tokens, recordings as seconds, without padding; images."""
        return contents(*batch.whole)

    def rate_group(self, name: str) -> str:
        """``head`` for the head, whose learning rate can be scaled; otherwise ``other``."""
        return "head" if name.startswith("head.") else "other"

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Matrices and embeddings, as in pretraining, but not attention biases."""
        return parameter.ndim > 1 and ".bias." not in name

    def extra_state(self) -> dict[str, Any]:
        """The labels."""
        return {"labels": self.labels}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned; it determines the shape of the head."""
        self._set_labels(state["labels"])

    def save(self, folder: Path | str) -> None:
        """Write config, weights and, for text, the tokenizer."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "encoder": dataclasses.asdict(self.encoder.config),
            "modalities": dataclasses.asdict(self.modalities),
            "inputs": self.inputs.save(folder),
            "head": dataclasses.asdict(self.head_config),
            "labels": self.labels,
            "origin": self.origin,
        }
        write_model(folder, self, settings)

    @classmethod
    def load(cls, folder: Path) -> FineTuned:
        """Open a folder that :meth:`save` wrote.

        Raises:
            UserError: a setting is wrong, or the weights do not fit or are damaged.
        """
        saved = read_settings(SavedFineTuned, folder)
        inputs = Inputs.load(folder, saved.inputs)
        model = cls(saved.encoder, saved.modalities, inputs, saved.head, saved.labels, origin=saved.origin)
        fill_model(model, folder)
        return model.eval()


class Collator:
    """Turns Examples with targets into a :class:`Labelled` batch.

    Args:
        model: the model; its current labels and inputs are used for each batch.
    """

    def __init__(self, model: FineTuned):
        self._model = model

    @property
    def text(self):
        """The text input of the model."""
        assert self._model.inputs.text is not None
        return self._model.inputs.text

    def __call__(self, examples: Sequence[Example], seed: int = 0, first: int = 0) -> Labelled:
        """Collate; nothing is random.

        Raises:
            UserError: an example has no target, or one that does not fit the head.
        """
        kind = self._model.head_config.kind
        names = [example.name for example in examples]
        if kind == "tagging":
            return self._tagged(examples, names)
        whole = self._model.inputs.read([example.prompt for example in examples])
        if kind == "regression":
            return Labelled(whole, torch.tensor([number(example) for example in examples]), None, names)
        if kind == "classification":
            return Labelled(whole, torch.tensor([self._class(label(e), e) for e in examples]), None, names)
        rows = [torch.tensor([self._class(symbol, e) for symbol in transcript(label(e))]) for e in examples]
        targets, _ = padded(rows, 0)
        return Labelled(whole, targets, torch.tensor([len(row) for row in rows]), names)

    def _tagged(self, examples: Sequence[Example], names: list[str]) -> Labelled:
        rows, targets = [], []
        for example in examples:
            ids, first = self.tokens_of_words(example.prompt)
            target = torch.full((len(ids),), NO_TAG)
            target[first] = torch.tensor([self._class(tag, example) for tag in tags(example)][: len(first)])
            rows.append(ids)
            targets.append(target)
        values, padding = padded(rows, self.text.padding_id)
        return Labelled(Whole("text", values, padding), padded(targets, NO_TAG)[0], None, names)

    def tokens_of_words(self, document: Document) -> tuple[Tensor, list[int]]:
        """Token ids of a text, and the index of the first token of each word; words beyond the maximum length are
        dropped."""
        ids: list[int] = []
        first: list[int] = []
        for index, word in enumerate(words(document).split()):
            tokens = self.text.tokens(word if index == 0 else f" {word}")
            if len(ids) + len(tokens) > self.text.max_length - 2:
                break
            first.append(len(ids) + 1)
            ids += tokens
        return self.text.framed(ids), first

    def _class(self, name: str, example: Example) -> int:
        try:
            return self._model.labels.index(name)
        except ValueError:
            raise UserError(f"{example.name}: the label {name!r} is not in the training data.") from None


def label(example: Example) -> str:
    """The text of a target: a label, tags or a transcript.

    Raises:
        UserError: there is none.
    """
    target = example.target
    if isinstance(target, Label):
        return target.name.strip()
    if isinstance(target, Text):
        return target.references[0].strip()
    if target is None:
        raise UserError(f"{example.name}: has no label. Add one, or leave it out.")
    raise UserError(f"{example.name}: its target is of the kind {kind_of(target)}; this head needs a label.")


def number(example: Example) -> float:
    """The value of a target.

    Raises:
        UserError: it is not a number.
    """
    target = example.target
    if isinstance(target, Value):
        return target.number
    text = label(example)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{example.name}: {text!r} is not a number. Correct the label.")
    return value


def tags(example: Example) -> list[str]:
    """The tags of a target, one for each word of the text.

    Raises:
        UserError: there are more or fewer tags than words.
    """
    found, expected = label(example).split(), len(words(example.prompt).split())
    if len(found) != expected:
        raise UserError(f"{example.name}: {len(found)} tags for {expected} words. Give each word one tag.")
    return found


def transcript(text: str) -> str:
    """A transcript in the form that is learned: lower case, single spaces."""
    return " ".join(text.lower().split())


@dataclass
class FineTuneRecipe(ModelRecipe):
    """The settings of a fine-tuned model in a recipe.

    Attributes:
        start_from: folder of a data2vec model; its student is fine-tuned.
        modality: modality to use, if the model has several.
        head: configuration of the head.
        frozen: train only the head.
        dropout, drop_path: rates of the encoder during fine-tuning; None keeps those of the pretrained model.
    """

    start_from: str = ""
    modality: Literal["text", "image", "speech"] | None = None
    head: HeadConfig = field(default_factory=HeadConfig)
    frozen: bool = False
    dropout: float | None = None
    drop_path: float | None = None

    def build(self, device: torch.device | str = "cpu") -> FineTuned:
        """The pretrained encoder with a new head.

        Raises:
            UserError: ``start_from`` is not a data2vec model, or the head does not fit the modality.
        """
        if not self.start_from:
            raise UserError("start_from: give the folder of a pretrained data2vec model.")
        start = load(self.start_from)
        if not isinstance(start, Data2Vec):
            raise UserError(f"start_from {self.start_from}: is a {type(start).__name__}, not a data2vec model.")
        present = start.modalities.present()
        modality: str | None = self.modality or (next(iter(present)) if len(present) == 1 else None)
        if modality not in present:
            raise UserError(f"modality: {self.start_from} reads {' and '.join(present)}; choose one.")
        if self.head.kind not in TRAINED:
            raise UserError(f"head.kind {self.head.kind} cannot be trained here; use {', '.join(TRAINED)}.")
        needs = {"tagging": "text", "ctc": "speech"}.get(self.head.kind)
        if needs is not None and modality != needs:
            raise UserError(f"head.kind {self.head.kind} is for {needs}, and this model reads {modality}.")
        encoder = dataclasses.replace(start.student.config)
        if self.dropout is not None:
            encoder.dropout = encoder.attention_dropout = self.dropout
        if self.drop_path is not None:
            encoder.drop_path = (0.0, self.drop_path)
        inputs = Inputs(**{modality: getattr(start.inputs, modality)})
        if getattr(inputs, modality) is None:
            raise UserError(
                f"{self.start_from}: cannot prepare {modality} inputs, because it was converted without their settings."
            )
        modalities = Modalities(**{modality: present[modality]})  # type: ignore[arg-type]
        model = FineTuned(encoder, modalities, inputs, self.head, (), self.frozen)
        known = model.encoder.state_dict()
        model.encoder.load_state_dict({k: v for k, v in start.student.state_dict().items() if k in known})
        return model

    def open(self, folder: Path, device: torch.device | str = "cpu") -> FineTuned:
        """A trained model."""
        return FineTuned.load(folder)
