"""The model of a finished run as it was before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vislang.errors import UserError
from vislang.recipe import recipe_of
from vislang.runs.folder import recorded
from vislang.train.checkpoint import list_checkpoints, open_checkpoint


def before_training(folder: Path) -> Any:
    """The trainable model of a run with its initial weights, which follow from the seed.

    What was fitted to the data before training, such as a vocabulary, comes from a checkpoint: the untrained model
    needs it, too.

    Args:
        folder: the folder of a run that kept a checkpoint.

    Raises:
        UserError: it has none.
    """
    recipe, _ = recipe_of(recorded(folder)["recipe"], name=str(folder))
    saved = list_checkpoints(folder / "checkpoints")
    if not saved:
        raise UserError(f"{folder}: has no checkpoint, so the model before training cannot be built again.")
    torch.manual_seed(recipe.train.seed)
    model = recipe.model.build()
    model.load_extra_state(open_checkpoint(saved[0]).values["extra"])
    return model.eval()
