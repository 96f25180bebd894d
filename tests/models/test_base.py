"""The base of all models: a forward method each, checked settings, weights with a recorded hash, parameter groups."""

import importlib
import inspect
import json
import pkgutil

import pytest
import torch
from torch import nn

import vislang.models
import vislang.nn
from tests.models.test_data2vec import model as data2vec
from vislang.capabilities import Decides, Embeds, Explains, Matches, Reads, Reveals, Trainable
from vislang.errors import UserError
from vislang.models.base import TrainableModel, fill_model, write_model
from vislang.models.data2vec.finetuning import FineTuned
from vislang.models.data2vec.model import Data2Vec
from vislang.models.data2vec.pretraining import Pretraining
from vislang.models.dual_encoder.model import ContrastiveEncoder
from vislang.models.loading import current_settings, load
from vislang.models.precision import dtype_of, fastest_dtype
from vislang.models.vilbert.pretraining import PretrainedViLBERT
from vislang.models.vilbert.tasks import ViLBERTForTasks


def modules() -> list[type[nn.Module]]:
    found = set()
    for package in (vislang.nn, vislang.models):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            members = vars(importlib.import_module(info.name)).values()
            found |= {
                m for m in members if inspect.isclass(m) and issubclass(m, nn.Module) and m.__module__ == info.name
            }
    return sorted(found, key=lambda module: module.__qualname__)


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__qualname__)
def test_every_module_has_a_forward(module):
    assert module.forward is not nn.Module.forward
    assert getattr(module.forward, "__name__", "") != "_forward_unimplemented"


@pytest.fixture
def saved(tmp_path):
    data2vec("v1").save(tmp_path / "model")
    return tmp_path / "model"


def changed(folder, change) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("encoder"), "encoder is missing"),
        (lambda config: config.update(encodr={}), "encodr is unknown; the settings are encoder, modalities"),
        (lambda config: config.update(encoder=3), "encoder must be an object with settings, not 3"),
        (lambda config: config["encoder"].update(width="wide"), "encoder.width is 'wide'; it must be a whole number"),
        (lambda config: config["encoder"].update(widht=3), "encoder.widht is unknown"),
        (lambda config: config["encoder"].update(activation="swish"), "encoder.activation is 'swish'"),
        (lambda config: config["encoder"].update(heads=3), "not a multiple of"),
        (lambda config: config["encoder"].update(depth=0), "encoder: depth is 0; it must be at least 1"),
        (lambda config: config["encoder"].update(width=0), "encoder: width is 0; it must be at least 1"),
        (lambda config: config["encoder"].update(drop_path=[0.1]), "encoder: drop_path"),
        (lambda config: config["modalities"]["image"].update(patch=[8]), r"modalities.image.patch is \[8\]"),
        (lambda config: config.update(updates=None), "updates is None; it must be a whole number"),
        (
            lambda config: config["encoder"].update(dropout=-1),
            "encoder: dropout is -1.0; it must be at least 0 and below 1",
        ),
        (lambda config: config["encoder"].update(drop_path=[0, 1]), r"encoder: drop_path is \[0.0, 1.0\]"),
        (lambda config: config["encoder"].update(eps=0), "encoder: eps is 0.0; it must be above 0"),
        (lambda config: config["modalities"]["image"].update(patch=-1), "modalities.image: patch is -1"),
        (lambda config: config["modalities"]["image"].update(class_tokens=-1), "modalities.image: class_tokens is -1"),
        (lambda config: config["modalities"]["text"].update(padding_id=99), "modalities.text: padding_id is 99"),
        (
            lambda config: config["modalities"]["speech"].update(convolutions=[[4, 3]]),
            "modalities.speech: convolutions",
        ),
        (lambda config: config["objective"].update(top_k=0), "objective.top_k is 0"),
        (lambda config: config["teacher"].update(decay=2), "teacher.decay is 2.0; it is a share"),
        (
            lambda config: config["inputs"].update(image={"size": 7}),
            "inputs.image.size is 7, and modalities.image.size",
        ),
        (lambda config: config["inputs"].update(image={"mean": []}), r"inputs.image.mean is \[\]"),
        (lambda config: config.update(model="vislang.models.base.TrainableModel"), "does not have as a model"),
        (lambda config: config.update(model="vislang.models.data2vec.model.None"), "does not have as a model"),
        (lambda config: config.update(model="os.system"), "names os.system, which is not a model of vislang"),
        (lambda config: config.pop("model"), 'names no class of vislang under "model"'),
    ],
)
def test_a_wrong_setting_of_a_saved_model_is_named_with_its_file(saved, change, message):
    changed(saved, change)
    with pytest.raises(UserError, match=message) as caught:
        load(saved)
    assert str(saved) in str(caught.value)


def test_weights_that_do_not_fit_are_named_with_their_folder(saved):
    changed(saved, lambda config: config["encoder"].update(mlp_width=7))
    with pytest.raises(
        UserError, match=f"^{saved}: the weights do not fit the config: size mismatch .*; and "
    ) as caught:
        load(saved)
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_a_folder_is_named(saved):
    with pytest.raises(UserError, match=r"config\.json: is a file\. Give the folder of a saved model"):
        load(saved / "config.json")


def test_weights_that_were_changed_are_noticed(saved):
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: damaged or replaced"):
        load(saved)


def test_old_names_of_settings_are_read():
    old = {
        "encoder": {"hidden": 8},
        "streams": {"text": {"hidden": 1}, "vision": {"hidden": 2}, "meetings": [[1, 0]]},
        "heads": {"vqa v2.0": {"hidden": 4}},
        "masking": {"image": {"hidden": 0.5}},
        "tasks": {"refer": {"kind": "place", "deviation": 2.0}},
        "labels": ["hidden", "place"],
    }
    assert current_settings(old) == {
        "encoder": {"mlp_width": 8},
        "streams": {"text": {"mlp_width": 1}, "vision": {"mlp_width": 2}, "co_attention_layers": [[1, 0]]},
        "heads": {"vqa v2.0": {"mlp_width": 4}},
        "masking": {"image": {"mask_ratio": 0.5}},
        "tasks": {"refer": {"kind": "box", "std": 2.0}},
        "labels": ["hidden", "place"],
    }


class Small(TrainableModel):
    """Two linear layers and an embedding."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.embedding = nn.Embedding(5, 3)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def rate_group(self, name):
        return "head" if name.startswith("head.") else "other"

    def forward(self, batch):
        return {"loss": self.head(self.first(batch)).sum()}

    def save(self, folder):
        torch.save(self.state_dict(), folder / "small.pt")


def test_groups_are_for_rates_and_decay_is_a_rule():
    model = Small()
    groups = model.parameter_groups()
    assert {group: [name for name, _ in named] for group, named in groups.items()} == {
        "other": ["first.weight", "first.bias", "embedding.weight"],
        "head": ["head.weight", "head.bias"],
    }
    decaying = [name for named in groups.values() for name, p in named if model.decays(name, p)]
    assert decaying == ["first.weight", "head.weight"]


def test_the_state_of_another_model_is_named():
    model, other = Small(), Small()
    other.load_trainable_state(model.trainable_state())
    assert torch.equal(other.first.weight, model.first.weight)
    with pytest.raises(UserError, match=r"missing first\.weight.*unexpected x"):
        model.load_trainable_state({"x": torch.ones(1)})
    with pytest.raises(UserError, match=r"first\.weight is \(1,\), not \(4, 3\)"):
        model.load_trainable_state({**other.trainable_state(), "first.weight": torch.ones(1)})


def test_weights_that_are_shared_are_written_once_and_opened(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    write_model(tmp_path, model, {})
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    other[1].weight = other[0].weight
    fill_model(other, tmp_path)
    assert torch.equal(other[1].weight, model[0].weight)


def test_a_visible_gpu_does_not_decide_for_a_model_on_the_processor(monkeypatch):
    expected = fastest_dtype("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: expected != torch.bfloat16)
    assert dtype_of("auto") == dtype_of("auto", "cpu") == expected
    assert dtype_of("auto", "cuda") != expected
    assert dtype_of("float32", "cuda") == torch.float32


def test_models_have_the_capabilities_that_they_name():
    for model, capabilities in (
        (FineTuned, (Decides, Embeds, Reads, Trainable)),
        (ViLBERTForTasks, (Decides, Explains, Matches, Reads, Trainable)),
        (PretrainedViLBERT, (Matches, Reads, Trainable)),
        (ContrastiveEncoder, (Matches, Embeds, Reads, Trainable)),
        (Pretraining, (Embeds, Reveals, Reads, Trainable)),
        (Data2Vec, (Embeds, Reads)),
    ):
        for capability in capabilities:
            methods = [
                name for name in vars(capability) if not name.startswith("_") and callable(vars(capability)[name])
            ]
            assert methods
            assert all(callable(getattr(model, name)) for name in methods), (model, capability)
