"""Pretraining from Examples: batches determined by a seed, both generations by one setting, resuming bit for bit."""

import re

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow

from vislang.cli import main
from vislang.document import Audio, Document, Image
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.augmentation import Augmentation
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.decoder import DecoderConfig
from vislang.models.data2vec.front_ends import ImageConfig, Modalities, SpeechConfig, TextConfig
from vislang.models.data2vec.pretraining import Choices, Data2VecRecipe
from vislang.models.loading import load
from vislang.train.log import read_metrics

ENCODER = EncoderConfig(width=16, depth=2, heads=2, mlp_width=32)
DECODER = DecoderConfig(width=16, layers=1, kernel=3, groups=2)
MODALITIES = {
    "text": TextConfig(vocabulary_size=300, max_length=12, decoder=DECODER),
    "image": ImageConfig(size=32, patch=4, positions="fixed", decoder=DECODER),
    "speech": SpeechConfig(
        convolutions=[(16, 20, 10), (16, 20, 20)], position_kernel=5, position_groups=2, decoder=DECODER
    ),
}


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> dict[str, list[Document]]:
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    made: dict[str, list[Document]] = {"text": [], "image": [], "speech": []}
    for n in range(12):
        Pillow.fromarray(rng.integers(0, 256, (40, 30 + n, 3), dtype=np.uint8)).save(folder / f"{n}.png")
        soundfile.write(folder / f"{n}.wav", 0.1 * rng.standard_normal(1600 + 160 * n), 16_000)
        made["image"].append(Document([Image(folder / f"{n}.png")], name=f"{n}.png"))
        made["speech"].append(Document([Audio(folder / f"{n}.wav")], name=f"{n}.wav"))
        made["text"].append(Document([f"The fox number {n} jumps over the lazy dog " * (1 + n % 3)], name=f"line {n}"))
    return made


def examples_of(documents: list[Document]) -> list[Example]:
    return [Example(str(number), document, source=document.name) for number, document in enumerate(documents)]


def recipe(generation: str, *modalities: str, **more) -> Data2VecRecipe:
    choices = {
        "top_k": 2,
        "copies": 2,
        "end_of_block": False,
        "layer_norms": ["layer"],
        "mean_norms": [],
        "beta": 0.0,
        "class_loss": 0.0,
    }
    choices |= {"decay": 0.9, "end_decay": 0.9, "anneal_steps": 1, "scope": "all"}
    return Data2VecRecipe(
        generation,
        ENCODER,
        Modalities(**{name: MODALITIES[name] for name in modalities}),
        Choices(**choices),
        **more,
    )


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_a_batch_follows_from_its_seed_and_trains(documents, modality, generation):
    torch.manual_seed(0)
    model = recipe(generation, modality, augmentation=Augmentation()).build()
    examples = examples_of(documents[modality])
    model.fit(examples)
    copies = 2 if generation == "v2" else 1
    batch, same, other = (model.collate(examples[:4], seed) for seed in (5, 5, 6))
    assert batch.names == [example.name for example in examples[:4]]
    assert len(batch.mask) == 4 * copies
    assert torch.equal(batch.values, same.values)
    assert torch.equal(batch.mask, same.mask)
    assert not torch.equal(batch.mask, other.mask) or batch.mask.shape != other.mask.shape
    assert batch.mask.any(dim=1).all()
    groups = model.parameter_groups()
    optimizer = torch.optim.AdamW([p for group in groups.values() for _, p in group], lr=3e-3)
    curve = []
    model.train()
    for _ in range(30):
        loss = torch.stack(list(model(batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        curve.append(loss.item())
    assert curve[-1] < curve[0]


def test_what_is_masked_is_what_the_paper_masks(documents):
    images = examples_of(documents["image"])
    patches = 64
    assert (recipe("v1", "image").build().collate(images).mask.sum(dim=1) == round(0.6 * patches)).all()
    assert ((~recipe("v2", "image").build().collate(images).mask).sum(dim=1) == int(0.2 * patches)).all()
    v1 = recipe("v1", "text").build()
    v1.fit(examples_of(documents["text"]))
    batch = v1.collate(examples_of(documents["text"]))
    assert (batch.student_values != batch.values).logical_and(~batch.mask).sum() == 0
    assert not batch.mask[batch.values == 1].any(), "padding is never masked"


def test_unequal_rows_of_v2_are_filled_up_and_change_nothing(documents):
    """A row's predictions are the same alone and in a batch with a row that has fewer masks."""
    torch.manual_seed(0)
    model = recipe("v2", "text").build()
    model.fit(examples_of(documents["text"]))
    inner = model.model.eval()
    inner.heads["text"].config = DecoderConfig(width=16, layers=1, kernel=3, groups=2, noise=0.0)
    batch = model.collate(examples_of(documents["text"][:1]), 3)
    mask = batch.mask[:1]
    less = mask.clone()
    less[0, mask[0].nonzero()[0]] = False
    alone = inner.objective(batch._replace(mask=mask)).predictions
    beside = inner.objective(batch._replace(mask=torch.cat([mask, less]))).predictions
    assert torch.allclose(beside[: len(alone)], alone, atol=1e-5)


def test_one_encoder_serves_three_streams_and_embeds_what_each_is(documents, tmp_path):
    torch.manual_seed(0)
    model = recipe("v2", *MODALITIES).build()
    model.fit(examples_of([document for kind in documents.values() for document in kind]))
    for kind in documents.values():
        sum(model(model.collate(examples_of(kind[:3]), 1)).values()).backward()
    assert all(p.grad is not None for p in model.model.student.blocks.parameters())
    model.save(tmp_path / "model")
    opened = load(tmp_path / "model")
    for kind in documents.values():
        vectors = opened.embed(kind, batch_size=5)
        assert vectors.shape == (12, 16)
        assert torch.allclose(vectors, model.model.eval().embed(kind, batch_size=12), atol=1e-4)
        assert not torch.allclose(opened.embed_at(kind, [1])[1], vectors)
    with pytest.raises(UserError, match=r"is image in a batch of text"):
        model.collate(examples_of([documents["text"][0], documents["image"][0]]))


def test_papers_fill_in_what_a_recipe_leaves_open():
    image = Modalities(image=ImageConfig(size=32, patch=8, positions="fixed"))
    deep = EncoderConfig(width=16, depth=12, heads=2, mlp_width=32)
    v1, v2 = (Data2VecRecipe(generation, deep, image).build().model for generation in ("v1", "v2"))
    assert (v1.objective_config.top_k, v1.objective_config.beta, v1.teacher_config.scope) == (6, 2.0, "encoder")
    assert (v2.objective_config.top_k, v2.objective_config.copies) == (10, 16)
    assert (v2.teacher_config.scope, v2.objective_config.class_loss) == ("all", 0.01)
    assert v2.heads["image"].config.layers == 6
    both = Modalities(image=image.image, text=TextConfig(vocabulary_size=300))
    with pytest.raises(UserError, match=r"choices\.top_k: the papers differ between text and image \(10, 6\)"):
        Data2VecRecipe("v1", deep, both).build()


def test_pretraining_starts_from_a_saved_model(documents, tmp_path):
    torch.manual_seed(0)
    first = recipe("v1", "image").build()
    first.save(tmp_path / "first")
    second = recipe("v2", "image", start_from=str(tmp_path / "first"))
    with pytest.raises(UserError, match="needs a decoder"):
        second.build()
    again = recipe("v1", "image", start_from=str(tmp_path / "first")).build()
    for name, tensor in first.model.student.state_dict().items():
        assert torch.equal(again.model.student.state_dict()[name], tensor)
        assert torch.equal(again.model.teacher.state_dict().get(name, tensor), tensor)


RECIPE = """
model:
  class_path: vislang.models.data2vec.pretraining.Data2VecRecipe
  init_args:
    generation: v2
    encoder: {{width: 16, depth: 2, heads: 2, mlp_width: 32, dropout: 0.1}}
    modalities:
      image: {{size: 32, patch: 8, decoder: {{width: 16, layers: 1, groups: 2}}, positions: fixed}}
      text: {{vocabulary_size: 300, max_length: 12, decoder: {{width: 16, layers: 1, groups: 2}}}}
    choices: {{top_k: 2, end_of_block: false, copies: 2, mean_norms: [], class_loss: 0.0, decay: 0.9, end_decay: 0.9,
      anneal_steps: 1, scope: all}}
    augmentation: {{}}
data:
  - {{sources: [{media}], name: pictures}}
  - {{sources: [{prose}], name: prose, weight: 0.5, batch_size: 3}}
hold_out: 0.2
train: {{steps: 12, batch_size: 4, checkpoint_every: 4, eval_every: 6, log_every: 100}}
"""


@pytest.fixture
def pretraining(documents, tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    for document in documents["image"]:
        (media / document.name).write_bytes(document.media[0].read())
    prose = tmp_path / "prose.txt"
    prose.write_text("\n\n".join(f"Paragraph {n} tells of foxes and dogs. " * 30 for n in range(10)))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(media=media, prose=prose))
    return path


def test_a_run_over_two_streams_resumes_bit_for_bit(pretraining, tmp_path, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(["train", str(pretraining), "--out", str(whole)]) == 0
    shown = capsys.readouterr().out
    assert "pictures: 10 examples for training, 2 for evaluation" in " ".join(shown.split())
    assert "explained" in shown
    rows = [row for row in read_metrics(whole / "metrics.jsonl") if "loss" in row]
    first = rows[0]
    assert first["loss"] == pytest.approx(first["loss/pictures/regression"] + 0.5 * first["loss/prose/regression"])
    # Cut the run to its second checkpoint, as after a kill, and resume with workers.
    assert main(["train", str(pretraining), "--out", str(stopped)]) == 0
    for path in sorted((stopped / "checkpoints").iterdir())[-1:]:
        (path / "state.json").unlink()
    assert main(["train", str(pretraining), "--resume", str(stopped), "--train.workers", "1"]) == 0
    weights = "model/model.safetensors"
    assert (stopped / weights).read_bytes() == (whole / weights).read_bytes()
    assert (stopped / "model/tokenizer.json").read_bytes() == (whole / "model/tokenizer.json").read_bytes()


def test_a_collapse_stops_the_run(pretraining, tmp_path, capsys):
    """Collapse by targets without normalisation and a teacher that equals the student."""
    status = main(
        [
            "train",
            str(pretraining),
            "--out",
            str(tmp_path / "run"),
            "--model.choices.layer_norms=[]",
            "--model.choices.decay=0.0",
            "--model.choices.end_decay=0.0",
            "--model.collapse_watch_from=20",
            "--train.steps=400",
            "--train.lr=0.01",
        ]
    )
    assert status == 2
    assert "have collapsed" in capsys.readouterr().err
    assert sorted((tmp_path / "run" / "checkpoints").iterdir()), "the checkpoints before it stay"


def test_what_it_reads(documents):
    model = recipe("v2", "text", "image").build()
    model.fit(examples_of(documents["text"]))
    assert model.why_unreadable(frozenset({"text"})) is None
    assert model.why_unreadable(frozenset({"image"})) is None
    assert model.why_unreadable(frozenset({"text", "image"})) == "reads one medium at a time, not image and text"
    assert model.why_unreadable(frozenset({"image", "several images"})) == "reads one image at a time"
    assert model.why_unreadable(frozenset({"audio"})) == "reads text and image, but no audio"


def test_bad_files_are_listed_or_skipped(pretraining, tmp_path, capsys):
    (tmp_path / "media" / "broken.png").write_bytes(b"nothing")
    assert main(["train", str(pretraining), "--out", str(tmp_path / "run")]) == 2
    assert "broken.png: not an image" in capsys.readouterr().err
    assert main(["train", str(pretraining), "--out", str(tmp_path / "run"), "--skip-bad-records"]) == 0


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_a_dry_run_writes_nothing(pretraining, tmp_path, generation, capsys):
    arguments = ["train", str(pretraining), "--out", str(tmp_path / "run"), "--dry-run"]
    assert main([*arguments, f"--model.generation={generation}", "--model.choices.beta=0"]) == 0
    assert "regression" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_the_report_shows_gaps_agreement_curves_and_neighbours(pretraining, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(pretraining), "--out", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "pictures: masked positions" in page
    assert "prose: nearest neighbours" in page
    assert page.count('alt="gaps of') == 2, "one for each picture held out"
    # The loss of each stream, in training and on held-out examples; and four diagnostics.
    assert page.count("<svg") == 2 + 2 + 4
    assert "pictures, held-out examples" in page
    assert 'class="masked"' in page
    assert re.findall(r'src="(?!data:)', page) == []
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text(encoding="utf-8") == page, "drawn again, it is the same page"
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "no run.json" in capsys.readouterr().err


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_revealed_is_what_was_masked(documents, modality):
    torch.manual_seed(0)
    model = recipe("v2", modality).build()
    model.fit(examples_of(documents[modality]))
    model.eval()
    torch.manual_seed(1)
    shown = model.reveal(documents[modality][:3], seed=4)
    mask = model.collate(examples_of(documents[modality][:3]), 4).mask[::2]
    for revealed, masked in zip(shown, mask, strict=True):
        assert torch.equal(revealed.mask.flatten(), masked)
        assert torch.equal(revealed.agreement.isnan(), ~revealed.mask)
        assert (revealed.agreement[revealed.mask] <= 1).all()
    assert shown[0].mask.shape == ((8, 8) if modality == "image" else (1, mask.shape[1]))
