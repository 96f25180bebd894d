"""OpenFlamingo 2.0.1 as a peer, with the same towers as our bridge and the same weights.

At the first call, pip installs its packages into a folder of the cache, without their dependencies.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, LlamaConfig

from vislang.cache import cache_folder
from vislang.convert.keys import fill
from vislang.convert.open_flamingo import canonical, keys
from vislang.models.flamingo.bridge import Bridge
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.prefill import Runner
from vislang.models.towers.causal_lm import CausalLM
from vislang.nn.linear import with_fast_linears

PACKAGES = ("open-flamingo==2.0.1", "einops==0.8.2", "einops-exts==0.0.4")

MEDIA, END = 49150, 49151
"""Tokens of the language model's vocabulary that are used as the media token and the end of a chunk."""

EVERY = 4
"""A gated block before every fourth layer, as in OpenFlamingo-9B."""


class Tower(nn.Module):
    """A ViT-B/32 with random weights for 224 pixels, with the interface of the peer's vision encoders and of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.network = CLIPVisionModel(CLIPVisionConfig()).eval().requires_grad_(False)
        self.twin = [with_fast_linears(self.network)]

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled output and the features of the patches, as the peer expects them."""
        found = self.network(pixel_values=pixels)
        return found.pooler_output, found.last_hidden_state[:, 1:]

    def features(self, pixels: Tensor) -> Tensor:
        """The features of the patches, as our towers compute them."""
        with torch.no_grad():
            return self.twin[0](pixel_values=pixels).last_hidden_state[:, 1:]


def language_model() -> Any:
    """A language model of SmolLM2-135M's size with random weights from a fixed seed."""
    torch.manual_seed(0)
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
    config = LlamaConfig(
        **shape, num_key_value_heads=3, vocab_size=49152, max_position_embeddings=8192, tie_word_embeddings=True
    )
    return AutoModelForCausalLM.from_config(config).eval()


@dataclass
class Both:
    """The same model in both programs.

    Attributes:
        peer: OpenFlamingo's.
        ours: our bridge, with the same weights, to be run.
        tower: the vision tower of both.
    """

    peer: nn.Module
    ours: Runner
    tower: Tower


def both() -> Both:
    """Build the peer, and our bridge with its weights; all gates are half open."""
    theirs = _modules()
    torch.manual_seed(1)
    tower = Tower()
    lm = language_model()
    theirs["utils"].extend_instance(lm, theirs["flamingo_lm"].FlamingoLMMixin)
    lm.set_decoder_layers_attr_name("model.layers")
    peer = theirs["flamingo"].Flamingo(
        SimpleNamespace(visual=tower), lm, END, MEDIA, vis_dim=768, cross_attn_every_n_layers=EVERY
    )
    # As in its factory, the resampler, gated layers and embeddings are trained.
    peer.requires_grad_(False)
    peer.perceiver.requires_grad_(True)
    peer.lang_encoder.gated_cross_attn_layers.requires_grad_(True)
    peer.lang_encoder.get_input_embeddings().requires_grad_(True)
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if name.endswith("_gate"):
                parameter.fill_(0.5)
    own = language_model()
    count = own.config.num_hidden_layers // EVERY
    config = FlamingoConfig(gate_every=EVERY, scales=[1.0] * count, gate_all_text=True, media_token=MEDIA)
    embedding = own.get_input_embeddings().weight[MEDIA].detach()
    ours = Bridge(config, CausalLM(own), 768, embedding)
    wanted = dict(keys(SimpleNamespace(bridge=ours, origin={"path": "model.layers"})))  # type: ignore[arg-type]
    with torch.no_grad():
        fill(ours.state_dict(), wanted, canonical(peer.state_dict()))
    return Both(peer, Runner(ours), tower)


def _modules() -> dict[str, ModuleType]:
    """The peer's core modules. The package itself is not imported, because it imports packages that are not needed
    here."""
    folder = cache_folder("peers", "open-flamingo-2.0.1")
    if not (folder / "open_flamingo").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PACKAGES]
        subprocess.run(command, check=True)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    for name, path in (
        ("open_flamingo", folder / "open_flamingo"),
        ("open_flamingo.src", folder / "open_flamingo/src"),
    ):
        package = ModuleType(name)
        package.__path__ = [str(Path(path))]
        sys.modules.setdefault(name, package)
    return {name: importlib.import_module(f"open_flamingo.src.{name}") for name in ("flamingo", "flamingo_lm", "utils")}
