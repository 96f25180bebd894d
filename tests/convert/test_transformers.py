"""Import from transformers: equal hidden states and logits with random weights, with padding."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.convert.theirs import configuration, gap, outputs, sample, saved
from vislang.cli import main
from vislang.convert.keys import ConversionError
from vislang.convert.transformers import convert
from vislang.models.data2vec.finetuning import BLANK, FineTuned
from vislang.models.data2vec.heads import SpeakerHead
from vislang.models.loading import load

ENCODERS = {"text": "Data2VecTextModel", "image": "Data2VecVisionModel", "speech": "Data2VecAudioModel"}

CHANGES = [
    ("text", {}),
    ("text", {"layer_norm_eps": 1e-3, "pad_token_id": 0, "hidden_act": "relu"}),
    ("text", {"type_vocab_size": 3, "num_hidden_layers": 1}),
    ("image", {"use_shared_relative_position_bias": True, "use_mask_token": True}),
    ("image", {"use_relative_position_bias": True, "layer_scale_init_value": 0.3, "num_hidden_layers": 2}),
    ("image", {"layer_scale_init_value": 0.0, "use_mean_pooling": False, "layer_norm_eps": 1e-3}),
    ("image", {"patch_size": 4, "num_channels": 1, "use_shared_relative_position_bias": True}),
    ("image", {"use_absolute_position_embeddings": True, "use_mask_token": True}),
    ("image", {"use_absolute_position_embeddings": True, "use_mean_pooling": False, "patch_size": 6}),
    ("speech", {}),
    ("speech", {"conv_bias": True, "layer_norm_eps": 1e-3}),
    ("speech", {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 6, "num_hidden_layers": 1}),
    ("speech", {"mask_time_prob": 0.0, "num_conv_pos_embeddings": 1, "conv_dim": (6, 10), "conv_kernel": (10, 4)}),
]

HEADS = [
    ("Data2VecTextForSequenceClassification", {"num_labels": 3}),
    ("Data2VecTextForSequenceClassification", {"num_labels": 1, "classifier_dropout": 0.3}),
    ("Data2VecTextForTokenClassification", {"num_labels": 4, "layer_norm_eps": 1e-3}),
    ("Data2VecTextForQuestionAnswering", {"type_vocab_size": 2}),
    ("Data2VecTextForMultipleChoice", {}),
    ("Data2VecTextForMaskedLM", {}),
    ("Data2VecTextForMaskedLM", {"tie_word_embeddings": False, "layer_norm_eps": 1e-3}),
    ("Data2VecVisionForImageClassification", {"num_labels": 3, "use_shared_relative_position_bias": True}),
    ("Data2VecVisionForImageClassification", {"num_labels": 5, "layer_norm_eps": 1e-3, "layer_scale_init_value": 0.0}),
    ("Data2VecVisionForImageClassification", {"num_labels": 2, "use_mean_pooling": False}),
    ("Data2VecAudioForCTC", {"vocab_size": 9}),
    ("Data2VecAudioForCTC", {"vocab_size": 5, "conv_bias": True, "num_conv_pos_embeddings": 2}),
    ("Data2VecAudioForSequenceClassification", {"num_labels": 3, "classifier_proj_size": 7}),
    ("Data2VecAudioForSequenceClassification", {"num_labels": 3, "use_weighted_layer_sum": True}),
    ("Data2VecAudioForAudioFrameClassification", {"num_labels": 2}),
    ("Data2VecAudioForAudioFrameClassification", {"num_labels": 4, "use_weighted_layer_sum": True}),
    ("Data2VecAudioForXVector", {"num_labels": 4, "tdnn_dim": (6, 9, 8), "xvector_output_dim": 5}),
    ("Data2VecAudioForXVector", {"num_labels": 2, "tdnn_dim": (6, 6, 8), "use_weighted_layer_sum": True}),
]


def of_head(architecture: str, change: dict) -> tuple[str, transformers.PreTrainedConfig]:
    """The modality and the configuration for a class with a head."""
    modality = {"T": "text", "V": "image", "A": "speech"}[architecture[len("Data2Vec")]]
    if architecture.endswith("XVector"):
        change = {"tdnn_kernel": (5, 3, 1), "tdnn_dilation": (1, 2, 1), **change}
    return modality, configuration(modality, **change)


def question(architecture: str, modality: str):
    """Inputs for a class: one text for each example, or three choices."""
    values, padding = sample(modality)
    if architecture.endswith("MultipleChoice"):
        return torch.stack([values, values.flip(0)]), torch.stack([padding, padding.flip(0)])
    return values, padding


def frames_of(model: FineTuned, padding, logits):
    """True for logits of padded tokens or frames, which are not used."""
    if padding is None or logits.ndim < 3:
        return None
    return model.encoder.front_end(model.modality).pad(padding, logits.shape[1])


@pytest.mark.parametrize(("modality", "change"), CHANGES)
def test_encoders(modality, change, tmp_path):
    if "conv_dim" in change:
        change = {**change, "conv_stride": (5, 2)}
    config = configuration(modality, **change)
    theirs = saved(ENCODERS[modality], config, tmp_path / "theirs")
    values, padding = sample(modality, config)
    student = convert(tmp_path / "theirs").student
    with torch.no_grad():
        found = student.features(modality, values, padding)
    padded = None if padding is None else student.front_end(modality).pad(padding, found.shape[1])
    assert gap(outputs(theirs, values, padding), found, padded) < 1e-5


@pytest.mark.parametrize(("architecture", "change"), HEADS)
def test_heads(architecture, change, tmp_path):
    modality, config = of_head(architecture, change)
    theirs = saved(architecture, config, tmp_path / "theirs")
    values, padding = question(architecture, modality)
    ours = convert(tmp_path / "theirs")
    ours.save(tmp_path / "ours")
    again = load(tmp_path / "ours")
    wanted = outputs(theirs, values, padding)
    with torch.no_grad():
        found = ours.logits(values, padding)
        assert torch.equal(again.logits(values, padding), found)
    assert gap(wanted, found, frames_of(ours, padding, found)) < 1e-5
    assert wanted.std() > 1e-2


@pytest.mark.parametrize(("architecture", "change"), HEADS)
def test_any_changed_weight_is_noticed(architecture, change, tmp_path):
    """Noise on any tensor changes the output, except for tensors that neither side uses without masks or training."""
    modality, config = of_head(architecture, change)
    theirs = saved(architecture, config, tmp_path / "theirs")
    values, padding = question(architecture, modality)
    wanted = outputs(theirs, values, padding)
    ours = convert(tmp_path / "theirs")
    silent = []
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            kept = parameter.clone()
            parameter.add_(0.3 * torch.randn_like(parameter))
            found = ours.logits(values, padding)
            if gap(wanted, found, frames_of(ours, padding, found)) < 1e-4:
                silent.append(name)
            parameter.copy_(kept)
    unread = {"image": ["encoder.front_ends.image.mask_token"], "speech": ["encoder.front_ends.speech.mask_token"]}
    assert sorted(set(silent) - {"head.speakers"}) == unread.get(modality, [])


@pytest.mark.parametrize("modality", ["text", "image", "speech"])
def test_one_changed_number_is_noticed(modality, tmp_path):
    theirs = saved(ENCODERS[modality], configuration(modality), tmp_path / "theirs")
    values, padding = sample(modality)
    student = convert(tmp_path / "theirs").student
    with torch.no_grad():
        student.blocks[1].narrow.weight[2, 3] += 0.1
        found = student.features(modality, values, padding)
    padded = None if padding is None else student.front_end(modality).pad(padding, found.shape[1])
    assert gap(outputs(theirs, values, padding), found, padded) > 1e-4


def test_a_speaker_is_known_by_what_the_loss_trains(tmp_path):
    _, config = of_head(*HEADS[-2])
    theirs = saved("Data2VecAudioForXVector", config, tmp_path / "theirs")
    values, _ = sample("speech")
    labels = torch.tensor([0, 3, 1])
    ours = convert(tmp_path / "theirs")
    assert isinstance(ours.head, SpeakerHead)
    with torch.no_grad():
        cosines = ours.head.similarities(ours.logits(values))
        margin = 0.4 * torch.nn.functional.one_hot(labels, 4)
        loss = torch.nn.functional.cross_entropy(30 * (cosines - margin), labels)
        assert loss.item() == pytest.approx(theirs(values, labels=labels).loss.item(), rel=1e-5)


def test_labels_and_dropout_come_along(tmp_path):
    config = configuration("text", id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    config.classifier_dropout = 0.3
    saved("Data2VecTextForSequenceClassification", config, tmp_path)
    ours = convert(tmp_path)
    assert ours.labels == ["bad", "good"]
    assert ours.head_config.dropout == 0.3
    assert ours.encoder.config.dropout == 0.1


def test_symbols_come_from_the_vocabulary(tmp_path):
    saved("Data2VecAudioForCTC", configuration("speech", vocab_size=4), tmp_path)
    assert convert(tmp_path).labels == [BLANK, "<1>", "<2>", "<3>"]
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "a": 2, "|": 1, "b": 3}))
    assert convert(tmp_path).labels == [BLANK, " ", "a", "b"]


def test_how_images_and_recordings_are_prepared_comes_along(tmp_path):
    saved("Data2VecVisionModel", configuration("image"), tmp_path / "image")
    assert convert(tmp_path / "image").inputs.image is None
    (tmp_path / "image" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.1, 0.2, 0.3]})
    )
    image = convert(tmp_path / "image").inputs.image
    assert (image.size, image.mean, image.std) == (24, [0.5, 0.5, 0.5], [0.1, 0.2, 0.3])
    saved("Data2VecAudioModel", configuration("speech"), tmp_path / "speech")
    (tmp_path / "speech" / "preprocessor_config.json").write_text(
        json.dumps({"sampling_rate": 8000, "do_normalize": False})
    )
    speech = convert(tmp_path / "speech").inputs.speech
    assert (speech.rate, speech.normalise) == (8000, False)


def test_a_converted_model_is_saved_and_trained(tmp_path):
    config = configuration("image", use_shared_relative_position_bias=True, use_mask_token=True)
    saved("Data2VecVisionModel", config, tmp_path / "theirs")
    assert main(["convert", "transformers", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    ours = convert(tmp_path / "theirs")
    pixels = torch.randn(2, 3, 24, 24)
    assert torch.equal(
        load(tmp_path / "ours").student.features("image", pixels), ours.student.features("image", pixels)
    )
    assert torch.equal(ours.teacher.blocks[0].widen.weight, ours.student.blocks[0].widen.weight)


def test_missing_and_unexpected_tensors_are_listed(tmp_path):
    saved("Data2VecAudioForCTC", configuration("speech", vocab_size=4), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["something.else"] = state.pop("lm_head.bias")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConversionError, match=r"missing lm_head\.bias; unexpected something\.else"):
        convert(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "change", "message"),
    [
        ("Data2VecTextForCausalLM", {"is_decoder": True}, "its architecture Data2VecTextForCausalLM is not supported"),
        (
            "Data2VecVisionForSemanticSegmentation",
            {"out_indices": (0, 1, 2, 3)},
            "SemanticSegmentation is not supported",
        ),
        ("Data2VecTextModel", {"is_decoder": True}, "is_decoder is not supported"),
        ("Data2VecTextModel", {"hidden_act": "silu"}, "hidden_act 'silu'"),
        ("Data2VecAudioModel", {"add_adapter": True}, "add_adapter"),
        ("Data2VecAudioModel", {"feat_extract_activation": "relu"}, "feat_extract_activation"),
        ("Data2VecAudioModel", {"conv_pos_kernel_size": 1}, "conv_pos_kernel_size"),
        ("Data2VecAudioForCTC", {"pad_token_id": 3}, "the blank symbol of CTC must be 0"),
        (
            "Data2VecVisionModel",
            {"use_absolute_position_embeddings": True, "use_relative_position_bias": True},
            "exclude each other",
        ),
        ("Data2VecVisionModel", {"image_size": (24, 32)}, "must be a single number"),
        ("Data2VecTextForSequenceClassification", {"problem_type": "multi_label_classification"}, "multi_label"),
        (
            "Data2VecTextForSequenceClassification",
            {"problem_type": "regression", "num_labels": 3},
            "regression of 3 numbers",
        ),
    ],
)
def test_settings_that_are_not_supported_are_named(architecture, change, message, tmp_path):
    _, config = of_head(architecture, change)
    saved(architecture, config, tmp_path)
    with pytest.raises(ConversionError, match=message):
        convert(tmp_path)


def test_other_models_are_errors(tmp_path, towers):
    with pytest.raises(ConversionError, match="is a model of the type llama"):
        convert(towers[0])
    with pytest.raises(ConversionError, match="cannot be opened by transformers"):
        convert(tmp_path)
