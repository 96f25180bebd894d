"""Muon against torch's, which parameters it updates, its state in a checkpoint, and sharded matrices."""

import pytest
import torch
from torch import nn

from tests import tiny
from tests.models.test_data2vec import model as data2vec
from tests.train.line import Line, run
from tests.train.test_loop import drop_last
from vislang.errors import UserError
from vislang.models.base import TrainableModel
from vislang.train.config import TrainConfig
from vislang.train.muon import Muon, orthogonalised
from vislang.train.optimizer import Optimizer

SHAPES = [(12, 5), (5, 12), (6, 6)]
POLYNOMIAL = (3.4445, -4.7750, 2.0315)


def updated(optimizer_class, dtype, monkeypatch, steps=4, **settings) -> list[torch.Tensor]:
    """Matrices after some steps along random gradients."""
    monkeypatch.setattr("vislang.train.muon.fastest_dtype", lambda device: dtype)
    generator = torch.Generator().manual_seed(1)
    matrices = [nn.Parameter(torch.randn(*shape, generator=generator)) for shape in SHAPES]
    optimizer = optimizer_class([{"params": matrices, "weight_decay": 0.3}], lr=0.02, momentum=0.9, **settings)
    for _ in range(steps):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=generator)
        optimizer.step()
    return [matrix.detach() for matrix in matrices]


def test_it_is_the_muon_of_torch(monkeypatch):
    wanted = updated(torch.optim.Muon, torch.bfloat16, monkeypatch, adjust_lr_fn="match_rms_adamw")
    for ours, theirs in zip(updated(Muon, torch.bfloat16, monkeypatch), wanted, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(updated(Muon, torch.float32, monkeypatch), wanted, strict=True):
        # The entries of an update are about 0.004; bfloat16 keeps two or three digits of each.
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
        assert not torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_iteration_applies_its_polynomial_to_the_singular_values(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = orthogonalised(matrix, POLYNOMIAL, 5, 1e-7, torch.float64)
    left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    a, b, c = POLYNOMIAL
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    torch.testing.assert_close(found, left @ values.diag() @ right, atol=1e-10, rtol=0)
    assert ((values > 0.5) & (values < 1.3)).all()


def names_by_muon(model) -> set[str]:
    return {n for group in model.parameter_groups().values() for n, p in group if model.is_hidden_matrix(n, p)}


def test_it_updates_hidden_matrices_and_nothing_else(towers):
    model = tiny.flamingo(towers)
    assert names_by_muon(model) == {
        name
        for name, parameter in model.bridge.named_parameters(prefix="bridge")
        if parameter.requires_grad and parameter.ndim == 2 and not name.endswith("latents")
    }
    encoder = data2vec("v1")
    chosen = {n for n, p in encoder.named_parameters() if TrainableModel.is_hidden_matrix(encoder, n, p)}
    assert "student.blocks.0.attention.to_output.weight" in chosen
    others = {name for name, parameter in encoder.named_parameters() if parameter.ndim == 2} - chosen
    assert {"heads.text.0.weight", "heads.text.2.weight", "student.front_ends.text.local.tokens.weight"} <= others
    assert names_by_muon(Line()) == {"inner.weight"}


def test_what_muon_does_not_update_is_updated_by_adamw():
    model, plain = Line(), Line()
    plain.load_state_dict(model.state_dict())
    settings = {"lr": 0.02, "weight_decay": 0.3}
    optimizer = Optimizer(model, TrainConfig(optimizer="muon", lr_scale={"head": 2.0}, **settings))
    muon = torch.optim.Muon([plain.inner.weight], **settings, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [
            {"params": [plain.inner.bias], "weight_decay": 0.0},
            {"params": [plain.head.weight], "lr": 0.04},
            {"params": [plain.head.bias], "lr": 0.04, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        **settings,
    )
    for step in range(3):
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            ours.grad = torch.full_like(ours, 0.1 * step - 0.05) * ours.detach()
            theirs.grad = ours.grad.clone()
        optimizer.step(1.0)
        muon.step()
        adamw.step()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        tolerance = 2e-3 if name == "inner.weight" else 1e-6
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0, msg=name)


def test_a_run_with_it_resumes_bit_for_bit(tmp_path):
    whole, losses = run(tmp_path / "whole", 12, keep_checkpoints=3, optimizer="muon")
    run(tmp_path / "cut", 12, keep_checkpoints=3, optimizer="muon")
    drop_last(tmp_path / "cut")
    resumed, again = run(tmp_path / "cut", 12, resume=True, keep_checkpoints=3, optimizer="muon")
    assert again == losses
    assert torch.equal(resumed.inner.weight, whole.inner.weight)
    _, other = run(tmp_path / "other", 12, keep_checkpoints=3)
    assert other[0] == losses[0]
    assert other[1:] != losses[1:]


def test_a_step_that_is_to_be_skipped_changes_nothing():
    """On a GPU a scalar says so, which the host does not read."""
    for found, moves in ((0.0, True), (1.0, False)):
        matrices = [nn.Parameter(torch.ones(3, 4)) for _ in range(2)]
        plain, told = (Muon([{"params": [matrix], "weight_decay": 0.3}], lr=0.05) for matrix in matrices)
        gradients = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(5))
        for matrix, optimizer in zip(matrices, (plain, told), strict=True):
            matrix.grad = gradients[0].clone()
            optimizer.step()
            matrix.grad = gradients[1].clone() if moves else torch.full_like(matrix, torch.nan)
        told.found_inf = torch.tensor(found)
        told.step()
        if moves:
            plain.step()
        assert torch.equal(*matrices)
        assert torch.equal(plain.state[matrices[0]]["momentum_buffer"], told.state[matrices[1]]["momentum_buffer"])


def test_the_state_of_another_optimizer_is_an_error():
    model = Line()
    adamw, muon = (Optimizer(model, TrainConfig(optimizer=name)) for name in ("adamw", "muon"))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for optimizer, other in ((adamw, muon), (muon, adamw)):
        optimizer.step(1.0)
        assert set(optimizer.state()) == set(dict(model.named_parameters()))
        with pytest.raises(UserError, match=r"an optimizer state of inner\.weight, which does not fit"):
            other.load_state(optimizer.state())


def test_a_model_without_a_hidden_matrix_is_an_error():
    model = Line()
    model.inner.weight.requires_grad_(False)
    with pytest.raises(UserError, match="optimizer is muon, and no matrix of a hidden linear layer trains"):
        Optimizer(model, TrainConfig(optimizer="muon"))
