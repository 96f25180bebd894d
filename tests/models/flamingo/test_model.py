"""From documents to text; saving, opening, and mismatched towers."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image as Pillow

import vislang
from tests import tiny
from vislang.document import Absent, Audio, Document, Image, MediaError
from vislang.errors import UserError
from vislang.models.flamingo.collate import IGNORED
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.model import Flamingo
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.models.loading import ModelNotFound
from vislang.models.towers.packaged import TowerError
from vislang.prompt import Prompts
from vislang.recipe import read_recipe
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.loop import train

RECIPE = Path(__file__).parents[3] / "recipes" / "flamingo.yaml"
SMALL = FlamingoConfig(**tiny.BRIDGE)


class Silent:
    """A monitor without output."""

    def step(self, step, row):
        pass

    def evaluated(self, step, row):
        pass


@pytest.fixture
def model(towers) -> Flamingo:
    return tiny.flamingo(towers)


def image(pictures, number: int) -> Image:
    return Image(pictures / f"{number}.png")


def test_the_text_is_standardised_where_it_predicts(towers, pictures):
    """Each channel that a gated block reads has mean 0 and standard deviation 1 where answers begin."""
    texts = ("what color?", "a cat", "a dog and a cat", "shape", "what shape?", "a red dog")
    examples = [tiny.question(image(pictures, n % 4), text, "red") for n, text in enumerate(texts)]
    plain, standardised = (
        FlamingoRecipe(*towers, bridge=replace(SMALL, standardise_text=how)).build() for how in (False, True)
    )
    for each in (plain, standardised):
        each.prepare(examples)
        each.fit(examples)
    prompts = [standardised.prompts.render(example.without_target()) for example in examples]
    batch = standardised.with_features(standardised.collate.documents(prompts))
    for layer, hidden in standardised.runner.gate_inputs(batch).items():
        assert len(hidden) == len(texts)
        block = standardised.bridge.block(layer)
        for norm in (block.norm, block.feed_forward.norm):
            out = norm(hidden).detach()
            torch.testing.assert_close(out.mean(dim=0), torch.zeros(out.shape[1]), atol=1e-4, rtol=0)
            # An almost constant channel stays small.
            assert out.std(dim=0).median() == pytest.approx(1, abs=1e-3)
            assert out.std(dim=0).max() < 1.001
        assert plain.bridge.block(layer).norm(hidden).std(dim=0).median() < 0.9


def test_texts_that_do_not_differ_cannot_be_standardised(towers, pictures):
    model = tiny.flamingo(towers, standardise_text=True)
    same = [tiny.question(image(pictures, n), "what color?", answer) for n, answer in enumerate(("red", "blue"))]
    with pytest.raises(UserError, match="have 1 different questions about media; two are needed"):
        model.fit(same)


def test_collating_lays_prefix_media_and_target_out(model, pictures):
    documents = [
        Document(["what color?", image(pictures, 0), " Answer:"], target="red"),
        Document([image(pictures, 1), "a dog"], target="blue"),
        Document(["a cat"], target="yes"),
    ]
    batch = model.collate.documents(documents)
    tokens = model.tokenizer
    ends = [tokens.decode(row[row != IGNORED]) for row in batch.targets]
    assert ends == [" red</s>", " blue</s>", " yes</s>"]
    for row in range(3):
        real = batch.attention_mask[row].bool()
        assert batch.media_time[row, real].tolist() == sorted(batch.media_time[row, real].tolist())
        # Each token is predicted at the position to its left.
        labelled = (batch.targets[row] != IGNORED).nonzero()[:, 0]
        following = batch.input_ids[row, labelled[1:]]
        assert following.tolist() == batch.targets[row, labelled[:-1]].tolist()
    assert (batch.media_time[:, : batch.prefix] == 0).all()
    assert batch.media_index.tolist() == [[0], [1], [-1]]


def test_an_image_in_several_rows_is_carried_once(model, pictures):
    batch = model.collate.documents([Document(["a", image(pictures, n % 2)]) for n in range(6)])
    assert batch.pixels.shape[0] == 2
    assert batch.media_index[:, 0].tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("kept", [False, True])
def test_answers_in_a_batch_equal_answers_alone(model, pictures, kept):
    documents = [
        model.prompts.render(tiny.question(image(pictures, 0), "what color?")),
        model.prompts.render(tiny.question(image(pictures, 1), "is it a shape?")),
        Document([image(pictures, 2), "a cat", image(pictures, 3), " and"]),
        Document(["a dog and a"]),
        Document(["what", Absent(), " is it?"]),
    ]
    if kept:
        model.prepare_documents(documents * 2)
    together = model.generate(documents, max_new_tokens=6)
    alone = [model.generate([document], max_new_tokens=6)[0] for document in documents]
    assert together == alone
    assert len(set(together)) > 1


def test_an_image_changes_the_answer_distribution(model, pictures):
    scores = [
        model.score([Document(["what color?", image(pictures, n)], target="red")])[0].log_likelihood for n in (0, 1)
    ]
    assert scores[0] != scores[1]
    blind = Document(["what color?", Absent()], target="red")
    assert model.score([blind])[0].log_likelihood not in scores


def test_text_alone_is_what_the_language_model_makes_of_it(model):
    document = Document(["a cat and a"], target="dog")
    ids = model.collate.documents([document])
    logits = model.bridge.lm.lm(ids.input_ids).logits.log_softmax(-1)
    labelled = ids.targets != IGNORED
    expected = logits[labelled].gather(1, ids.targets[labelled][:, None]).sum().item()
    assert model.score([document])[0].log_likelihood == pytest.approx(expected, abs=1e-4)


def test_features_are_computed_once(model, pictures, monkeypatch):
    documents = [Document(["a", image(pictures, n)], target="b") for n in range(4)]
    encoded = []
    forward = type(model.vision).forward
    monkeypatch.setattr(type(model.vision), "forward", lambda self, x: encoded.append(len(x)) or forward(self, x))
    fresh = model.score(documents)
    assert model.prepare_documents(documents) == 4
    assert sum(encoded) == 8
    assert model.prepare_documents(documents) == 0
    assert model.score(documents) == fresh
    assert sum(encoded) == 8, "known features were computed again"


def test_an_edited_image_is_encoded_again(model, pictures):
    model.prepare_documents([Document([image(pictures, 0)])])
    Pillow.new("RGB", (32, 32), "green").save(pictures / "0.png")
    assert model.prepare_documents([Document([image(pictures, 0)])]) == 1


def test_a_damaged_feature_file_is_computed_again(model, pictures):
    document = Document(["a", image(pictures, 0)], target="b")
    model.prepare_documents([document])
    score = model.score([document])
    (file,) = model.collate.cache.folder.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    assert model.score([document]) == score


def test_saving_and_opening(model, pictures, tmp_path):
    model.collate.prompts = Prompts(question="{image} Q {question} A")
    model.save(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    opened = vislang.load(tmp_path / "saved")
    assert opened.prompts == model.prompts
    opened_blocks = opened.bridge.gated_blocks.values()
    for ours, theirs in zip(opened_blocks, model.bridge.gated_blocks.values(), strict=True):
        ours.scale = theirs.scale
    document = Document(["a", image(pictures, 0)], target="b")
    assert opened.score([document]) == model.score([document])


def test_only_what_was_trained_is_saved(model, tmp_path):
    model.save(tmp_path)
    saved = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert all(name.startswith(("resampler.", "gated_blocks.")) for name in saved)
    measured = sum(b.numel() for b in model.bridge.resampler.buffers())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(t.numel() for t in saved.values()) == trained + measured


@pytest.mark.parametrize("tower", ["language_model", "vision_tower"])
def test_a_changed_tower_is_an_error(model, tmp_path, towers, tower):
    import shutil

    model.save(tmp_path / "saved")
    changed = tmp_path / "changed"
    shutil.copytree(towers[0] if tower == "language_model" else towers[1], changed)
    weights = safetensors.torch.load_file(changed / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + 1e-3
    safetensors.torch.save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TowerError, match="is not the one that this bridge was trained with"):
        vislang.load(tmp_path / "saved", **{tower: str(changed)})


def test_opening_what_is_no_model(tmp_path, towers, model):
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        vislang.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model": "os.system"}')
    with pytest.raises(ModelNotFound, match=r"names os\.system"):
        vislang.load(tmp_path)
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["language_model"]["name"] = "/nowhere/at/all"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TowerError, match="/nowhere/at/all"):
        vislang.load(tmp_path)
    for name in ("vislang.models.flamingo.model.Flamenco", "vislang.models.flamenco.Flamingo"):
        (tmp_path / "config.json").write_text(json.dumps({**config, "model": name}))
        with pytest.raises(ModelNotFound, match="this version of vislang does not have"):
            vislang.load(tmp_path)
    model.save(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelNotFound, match=r"model\.safetensors: damaged"):
        vislang.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"a file of the model is missing.*model\.safetensors"):
        vislang.load(tmp_path)


def test_weights_of_another_bridge_are_errors(model):
    state = model.trainable_state()
    state["extra"] = state.pop("resampler.latents")
    with pytest.raises(UserError, match=r"missing resampler\.latents; unexpected extra"):
        model.load_trainable_state(state)


def test_shots_change_the_answer(model, pictures):
    asked = tiny.question(image(pictures, 0), "what color?")
    plain = model.prompts.render(asked)
    shots = model.prompts.render(asked, [tiny.question(image(pictures, 1), "what color?", "blue")])
    scores = model.score([Document(d.parts, target="red") for d in (plain, shots)])
    assert scores[0] != scores[1]
    assert isinstance(model.ask(image(pictures, 0), "what color?", [tiny.caption(image(pictures, 1), "blue")]), str)


def test_attention_is_one_map_a_token_and_medium(model, pictures):
    document = Document([image(pictures, 0), "and", image(pictures, 1), "what color?"], target="red blue")
    tokens = model.attention(document)
    assert "".join(token.token for token in tokens) == " red blue"
    for token in tokens:
        first, second = token.maps
        assert first.shape == second.shape == (1, 4, 4)
        assert first.abs().max() == 0, "an earlier image was looked at"
        assert second.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("room", [0, 1, 6])
def test_an_answer_that_fills_the_context_is_explained_without_its_last_token(model, pictures, room):
    """The prompt leaves ``room`` positions; one token more than that can be generated."""
    prompt = Document([image(pictures, 0), "red" + " blue" * (126 - room)])
    assert model.collate.documents([prompt]).tokens == 128 - room
    whole = "blue" + " blue" * room
    with pytest.raises(UserError, match="129 tokens, and the language model has 128 positions"):
        model.collate.documents([replace(prompt, target=whole)])
    text = model.fitting(prompt, whole)
    assert text == " ".join(["blue"] * room)
    if room == 0:
        with pytest.raises(UserError, match=r"129 tokens, .* Shorten it, give fewer examples"):
            model.attention(prompt)
        return
    assert model.fitting(prompt, text) == text
    assert model.score([replace(prompt, target=text)])[0].tokens == room + 1
    generated = model.generate([prompt])[0]
    shown = model.attention(prompt)
    assert 0 < len(shown) <= room
    assert generated.startswith(shown.text)


def test_inputs_that_it_does_not_read_are_errors(model):
    with pytest.raises(MediaError, match=r"an? audio, and this model reads text, images and videos"):
        model.generate([Document([Audio(b"x")], name="rec:3")])
    with pytest.raises(UserError, match="empty"):
        model.generate([Document([""], name="rec:3")])
    with pytest.raises(UserError, match=r"rec:3: \d+ tokens, and the language model has 128 positions"):
        model.generate([Document(["cat and dog " * 100], name="rec:3")])


@pytest.mark.parametrize("added", [False, True])
def test_frozen_parameters_do_not_move_in_training(towers, pictures, added):
    """Compared by their hashes, after steps of the training loop's optimizer."""
    torch.manual_seed(1)
    model = FlamingoRecipe(*towers, bridge=replace(SMALL, train_added_tokens=added)).build()
    examples = [tiny.caption(image(pictures, n), "red") for n in range(4)]

    def hashes(trains: bool) -> dict[str, str]:
        state = {**dict(model.named_parameters()), **{f"buffer {n}": b for n, b in model.named_buffers()}}
        return {
            name: hashlib.sha256(value.detach().numpy().tobytes()).hexdigest()
            for name, value in state.items()
            if value.requires_grad == trains and "features_" not in name
        }

    frozen, trained = hashes(False), hashes(True)
    config = TrainConfig(steps=3, batch_size=4, lr=0.05, warmup_steps=0, lr_scale={"gates": 10})
    (pictures / "run").mkdir()
    train(model, [Stream("text", examples, 1.0, 4)], config, pictures / "run", Silent())
    assert hashes(False) == frozen
    assert len(frozen) > 30
    unused = {"bridge.chunk_embedding", "bridge.chunk_head"}
    assert {name for name, mark in hashes(True).items() if trained[name] == mark} <= unused
    rows = [json.loads(line) for line in (pictures / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["lr/gates"] == pytest.approx(10 * row["lr"])
        assert {"gate/1/attention", "gate/2/feed_forward"} <= set(row)


def test_frozen_parameters_have_no_gradient(model, pictures):
    documents = [Document(["a", image(pictures, n)], target="red") for n in range(4)]
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    trained = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(model.collate.documents(documents))["text"].backward()
    optimizer.step()
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert all(not torch.equal(now[name], value) for name, value in trained.items())


def test_towers_in_8_bits_are_near_the_originals_and_pass_gradients(towers, pictures, tmp_path):
    document = Document([image(pictures, 0), "what color?"], target="red")
    scores, gradients, sizes = [], [], []
    for quantize in (False, True):
        torch.manual_seed(1)
        built = FlamingoRecipe(*towers, quantize=quantize, bridge=SMALL).build()
        for block in built.bridge.gated_blocks.values():
            torch.nn.init.ones_(block.attention_gate)
        built(built.collate.documents([document]))["text"].backward()
        gradients.append(built.bridge.gated_blocks["1"].attention.to_queries.weight.grad.flatten())
        scores.append(built.score([document])[0].log_likelihood)
        assert len(built.generate([document, document], max_new_tokens=3)) == 2
        sizes.append(sum(t.nbytes for t in built.bridge.lm.state_dict().values()))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.9
    assert scores[0] != scores[1]
    assert scores[1] == pytest.approx(scores[0], rel=0.1)
    assert sizes[1] < 0.8 * sizes[0]
    built.save(tmp_path / "saved")
    opened = vislang.load(tmp_path / "saved")
    assert opened.quantized
    assert opened.score([document])[0].log_likelihood == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_what_the_processor_multiplies_in_hardware(towers, monkeypatch, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    built = FlamingoRecipe(*towers, dtype="auto", bridge=SMALL).build()
    assert built.dtype == (torch.bfloat16 if native else torch.float32)


def test_bfloat16_is_near_float32_and_is_remembered(towers, pictures, tmp_path):
    """The trained parameters stay float32; the arithmetic of the others is less precise."""
    document = Document([image(pictures, 0), "what color?"], target="red")
    scores, gradients = [], []
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(1)
        built = FlamingoRecipe(*towers, dtype=dtype, bridge=SMALL).build()
        for block in built.bridge.gated_blocks.values():
            torch.nn.init.ones_(block.attention_gate)
        built.prepare_documents([document] * 2)
        built(built.collate.documents([document]))["text"].backward()
        gradients.append(built.bridge.gated_blocks["1"].attention.to_queries.weight.grad)
        scores.append(built.score([document])[0].log_likelihood)
    assert gradients[1].dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(*(g.flatten() for g in gradients), dim=0) > 0.99
    assert scores[0] != scores[1]
    assert scores[1] == pytest.approx(scores[0], rel=0.02)
    built.save(tmp_path / "saved")
    opened = vislang.load(tmp_path / "saved")
    assert opened.dtype == torch.bfloat16
    assert opened.score([document])[0].log_likelihood == scores[1]
    assert len(opened.generate([document, document], max_new_tokens=3)) == 2
    assert all(grid.dtype == torch.float32 for token in opened.attention(document) for grid in token.maps)


def test_the_recipe_leaves_the_image_size_to_the_tower(towers):
    """So a dual encoder that was trained at 128 pixels can be the tower by its name alone."""
    recipe, _ = read_recipe(RECIPE, [f"--model.language_model={towers[0]}", f"--model.vision_tower={towers[1]}"])
    assert recipe.model.image_size is None
    recipe.model.bridge = SMALL
    assert recipe.model.build().vision.image_size == 32
