"""Settings of training: each that cannot be is named before anything starts."""

import pytest

from vislang.errors import UserError
from vislang.recipe import read_recipe
from vislang.train.config import TrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, "steps is -1; it must be at least 1. Without it .* has 1,000 steps"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"steps": 0, "minutes": 8}, "steps is 0; it must be at least 1"),
        ({"minutes": -1.0}, r"minutes is -1\.0; it must not be negative"),
        ({"minutes": float("inf")}, "minutes is inf; it must be a finite number"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"warmup_steps": -1}, "warmup_steps is -1; it must not be negative"),
        ({"lr": 0.0}, r"lr is 0\.0; it must be above 0"),
        ({"lr": float("inf")}, "lr is inf; it must be a finite number"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
        ({"final_lr": -1.0}, r"final_lr is -1\.0; it is a share of the peak rate, from 0 to 1"),
        ({"final_lr": 0.1, "schedule": "constant"}, r"final_lr is 0\.1; the constant schedule has none"),
        ({"final_lr": 0.1, "schedule": "inverse-sqrt"}, "the inverse-sqrt schedule has none"),
        ({"schedule": "tri-stage"}, "final_lr is 0, which a tri-stage schedule never reaches"),
        ({"decay_share": 0.0}, r"decay_share is 0\.0; it must be above 0, up to 1"),
        ({"momentum": 1.0}, r"momentum is 1\.0; it must be at least 0 and below 1"),
        ({"betas": (2, 3)}, r"betas is \[2, 3\]; both must be at least 0 and below 1"),
        ({"seed": 2**70}, "seed is .*; it must be between"),
        ({"lr_scale": {"head": -1.0}}, "lr_scale: head is -1"),
    ],
)
def test_what_cannot_be_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        TrainConfig(**settings)


@pytest.mark.parametrize("option", ["betas=[2,3]", f"seed={2**70}", "final_lr=-1", "steps=0"])
def test_on_the_command_line_too(option, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {class_path: vislang.models.data2vec.pretraining.Data2VecRecipe}")
    with pytest.raises(UserError, match=option.partition("=")[0]):
        read_recipe(recipe, [f"--train.{option}"])


def test_a_run_without_a_number_of_steps_has_a_thousand_or_as_many_as_fit():
    assert TrainConfig().steps == TrainConfig(steps=None).steps == 1000
    assert TrainConfig(minutes=8).steps is None
    assert TrainConfig(steps=50, minutes=8).steps == 50
