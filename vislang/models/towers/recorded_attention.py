"""Record the self-attention of a transformers model while it runs.

Fast attention kernels give no weights. So during :func:`recorded_attention` the model uses an attention function of our
own, which transformers looks up by the name in the model's config.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

NAME = "vislang_recorded"

_recorded: list[Tensor] = []


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention by its definition; the weights are recorded as their mean over heads, (batch, queries, keys).

    Args:
        module: the attention module.
        query, key, value: (batch, heads, tokens, head width); there may be fewer heads of keys and values.
        attention_mask: added to the scores.
        scaling: factor of the scores; by default one over the square root of the head width.
        softcap: limits the scores, as in Gemma 2.
        rest: options that make no difference in evaluation.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = (side.repeat_interleave(groups, dim=1) for side in (key, value))
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[-2]]
    weights = scores.float().softmax(dim=-1)
    _recorded.append(weights.mean(dim=1))
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


@contextmanager
def recorded_attention(lm: PreTrainedModel) -> Iterator[list[Tensor]]:
    """While this is open, each layer that runs adds its weights, the mean over heads (batch, queries, keys).

    The list stays empty for a family whose attention is not looked up by name, such as MPT.

    Args:
        lm: the model; its config is shared by its shallow copies.
    """
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    config = lm.config.get_text_config()
    used = config._attn_implementation
    _recorded.clear()
    try:
        config._attn_implementation = NAME
        yield _recorded
    finally:
        config._attn_implementation = used
