"""Run any causal language model of transformers layer by layer, without changing it.

A bridge needs three things that ``forward`` does not offer: a step before a layer, a start at a layer whose input is
already known, and a stop before a layer. Each is done with a shallow copy of the model that shares all parameters and
has other entries in its list of layers. The model itself, its class, modules and hooks do not change, so several
bridges or threads can share it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from vislang.errors import UserError
from vislang.models.towers.stand_in import RecomputedLayer, StandIn
from vislang.models.towers.tuning import set_update_dropout
from vislang.nn.linear import with_fast_linears

Step = Callable[[Tensor], Tensor]
"""Maps the input of a layer (batch, tokens, width) to a new input."""


class CausalLM(nn.Module):
    """A causal language model, run layer by layer.

    Args:
        lm: a transformers causal language model whose decoder holds its layers in one ``nn.ModuleList``.
        tuned: whether parameters are trained, see :func:`~vislang.models.towers.tuning.tune`; otherwise all are frozen.
        dtype: number type of the computation; None takes that of the weights.

    Attributes:
        recompute: whether the inner activations of layers are recomputed in the backward pass. A cache then does not
            grow while gradients are enabled.

    Raises:
        UserError: no list of ``config.num_hidden_layers`` layers was found in the model.
    """

    def __init__(self, lm: PreTrainedModel, tuned: bool = False, dtype: torch.dtype | None = None):
        super().__init__()
        self.recompute = False
        self.lm = lm.eval() if tuned else lm.requires_grad_(False).eval()
        self._dtype = dtype
        self._layers_path = _find_layers(lm)
        self._decoder_path = self._layers_path.rpartition(".")[0]
        # In a list, since a second module with the same parameters would be saved twice.
        self._twin = [with_fast_linears(self.lm)]
        self._gives_tuples = self._layers_give_tuples()
        self._head_path = next(name for name, module in lm.named_modules() if module is lm.get_output_embeddings())

    @torch.no_grad()
    def _layers_give_tuples(self) -> bool:
        """Whether the layers return tuples, tested with one token; replacements of layers must do the same."""
        watched = _Watched(self.layers[0])
        decoder = _with_submodule(self.lm, self._layers_path, nn.ModuleList([watched])).get_submodule(
            self._decoder_path
        )
        decoder(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.lm.device), use_cache=False)
        return watched.gave_tuple

    def train(self, mode: bool = True) -> CausalLM:
        """Stay in evaluation mode, without dropout except that of low-rank updates."""
        super().train(False)
        for model in (self.lm, *self._twin):
            set_update_dropout(model, mode)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the computation."""
        return self._dtype or self.lm.dtype

    @property
    def trains(self) -> bool:
        """Whether any parameter is trained, so that its states of a text change from step to step."""
        return any(parameter.requires_grad for parameter in self.lm.parameters())

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers, lowest first."""
        layers = self.lm.get_submodule(self._layers_path)
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def width(self) -> int:
        """Width of the hidden states between layers."""
        return self.lm.config.get_text_config().hidden_size

    @property
    def context_length(self) -> int | None:
        """The number of positions of the model; None if it states no limit."""
        config = self.lm.config.get_text_config()
        return getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)

    @property
    def tied(self) -> bool:
        """Whether the output layer shares its weights with the embedding."""
        return self.lm.get_output_embeddings().weight is self.lm.get_input_embeddings().weight

    @property
    def head_width(self) -> int:
        """Width of the decoder's output, the input of the head."""
        return self.lm.get_output_embeddings().weight.shape[1]

    @property
    def vocabulary_size(self) -> int:
        """Number of rows of the input embedding."""
        return self.lm.get_input_embeddings().weight.shape[0]

    def check_packing(self, longest: int) -> None:
        """Raise an error if documents cannot be packed into one row.

        Args:
            longest: number of tokens of the longest document.

        Raises:
            UserError: the model has a sliding window or distance biases (ALiBi) that count columns.
        """
        config = self.lm.config.get_text_config()
        window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
        if window is not None and longest > window:
            raise UserError(
                f"collate.pack: some layers of this {config.model_type} attend only to the last {window} columns of a "
                f"row, across documents. Set pack to at most {window}, or to 0."
            )
        if getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
            raise UserError(
                f"collate.pack: a {config.model_type} has attention biases (ALiBi) that depend on columns, so "
                "documents cannot share a row. Set pack to 0."
            )

    def embed(self, input_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens embed_width"]:
        """Embed tokens with the model's input embedding."""
        return self.lm.get_input_embeddings()(input_ids)

    def forward(
        self,
        embeddings: Float[Tensor, "batch tokens embed_width"],
        attention_mask: Int[Tensor, "batch cached_and_tokens"] | Float[Tensor, "batch 1 tokens cached_and_tokens"],
        position_ids: Int[Tensor, "batch tokens"],
        *,
        before: Mapping[int, Step] | None = None,
        cache: Cache | None = None,
        start: tuple[int, Tensor] | None = None,
        stop: int | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Run the decoder, or a slice of it.

        Args:
            embeddings: the input of the lowest layer; with ``start`` only its shape is used.
            attention_mask: 1 for real tokens, 0 for padding, over the cached tokens and the new ones; or a bias that is
                added to every layer's attention scores.
            position_ids: the position of each new token in its own text.
            before: for some layers, a step that is applied to their input.
            cache: keys and values of earlier tokens; the layers that run extend it.
            start: (layer, hidden states): start at this layer with this input, and skip the layers below.
            stop: stop before this layer and return its input.

        Returns:
            The decoder's output (after its final norm), or the input of layer ``stop``.
        """
        before = before or {}
        first, known = start if start is not None else (0, None)
        layers: list[nn.Module] = []
        stopped: list[Tensor] = []
        (twin,) = self._twin
        for index, layer in enumerate(twin.get_submodule(self._layers_path).children()):
            if index < first:
                layers.append(_Skipped(layer, self._gives_tuples))
            elif stop is not None and index >= stop:
                layers.append(_Skipped(layer, self._gives_tuples, stopped.append))
            elif index in before or (index == first and known is not None):
                layers.append(_Preceded(layer, before.get(index), known if index == first else None))
            else:
                layers.append(layer)
            if self.recompute and not isinstance(layers[-1], _Skipped):
                layers[-1] = RecomputedLayer(layers[-1])
        decoder = _with_submodule(twin, self._layers_path, nn.ModuleList(layers)).get_submodule(self._decoder_path)
        output = decoder(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state if stop is None else stopped[0]

    @torch.no_grad()
    def residual_scales(self, layers: Sequence[int]) -> list[float]:
        """The root mean square of the hidden states before each of these layers.

        It is the median over 64 evenly spaced tokens of the vocabulary, because a few positions have very large values
        (attention sinks).
        """
        count = min(64, self.vocabulary_size)
        ids = torch.linspace(0, self.vocabulary_size - 1, count).long()[None]
        ids = ids.to(self.lm.get_input_embeddings().weight.device)
        scales: dict[int, float] = {}

        def measure(layer: int) -> Step:
            def step(hidden: Tensor) -> Tensor:
                scales[layer] = hidden[0].float().square().mean(dim=-1).sqrt().median().item()
                return hidden

            return step

        mask = torch.ones_like(ids)
        self(self.embed(ids), mask, positions_of(mask), before={layer: measure(layer) for layer in layers})
        return [round(scales[layer], 3) for layer in layers]

    def logits(
        self, hidden: Float[Tensor, "batch tokens head_width"], rows: Float[Tensor, "others head_width"] | None = None
    ) -> Float[Tensor, "batch tokens types"]:
        """The logits of the model's output layer, including any scaling or capping.

        With ``rows``, these replace the rows of the output layer: the logits of other tokens.
        """
        head = _with_submodule(self._twin[0], self._decoder_path, _Given(hidden))
        if rows is not None:
            head = _with_submodule(head, self._head_path, _Rows(rows))
        return head(inputs_embeds=hidden, use_cache=False).logits


class CausalLMWithRows(CausalLM):
    """A frozen language model with new embeddings for some tokens.

    If the output layer is tied to the embedding, the new rows are used there, too.

    Args:
        lm: the language model.
        ids: ids of the tokens; they may be outside the vocabulary.
        rows: their embeddings.
    """

    row_ids: Tensor
    rows: Tensor

    def __init__(self, lm: PreTrainedModel, ids: Int[Tensor, "..."], rows: Float[Tensor, "tokens width"]):
        super().__init__(lm)
        self.register_buffer("row_ids", ids)
        self.register_buffer("rows", rows)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens that have an embedding."""
        own = super().vocabulary_size
        return max(own, int(self.row_ids.max()) + 1) if len(self.row_ids) else own

    def embed(self, input_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens embed_width"]:
        """Embed tokens, with the new rows for their tokens."""
        embeddings = super().embed(input_ids.clamp(max=super().vocabulary_size - 1))
        for token, row in zip(self.row_ids, self.rows, strict=True):
            embeddings = torch.where((input_ids == token)[..., None], row.to(embeddings.dtype), embeddings)
        return embeddings

    def logits(
        self, hidden: Float[Tensor, "batch tokens head_width"], rows: Float[Tensor, "others head_width"] | None = None
    ) -> Float[Tensor, "batch tokens types"]:
        """The logits of the model's output layer; if it is tied, with the new rows."""
        found = super().logits(hidden, rows)
        if rows is not None or not self.tied or not len(self.row_ids):
            return found
        missing = self.vocabulary_size - found.shape[-1]
        if missing > 0:
            found = torch.cat([found, found.new_zeros(*found.shape[:-1], missing)], dim=-1)
        return found.index_copy(-1, self.row_ids, super().logits(hidden, self.rows.to(hidden.dtype)).to(found.dtype))


def positions_of(attention_mask: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
    """The position of each token in its text, not counting padding."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)


def _find_layers(lm: PreTrainedModel) -> str:
    """The dotted path of the decoder's layers: the outermost ModuleList of the right length."""
    count = lm.config.get_text_config().num_hidden_layers
    for name, module in lm.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name
    raise UserError(
        f"{type(lm).__name__} has no nn.ModuleList with its {count} layers. Use a decoder-only model with one list of "
        "layers."
    )


def _with_submodule(module: nn.Module, path: str, replacement: nn.Module) -> nn.Module:
    """A shallow copy of a module with one submodule replaced; parameters are shared."""
    head, _, rest = path.partition(".")
    shallow = copy.copy(module)
    shallow._modules = dict(module._modules)
    child = module._modules[head]
    assert child is not None
    shallow._modules[head] = _with_submodule(child, rest, replacement) if rest else replacement
    return shallow


class _Watched(StandIn):
    """A layer that records whether it returns a tuple."""

    gave_tuple = False

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        self.gave_tuple = isinstance(output, tuple)
        return output


class _Skipped(StandIn):
    """A layer that does not run."""

    def __init__(self, layer: nn.Module, as_tuple: bool, report: Callable[[Tensor], None] | None = None):
        super().__init__(layer)
        self.as_tuple = as_tuple
        self.report = report

    def forward(self, hidden: Tensor, *args, **kwargs):
        if self.report is not None:
            self.report(hidden)
        return (hidden, None) if self.as_tuple else hidden


class _Preceded(StandIn):
    """A layer with a step before it, with another input, or both."""

    def __init__(self, layer: nn.Module, step: Step | None, start: Tensor | None):
        super().__init__(layer)
        self.step = step
        self.start = start

    def forward(self, hidden: Tensor, *args, **kwargs):
        if self.start is not None:
            hidden = self.start
        if self.step is not None:
            hidden = self.step(hidden)
        return super().forward(hidden, *args, **kwargs)


class _Rows(nn.Module):
    """An output layer for other tokens."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.rows = rows

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden @ self.rows.to(hidden.dtype).t()


class _Given(nn.Module):
    """A decoder that returns a given output."""

    def __init__(self, hidden: Tensor):
        super().__init__()
        self.hidden = hidden

    def forward(self, *args, **kwargs) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=self.hidden)
