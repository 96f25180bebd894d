"""Tiny random models of all families in the tests."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import torch
import transformers
from PIL import ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, ViTConfig, ViTModel

from vislang.document import Document, Medium
from vislang.example import Answers, Example, Text
from vislang.models.flamingo.bridge import Bridge
from vislang.models.flamingo.collate import IGNORED, Batch, CollateConfig
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.model import Flamingo
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.models.towers.causal_lm import CausalLM

TYPES = 96
WORDS = "Question: what color? Answer: red blue Caption: a shape is it the of image of a cat and dog . ? yes no"

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": TYPES}
FAMILIES = {
    "llama": transformers.LlamaConfig(**SHAPE, **SPECIAL, num_key_value_heads=2),
    "gpt_neox": transformers.GPTNeoXConfig(**SHAPE, **SPECIAL),
    "opt": transformers.OPTConfig(
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        word_embed_proj_dim=24,
        max_position_embeddings=64,
        **SPECIAL,
    ),
    "gpt2": transformers.GPT2Config(n_embd=32, n_layer=4, n_head=4, n_positions=64, **SPECIAL),
    "qwen2": transformers.Qwen2Config(**SHAPE, **SPECIAL, num_key_value_heads=2),
    "gemma": transformers.GemmaConfig(**SHAPE, **SPECIAL, num_key_value_heads=1, head_dim=8),
    "gemma2": transformers.Gemma2Config(**SHAPE, **SPECIAL, num_key_value_heads=1, head_dim=8),
    "gemma3": transformers.Gemma3TextConfig(**SHAPE, **SPECIAL, num_key_value_heads=1, head_dim=8),
}

TUPLES = {
    "bloom": transformers.BloomConfig(hidden_size=32, n_layer=4, n_head=4, **SPECIAL),
    "mpt": transformers.MptConfig(d_model=32, n_layers=4, n_heads=4, max_seq_len=64, **SPECIAL),
    "gptj": transformers.GPTJConfig(n_embd=32, n_layer=4, n_head=4, n_positions=64, rotary_dim=8, **SPECIAL),
}
"""Families whose layers may return tuples. ALiBi's distances depend on padding in Bloom, on columns in MPT."""

WINDOWED = {
    "mistral": transformers.MistralConfig(**SHAPE, **SPECIAL, num_key_value_heads=2, sliding_window=5),
}
"""Families that attend to the last few tokens only."""

BRIDGE = {
    "gated_layers": [1, 2],
    "latents": 4,
    "resampler_width": 16,
    "resampler_depth": 1,
    "heads": 2,
    "head_width": 8,
}
"""The configuration of a small bridge."""


def language_model(family: str) -> PreTrainedModel:
    """A random model of a family with a fixed seed."""
    torch.manual_seed(7)
    return AutoModelForCausalLM.from_config({**FAMILIES, **TUPLES, **WINDOWED}[family]).eval()


def bridge(lm: PreTrainedModel, opened: bool = False, **config) -> Bridge:
    """A small bridge on a language model, with closed or open gates."""
    torch.manual_seed(8)
    settings = {**BRIDGE, "gated_layers": [1, 3], "resampler_depth": 2, **config}
    embedding = lm.get_input_embeddings().weight
    built = Bridge(FlamingoConfig(**settings), CausalLM(lm), 20, embedding[5].detach())
    if opened:
        with torch.no_grad():
            for block in built.gated_blocks.values():
                block.attention_gate.fill_(0.8)
                block.feed_forward_gate.fill_(-0.5)
    return built


def batch(media_token: int, prefix: int = 5) -> Batch:
    """Three texts of different lengths: two with a medium, one without."""
    generator = torch.Generator().manual_seed(9)
    suffix = 4
    input_ids = torch.randint(3, TYPES, (3, prefix + suffix), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    if prefix:
        attention_mask[1, :2] = 0
    attention_mask[2, -1] = 0
    input_ids[:, prefix] = media_token
    media_time = torch.zeros_like(input_ids)
    media_time[:, prefix:] = 1
    targets = torch.full_like(input_ids, IGNORED)
    targets[:, prefix + 1 : prefix + 3] = 7
    return Batch(
        input_ids,
        attention_mask,
        media_time,
        targets,
        torch.tensor([[0], [1], [-1]]),
        prefix,
        features=torch.randn(2, 1, 9, 20, generator=generator),
    )


def question(medium: Medium, text: str, answer: str = "", **more) -> Example:
    """A question about a medium, with an answer if it is given."""
    return Example(medium.name, Document([medium, text]), Answers({answer: 1.0}) if answer else None, **more)


def caption(medium: Medium, text: str) -> Example:
    """A medium and its caption."""
    return Example(medium.name, Document([medium]), Text((text,)))


def save_towers(folder: Path, positions: int = 128) -> tuple[str, str]:
    """Write a language model with its tokenizer, and an image encoder, as transformers does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([WORDS] * 20, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        **{**SHAPE, "num_hidden_layers": 3}, **{**SPECIAL, "vocab_size": len(fast)}, max_position_embeddings=positions
    )
    language, vision = folder / "language", folder / "vision"
    lm = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        # The logits of an untrained head are too small to prefer any token.
        lm.lm_head.weight.mul_(40)
    lm.save_pretrained(language)
    fast.save_pretrained(language)
    ViTModel(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        ),
        add_pooling_layer=False,
    ).save_pretrained(vision)
    (vision / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, '
        '"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    return str(language), str(vision)


def flamingo(towers, collate: CollateConfig | None = None, **bridge) -> Flamingo:
    """A small Flamingo on :func:`save_towers`, its gates open, its blocks with a scale of 1."""
    torch.manual_seed(1)
    config = FlamingoConfig(**{**BRIDGE, **bridge})
    built = FlamingoRecipe(*towers, bridge=config, collate=collate or CollateConfig()).build()
    with torch.no_grad():
        for block in built.bridge.gated_blocks.values():
            block.attention_gate.fill_(1.0)
            block.feed_forward_gate.fill_(1.0)
            block.scale = 1.0
    return built.eval()


def write_picture(path: Path, number: int) -> None:
    """A picture of 32 px with a rectangle, whose place and colour follow from the number."""
    picture = PIL.Image.new("RGB", (32, 32), "white")
    ImageDraw.Draw(picture).rectangle([number, 4, number + 12, 24], fill=("red", "blue")[number % 2])
    picture.save(path)


def draw_pictures(folder: Path) -> None:
    """Write ``my.jsonl``: 24 pictures of 32 px of one colour, and a question about each."""
    lines = []
    for number in range(24):
        colour = ("red", "blue")[number % 2]
        picture = PIL.Image.new("RGB", (32, 32), "white")
        left = number // 2
        ImageDraw.Draw(picture).rectangle([left, 4, left + 12, 24], fill=colour)
        picture.save(folder / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "question": "what color?", "answer": colour}))
    (folder / "my.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_recipe(path: Path, language: str, vision: str, **train) -> Path:
    """A recipe for the tiny towers and ``my.jsonl``."""
    settings = {
        "steps": 12,
        "batch_size": 4,
        "lr": 0.003,
        "checkpoint_every": 4,
        "eval_every": 6,
        "eval_examples": 4,
        "lr_scale": {"gates": 20},
        **train,
    }
    lines = "\n".join(f"  {key}: {value}" for key, value in settings.items())
    path.write_text(
        f"""model:
  class_path: vislang.models.flamingo.recipe.FlamingoRecipe
  init_args:
    language_model: {language}
    vision_tower: {vision}
    bridge: {json.dumps(BRIDGE)}
data: {path.parent / "my.jsonl"}
hold_out: 0.2
train:
{lines}
""",
        encoding="utf-8",
    )
    return path


def write_video(path: Path, greys: list[int], frames_each: int = 10, rate: int = 10) -> Path:
    """A film of 64 x 48 pixels in MPEG-4, with the given shades of grey."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for grey in greys:
            for _ in range(frames_each):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey, np.uint8), format="rgb24")
                for packet in stream.encode(frame):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
