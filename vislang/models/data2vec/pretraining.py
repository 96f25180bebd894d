"""Pretraining with data2vec: the recipe, and the model that it trains.

Settings that a recipe leaves out have the values of the paper of its generation, so ``generation`` switches the whole
objective.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vislang.capabilities import ModelRecipe, Progress, Revealed
from vislang.document import Audio, Document
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.augmentation import Augmentation
from vislang.models.base import TrainableModel
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.collate import Collator, MaskingConfig
from vislang.models.data2vec.decoder import DecoderConfig
from vislang.models.data2vec.front_ends import Modalities, TextConfig
from vislang.models.data2vec.inputs import ImageInput, Inputs, SpeechInput, TextInput, contents, words
from vislang.models.data2vec.model import Data2Vec, TeacherConfig
from vislang.models.data2vec.objective import Masked, Norm, ObjectiveConfig
from vislang.models.loading import load
from vislang.models.precision import Precision, autocast, dtype_of
from vislang.nn.device import to_device


@dataclass(frozen=True)
class Published:
    """The settings that a paper gives for one modality; see ObjectiveConfig and TeacherConfig."""

    top_k: int
    end_of_block: bool = False
    local_targets: bool = False
    layer_norms: Sequence[Norm] = ("instance",)
    mean_norms: Sequence[Norm] = ()
    beta: float = 0.0
    copies: int = 1
    class_loss: float = 0.0
    decay: float = 0.999
    end_decay: float = 0.9999
    anneal_steps: int = 30_000
    scope: Literal["encoder", "context", "all"] = "encoder"


# From the papers' appendices, completed by fairseq's released configurations (see docs/data2vec.md).
PAPERS: dict[tuple[str, str], Published] = {
    ("v1", "text"): Published(
        top_k=10,
        layer_norms=("layer",),
        beta=4.0,
        decay=0.999,
        end_decay=0.9999,
        anneal_steps=100_000,
        scope="all",
    ),
    ("v1", "image"): Published(
        top_k=6,
        end_of_block=True,
        layer_norms=("layer",),
        beta=2.0,
        decay=0.9998,
        end_decay=0.9998,
        anneal_steps=1,
    ),
    ("v1", "speech"): Published(top_k=8, decay=0.999, end_decay=0.9999, anneal_steps=30_000),
    ("v2", "text"): Published(top_k=12, copies=8, decay=0.9999, end_decay=0.99999, anneal_steps=100_000),
    ("v2", "image"): Published(
        top_k=10,
        mean_norms=("layer",),
        copies=16,
        class_loss=0.01,
        decay=0.9998,
        end_decay=0.99999,
        anneal_steps=100_000,
        scope="all",
    ),
    ("v2", "speech"): Published(
        top_k=8, copies=8, decay=0.999, end_decay=0.99999, anneal_steps=75_000, scope="context"
    ),
}

DECODERS = {
    "text": DecoderConfig(width=768, layers=5, kernel=9, residual=False, projection_layers=2),
    "image": DecoderConfig(width=768, layers=6, kernel=3),
    "speech": DecoderConfig(width=384, layers=4, kernel=7),
}


@dataclass
class Choices:
    """Settings that differ from the paper; None takes the paper's value. See ObjectiveConfig and TeacherConfig.

    ``copies`` and ``class_loss`` have no effect in v1.
    """

    top_k: int | None = None
    end_of_block: bool | None = None
    local_targets: bool | None = None
    layer_norms: list[Norm] | None = None
    mean_norms: list[Norm] | None = None
    beta: float | None = None
    copies: int | None = None
    class_loss: float | None = None
    decay: float | None = None
    end_decay: float | None = None
    anneal_steps: int | None = None
    scope: Literal["encoder", "context", "all"] | None = None


@dataclass
class Data2VecRecipe(ModelRecipe):
    """The settings of a data2vec model in a recipe.

    Attributes:
        generation: v1 or v2; switches between the two objectives.
        encoder: the shared blocks.
        modalities: the front ends. Only v2 has decoders; without a setting, they are the paper's, as wide as the
            encoder.
        choices: settings that differ from the papers.
        masking: how inputs are masked.
        augmentation: augmentation of images.
        tokenizer: a ``tokenizer.json`` for text; None learns one from the examples.
        collapse_watch_from: number of updates after which a small standard deviation of targets or predictions stops
            the run.
        start_from: folder of a data2vec model to continue from, with its encoder and modalities.
        dtype: number type of the computation; ``auto`` takes bfloat16 if the device has hardware for it. The weights
            of student and teacher stay in float32.
    """

    needs_targets = False

    generation: Literal["v1", "v2"] = "v2"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    modalities: Modalities = field(default_factory=Modalities)
    choices: Choices = field(default_factory=Choices)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    augmentation: Augmentation | None = None
    tokenizer: str | None = None
    collapse_watch_from: int = 500
    start_from: str | None = None
    dtype: Precision = "float32"

    def build(self, device: torch.device | str = "cpu") -> Pretraining:
        """A model at the start of its pretraining.

        Raises:
            UserError: settings contradict each other, or ``start_from`` is not a data2vec model.
        """
        start = self._start()
        if start is not None:
            encoder, modalities = start.student.config, start.modalities
        else:
            encoder, modalities = self.encoder, self._modalities()
        chosen = self._chosen(list(modalities.present()), encoder.depth)
        objective = ObjectiveConfig(
            generation=self.generation,
            top_k=chosen.top_k,
            end_of_block=chosen.end_of_block,
            local_targets=chosen.local_targets,
            layer_norms=chosen.layer_norms,
            mean_norms=chosen.mean_norms,
            beta=chosen.beta,
            copies=chosen.copies,
            class_loss=chosen.class_loss,
            watch_from=self.collapse_watch_from,
        )
        # v1's text teacher shares the student's embeddings, but reads the tokens that are masked for the student.
        copied = ("front_ends.text.local",) if self.generation == "v1" and modalities.text else ()
        teacher = TeacherConfig(chosen.decay, chosen.end_decay, chosen.anneal_steps, chosen.scope, copied)
        model = Data2Vec(encoder, modalities, objective, teacher)
        if start is not None:
            _take_over(model, start)
        model.inputs = self._inputs(modalities, None if start is None else start.inputs)
        return Pretraining(model, self._collate(model), dtype_of(self.dtype, device))

    def open(self, folder: Path, device: torch.device | str = "cpu") -> Pretraining:
        """A pretrained model with the masking and augmentation of this recipe."""
        model = Data2Vec.load(folder)
        return Pretraining(model, self._collate(model), dtype_of(self.dtype, device)).eval()

    def _collate(self, model: Data2Vec) -> Collator:
        copies = model.objective_config.copies
        return Collator(model.inputs, model.modalities, self.masking, self.generation, copies, self.augmentation)

    def _start(self) -> Data2Vec | None:
        if self.start_from is None:
            return None
        start = load(self.start_from)
        if not isinstance(start, Data2Vec):
            raise UserError(f"start_from {self.start_from}: is a {type(start).__name__}, not a data2vec model.")
        return start

    def _modalities(self) -> Modalities:
        """The front ends with the decoders of this generation."""
        made = {}
        for name, config in self.modalities.present().items():
            decoder = None
            if self.generation == "v2":
                decoder = config.decoder or dataclasses.replace(DECODERS[name], width=self.encoder.width)
            made[name] = dataclasses.replace(config, decoder=decoder)
        return Modalities(**made)  # type: ignore[arg-type]  # each under its own name

    def _chosen(self, modalities: Sequence[str], depth: int) -> Published:
        """The recipe's choices, completed by the paper's values."""
        if not modalities:
            raise UserError("modalities: name at least one of text, image and speech.")
        own = {name: value for name, value in vars(self.choices).items() if value is not None}
        found = {}
        for name in (setting.name for setting in dataclasses.fields(Published)):
            if name in own:
                found[name] = own[name]
                continue
            theirs = {getattr(PAPERS[self.generation, modality], name) for modality in modalities}
            if len(theirs) > 1:
                raise UserError(
                    f"choices.{name}: the papers differ between {' and '.join(modalities)} "
                    f"({', '.join(map(str, sorted(theirs, key=str)))}). Choose a value."
                )
            (found[name],) = theirs
        if self.generation == "v1":
            # v1 has one mask per sample and no class loss.
            found |= {"copies": 1, "class_loss": 0.0}
        if "top_k" not in own:
            found["top_k"] = min(found["top_k"], depth)
        return Published(**found)

    def _inputs(self, modalities: Modalities, start: Inputs | None) -> Inputs:
        known = start or Inputs()
        text: TextInput | None = None
        if modalities.text is not None:
            text = known.text
            if self.tokenizer is not None:
                text = TextInput.load(Path(self.tokenizer), modalities.text.max_length)
            if text is not None:
                _must_fit(text, modalities.text)
        return Inputs(
            text,
            None if modalities.image is None else known.image or ImageInput(modalities.image.size),
            None if modalities.speech is None else known.speech or SpeechInput(),
        )


class Pretraining(TrainableModel):
    """A data2vec model and the batches that it is pretrained on.

    Args:
        model: student, teacher and objective.
        collate: makes batches.
        dtype: number type of the computation.
    """

    collate: Collator

    def __init__(self, model: Data2Vec, collate: Collator, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.model = model
        self.collate = collate
        self.dtype = dtype

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Decode and cache recordings; returns the number of recordings that were decoded."""
        speech = self.collate.inputs.speech
        if speech is None:
            return 0
        sounds = [medium for example in examples for medium in example.prompt.media if isinstance(medium, Audio)]
        missing = [sound for sound in sounds if sound.content_hash not in speech.decoded]
        for number, sound in enumerate(missing, start=1):
            speech.samples(sound)
            if progress is not None:
                progress(number, len(missing))
        return len(missing)

    def fit(self, examples: Sequence[Example]) -> None:
        """Learn a vocabulary from the examples if the model reads text and has no tokenizer.

        Raises:
            UserError: the examples contain no text.
        """
        config, inputs = self.model.modalities.text, self.collate.inputs
        if config is None or inputs.text is not None:
            return
        prompts = [example.prompt for example in examples]
        texts = [words(prompt) for prompt in prompts if all(isinstance(part, str) for part in prompt.parts)]
        if not texts:
            raise UserError("no text to learn a vocabulary from. Add text, or set a tokenizer in the recipe.")
        inputs.text = TextInput.train(texts, config.vocabulary_size, config.max_length)
        _must_fit(inputs.text, config)

    def forward(self, batch: Masked) -> dict[str, Float[Tensor, ""]]:
        """See :meth:`Data2Vec.forward`."""
        with autocast(batch.values.device, self.dtype):
            return self.model(batch)

    @torch.no_grad()
    def reveal(self, documents: Sequence[Document], seed: int = 0) -> list[Revealed]:
        """The masked positions of each document (of the first mask), and how well the student predicts them."""
        plain = Collator(**{**vars(self.collate), "augmentation": None})
        whole = to_device(plain.documents(documents, seed), self.device)
        with torch.random.fork_rng():
            # v2's decoder fills masked positions with noise.
            torch.manual_seed(seed)
            found = self.model.objective(whole)
        centre = found.targets.mean(dim=0)
        left = (found.targets - found.predictions).square().sum(dim=-1)
        agreement = torch.full(whole.mask.shape, torch.nan, device=left.device)
        agreement[whole.mask] = 1 - left / (found.targets - centre).square().sum(dim=-1)
        copies = len(whole.mask) // len(documents)
        revealed = []
        for number in range(len(documents)):
            mask, agreed = whole.mask[number * copies].cpu(), agreement[number * copies].cpu()
            tokens: list[str] = []
            rows = 1
            if whole.modality == "image":
                assert self.model.modalities.image is not None
                rows = self.model.modalities.image.size // self.model.modalities.image.patch
            elif whole.modality == "text":
                assert self.collate.inputs.text is not None
                ids = whole.values[number].tolist()
                tokens = [self.collate.inputs.text.tokenizer.decode([i], skip_special_tokens=False) for i in ids]
            revealed.append(Revealed(whole.modality, mask.view(rows, -1), agreed.view(rows, -1), tokens))
        return revealed

    def embed(
        self, documents: Sequence[Document], batch_size: int = 64, *, progress: Progress | None = None
    ) -> Float[Tensor, "documents width"]:
        """See :meth:`Data2Vec.embed`."""
        return self.model.embed(documents, batch_size, progress=progress)

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """See :class:`~vislang.capabilities.Reads`."""
        return self.model.why_unreadable(media)

    def contents(self, batch: Masked) -> dict[str, int]:
        """Texts as tokens, recordings as seconds, without padding; images."""
        return contents(batch.modality, batch.values, batch.padding)

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Matrices and embeddings, as in fairseq, but not attention biases."""
        return parameter.ndim > 1 and ".bias." not in name

    def after_step(self) -> None:
        """Update the teacher."""
        self.model.after_step()

    def loss_counts(self, batch: Masked) -> dict[str, int | None]:
        """Masked positions. The class loss is a sum over samples: the paper multiplies it by the positions (v2,
        section 3.4), of which each loss is then a mean."""
        return {"regression": int(batch.mask.sum()), "class": None}

    def diagnostics(self) -> dict[str, float | Tensor]:
        """See :meth:`Data2Vec.diagnostics`."""
        return self.model.diagnostics()

    def check(self, diagnostics: Mapping[str, float], updates: int) -> None:
        """See :meth:`Data2Vec.check`."""
        self.model.check(diagnostics, updates)

    def trainable_state(self) -> dict[str, Tensor]:
        """Student, heads and teacher."""
        return {name: tensor.detach() for name, tensor in self.model.state_dict().items()}

    def extra_state(self) -> dict[str, Any]:
        """The number of updates, on which the teacher's decay depends, and the tokenizer."""
        text = self.collate.inputs.text
        return {"updates": self.model.updates, "tokenizer": None if text is None else text.tokenizer.to_str()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned."""
        self.model.updates = state["updates"]
        if (tokenizer := state.get("tokenizer")) is not None:
            assert self.model.modalities.text is not None
            self.collate.inputs.text = TextInput.parse(tokenizer, self.model.modalities.text.max_length)

    def save(self, folder: Path) -> None:
        """Write the data2vec model; ``vislang.load`` opens that."""
        self.model.save(folder)


def _must_fit(text: TextInput, config: TextConfig) -> None:
    size = text.tokenizer.get_vocab_size()
    if size > config.vocabulary_size:
        raise UserError(f"the tokenizer has {size} types; raise modalities.text.vocabulary_size.")
    if text.padding_id != config.padding_id:
        raise UserError(
            f"the tokenizer's padding is {text.padding_id}, and modalities.text.padding_id is {config.padding_id}; "
            "make them equal."
        )


def _take_over(model: Data2Vec, start: Data2Vec) -> None:
    """Copy the student of another model, and its heads if they have the same shapes."""
    model.student.load_state_dict(start.student.state_dict())
    ours, theirs = model.heads.state_dict(), start.heads.state_dict()
    if {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.items()}:
        model.heads.load_state_dict(theirs)
    model.reset_teacher()
