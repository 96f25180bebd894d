"""Export to transformers: its Auto classes compute the same; what they cannot represent is an error."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image as Pillow

from tests.convert.test_transformers import CHANGES, ENCODERS, HEADS, of_head, question
from tests.convert.theirs import configuration, gap, outputs, sample, saved
from vislang.cli import main
from vislang.convert.keys import ConversionError
from vislang.convert.transformers import convert
from vislang.convert.transformers_export import export, plain
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.decoder import DecoderConfig
from vislang.models.data2vec.finetuning import BLANK, FineTuned
from vislang.models.data2vec.front_ends import AlibiConfig, ImageConfig, Modalities, SpeechConfig, TextConfig
from vislang.models.data2vec.heads import HeadConfig
from vislang.models.data2vec.inputs import ImageInput, Inputs, SpeechInput, TextInput
from vislang.models.data2vec.model import Data2Vec, TeacherConfig
from vislang.models.data2vec.objective import ObjectiveConfig
from vislang.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"

AUTO = {
    "TextForSequenceClassification": "SequenceClassification",
    "TextForTokenClassification": "TokenClassification",
    "TextForQuestionAnswering": "QuestionAnswering",
    "TextForMultipleChoice": "MultipleChoice",
    "TextForMaskedLM": "MaskedLM",
    "VisionForImageClassification": "ImageClassification",
    "AudioForCTC": "CTC",
    "AudioForSequenceClassification": "AudioClassification",
    "AudioForAudioFrameClassification": "AudioFrameClassification",
    "AudioForXVector": "AudioXVector",
}
ENCODER = EncoderConfig(width=24, depth=2, heads=4, mlp_width=40)
TEXT = TextConfig(vocabulary_size=50, max_length=20)
IMAGE = ImageConfig(size=24, patch=8)
SPEECH = SpeechConfig(
    convolutions=[(8, 10, 5), (8, 3, 2), (12, 2, 2)],
    position_kernel=15,
    position_groups=4,
    position_depth=3,
    strict_padding=False,
)
DECODER = DecoderConfig(width=16, layers=2, kernel=3, groups=2)


def roughened(model):
    """Every weight far from its initial value."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def pretrained(encoder: EncoderConfig = ENCODER, **modalities) -> Data2Vec:
    front = next(iter(modalities.values()))
    objective = ObjectiveConfig("v1" if front.decoder is None else "v2", top_k=1)
    return roughened(Data2Vec(encoder, Modalities(**modalities), objective, TeacherConfig()))


def replaced(config, change):
    return dataclasses.replace(config, **change)


def opened(folder, auto: str = "AutoModel"):
    """The folder opened by transformers; only the pooler, on which no hidden state depends, may be missing."""
    model, info = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    assert all(key.startswith("pooler.") for key in info["missing_keys"])
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model.eval()


@pytest.mark.parametrize(
    ("modality", "encoder", "front"),
    [
        ("text", {}, {}),
        ("text", {"depth": 3, "layer_scale": 0.3, "eps": 1e-3}, {"embedding_eps": 1e-3, "prenet_depth": 2}),
        ("text", {"affine": False, "activation": "relu"}, {"positions": "sinusoidal", "scale_embedding": True}),
        ("text", {}, {"positions": "none", "embedding_norm": False, "norm": True, "padding_id": 0}),
        ("image", {"norm_first": True}, {}),
        ("image", {"norm_first": True, "layer_scale": 0.3}, {"relative_per_layer": True, "prenet_depth": 1}),
        ("image", {"norm_first": True, "final_norm": True}, {"positions": "absolute", "patch_width": 10}),
        ("image", {"norm_first": True, "affine": False}, {"positions": "fixed", "prenet_depth": 1, "decoder": DECODER}),
        ("image", {"norm_first": True, "eps": 1e-3}, {"positions": "none", "patch": 6}),
        ("speech", {}, {}),
        ("speech", {"layer_scale": 0.3}, {"convolution_bias": True, "prenet_depth": 2, "decoder": DECODER}),
        ("speech", {"eps": 1e-3, "affine": False}, {"feature_eps": 1e-3, "position_kernel": 12, "position_depth": 1}),
        ("speech", {}, {"position_kernel": 5, "position_depth": 2}),
    ],
)
def test_encoders(modality, encoder, front, tmp_path):
    config = replaced({"text": TEXT, "image": IMAGE, "speech": SPEECH}[modality], front)
    model = pretrained(replaced(ENCODER, encoder), **{modality: config})
    assert export(model, tmp_path, None) == []
    values, padding = sample(modality)
    if modality == "text":
        values[padding] = config.padding_id
    with torch.no_grad():
        wanted = model.student.features(modality, values, padding)
        front_end = model.student.front_end(modality)
        padded = None if padding is None else front_end.pad(padding, wanted.shape[1])
        # The first step alone must not change the function.
        assert gap(wanted, plain(model.student, modality).features(modality, values, padding), padded) < 1e-5
    theirs = opened(tmp_path)
    assert gap(wanted, outputs(theirs, values, padding), padded) < 1e-5
    with torch.no_grad():
        block = (theirs.encoder.layers if modality == "speech" else theirs.encoder.layer)[-1]
        (block.feed_forward.output_dense if modality == "speech" else block.output.dense).weight[2, 3] += 0.1
    assert gap(wanted, outputs(theirs, values, padding), padded) > 1e-4


@pytest.mark.parametrize(("modality", "change"), CHANGES)
def test_encoders_come_back_as_they_were(modality, change, tmp_path):
    if "conv_dim" in change:
        change = {**change, "conv_stride": (5, 2)}
    config = configuration(modality, **change)
    there = saved(ENCODERS[modality], config, tmp_path / "there").state_dict()
    export(convert(tmp_path / "there"), tmp_path / "back", None)
    back = opened(tmp_path / "back")
    settings = json.loads((tmp_path / "back" / "config.json").read_text())
    same = (
        "layer_norm_eps",
        "hidden_act",
        "image_size",
        "patch_size",
        "num_channels",
        "drop_path_rate",
        "pad_token_id",
    )
    for name in same:
        assert settings.get(name) == getattr(config, name, None), name
    compare(there, back.state_dict(), modality)


def compare(there, back, modality):
    """Equal tensors, except for pairs that are folded, whose sums are equal."""
    prefix = next((key.removesuffix("embeddings.cls_token") for key in there if key.endswith("cls_token")), "")
    for types in [key for key in there if key.endswith("token_type_embeddings.weight")]:
        positions = types.replace("token_type", "position")
        there, back = ({**s, positions: s[positions] + s[types][0], types: torch.zeros(1)} for s in (there, back))
    if (positions := f"{prefix}embeddings.position_embeddings") in there:
        for state in (there, back):
            state[f"{prefix}embeddings.cls_token"] = state[f"{prefix}embeddings.cls_token"] + state[positions][:, :1]
            state[positions] = state[positions][:, 1:]
    fresh = {"pooler.dense.weight", "pooler.dense.bias"}
    # The model had no mask token; ours is new.
    extra = {key for key in back if key.endswith(("mask_token", "masked_spec_embed"))}
    assert set(there) - fresh == set(back) - fresh - (extra - set(there))
    for key, tensor in there.items():
        if key not in fresh:
            assert torch.equal(tensor, back[key]), key


@pytest.mark.parametrize(("architecture", "change"), HEADS)
def test_heads_come_back_as_they_were(architecture, change, tmp_path):
    modality, config = of_head(architecture, change)
    theirs = saved(architecture, config, tmp_path / "there")
    assert main(["convert", "transformers", str(tmp_path / "there"), str(tmp_path / "ours")]) == 0
    assert main(["export", "transformers", str(tmp_path / "ours"), str(tmp_path / "back")]) == 0
    back = opened(tmp_path / "back", f"AutoModelFor{AUTO[architecture.removeprefix('Data2Vec')]}")
    values, padding = question(architecture, modality)
    assert gap(outputs(theirs, values, padding), outputs(back, values, padding)) < 1e-5
    there = theirs.state_dict()
    if change.get("tie_word_embeddings") is False:
        # This bias is not used if it is not tied.
        there["lm_head.bias"] = there["lm_head.decoder.bias"]
    compare(there, back.state_dict(), modality)
    wanted, found = config.to_dict(), back.config.to_dict()
    if modality == "text":
        # A token type that no token has is dropped; a dropout rate that was that of other layers becomes explicit.
        wanted |= {"type_vocab_size": 1, "classifier_dropout": found["classifier_dropout"]}
        if "classifier_dropout" in change:
            assert found["classifier_dropout"] == change["classifier_dropout"]
    names = {"num_labels", "id2label", *change, *(name for name in wanted if "dropout" in name)}
    assert {name: _listed(found.get(name)) for name in names} == {name: _listed(wanted.get(name)) for name in names}


def _listed(value):
    return list(value) if isinstance(value, tuple) else value


def tuned(modality: str, head: HeadConfig, labels=("a", "b", "c"), **encoder) -> FineTuned:
    front = {"text": TEXT, "image": replaced(IMAGE, {"prenet_depth": 1}), "speech": SPEECH}[modality]
    shape = replaced(ENCODER, {"norm_first": modality == "image", **encoder})
    return roughened(FineTuned(shape, Modalities(**{modality: front}), Inputs(), head, labels))


@pytest.mark.parametrize(
    ("model", "auto"),
    [
        (lambda: tuned("speech", HeadConfig()), "AudioClassification"),
        (lambda: tuned("speech", HeadConfig("ctc"), (BLANK, " ", "a")), "CTC"),
        (lambda: tuned("speech", HeadConfig("tagging", layer_sum=True), layer_scale=0.5), "AudioFrameClassification"),
        (lambda: tuned("image", HeadConfig(norm=True)), "ImageClassification"),
        (lambda: tuned("image", HeadConfig(pooling="first"), final_norm=True), "ImageClassification"),
        (lambda: tuned("text", HeadConfig("tagging")), "TokenClassification"),
        (
            lambda: tuned("text", HeadConfig(pooling="first", inner=24, activation="tanh")),
            "SequenceClassification",
        ),
        (lambda: tuned("text", HeadConfig("language"), ()), "MaskedLM"),
    ],
)
def test_heads_made_here(model, auto, tmp_path):
    model = model()
    model.save(tmp_path / "ours")
    assert main(["export", "transformers", str(tmp_path / "ours"), str(tmp_path / "theirs")]) == 0
    values, padding = sample(model.modality)
    with torch.no_grad():
        wanted = model.logits(values, padding)
    theirs = opened(tmp_path / "theirs", f"AutoModelFor{auto}")
    padded = None
    if padding is not None and wanted.ndim == 3:
        padded = model.encoder.front_end(model.modality).pad(padding, wanted.shape[1])
    assert gap(wanted, outputs(theirs, values, padding), padded) < 1e-5
    if auto not in ("CTC", "MaskedLM"):
        assert list(theirs.config.id2label.values()) == model.labels


def test_a_regression_is_exported_in_the_units_of_its_labels(tmp_path):
    model = tuned("text", HeadConfig("regression", "first", inner=24, activation="tanh"), ())
    model.scale.copy_(torch.tensor([50.0, 7.0]))
    export(model, tmp_path, None)
    values, padding = sample("text")
    with torch.no_grad():
        wanted = 7 * model.logits(values, padding) + 50
    assert gap(wanted, outputs(opened(tmp_path, "AutoModelForSequenceClassification"), values, padding)) < 1e-4


def test_a_scaled_embedding_is_no_longer_tied(tmp_path):
    front = replaced(TEXT, {"scale_embedding": True})
    model = roughened(FineTuned(ENCODER, Modalities(text=front), Inputs(), HeadConfig("language")))
    export(model, tmp_path, None)
    values, padding = sample("text")
    with torch.no_grad():
        wanted = model.logits(values, padding)
    assert gap(wanted, outputs(opened(tmp_path, "AutoModelForMaskedLM"), values, padding), padding) < 1e-4


@pytest.mark.parametrize(
    ("modality", "encoder", "front", "message"),
    [
        ("text", {"norm_first": True}, {}, "encoder.norm_first is True"),
        ("image", {}, {}, "encoder.norm_first is False"),
        ("text", {"final_norm": True}, {}, "encoder.final_norm"),
        ("text", {}, {"alibi": AlibiConfig()}, "alibi"),
        ("text", {}, {"class_tokens": 1}, "class_tokens is 1"),
        ("text", {}, {"norm": True}, "two norms"),
        ("text", {}, {"embedding_norm": False}, "no norm"),
        ("text", {}, {"embedding_eps": 1e-3}, "embedding_eps is 0.001"),
        ("image", {"norm_first": True}, {"class_tokens": 0, "positions": "fixed"}, "class_tokens is 0"),
        ("image", {"norm_first": True}, {"norm": True}, "norm is true: for images"),
        ("speech", {}, {"norm": False}, "norm is false: for speech"),
        ("speech", {}, {"convolution_norm": "group"}, "convolution_norm"),
        ("speech", {}, {"log_mel": True}, "log_mel"),
        ("speech", {}, {"position_norm": True}, "position_norm"),
        ("speech", {}, {"position_weight_norm": True}, "position_weight_norm"),
        ("speech", {}, {"feature_eps": 1e-3}, "feature_eps"),
    ],
)
def test_an_error_names_what_transformers_cannot_represent(modality, encoder, front, message, tmp_path):
    config = replaced({"text": TEXT, "image": IMAGE, "speech": SPEECH}[modality], front)
    model = pretrained(replaced(ENCODER, encoder), **{modality: config})
    with pytest.raises(ConversionError, match=f"transformers cannot represent this model. .*{message}"):
        export(model, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("modality", "head", "encoder", "message"),
    [
        ("text", HeadConfig(), {}, "head.pooling is mean; in transformers it is first"),
        ("text", HeadConfig("tagging", layer_sum=True), {}, "layer_sum"),
        ("image", HeadConfig(), {}, r"head.norm is False; .* Fine-tune the model with --model\.head\.norm=true\."),
        ("image", HeadConfig(norm=True), {"final_norm": True}, "normalises either"),
        ("image", HeadConfig("tagging"), {}, "no data2vec model of image"),
        ("speech", HeadConfig(norm=True), {}, "head.norm is True"),
        ("speech", HeadConfig("regression"), {}, "no data2vec model of speech"),
    ],
)
def test_heads_that_cannot_be_expressed_are_named(modality, head, encoder, message, tmp_path):
    with pytest.raises(ConversionError, match=message):
        export(tuned(modality, head, **encoder), tmp_path, None)


def test_of_several_modalities_one_is_chosen(tmp_path, capsys):
    pretrained(text=TEXT, speech=SPEECH).save(tmp_path / "ours")
    command = ["export", "transformers", str(tmp_path / "ours"), str(tmp_path / "theirs")]
    assert main(command) == 2
    assert "reads text, speech" in capsys.readouterr().err
    assert main([*command, "--modality", "image"]) == 2
    assert "does not read image; --modality may be text or speech" in capsys.readouterr().err
    assert main([*command, "--modality", "speech"]) == 0
    assert isinstance(opened(tmp_path / "theirs"), transformers.Data2VecAudioModel)
    # Files of an earlier export are replaced.
    assert main([*command, "--modality", "text"]) == 0
    assert isinstance(opened(tmp_path / "theirs"), transformers.Data2VecTextModel)


def test_a_different_treatment_of_padding_is_a_note(tmp_path, capsys):
    pretrained(speech=replaced(SPEECH, {"strict_padding": True})).save(tmp_path / "ours")
    assert main(["export", "transformers", str(tmp_path / "ours"), str(tmp_path / "theirs")]) == 0
    assert "recordings of different lengths" in capsys.readouterr().out.replace("\n", " ")


def test_other_models_are_not_exported(tmp_path, capsys):
    assert main(["export", "transformers", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "no config.json" in capsys.readouterr().err


def test_the_tokenizer_goes_along(tmp_path):
    model = pretrained(text=replaced(TEXT, {"vocabulary_size": 300, "mask_id": 299}))
    text = TextInput.train(["the quick brown fox jumps over the lazy dog"] * 3, 300, 20)
    model.inputs = Inputs(text=text)
    export(model, tmp_path / "theirs", None)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    assert tokenizer("the quick fox")["input_ids"] == text("the quick fox").tolist()
    assert tokenizer.pad_token_id == text.padding_id
    assert tokenizer.mask_token_id == text.mask_id
    back = convert(tmp_path / "theirs")
    assert back.inputs.text("the lazy dog").tolist() == text("the lazy dog").tolist()
    assert back.modalities.text.mask_id == text.mask_id


def test_how_images_are_prepared_goes_along(tmp_path):
    model = pretrained(replaced(ENCODER, {"norm_first": True}), image=IMAGE)
    model.inputs = Inputs(image=ImageInput(24, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    export(model, tmp_path, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    smooth = np.linspace(0, 255, 60 * 48 * 3).reshape(60, 48, 3).astype(np.uint8)
    picture = Pillow.fromarray(smooth)
    theirs = torch.as_tensor(np.asarray(processor(picture)["pixel_values"][0]))
    assert gap(model.inputs.image(picture), theirs) < 1e-6
    back = convert(tmp_path).inputs.image
    assert (back.size, tuple(back.mean), tuple(back.std)) == (24, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def test_how_recordings_are_prepared_and_symbols_go_along(tmp_path):
    model = tuned("speech", HeadConfig("ctc"), (BLANK, " ", "a", "b"))
    model.inputs = Inputs(speech=SpeechInput(16_000, True))
    export(model, tmp_path, None)
    wave = np.random.default_rng(0).normal(3, 2, 600).astype(np.float32)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    theirs = torch.as_tensor(np.asarray(extractor(wave, sampling_rate=16_000)["input_values"][0]))
    assert gap(model.inputs.speech(wave), theirs) < 1e-4
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode([2, 2, 0, 2, 1, 3]) == "aa b"
    assert convert(tmp_path).labels == [BLANK, " ", "a", "b"]
    assert convert(tmp_path).inputs.speech == SpeechInput(16_000, True)


@pytest.mark.parametrize("name", ["image", "text", "speech"])
def test_models_of_the_recipes_for_export_open_in_transformers(name, tmp_path):
    """The encoder of an untrained model from a recipe computes the same function in transformers."""
    recipe, _ = read_recipe(RECIPES / f"data2vec-{name}-export.yaml", [])
    torch.manual_seed(0)
    model = recipe.model.build().model.eval()
    export(model, tmp_path / "out")
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    values = {
        "image": torch.randn(2, 3, 64, 64),
        "text": torch.randint(5, 300, (2, 12)),
        "speech": torch.randn(2, 8000),
    }[name]
    with torch.no_grad():
        ours = model.student.features(name, values)
        found = theirs(values).last_hidden_state
    torch.testing.assert_close(found[:, found.shape[1] - ours.shape[1] :], ours, atol=1e-4, rtol=1e-3)
