"""What models of image-text pairs have in common: a network with its inputs, and their state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from vislang.capabilities import Progress
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.base import TrainableModel, fill_model, read_settings, write_model
from vislang.models.regions.readers import RegionsConfig
from vislang.models.vilbert.inputs import PairInputs, Pairs
from vislang.models.vilbert.streams import CoAttentionBlock
from vislang.models.vilbert.word_pieces import WordPieces
from vislang.nn.transformer import EncoderBlock

Network = TypeVar("Network", bound=nn.Module)
Model = TypeVar("Model", bound="PairModel")


class PairModel(TrainableModel, Generic[Network]):
    """A network with its inputs.

    Args:
        network: the trained module.
        inputs: how texts and images are prepared.
        longest_text: greatest number of word pieces of a text.
        feature_width: width of the region features that the network reads.
        dtype: number type of the computation.

    Attributes:
        saved: the settings in ``config.json``: a dataclass with the ``inputs`` and what :meth:`settings` returns.

    Raises:
        UserError: the regions of ``inputs`` have another width.
    """

    network: Network
    saved: ClassVar[type[Any]]

    def __init__(
        self,
        network: Network,
        inputs: PairInputs,
        longest_text: int,
        feature_width: int,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        if inputs.regions.width != feature_width:
            raise UserError(
                f"{inputs.regions.name}: its region features have the width {inputs.regions.width}, and the model "
                f"reads {feature_width}. Use the tower or detector that the model was built for."
            )
        self.longest_text = longest_text
        self.network, self.inputs, self.dtype = network, inputs, dtype

    def learn_words(self, texts: Iterable[str], size: int) -> None:
        """Learn a vocabulary of at most ``size`` word pieces from distinct texts, if there is none yet."""
        if self.inputs.words is None:
            self.inputs.words = WordPieces.train(list(dict.fromkeys(texts)), size, self.longest_text)

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Compute and cache the regions of the examples' images."""
        return self.inputs.prepare(examples, progress)

    def contents(self, batch: Any) -> dict[str, int]:
        """See :meth:`Pairs.contents <vislang.models.vilbert.inputs.Pairs.contents>`."""
        return (batch if isinstance(batch, Pairs) else batch.pairs).contents()

    def keep_in_memory(self, media: int) -> None:
        """See :class:`~vislang.capabilities.Caches`."""
        self.inputs.regions.keep_in_memory(media)

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """See :class:`~vislang.capabilities.Reads`; each of several images is compared with the text."""
        return self.inputs.why_unreadable(media, images=2)

    def why_unmatched(self) -> str | None:
        """See :class:`~vislang.capabilities.Matches`."""
        return None

    def repeated_blocks(self) -> list[nn.Module]:
        """The blocks of both streams, and the co-attention layers."""
        return [module for module in self.modules() if isinstance(module, EncoderBlock | CoAttentionBlock)]

    def trainable_state(self) -> dict[str, Tensor]:
        """The network's weights."""
        return {name: tensor.detach() for name, tensor in self.network.state_dict().items()}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state` returned.

        Raises:
            UserError: it is the state of another model.
        """
        try:
            self.network.load_state_dict(dict(state))
        except RuntimeError as error:
            raise UserError(f"these are the weights of another model: {error}") from None

    def extra_state(self) -> dict[str, Any]:
        """The tokenizer."""
        words = self.inputs.words
        return {"tokenizer": None if words is None else words.tokenizer.to_str()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned."""
        if (tokenizer := state.get("tokenizer")) is not None:
            self.inputs.words = WordPieces.parse(tokenizer, self.longest_text)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The values of :attr:`saved`, without the ``inputs``."""

    @classmethod
    @abstractmethod
    def from_settings(cls: type[Model], saved: Any, inputs: PairInputs) -> Model:
        """A model with these settings, before its weights are loaded."""

    def save(self, folder: Path) -> None:
        """Write weights, config and tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        write_model(folder, self, {**self.settings(), "inputs": self.inputs.save(folder)})

    @classmethod
    def load(cls: type[Model], folder: Path, regions: RegionsConfig | None = None) -> Model:
        """Open a folder that :meth:`save` wrote; ``regions`` replaces the recorded source of regions.

        Raises:
            TowerError: the source of its regions is missing, or is another one.
            UserError: a setting is wrong, or the weights do not fit or are damaged.
        """
        saved = read_settings(cls.saved, folder)
        model = cls.from_settings(saved, PairInputs.load(folder, saved.inputs, regions))
        fill_model(model, folder)
        return model.eval()
