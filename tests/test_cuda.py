"""On a GPU: losses, training and resumption of every family, generation, what a step waits for. Skipped elsewhere."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tests.convert.test_transformers import ENCODERS
from tests.convert.theirs import configuration, gap, outputs, sample, saved
from tests.train import cases
from tests.train.line import Line, run
from vislang.convert.transformers import convert
from vislang.document import Document
from vislang.example import Example
from vislang.models.loading import load
from vislang.models.precision import dtype_of
from vislang.nn.device import to_device
from vislang.train.device import device_of
from vislang.train.log import read_metrics
from vislang.train.rows import StepSize
from vislang.train.speed import Speed, matrix_rate

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here (CUDA)"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("files")
    cases.write_files(made)
    return made


@pytest.fixture(autouse=True)
def _cache(folder, monkeypatch):
    monkeypatch.setenv("VISLANG_CACHE", str(folder / "cache"))


@pytest.mark.parametrize("name", cases.CASES)
def test_a_gpu_trains_what_a_processor_does(name, folder, tmp_path):
    """Float64: losses of several steps, and what was learned.

    A language model of transformers computes the angles of its rotary positions in float32, whatever its own type.
    """
    tolerance = 1e-6 if name in ("flamingo", "packed", "tuned") else 1e-8
    expected = cases.run(name, folder, tmp_path / "cpu")
    found = cases.run(name, folder, tmp_path / "cuda", device="cuda")
    for row, other in zip(found["rows"], expected["rows"], strict=True):
        assert row == pytest.approx(other, rel=tolerance, abs=tolerance)
    for tensor_name, tensor in found["state"].items():
        assert tensor.device.type == "cuda" or not tensor.is_floating_point()
        torch.testing.assert_close(tensor.cpu(), expected["state"][tensor_name], rtol=0, atol=1e-6)


def test_a_run_resumes_bit_for_bit(tmp_path):
    """With dropout, which draws from the GPU's own generator."""
    settings = {"device": "cuda", "log_every": 4}
    whole, losses = run(tmp_path / "whole", 12, **settings)
    run(tmp_path / "cut", 12, model=Line(stop_after=6), **settings)
    resumed, again = run(tmp_path / "cut", 12, resume=True, **settings)
    assert again == losses
    assert torch.equal(resumed.inner.weight, whole.inner.weight)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_that_is_not_logged_waits_for_nothing(tmp_path, optimizer):
    model = Line()
    after_step = model.after_step

    def watched():
        after_step()
        # From the second step on; the last one is logged.
        torch.cuda.set_sync_debug_mode("error" if 1 <= model.steps < 7 else "default")

    model.after_step = watched
    try:
        _, losses = run(tmp_path, 8, model=model, device="cuda", log_every=8, checkpoint_every=8, optimizer=optimizer)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(losses) == 8


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_gradient_that_is_not_finite_is_skipped_on_the_gpu(tmp_path, optimizer):
    from tests.train.test_loop import spoilt
    from vislang.train.step_log import SkippedStep

    with pytest.warns(SkippedStep):
        model, losses = run(tmp_path, 8, model=spoilt(2, 3), device="cuda", log_every=8, optimizer=optimizer)
    assert len(losses) == 6
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_flamingo_writes_and_ranks_alike(folder):
    towers = (str(folder / "language"), str(folder / "vision"))
    host, gpu = tiny.flamingo(towers).eval(), tiny.flamingo(towers).eval().to("cuda")
    prompts = [Document([image, "Question: what color? Answer:"]) for image in cases.images(folder)[:3]]
    assert gpu.generate(prompts, 6) == host.generate(prompts, 6)
    expected = host.rank(prompts, ["red", "blue", "a black cat"])
    for own, other in zip(gpu.rank(prompts, ["red", "blue", "a black cat"]), expected, strict=True):
        assert [s.log_likelihood for s in own] == pytest.approx([s.log_likelihood for s in other], abs=1e-3)
    maps = gpu.attention(prompts[0], 3)
    assert all(grid.device.type == "cpu" for token in maps for grid in token.maps)


@pytest.mark.parametrize("name", ["vilbert_tasks", "dual_encoder", "vilbert_pretraining", "data2vec_v1"])
def test_a_saved_model_opens_on_the_gpu_and_answers_alike(name, folder, tmp_path):
    torch.manual_seed(0)
    cases.CASES[name](folder).model.eval().save(tmp_path)
    host, gpu = load(tmp_path), load(tmp_path, device_of("cuda"))
    pictures = cases.images(folder)[:4]
    if name == "vilbert_tasks":
        asked = [Example(str(n), Document([image, "what colour?"])) for n, image in enumerate(pictures)]
        both = [model.decide(asked, "answers") for model in (host, gpu)]
        assert [p.answer for p in both[1]] == [p.answer for p in both[0]]
    elif name == "data2vec_v1":
        documents = [Document([image]) for image in pictures]
        torch.testing.assert_close(gpu.embed(documents), host.embed(documents), rtol=1e-3, atol=1e-3)
    else:
        scores = [model.match_all(pictures, ["a red shape", "a blue shape"]) for model in (host, gpu)]
        torch.testing.assert_close(scores[1], scores[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("modality", ["text", "image", "speech"])
def test_a_converted_model_equals_its_original_on_the_gpu(modality, tmp_path):
    """In float64, because convolutions in float32 round to TF32 on a GPU."""
    theirs = saved(ENCODERS[modality], configuration(modality), tmp_path / "theirs").double().to("cuda")
    values, padding = sample(modality)
    values = values.double() if values.is_floating_point() else values
    student = convert(tmp_path / "theirs").student.double().to("cuda")
    values, padding = values.to("cuda"), None if padding is None else padding.to("cuda")
    with torch.no_grad():
        found = student.features(modality, values, padding)
    padded = None if padding is None else student.front_end(modality).pad(padding, found.shape[1])
    assert found.device.type == "cuda"
    assert gap(outputs(theirs, values, padding), found, padded) < 1e-5


def test_automatic_precision_goes_by_the_device(folder, tmp_path):
    device = device_of("auto")
    assert device.type == "cuda"
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert dtype_of("auto", device) == (torch.bfloat16 if native else torch.float32)
    case = cases.data2vec_v1(folder)
    case.model.dtype = dtype_of("auto", device)
    model = case.model.to(device)
    batch = to_device(model.collate(case.streams[0].examples[:4], 1), device)
    loss = model(batch)["regression"]
    loss.backward()
    assert loss.dtype == torch.float32
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_gpus(parallel, folder, tmp_path):
    from tests.train.several import free_port, start

    start(2, _on_two_gpus, free_port(), parallel, folder, tmp_path)
    expected = cases.run("data2vec_v1", folder, tmp_path / "one")
    losses = (tmp_path / "losses").read_text().split()
    assert [float(loss) for loss in losses] == pytest.approx([row["loss"] for row in expected["rows"]], rel=1e-8)


def _on_two_gpus(rank, port, parallel, folder, out):
    from tests.train.several import together

    os.environ["VISLANG_CACHE"] = str(folder / "cache")
    with together(rank, 2, port):
        found = cases.run("data2vec_v1", folder, out / "two", device="cuda", parallel=parallel)
        if rank == 0:
            (out / "losses").write_text(" ".join(str(row["loss"]) for row in found["rows"]))


def test_operations_are_counted_and_timed_between_readings(tmp_path):
    """Attention with grouped queries, whose backward pass runs in threads of its own; and rows that come from the GPU
    four at a time."""
    queries = torch.randn(2, 4, 256, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    keys = torch.randn(2, 2, 256, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    speed, size = Speed(queries.device), StepSize(("only",), 1, 0)
    with speed.counted(size.streams):
        F.scaled_dot_product_attention(queries, keys, keys, enable_gqa=True).sum().backward()
    row = speed.row(1.0, size)
    # Two products forward, five backward.
    assert row["speed/flops_per_second"] == 7 * 2 * 2 * 4 * 256 * 256 * 64
    assert row["speed/matmul_share"] < 1e-3
    # A rate off by a unit, or of launches that were not waited for, is far outside.
    assert 1e12 < matrix_rate(queries.device, torch.bfloat16) < 1e16
    assert row["memory/peak_gib"] == torch.cuda.max_memory_allocated() / 2**30
    run(tmp_path, 8, device="cuda", log_every=4, checkpoint_every=8)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    rates = [row["speed/examples_per_second"] for row in rows]
    assert len(set(rates[:4])) == len(set(rates[4:])) == 1
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
