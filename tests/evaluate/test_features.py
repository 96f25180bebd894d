"""Frozen features: several depths of a model that has layers, one vector of others."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vislang.capabilities import EmbedsDepths
from vislang.document import Audio, Document, Image
from vislang.errors import UserError
from vislang.evaluate.features import depths_of, frozen_features
from vislang.models.loading import load

SAVED = Path(__file__).parents[1] / "saved"


class Deep:
    """A model of six blocks whose vectors contain the requested depth."""

    depth = 6

    def embed_at(self, documents, depths, batch_size=64, encoder="student", parts=1, progress=None):
        return {depth: torch.full((len(documents), parts), float(depth)) for depth in depths}


class Flat:
    """A model of one vector."""

    def embed(self, documents, batch_size=64, *, progress=None):
        return torch.ones(len(documents), 3)


@pytest.mark.parametrize(("blocks", "depths"), [(1, [1]), (2, [1, 2]), (6, [3, 5, 6]), (12, [6, 11, 12])])
def test_a_probe_chooses_among_the_upper_half_of_the_blocks(blocks, depths):
    assert depths_of(blocks) == depths


def test_features_are_named_by_their_depth_and_recordings_are_cut_into_thirds():
    found = frozen_features(Deep(), [Document(["a"]), Document(["b"])])
    assert {name: array.shape for name, array in found.items()} == {f"{n} blocks": (2, 1) for n in (3, 5, 6)}
    assert found["5 blocks"].tolist() == [[5.0], [5.0]]
    recordings = frozen_features(Deep(), [Document([Audio(b"a")])])
    assert recordings["6 blocks"].shape == (1, 3)


def test_a_model_of_one_vector_has_one_set_of_features():
    found = frozen_features(Flat(), [Document(["a"])])
    assert list(found) == ["embedding"]
    assert np.array_equal(found["embedding"], np.ones((1, 3), dtype=np.float32))


def test_what_has_no_teacher_or_no_vectors_is_an_error_that_names_the_model():
    with pytest.raises(UserError, match="--encoder teacher: a Flat has no teacher"):
        frozen_features(Flat(), [Document(["a"])], encoder="teacher")
    with pytest.raises(UserError, match="a object gives no vectors"):
        frozen_features(object(), [Document(["a"])])


def test_a_saved_data2vec_gives_features_after_each_of_its_blocks():
    model = load(SAVED / "data2vec-v2")
    assert isinstance(model, EmbedsDepths)
    documents = [Document([Image(SAVED / "pictures" / f"{number}.png")]) for number in range(3)]
    found = frozen_features(model, documents)
    assert list(found) == ["1 blocks", "2 blocks"]
    np.testing.assert_allclose(found["2 blocks"], model.embed(documents).numpy(), atol=1e-6)
    assert not np.allclose(found["1 blocks"], found["2 blocks"])
