"""The objective: the inputs of student and teacher, the targets, and the teacher's update."""

import json
import warnings

import pytest
import torch
import torch.nn.functional as F

from vislang.errors import UserError
from vislang.models.data2vec.blocks import EncoderConfig, Hidden, run_blocks
from vislang.models.data2vec.decoder import DecoderConfig
from vislang.models.data2vec.encoder import part_means
from vislang.models.data2vec.front_ends import AlibiConfig, ImageConfig, Modalities, SpeechConfig, TextConfig
from vislang.models.data2vec.model import Data2Vec, TeacherConfig
from vislang.models.data2vec.objective import (
    Collapsed,
    Masked,
    ObjectiveConfig,
    TooEasy,
    channel_std,
    make_targets,
    normalise,
)
from vislang.models.loading import load

ENCODER = {"width": 16, "depth": 3, "heads": 2, "mlp_width": 32}
DECODER = DecoderConfig(width=16, layers=2, kernel=3, groups=2)
CONVOLUTIONS = [(8, 10, 5), (8, 3, 2), (8, 3, 2)]
MODALITIES = ("text", "image", "speech")


def model(generation: str, copies: int = 1, class_loss: float = 0.0, scope: str = "all") -> Data2Vec:
    """A tiny model of all three modalities around one encoder."""
    torch.manual_seed(0)
    decoder = DECODER if generation == "v2" else None
    modalities = Modalities(
        text=TextConfig(vocabulary_size=40, max_length=16, mask_id=39, decoder=decoder, class_tokens=1),
        image=ImageConfig(
            size=24,
            patch=6,
            decoder=decoder,
            positions="fixed" if generation == "v2" else "relative",
            prenet_depth=1 if generation == "v2" else 0,
        ),
        speech=SpeechConfig(
            convolutions=CONVOLUTIONS,
            position_kernel=6,
            position_groups=2,
            position_depth=2,
            decoder=decoder,
            alibi=AlibiConfig() if generation == "v2" else None,
            class_tokens=1,
        ),
    )
    objective = ObjectiveConfig(generation, top_k=2, copies=copies, class_loss=class_loss)
    return Data2Vec(EncoderConfig(**ENCODER), modalities, objective, TeacherConfig(0.9, 0.99, 10, scope)).eval()


def batch(modality: str, generation: str, copies: int = 1) -> Masked:
    """Two samples, and masks of five positions in each copy."""
    generator = torch.Generator().manual_seed(1)
    places = {"text": 12, "image": 16, "speech": 18}[modality]
    mask = torch.zeros(2 * copies, places, dtype=torch.bool)
    for row in mask:
        row[torch.randperm(places, generator=generator)[:5]] = True
    if modality == "text":
        tokens = torch.randint(5, 30, (2, places), generator=generator)
        return Masked(modality, tokens, mask, tokens.masked_fill(mask, 39) if generation == "v1" else None)
    shape = (2, 3, 24, 24) if modality == "image" else (2, 390)
    return Masked(modality, torch.randn(shape, generator=generator), mask)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_one_encoder_serves_all_modalities(modality, generation):
    built = model(generation)
    found = built.objective(batch(modality, generation))
    assert found.predictions.shape == found.targets.shape == (10, 16)
    assert not found.targets.requires_grad
    torch.stack(list(found.losses.values())).sum().backward()
    assert all(parameter.grad is None for parameter in built.teacher.parameters())
    assert all(block.widen.weight.grad.abs().sum() > 0 for block in built.student.blocks)
    others = [name for name in MODALITIES if name != modality]
    assert all(p.grad is None for name in others for p in built.student.front_end(name).parameters())


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_the_student_never_sees_what_is_hidden(generation):
    """Other content of a masked patch changes the target and no prediction."""
    built = model(generation)
    whole = batch("image", generation)
    if generation == "v2":
        built.heads["image"].config.noise = 0.0
    row, column = divmod(int(whole.mask[0].nonzero()[0]), 4)
    values = whole.values.clone()
    values[0, :, 6 * row : 6 * row + 6, 6 * column : 6 * column + 6] += 3
    before, after = built.objective(whole), built.objective(whole._replace(values=values))
    assert torch.equal(before.predictions, after.predictions)
    assert not torch.allclose(before.targets[:5], after.targets[:5], atol=1e-3)
    assert torch.allclose(before.targets[5:], after.targets[5:], atol=1e-5)


def test_masks_of_a_sample_share_one_reading_by_the_teacher(monkeypatch):
    built = model("v2", copies=3)
    readings = []
    forward = built.teacher.blocks[0].forward
    monkeypatch.setattr(
        built.teacher.blocks[0], "forward", lambda x, *more: readings.append(len(x)) or forward(x, *more)
    )
    encoded = []
    student = built.student.blocks[0].forward
    monkeypatch.setattr(
        built.student.blocks[0], "forward", lambda x, *more: encoded.append(tuple(x.shape[:2])) or student(x, *more)
    )
    assert len(built.objective(batch("image", "v2", copies=3)).targets) == 2 * 3 * 5
    assert readings == [2]
    # Eleven of sixteen patches are visible, and a class token.
    assert encoded == [(6, 12)]


def test_padding_changes_nothing():
    """Three more tokens of padding, or silence after a waveform, give the same features.

    Speech has a single positional convolution here: with several, the second one also reads the first one's output at
    the border of padding, as in the original.
    """
    for generation in ("v1", "v2"):
        built = model(generation)
        tokens = torch.randint(5, 30, (1, 9))
        padded = F.pad(tokens, (0, 3), value=1)
        features = built.student.features("text", padded, padded == 1)[:, :9]
        assert torch.allclose(features, built.student.features("text", tokens), atol=1e-5)
    speech = SpeechConfig(convolutions=CONVOLUTIONS, position_kernel=3, position_groups=2, position_depth=1)
    built = Data2Vec(EncoderConfig(**ENCODER), Modalities(speech=speech), ObjectiveConfig(top_k=2)).eval()
    wave = torch.randn(1, 300)
    longer = F.pad(wave, (0, 90))
    padding = F.pad(torch.zeros(1, 300, dtype=torch.bool), (0, 90), value=True)
    alone = built.student.features("speech", wave)
    assert torch.allclose(built.student.features("speech", longer, padding)[:, : alone.shape[1]], alone, atol=1e-4)


def test_vectors_are_means_of_features_at_each_depth_and_in_each_part():
    built = model("v2")
    tokens = torch.randint(5, 30, (2, 9))
    tokens[1, 6:] = 1
    one, last = built.student.embed("text", tokens, tokens == 1, [1, 3])
    features = built.student.features("text", tokens, tokens == 1)
    torch.testing.assert_close(last, torch.stack([features[0].mean(0), features[1, :6].mean(0)]))
    assert not torch.allclose(one, last)
    (thirds,) = built.student.embed("text", tokens, tokens == 1, [3], parts=3)
    by_hand = [torch.cat([part.mean(0) for part in row.chunk(3)]) for row in (features[0], features[1, :6])]
    torch.testing.assert_close(thirds, torch.stack(by_hand))


def test_parts_of_a_short_sequence_share_tokens():
    features = torch.arange(4.0).view(1, 4, 1)
    assert part_means(features, None, 3).tolist() == [[0.5, 1.5, 2.5]]
    assert part_means(features[:, :1], None, 3).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("norm", ["instance", "group", "batch"])
def test_padding_counts_in_no_norm(norm):
    x = 3 * torch.randn(2, 6, 5) + 2
    real = torch.ones(2, 6, dtype=torch.bool)
    torch.testing.assert_close(normalise(x, norm, real), normalise(x, norm), atol=1e-5, rtol=1e-4)
    if norm == "batch":
        real[:, 4:] = False
        alone = normalise(x[:, :4], norm)
    else:
        real[1, 4:] = False
        alone = torch.cat([normalise(x[:1], norm)[:, :4], normalise(x[1:, :4], norm)])
    torch.testing.assert_close(normalise(x, norm, real)[:, :4], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["text", "speech"])
def test_targets_do_not_depend_on_padding(kind):
    built = model("v2")
    if kind == "text":
        values, padded = torch.randint(5, 30, (1, 9)), 1
    else:
        values, padded = torch.randn(1, 300), 0
    longer = F.pad(values, (0, 60 if kind == "speech" else 4), value=padded)
    padding = torch.zeros(longer.shape, dtype=torch.bool)
    padding[:, values.shape[1] :] = True

    def targets(values, padding):
        local = built.student.front_end(kind).local_features(values)
        inner = None if padding is None else built.student.front_end(kind).pad(padding, local.shape[1])
        return built.targets(Masked(kind, values, torch.zeros(1, 1, dtype=torch.bool), padding=padding), local, inner)

    alone = targets(values, None)
    torch.testing.assert_close(targets(longer, padding)[:, : alone.shape[1]], alone, atol=1e-4, rtol=1e-3)


def test_targets_are_normalised_in_the_configured_order():
    results = [torch.randn(2, 7, 5) for _ in range(2)]
    config = ObjectiveConfig(top_k=2, layer_norms=["instance"], mean_norms=["layer"])
    mean = (
        sum((r - r.mean(1, keepdim=True)) / (r.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt() for r in results) / 2
    )
    expected = (mean - mean.mean(-1, keepdim=True)) / (mean.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(make_targets(results, config), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "over"),
    [("instance", (1,)), ("batch", (0, 1)), ("layer", (2,)), ("group", (1, 2)), ("group_across", (0, 2))],
)
def test_each_norm_has_its_axes(norm, over):
    out = normalise(3 * torch.randn(4, 6, 5) + 2, norm)
    assert torch.allclose(out.mean(over), torch.zeros(()), atol=1e-5)
    assert torch.allclose(out.var(over, unbiased=False), torch.ones(()), atol=1e-3)


def test_the_teacher_follows_by_an_annealed_average():
    built = model("v1")
    before = built.teacher.blocks[0].widen.weight.clone()
    with torch.no_grad():
        built.student.blocks[0].widen.weight.add_(1.0)
    for update in range(1, 13):
        built.after_step()
        decay = 0.99 if update >= 10 else 0.99 - 0.09 * (1 - update / 10)
        assert built.decay == pytest.approx(decay)
        before = decay * before + (1 - decay) * built.student.blocks[0].widen.weight
        assert torch.allclose(built.teacher.blocks[0].widen.weight, before, atol=1e-6)


def test_what_is_copied_is_not_averaged():
    built = model("v1")
    built.teacher_config.copied = ("front_ends.text.local",)
    with torch.no_grad():
        for parameter in built.student.parameters():
            parameter.add_(1.0)
    built.after_step()
    assert torch.equal(
        built.teacher.front_ends["text"].local.tokens.weight, built.student.front_ends["text"].local.tokens.weight
    )
    assert not torch.equal(built.teacher.blocks[0].widen.weight, built.student.blocks[0].widen.weight)


@pytest.mark.parametrize("scope", ["encoder", "context", "all"])
def test_the_teacher_owns_what_its_scope_says(scope):
    built = model("v2", scope=scope)
    names = [name for name, _ in built.teacher.named_parameters()]
    assert any(name.startswith("blocks") for name in names)
    assert any("prenet" in name for name in names) == (scope != "encoder")
    assert any(".local." in name for name in names) == (scope == "all")
    built.objective(batch("image", "v2"))


def test_the_class_token_predicts_the_mean_target():
    found = model("v2", copies=2, class_loss=0.5).objective(batch("image", "v2", copies=2))
    assert found.class_predictions.shape == found.class_targets.shape == (4, 16)
    error = F.mse_loss(found.class_predictions, found.class_targets, reduction="sum") / 4
    assert found.losses["class"].item() == pytest.approx(0.5 * found.positions * error.item(), rel=1e-5)


def test_a_pre_norm_block_keeps_its_residual_connection():
    """fairseq loses it in v2; see docs/data2vec.md."""
    torch.manual_seed(0)
    (block,) = EncoderConfig(**ENCODER, norm_first=True).blocks(1)
    x = torch.randn(1, 4, 16)
    out, result = block(x)
    attended = block.attention(block.attention_norm(x))
    assert torch.allclose(out, x + attended + result, atol=1e-6)


def test_a_collapse_stops_the_run_with_an_explanation():
    built = model("v1")
    built.objective_config.watch_from = 2
    whole = batch("image", "v1")
    healthy = built(whole)
    assert set(built.diagnostics()) == {"target_std", "prediction_std", "explained_variance", "teacher_decay"}
    assert healthy["regression"].item() == pytest.approx(built.objective(whole).losses["regression"].item() / 10)
    with torch.no_grad():
        for block in built.teacher.blocks:
            block.narrow.weight.zero_()
    built(whole)
    found = {name: float(value) for name, value in built.diagnostics().items()}
    built.check(found, 1)
    with pytest.raises(Collapsed, match=r"update 2: the targets have collapsed.*teacher\.decay"):
        built.check(found, 2)


def test_a_batch_with_a_single_masked_position_has_finite_diagnostics():
    """A short text may have one; NaN in the log would end the run."""
    built = model("v1")
    whole = batch("text", "v1")
    mask = torch.zeros_like(whole.mask)
    mask[0, 2] = True
    built(whole._replace(mask=mask))
    found = {name: float(value) for name, value in built.diagnostics().items()}
    assert (found["target_std"], found["prediction_std"], found["explained_variance"]) == (1, 1, 0)


def test_targets_that_can_be_had_without_reading_are_pointed_out(monkeypatch):
    built = model("v1").train()
    built.objective_config.watch_from = 0
    whole = batch("image", "v1")
    built(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built.check({name: float(value) for name, value in built.diagnostics().items()}, 0)
    found = built.objective(whole)
    targets = found.targets + 0.01 * torch.randn_like(found.targets)
    monkeypatch.setattr(built, "objective", lambda batch: found._replace(predictions=targets))
    built(whole)
    with pytest.warns(TooEasy, match="more than 98% of the targets' variance is predicted"):
        built.check({name: float(value) for name, value in built.diagnostics().items()}, 0)


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_a_few_steps_lower_the_loss_and_the_state_resumes(generation):
    built = model(generation, copies=2 if generation == "v2" else 1).train()
    whole = batch("image", generation, copies=2 if generation == "v2" else 1)
    optimizer = torch.optim.AdamW([p for p in built.parameters() if p.requires_grad], lr=3e-3)

    def step(trained):
        torch.manual_seed(5)
        loss = trained(whole)["regression"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trained.after_step()
        return loss.item()

    curve = [step(built) for _ in range(30)]
    assert curve[-1] < 0.7 * curve[0]
    other = model(generation, copies=2 if generation == "v2" else 1)
    other.load_state_dict(built.state_dict())
    other.updates = built.updates
    assert (other.updates, other.decay) == (30, built.decay)
    torch.manual_seed(6)
    expected = built(whole)["regression"]
    torch.manual_seed(6)
    assert other.train()(whole)["regression"] == expected


def test_the_standard_deviation_is_small_for_equal_features():
    assert channel_std(torch.ones(50, 4)) == pytest.approx(1e-3)
    assert channel_std(torch.randn(5000, 4)) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_saving_and_opening(generation, tmp_path):
    built = model(generation)
    built.after_step()
    built.save(tmp_path / "saved")
    opened = load(tmp_path / "saved")
    assert opened.updates == 1
    whole = batch("speech", generation)
    torch.manual_seed(3)
    expected = built.objective(whole).losses
    torch.manual_seed(3)
    assert opened.objective(whole).losses == expected
    # Weights of another shape are an error that names the folder.
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    config["encoder"]["width"] = 32
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="do not fit"):
        load(tmp_path / "saved")


@pytest.mark.parametrize(
    ("encoder", "modalities", "objective", "message"),
    [
        ({"heads": 3}, Modalities(image=ImageConfig()), ObjectiveConfig(top_k=1), "not a multiple"),
        ({}, Modalities(image=ImageConfig()), ObjectiveConfig(top_k=4), "3 blocks"),
        ({}, Modalities(image=ImageConfig()), ObjectiveConfig("v2", top_k=1), "needs a decoder"),
        ({}, Modalities(text=TextConfig()), ObjectiveConfig(top_k=1, class_loss=1.0), "needs a class token"),
        ({}, Modalities(), ObjectiveConfig(top_k=1), "at least one"),
        ({}, Modalities(image=ImageConfig(decoder=DECODER)), ObjectiveConfig("v2", top_k=1), "Use fixed"),
        ({}, Modalities(image=ImageConfig(class_tokens=0)), ObjectiveConfig(top_k=1), "Use fixed"),
    ],
)
def test_invalid_settings_are_errors(encoder, modalities, objective, message):
    with pytest.raises(UserError, match=message):
        Data2Vec(EncoderConfig(**{**ENCODER, **encoder}), modalities, objective)


def test_targets_of_some_positions_are_those_of_all():
    """A layer norm needs one position, so only those are computed; an instance norm needs all."""
    for layer_norms in (("layer",), ("instance", "layer")):
        built, given = model("v1"), batch("image", "v1")
        built.objective_config.layer_norms = layer_norms
        local = built.student.front_end("image").local_features(given.values)
        whole = built.targets(given, local, None)
        places = torch.tensor([3, 18, 33])
        chosen = built.targets(given, local, None, places)
        # A class token comes before each row's sixteen patches.
        assert torch.allclose(chosen, torch.stack([whole[0, 2], whole[1, 0], whole[1, 15]]), atol=1e-5)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(("modality", "generation"), [("image", "v1"), ("text", "v2")])
def test_a_local_target_holds_nothing_of_other_tokens(modality, generation, local):
    built, given = model(generation), batch(modality, generation)
    built.objective_config.local_targets = local
    built.objective_config.layer_norms = ("layer",)
    if modality == "image":
        # The last patch.
        changed = given.values.clone()
        changed[..., -6:, -6:] += 1.0
    else:
        changed = given.values.clone()
        changed[:, -1] = 7

    def targets(values):
        features = built.student.front_end(modality).local_features(values)
        return built.targets(given._replace(values=values), features, None)

    before, after = targets(given.values), targets(changed)
    assert not torch.equal(before[:, -1], after[:, -1])
    assert torch.equal(before[:, :-1], after[:, :-1]) == local


def test_local_targets_do_not_read_padding():
    built = model("v2")
    built.objective_config.local_targets = True
    values = torch.randint(5, 30, (1, 9))
    padding = torch.arange(9)[None] >= 7

    def targets(values, padding):
        front_end = built.student.front_end("text")
        local = front_end.local_features(values)
        inner = None if padding is None else front_end.pad(padding, local.shape[1])
        return built.targets(Masked("text", values, torch.zeros(1, 1, dtype=torch.bool), padding=padding), local, inner)

    found = targets(values, padding)[:, :7]
    assert found.isfinite().all()
    torch.testing.assert_close(found, targets(values[:, :7], None), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("positions", ["fixed", "absolute"])
def test_a_masked_patch_keeps_its_position(positions):
    image = ImageConfig(size=24, patch=6, positions=positions)
    built = Data2Vec(EncoderConfig(**ENCODER), Modalities(image=image), ObjectiveConfig("v1", top_k=2)).eval()
    found = built.objective(batch("image", "v1"))
    assert found.predictions[:5].std(dim=0).min() > 1e-4
    found.losses["regression"].backward()
    learned = built.student.front_end("image").absolute_positions
    assert (learned is not None and learned.grad.abs().sum() > 0) == (positions == "absolute")


def test_own_blocks_have_biases_of_their_own():
    image = ImageConfig(size=24, patch=6, prenet_depth=2, relative_per_layer=True)
    built = Data2Vec(EncoderConfig(**ENCODER), Modalities(image=image), ObjectiveConfig("v1", top_k=2)).eval()
    front_end = built.student.front_end("image")
    assert front_end.bias.tables.shape[0] == 5
    built.student.features("image", torch.randn(1, 3, 24, 24)).square().sum().backward()
    assert bool((front_end.bias.tables.grad.abs().sum(dim=(1, 2)) > 0).all())


@pytest.mark.parametrize("norm_first", [True, False])
def test_blocks_for_some_positions_are_the_blocks_at_those_positions(norm_first):
    torch.manual_seed(0)
    blocks = EncoderConfig(width=8, depth=2, heads=2, mlp_width=16, norm_first=norm_first, layer_scale=0.5).blocks(2)
    tokens, bias = torch.randn(3, 5, 8, requires_grad=True), torch.randn(1, 1, 2, 5, 5)
    padding = torch.arange(5).expand(3, 5) >= torch.tensor([[5], [4], [5]])
    hidden = Hidden(tokens, padding, bias)
    positions = torch.tensor([1, 4, 5, 14])
    whole = run_blocks(blocks, hidden, 2)
    whole = [part.flatten(0, 1)[positions] for part in (whole[0], *whole[1])]
    output, results = run_blocks(blocks, hidden, 2, positions=positions)
    chosen = [output, *results]
    for one, other in zip(chosen, whole, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    gradients = [torch.autograd.grad(parts[0].square().sum(), tokens)[0] for parts in (chosen, whole)]
    assert torch.allclose(*gradients, atol=1e-5)
