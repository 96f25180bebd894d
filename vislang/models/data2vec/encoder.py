"""data2vec's encoder: front ends of one or more modalities, and the blocks that they share.

Student and teacher are encoders (data2vec, arXiv 2202.03555, section 3), and so is a fine-tuned model's encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.capabilities import Progress
from vislang.document import Document
from vislang.models.data2vec.blocks import EncoderConfig, Hidden, run_blocks
from vislang.models.data2vec.front_ends import FRONT_ENDS, FrontEnd, Modalities, SpeechConfig
from vislang.models.data2vec.inputs import Inputs
from vislang.nn.device import to_device


class Encoder(nn.Module):
    """Front ends, and the blocks that they share.

    Args:
        config: shape of the blocks.
        modalities: the front ends.
    """

    def __init__(self, config: EncoderConfig, modalities: Modalities):
        super().__init__()
        self.config = config
        self.front_ends = nn.ModuleDict(
            {name: FRONT_ENDS[type(modality)](modality, config) for name, modality in modalities.present().items()}
        )
        self.blocks = config.blocks(config.depth, config.drop_path)
        self.norm = nn.LayerNorm(config.width, config.eps, config.affine) if config.final_norm else None

    def front_end(self, modality: str) -> FrontEnd:
        """The front end of a modality."""
        front_end = self.front_ends[modality]
        assert isinstance(front_end, FrontEnd)
        return front_end

    def forward(self, hidden: Hidden, positions: Int[Tensor, "..."] | None = None) -> Float[Tensor, "*chosen width"]:
        """Run the shared blocks; class tokens come first. For ``positions`` see :func:`run_blocks`."""
        tokens, _ = run_blocks(self.blocks, hidden, positions=positions)
        return tokens if self.norm is None else self.norm(tokens)

    def features(
        self, modality: str, values: Tensor, padding: Tensor | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """The encoder's output for whole inputs, without class tokens.

        Args:
            modality: name of the modality.
            values: token ids, pixels or waveforms.
            padding: True at padding, in the units of ``values``.
        """
        hidden = self._enter(modality, values, padding)
        return self(hidden)[:, self.front_end(modality).config.class_tokens :]

    def embed(
        self, modality: str, values: Tensor, padding: Tensor | None, depths: Sequence[int], parts: int = 1
    ) -> list[Float[Tensor, "batch vector"]]:
        """The mean features of each input after several depths.

        Args:
            modality, values, padding: see :meth:`features`.
            depths: numbers of shared blocks; after all of them, the final norm is applied.
            parts: divide a sequence into this many equal parts, and concatenate their means: (batch, parts * width).
        """
        hidden = self._enter(modality, values, padding)
        last, results = run_blocks(self.blocks[: max(depths)], hidden, keep=max(depths), end_of_block=True)
        if max(depths) == len(self.blocks) and self.norm is not None:
            results[-1] = self.norm(last)
        extra = self.front_end(modality).config.class_tokens
        real = None if hidden.padding is None else ~hidden.padding[:, extra:]
        return [part_means(results[depth - 1][:, extra:], real, parts) for depth in depths]

    @torch.inference_mode()
    def embed_documents(
        self,
        inputs: Inputs,
        documents: Sequence[Document],
        depths: Sequence[int],
        batch_size: int = 64,
        parts: int = 1,
        progress: Progress | None = None,
    ) -> dict[int, Float[Tensor, "documents vector"]]:
        """Vectors of documents after several depths, in one pass.

        Args:
            inputs: how documents are prepared.
            documents: each one text, one image or one recording; all of the same modality.
            depths, parts: see :meth:`embed`.
            batch_size: documents at a time.
            progress: called with (documents done, documents in all).

        Raises:
            MediaError: a medium cannot be used.
            UserError: the encoder does not read this modality.
        """
        config = self.front_end(inputs.common_modality(documents)).config
        if isinstance(config, SpeechConfig) and not (config.strict_padding and config.convolution_norm == "layer"):
            # In such a model, padding would change the features of a recording.
            batch_size = 1
        made: dict[int, list[Tensor]] = {depth: [] for depth in depths}
        for start in range(0, len(documents), batch_size):
            whole = to_device(inputs.read(documents[start : start + batch_size]), next(self.parameters()).device)
            vectors = self.embed(whole.modality, whole.values, whole.padding, depths, parts)
            for depth, vector in zip(depths, vectors, strict=True):
                made[depth].append(vector.float().cpu())
            if progress is not None:
                progress(min(start + batch_size, len(documents)), len(documents))
        return {depth: torch.cat(rows) for depth, rows in made.items()}

    def _enter(self, modality: str, values: Tensor, padding: Tensor | None) -> Hidden:
        front_end = self.front_end(modality)
        local = front_end.local_features(values)
        return front_end(local, None if padding is None else front_end.pad(padding, local.shape[1]))


def part_means(
    features: Float[Tensor, "batch tokens width"], real: Bool[Tensor, "batch tokens"] | None, parts: int = 1
) -> Float[Tensor, "batch vector"]:
    """The concatenated mean features of the equal parts of each sequence: (batch, parts * width).

    ``real`` is False at padding, which is at the end. If there are fewer tokens than parts, parts share tokens.
    """
    batch, tokens, _ = features.shape
    lengths = torch.full((batch,), tokens, device=features.device) if real is None else real.sum(dim=1)
    position = torch.arange(tokens, device=features.device)
    means = []
    for part in range(parts):
        first = lengths * part // parts
        end = -(-lengths * (part + 1) // parts)
        inside = ((position >= first[:, None]) & (position < end[:, None]))[..., None]
        means.append((features * inside).sum(dim=1) / inside.sum(dim=1))
    return torch.cat(means, dim=1)
