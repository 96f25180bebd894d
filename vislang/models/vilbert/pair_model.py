"""What models of images and texts have in common for the training loop: groups of weights, and their state."""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.vilbert.inputs import PairInputs
from vislang.models.vilbert.word_pieces import WordPieces

Network = TypeVar("Network", bound=nn.Module)


class PairModel(nn.Module, Generic[Network]):
    """A network with its inputs; the part of Trainable that does not depend on what is learned.

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

    def parameter_groups(self) -> dict[str, list[tuple[str, Tensor]]]:
        """``matrices`` and ``others``: biases, norms, embeddings and single numbers do not decay."""
        named = [(name, parameter) for name, parameter in self.network.named_parameters() if parameter.requires_grad]
        matrices = {name for name, parameter in named if parameter.ndim > 1 and "embedding" not in name}
        return {
            "matrices": [(name, parameter) for name, parameter in named if name in matrices],
            "others": [(name, parameter) for name, parameter in named if name not in matrices],
        }

    def after_step(self) -> None:
        """Nothing follows a step."""

    def diagnostics(self) -> dict[str, float]:
        """Nothing beyond the losses."""
        return {}

    def trainable_state(self) -> dict[str, Tensor]:
        """Weights, and the tokenizer as the bytes of its file."""
        state = dict(self.network.state_dict())
        if self.inputs.words is not None:
            file = bytearray(self.inputs.words.tokenizer.to_str().encode())
            state["tokenizer"] = torch.frombuffer(file, dtype=torch.uint8)
        return state

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state` gave."""
        state = dict(state)
        file = state.pop("tokenizer", None)
        if file is not None:
            self.inputs.words = WordPieces.parse(bytes(file.tolist()).decode(), self.longest_text)
        self.network.load_state_dict(state)
