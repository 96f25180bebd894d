"""What models of images and texts have in common: a network with its inputs, and how their state is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vislang.capabilities import Progress
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.base import TrainableModel
from vislang.models.vilbert.inputs import PairInputs, Pairs
from vislang.models.vilbert.word_pieces import WordPieces

Network = TypeVar("Network", bound=nn.Module)


class PairModel(TrainableModel, Generic[Network]):
    """A network with its inputs.

    Args:
        network: what trains.
        inputs: how texts and images are prepared.
        longest_text: the most word pieces that the network reads.
        feature_width: of the regions that the network reads.
        dtype: of the arithmetic.

    Raises:
        UserError: the regions of ``inputs`` are of another width.
    """

    network: Network

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
                f"{inputs.regions.name}: gives regions of {inputs.regions.width} numbers, and the model reads "
                f"{feature_width}. Give regions by the tower or detector that it was made for."
            )
        self.longest_text = longest_text
        self.network, self.inputs, self.dtype = network, inputs, dtype

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Find the regions of images that are not known yet."""
        return self.inputs.prepare(examples, progress)

    def contents(self, batch: Any) -> dict[str, int]:
        """See :meth:`Pairs.contents <vislang.models.vilbert.inputs.Pairs.contents>`; ``batch`` is one, or has one."""
        return (batch if isinstance(batch, Pairs) else batch.pairs).contents()

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """See :class:`~vislang.capabilities.Reads`; of several images each is compared with the text."""
        return self.inputs.why_unreadable(media, images=2)

    def why_unmatched(self) -> str | None:
        """See :class:`~vislang.capabilities.Matches`."""
        return None

    def trainable_state(self) -> dict[str, Tensor]:
        """The network's weights."""
        return {name: tensor.detach() for name, tensor in self.network.state_dict().items()}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state` gave.

        Raises:
            UserError: it is the state of another model.
        """
        try:
            self.network.load_state_dict(dict(state))
        except RuntimeError as error:
            raise UserError(f"weights of another model: {error}") from None

    def extra_state(self) -> dict[str, Any]:
        """The tokenizer."""
        words = self.inputs.words
        return {"tokenizer": None if words is None else words.tokenizer.to_str()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` gave."""
        if (tokenizer := state.get("tokenizer")) is not None:
            self.inputs.words = WordPieces.parse(tokenizer, self.longest_text)
