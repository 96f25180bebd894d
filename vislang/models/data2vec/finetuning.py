"""Fine-tuning: a pretrained encoder of one modality, and a head that is trained with it for a task."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.capabilities import ModelRecipe, Progress
from vislang.document import Document
from vislang.errors import UserError
from vislang.models.base import fill_model, read_config, write_model
from vislang.models.data2vec.blocks import EncoderConfig, run_blocks
from vislang.models.data2vec.encoder import Encoder
from vislang.models.data2vec.front_ends import Modalities
from vislang.models.data2vec.heads import (
    Encoded,
    Head,
    HeadConfig,
    SpeakerHead,
    make_head,
    must_fit,
    outputs_without_labels,
)
from vislang.models.data2vec.inputs import Inputs, Whole, padded, words
from vislang.models.data2vec.model import Data2Vec
from vislang.models.loading import load
from vislang.nn.embed import TokenEmbedding

BLANK = "<blank>"
"""CTC's symbol for nothing new (Graves et al. 2006, section 3.1); the first of a transcript's symbols."""

NO_TAG = -100

TRAINED = ("classification", "regression", "tagging", "ctc")
"""The heads that are trained here; the others come with converted weights."""


class Labelled(NamedTuple):
    """A batch with its labels.

    Attributes:
        whole: the inputs.
        targets: class of each input; or its number; or (batch, tokens) a class at the first token of each word and
            NO_TAG elsewhere; or (batch, symbols) a transcript, padded with blanks.
        lengths: of the transcripts.
        names: of the documents.
    """

    whole: Whole
    targets: Tensor
    lengths: Int[Tensor, "..."] | None
    names: list[str]


class FineTuned(nn.Module):
    """An encoder with a head; Trainable, and it Labels.

    Args:
        encoder: shape of the blocks.
        modalities: the one front end.
        inputs: how documents are read.
        head: what is predicted.
        labels: names of the classes, of the tags, or the symbols of transcripts (BLANK first); empty until
            :meth:`fit`, and where the head's outputs need no names.
        frozen: train the head alone.
        origin: where converted weights came from, for the record.

    Raises:
        UserError: the head does not go with the modality.
    """

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
        ((self.modality, front_end),) = modalities.present().items()
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
        # What a number is measured in: the head predicts (number - mean) / deviation.
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

    def forward(
        self, values: Tensor, padding: Bool[Tensor, "... inputs"] | None = None
    ) -> Float[Tensor, "batch ... outputs"]:
        """Logits.

        Args:
            values: token ids, pixels or waveforms; to choose among texts, (batch, choices, tokens).
            padding: True where there is nothing, in the units of ``values``.

        Returns:
            One row an input; or one a token or frame (``tagging``, ``ctc``, ``language``; ``answering``: of start and
            end); of ``choice``, one a set of choices; of ``speaker``, see
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

    def prepare(self, documents: Sequence[Document], progress: Progress | None = None) -> int:
        """Nothing is computed beforehand: the encoder trains."""
        return 0

    def fit(self, lessons: Sequence[Document]) -> None:
        """Find the labels in the lessons' targets; for numbers, their mean and deviation.

        Raises:
            UserError: a target does not fit the task, or all are the same.
        """
        targets = [_target(lesson) for lesson in lessons]
        kind = self.head_config.kind
        if kind == "regression":
            numbers = torch.tensor([number(lesson) for lesson in lessons])
            self.scale = torch.stack([numbers.mean(), numbers.std().clamp(min=1e-6)])
            self._set_labels([])
            return
        if kind == "classification":
            labels = sorted(set(targets))
        elif kind == "tagging":
            labels = sorted({tag for lesson in lessons for tag in tags(lesson)})
        else:
            labels = [BLANK, *sorted({symbol for target in targets for symbol in transcript(target)})]
        if len(labels) < 2:
            raise UserError(f"the lessons know one label only ({', '.join(labels)}): there is nothing to learn.")
        self._set_labels(labels)

    def losses(self, batch: Labelled) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy, squared error (in units of the numbers' deviation) or CTC, a mean over the batch."""
        logits = self(batch.whole.values, batch.whole.padding).float()
        kind = self.head_config.kind
        if kind == "classification":
            return {"cross_entropy": F.cross_entropy(logits, batch.targets)}
        if kind == "regression":
            wanted = (batch.targets - self.scale[0]) / self.scale[1]
            return {"squared_error": F.mse_loss(logits[:, 0], wanted)}
        if kind == "tagging":
            return {"cross_entropy": F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())}
        assert batch.lengths is not None
        frames = self._frames(batch.whole, logits.shape[1])
        short = (frames < batch.lengths).nonzero()
        if len(short):
            first = int(short[0])
            raise UserError(
                f"{batch.names[first]}: {int(batch.lengths[first])} symbols in {int(frames[first])} frames of sound: "
                "the transcript does not belong to this recording. Mend it, or leave it out."
            )
        log_probabilities = logits.log_softmax(dim=-1).transpose(0, 1)
        loss = F.ctc_loss(log_probabilities, batch.targets, frames, batch.lengths, zero_infinity=True)
        return {"ctc": loss}

    def _frames(self, whole: Whole, most: int) -> Int[Tensor, "..."]:
        if whole.padding is None:
            return torch.full((len(whole.values),), most)
        return (~self.encoder.front_end(self.modality).pad(whole.padding, most)).sum(dim=1)

    @torch.inference_mode()
    def label(self, documents: Sequence[Document], batch_size: int = 64, progress: Progress | None = None) -> list[str]:
        """What each document is: a label, a number, a tag for each word, or a transcript.

        Raises:
            UserError: a document is not of the model's modality, or the head gives logits only.
        """
        if self.head_config.kind not in (*TRAINED, "speaker"):
            raise UserError(f"a {self.head_config.kind} head gives logits, no labels: call the model on tensors.")
        training = self.training
        self.eval()
        found: list[str] = []
        for start in range(0, len(documents), batch_size):
            part = documents[start : start + batch_size]
            if self.head_config.kind == "tagging":
                rows = [self.collate.tokens_of_words(document) for document in part]
                values, padding = padded([ids for ids, _ in rows], self.collate.text.padding_id)
                logits = self(values, padding)
                for (_, places), row in zip(rows, logits, strict=True):
                    found.append(" ".join(self.labels[n] for n in row[places].argmax(dim=-1).tolist()))
            else:
                whole = self.inputs.read(part)
                found += self._read_off(whole, self(whole.values, whole.padding))
            if progress is not None:
                progress(len(found), len(documents))
        self.train(training)
        return found

    def _read_off(self, whole: Whole, logits: Tensor) -> list[str]:
        if isinstance(self.head, SpeakerHead):
            logits = self.head.similarities(logits)
        if self.head_config.kind in ("classification", "speaker"):
            return [self.labels[n] for n in logits.argmax(dim=-1).tolist()]
        if self.head_config.kind == "regression":
            return [f"{value:.6g}" for value in (logits[:, 0].float() * self.scale[1] + self.scale[0]).tolist()]
        frames = self._frames(whole, logits.shape[1]).tolist()
        read = []
        for row, length in zip(logits.argmax(dim=-1), frames, strict=True):
            # Repetitions first, then blanks: what is said twice has a blank between.
            symbols = row[:length].unique_consecutive().tolist()
            read.append("".join(self.labels[n] for n in symbols if n != 0))
        return read

    def parameter_groups(self) -> dict[str, list[tuple[str, Tensor]]]:
        """What trains: ``matrices`` and ``vectors`` of the encoder, and the ``head``."""
        groups: dict[str, list[tuple[str, Tensor]]] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            matrix = parameter.ndim > 1 and ".bias." not in name
            what = "head" if name.startswith("head.") else "matrices" if matrix else "vectors"
            groups.setdefault(what, []).append((name, parameter))
        return groups

    def after_step(self) -> None:
        """Nothing follows a step."""

    def diagnostics(self) -> dict[str, float]:
        """Nothing besides the loss."""
        return {}

    def trainable_state(self) -> dict[str, Tensor]:
        """All weights, and the labels as the bytes of a JSON list."""
        labels = torch.frombuffer(bytearray(json.dumps(self.labels).encode()), dtype=torch.uint8)
        return {**self.state_dict(), "labels": labels}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state` gave."""
        state = dict(state)
        self._set_labels(json.loads(bytes(state.pop("labels").tolist())))
        self.load_state_dict(state)

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
            UserError: the weights do not fit the config.
        """
        config = read_config(folder)
        model = cls(
            EncoderConfig(**config["encoder"]),
            Modalities.from_values(config["modalities"]),
            Inputs.load(folder, config["inputs"]),
            HeadConfig(**config["head"]),
            config["labels"],
            origin=config["origin"],
        )
        fill_model(model, folder)
        return model.eval()


class Collator:
    """Turns Documents with targets into a :class:`Labelled` batch.

    Args:
        model: whose labels and inputs are used, as they are when a batch is made.
    """

    def __init__(self, model: FineTuned):
        self._model = model

    @property
    def text(self):
        """The text input of a model that has one."""
        assert self._model.inputs.text is not None
        return self._model.inputs.text

    def __call__(self, documents: Sequence[Document], seed: int = 0) -> Labelled:
        """Collate; nothing is left to chance.

        Raises:
            UserError: a document without a target, or with one that does not fit the task.
        """
        kind = self._model.head_config.kind
        names = [document.name for document in documents]
        if kind == "tagging":
            return self._tagged(documents, names)
        whole = self._model.inputs.read([document.without_target() for document in documents])
        if kind == "regression":
            return Labelled(whole, torch.tensor([number(document) for document in documents]), None, names)
        place = {label: index for index, label in enumerate(self._model.labels)}
        if kind == "classification":
            classes = [self._class(place, _target(d), d.name) for d in documents]
            return Labelled(whole, torch.tensor(classes), None, names)
        rows = [
            torch.tensor([self._class(place, symbol, d.name) for symbol in transcript(_target(d))]) for d in documents
        ]
        targets, _ = padded(rows, 0)
        return Labelled(whole, targets, torch.tensor([len(row) for row in rows]), names)

    def _tagged(self, documents: Sequence[Document], names: list[str]) -> Labelled:
        place = {label: index for index, label in enumerate(self._model.labels)}
        rows, targets = [], []
        for document in documents:
            ids, places = self.tokens_of_words(document)
            wanted = torch.full((len(ids),), NO_TAG)
            classes = [self._class(place, tag, document.name) for tag in tags(document)][: len(places)]
            wanted[places] = torch.tensor(classes)
            rows.append(ids)
            targets.append(wanted)
        values, padding = padded(rows, self.text.padding_id)
        return Labelled(Whole("text", values, padding), padded(targets, NO_TAG)[0], None, names)

    def tokens_of_words(self, document: Document) -> tuple[Tensor, list[int]]:
        """Token ids of a text, and the place of the first token of each word; words over the length are cut off."""
        ids: list[int] = []
        places: list[int] = []
        for number, word in enumerate(words(document).split()):
            tokens = self.text.tokens(word if number == 0 else f" {word}")
            if len(ids) + len(tokens) > self.text.max_length - 2:
                break
            places.append(len(ids) + 1)
            ids += tokens
        return self.text.framed(ids), places

    @staticmethod
    def _class(place: dict[str, int], label: str, name: str) -> int:
        if label not in place:
            raise UserError(f"{name or 'a document'}: the label {label!r} does not occur in the training data.")
        return place[label]


def _target(document: Document) -> str:
    if document.target is None:
        raise UserError(f"{document.name or 'a document'}: has no label. Give it one, or leave it out.")
    return document.target.strip()


def number(document: Document) -> float:
    """A target that is a number.

    Raises:
        UserError: it is none.
    """
    try:
        value = float(_target(document))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{document.name or 'a document'}: {document.target!r} is no number. Mend the label.")
    return value


def tags(document: Document) -> list[str]:
    """A target that gives each word of a text a tag, separated by spaces.

    Raises:
        UserError: there are more or fewer tags than words.
    """
    found, wanted = _target(document).split(), len(words(document).split())
    if len(found) != wanted:
        raise UserError(f"{document.name or 'a document'}: {len(found)} tags for {wanted} words. Give each word one.")
    return found


def transcript(text: str) -> str:
    """A transcript as it is learned: lower case, single spaces."""
    return " ".join(text.lower().split())


@dataclass
class FineTuneRecipe(ModelRecipe):
    """What a recipe says of a fine-tuned model.

    Attributes:
        start_from: folder of a data2vec model; its student is fine-tuned.
        modality: which, where the model has several.
        head: what is predicted.
        frozen: train the head alone.
        dropout, drop_path: of the encoder while it is fine-tuned; None leaves the pretrained model's.
    """

    start_from: str = ""
    modality: Literal["text", "image", "speech"] | None = None
    head: HeadConfig = field(default_factory=HeadConfig)
    frozen: bool = False
    dropout: float | None = None
    drop_path: float | None = None

    def build(self) -> FineTuned:
        """The pretrained encoder under a fresh head.

        Raises:
            UserError: ``start_from`` is no data2vec model, or the head does not go with the modality.
        """
        if not self.start_from:
            raise UserError("start_from: name the folder of a pretrained data2vec model.")
        start = load(self.start_from)
        if not isinstance(start, Data2Vec):
            raise UserError(f"start_from {self.start_from}: is a {type(start).__name__}, not a data2vec model.")
        present = start.modalities.present()
        modality: str | None = self.modality or (next(iter(present)) if len(present) == 1 else None)
        if modality not in present:
            raise UserError(f"modality: {self.start_from} reads {' and '.join(present)}; name one of them.")
        if self.head.kind not in TRAINED:
            raise UserError(
                f"head.kind {self.head.kind} comes with converted weights; trained are {', '.join(TRAINED)}."
            )
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
            raise UserError(f"{self.start_from}: knows no way to read {modality} (it was converted without one).")
        modalities = Modalities(**{modality: present[modality]})  # type: ignore[arg-type]
        model = FineTuned(encoder, modalities, inputs, self.head, (), self.frozen)
        known = model.encoder.state_dict()
        model.encoder.load_state_dict({k: v for k, v in start.student.state_dict().items() if k in known})
        return model

    def open(self, folder: Path) -> FineTuned:
        """A trained model."""
        return FineTuned.load(folder)
