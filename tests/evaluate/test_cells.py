"""Tasks times models: every cell, on a small folder in the official format, answered once more without the library's
evaluation: each alternative alone, its prompt written out here."""

from __future__ import annotations

import json
import random
import re
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

import vislang
from tests.evaluate import cells
from tests.models.test_pretraining import recipe as data2vec_recipe
from tests.tasks.families.family import families_by_name
from tests.tasks.official import FOLDERS, draw
from vislang.boxes import Box
from vislang.capabilities import Prefills
from vislang.cli import main
from vislang.document import Absent, Document, EndOfChunk, Image
from vislang.errors import UserError
from vislang.evaluate.evaluation import evaluate
from vislang.evaluate.few_shot import evaluate_point
from vislang.evaluate.few_shot_baselines import similarities
from vislang.evaluate.shots import Setting
from vislang.evaluate.ways import WAYS, cell, ways
from vislang.example import Answers, Example, Label, Prediction, Text, Value
from vislang.models.data2vec.finetuning import FineTuneRecipe, HeadConfig
from vislang.prompt import shown
from vislang.tasks.catalogue import TASKS, open_task
from vislang.tasks.composed import COMPOSED
from vislang.tasks.few_shot import GROUP_NAMES
from vislang.tasks.retrieval import Retrieval
from vislang.tasks.task import ReadTask

LABELS = ("nlvr2", "snli-ve", "hateful-memes", "mvsa")
RANKED = ("vcr", "r2r", *LABELS)
GENERATED = ("vqa", "sentiment", "captions")


# ------------------------------------------------------------------------------------- prompts, written out by hand

QUESTIONS: dict[str, str] = {
    "nlvr2": 'Is it true of the two images that "{}"?',
    "snli-ve": '"{}" Does this follow from the image?',
    "hateful-memes": "Is this meme hateful? It says: {}",
    "mvsa": 'Is the mood of this picture and its words, "{}", positive, neutral or negative?',
    "sentiment": 'How positive are the words "{}", as a number from -3 to 3?',
    "vqa": "{}",
    "vcr": "{}",
}
WORDS = {
    "nlvr2": {"True": "yes", "False": "no"},
    "snli-ve": {"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
    "hateful-memes": {"0": "no", "1": "yes"},
    "mvsa": {"positive": "positive", "neutral": "neutral", "negative": "negative"},
}
CAPTIONS: dict[str, dict[str, str]] = {
    "nlvr2": {"True": "{}", "False": "not true: {}"},
    "snli-ve": {"entailment": "{}", "neutral": "perhaps {}", "contradiction": "no: {}"},
    "hateful-memes": {"0": "a harmless meme that says: {}", "1": "a hateful meme that says: {}"},
    "mvsa": {label: f"a {label} picture: {{}}" for label in ("positive", "neutral", "negative")},
}


def prompt(name: str, example: Example, choice: int = 0) -> list:
    """What a Flamingo is sent, up to the answer."""
    if name == "r2r":
        return [*example.choices[choice].media, "Caption:"]
    if name in ("captions", "retrieval"):
        return [*example.prompt.media, "Caption:"]
    return [*example.prompt.media, f"Question: {QUESTIONS[name].format(example.text)} Answer:"]


def alternatives(name: str, example: Example) -> list[tuple[int | str, list, str]]:
    """(answer, prompt, text whose likelihood counts)."""
    if name == "r2r":
        return [(n, prompt(name, example, n), example.text) for n in range(len(example.choices))]
    if name == "vcr":
        return [(n, prompt(name, example), "".join(c.parts)) for n, c in enumerate(example.choices)]
    return [(label, prompt(name, example), word) for label, word in WORDS[name].items()]


def shot_parts(name: str, shot: Example, with_media: bool = True) -> list:
    """A shot as it stands before a question."""
    if name == "r2r":
        parts, answer = prompt(name, shot, shot.target.index), shot.text
    elif name == "vcr":
        parts, answer = prompt(name, shot), "".join(shot.choices[shot.target.index].parts)
    elif name == "vqa":
        parts, answer = prompt(name, shot), max(shot.target.scores, key=shot.target.scores.get)
    elif isinstance(shot.target, Label):
        parts, answer = prompt(name, shot), WORDS[name][shot.target.name]
    elif isinstance(shot.target, Value):
        parts, answer = prompt(name, shot), f"{shot.target.number:g}"
    else:
        parts, answer = prompt(name, shot), shot.target.references[0]
    return [*(p for p in parts if with_media or isinstance(p, str)), f" {answer}", EndOfChunk()]


def drawn(name: str, task, shots: int, seed: int) -> list:
    """The parts of all shots of a seed; without shots, two without their images."""
    usable = [example for example in task.support() if example.target is not None]
    chosen = random.Random(f"{shots} {seed}").sample(usable, shots or 2)
    return [part for shot in chosen for part in shot_parts(name, shot, with_media=bool(shots))]


def by_score(model, name: str, examples, before=()) -> list[list[float]]:
    """The log-likelihood of each alternative of each example, each alone and from the first token on."""
    return [
        [
            model.score([Document([*before, *parts], target=text)])[0].log_likelihood
            for _, parts, text in alternatives(name, example)
        ]
        for example in examples
    ]


@pytest.fixture(scope="module")
def alone(models, tasks):
    """The same for a Flamingo without shots, computed once a task."""
    known: dict[str, list[list[float]]] = {}

    def scores(name: str) -> list[list[float]]:
        if name not in known:
            known[name] = by_score(models["flamingo"], name, cells.asked(tasks[name]))
        return known[name]

    return scores


def best(name: str, examples, scores, before=()) -> list[Prediction]:
    found = []
    for example, row in zip(examples, scores, strict=True):
        options = alternatives(name, example)
        likely, parts, _ = options[int(np.argmax(row))]
        sent = shown(Document([*before, *parts]))
        answers = tuple(answer for answer, *_ in options)
        found.append(Prediction(example.id, likely, answers, tuple(row), "log_likelihood", sent))
    return found


def agree(found, expected) -> None:
    """The same prompts and answers, and the same scores to 1e-4."""
    kept = ("id", "answer", "candidates", "kind", "prompt")
    assert [[getattr(p, n) for n in kept] for p in found] == [[getattr(p, n) for n in kept] for p in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def same_figures(found, expected) -> None:
    assert set(found) == set(expected)
    for name, figure in found.items():
        assert figure.value == pytest.approx(expected[name].value, abs=1e-4, nan_ok=True), name


# --------------------------------------------------------------------------------------------------------- Flamingo


@pytest.mark.parametrize("name", RANKED)
def test_flamingo_ranks_each_alternative(models, tasks, alone, name):
    model, task = models["flamingo"], tasks[name]
    examples = cells.asked(task)
    found = evaluate(model, task, examples, task.support())
    assert found.way == "rank"
    expected = best(name, examples, alone(name))
    agree(found.predictions, expected)
    same_figures(found.figures, task.score(examples, expected))
    blind = [
        [Absent() if not isinstance(p, str) else p for p in parts] for _, parts, _ in alternatives(name, examples[0])
    ]
    texts = [text for *_, text in alternatives(name, examples[0])]
    unseen = [
        model.score([Document(parts, target=text)])[0].log_likelihood for parts, text in zip(blind, texts, strict=True)
    ]
    assert unseen != pytest.approx(expected[0].scores, abs=1e-4)


@pytest.mark.parametrize("name", LABELS)
def test_the_accuracy_of_labels_by_hand(models, tasks, alone, name):
    """The figure is the share of examples whose likeliest label is the right one."""
    model, task = models["flamingo"], tasks[name]
    examples = cells.asked(task)
    scores = alone(name)
    labels = list(WORDS[name])
    right = [labels[int(np.argmax(row))] == e.target.name for row, e in zip(scores, examples, strict=True)]
    assert evaluate(model, task, examples).figures["accuracy"].value == sum(right) / len(right)


def test_the_three_forms_of_vcr_by_hand(models, tasks, alone):
    model, task = models["flamingo"], tasks["vcr"]
    examples = cells.asked(task)
    scores = alone("vcr")
    right = [int(np.argmax(row)) == e.target.index for row, e in zip(scores, examples, strict=True)]
    answers, reasons = right[::2], right[1::2]
    both = [a and r for a, r in zip(answers, reasons, strict=True)]
    figures = evaluate(model, task, examples).figures
    expected = {"q_to_a": answers, "qa_to_r": reasons, "q_to_ar": both}
    assert {name: figure.value for name, figure in figures.items()} == {n: sum(r) / 3 for n, r in expected.items()}


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize("shots", [0, 2])
def test_flamingo_ranks_after_shots(models, tasks, name, shots):
    model, task = models["flamingo"], tasks[name]
    examples = cells.asked(task)
    point = evaluate_point(model, task, task.support(), examples, Setting(shots), [7], batch_size=2)
    before = drawn(name, task, shots, 7)
    expected = best(name, examples, by_score(model, name, examples, before), before)
    agree(point.predictions[7, 0], expected)
    same_figures(point.means, task.score(examples, expected))


def written(model, name: str, examples, before=()) -> list[Prediction]:
    """What is written after each prompt alone, and read as its kind of target wants it."""
    found = []
    for example in examples:
        sent = Document([*before, *prompt(name, example)])
        (text,) = model.generate([sent], 20)
        answer: str | float | None = text
        if name == "sentiment":
            number = re.search(r"[-+]?\d+(\.\d+)?", text)
            answer = None if number is None else float(number[0])
        found.append(Prediction(example.id, answer, prompt=shown(sent)))
    return found


@pytest.mark.parametrize("name", GENERATED)
def test_flamingo_writes_the_answer(models, tasks, name):
    model, task = models["flamingo"], tasks[name]
    examples = cells.asked(task)
    found = evaluate(model, task, examples, task.support())
    assert found.way == "generate"
    expected = written(model, name, examples)
    agree(found.predictions, expected)
    same_figures(found.figures, task.score(examples, expected))
    assert found.unread == sum(prediction.answer is None for prediction in expected)


@pytest.mark.parametrize("name", GENERATED)
@pytest.mark.parametrize("shots", [0, 2])
def test_flamingo_writes_after_shots(models, tasks, name, shots):
    model, task = models["flamingo"], tasks[name]
    examples = cells.asked(task)
    point = evaluate_point(model, task, task.support(), examples, Setting(shots), [7], batch_size=2)
    expected = written(model, name, examples, drawn(name, task, shots, 7))
    agree(point.predictions[7, 0], expected)
    same_figures(point.means, task.score(examples, expected))


def ranks_by_hand(scores: np.ndarray) -> list[int]:
    """Of each text its image's rank, and of each image the rank of the better of its two texts; the first is 1."""
    of_texts = [int((scores[:, t] > scores[t // 2, t]).sum()) + 1 for t in range(scores.shape[1])]
    of_images = [
        int((np.delete(row, [2 * i, 2 * i + 1]) > max(row[2 * i], row[2 * i + 1])).sum()) + 1
        for i, row in enumerate(scores)
    ]
    return [*of_texts, *of_images]


def retrieval_scores(model, examples, before=()) -> np.ndarray:
    """Each caption after each image alone, less the caption after no image."""
    texts = [text for example in examples for text in example.target.references]

    def likelihood(media, text):
        return model.score([Document([*before, *media, "Caption:"], target=text)])[0].log_likelihood

    unseen = np.array([likelihood([Absent()], text) for text in texts])
    return np.array([[likelihood(e.prompt.media, text) for text in texts] for e in examples]) - unseen


@pytest.mark.parametrize("shots", [None, 0, 2])
def test_flamingo_finds_images_by_likelihood(models, tasks, shots):
    model, task = models["flamingo"], tasks["retrieval"]
    examples = cells.asked(task)
    if shots is None:
        found = evaluate(model, task, examples)
        predictions, figures, before = found.predictions, found.figures, []
    else:
        point = evaluate_point(model, task, task.support(), examples, Setting(shots), [7], batch_size=2)
        predictions, figures, before = point.predictions[7, 0], point.means, drawn("retrieval", task, shots, 7)
    expected = ranks_by_hand(retrieval_scores(model, examples, before))
    assert [p.answer for p in predictions] == expected
    assert figures["recall_at_1_text_to_image"].value == sum(rank == 1 for rank in expected[:6]) / 6
    assert figures["recall_at_1_image_to_text"].value == sum(rank == 1 for rank in expected[6:]) / 3


def test_shots_for_retrieval_are_not_retrieved(models, tasks):
    task = tasks["retrieval"]
    with pytest.raises(UserError, match="all images share the same shots"):
        evaluate_point(
            models["flamingo"], task, task.support(), cells.asked(task), Setting(2, "retrieved"), [0], torch.zeros(3, 4)
        )


# ----------------------------------------------------------------------------------------------------- dual encoder


def similarity(model, images, text: str) -> float:
    vectors = model.embed([Document([image]) for image in images])
    return float((vectors @ model.embed([Document([text])])[0]).mean())


@pytest.mark.parametrize("name", [*RANKED, "captions"])
def test_a_dual_encoder_compares_captions(models, tasks, name):
    model, task = models["dual encoder"], tasks[name]
    examples = cells.asked(task)
    support = task.support()
    found = evaluate(model, task, examples, support)
    assert found.way == "match"
    pool = list(dict.fromkeys(t for e in support if isinstance(e.target, Text) for t in e.target.references))
    for example, prediction in zip(examples, found.predictions, strict=True):
        images = example.prompt.media
        if name == "r2r":
            options = [(n, c.media, example.text) for n, c in enumerate(example.choices)]
        elif name == "vcr":
            options = [(n, images, f"{example.text} {''.join(c.parts)}") for n, c in enumerate(example.choices)]
        elif name == "captions":
            options = [(text, images, text) for text in pool]
        else:
            options = [(label, images, c.format(example.text)) for label, c in CAPTIONS[name].items()]
        values = [similarity(model, seen, text) for _, seen, text in options]
        assert values[[answer for answer, *_ in options].index(prediction.answer)] == pytest.approx(
            max(values), abs=1e-6
        )
    same_figures(found.figures, task.score(examples, found.predictions))


def test_a_dual_encoder_finds_images(models, tasks):
    model, task = models["dual encoder"], tasks["retrieval"]
    examples = cells.asked(task)
    found = evaluate(model, task, examples)
    texts = [text for example in examples for text in example.target.references]
    scores = np.array([[similarity(model, e.prompt.media, t) for t in texts] for e in examples])
    assert found.way == "match"
    assert [p.answer for p in found.predictions] == ranks_by_hand(scores)


# ---------------------------------------------------------------------------------------------------------- ViLBERT


@pytest.mark.parametrize("name", cells.DECIDED)
def test_vilbert_decides(models, tasks, name):
    """The highest score of each example alone, by the head of its task."""
    model, task = models["vilbert"], tasks[name]
    examples = cells.asked(task)
    found = evaluate(model, task, examples)
    assert found.way == "decide"
    expected = []
    for example in examples:
        batch = model.collate.batch(name, [example.without_target()])
        with torch.no_grad():
            scores = model.scores(batch)[0]
        if name == "sentiment":
            head = model.tasks[name]
            expected.append(Prediction(example.id, float(scores) * head.std + head.mean))
        else:
            candidates = found.predictions[len(expected)].candidates
            kept = scores[: len(candidates)]
            shares = kept.sigmoid() if name in ("vqa", "refcoco") else kept.softmax(dim=-1)
            answer = candidates[int(kept.argmax())]
            read = example.with_choice(answer) if example.choices else example.prompt
            expected.append(Prediction(example.id, answer, candidates, tuple(shares.tolist()), prompt=shown(read)))
    if name == "sentiment":
        answers = [p.answer for p in found.predictions]
        assert answers == pytest.approx([p.answer for p in expected], abs=1e-4)
    else:
        agree(found.predictions, expected)
    same_figures(found.figures, task.score(examples, expected))


def test_vilbert_ranks_captions(models, tasks):
    """It writes none: it chooses among those of the training split."""
    model, task = models["vilbert"], tasks["captions"]
    examples = cells.asked(task)
    found = evaluate(model, task, examples, task.support())
    assert found.way == "match"
    pool = list(dict.fromkeys(text for e in task.support() for text in e.target.references))
    assert len(pool) == 8
    for example, prediction in zip(examples, found.predictions, strict=True):
        scores = [float(model.match_all(example.prompt.media, [text])) for text in pool]
        assert scores[pool.index(prediction.answer)] == pytest.approx(max(scores), abs=1e-5)
    with pytest.raises(UserError, match="no captions to choose from"):
        evaluate(model, task, examples)


def test_without_a_head_that_chooses_vilbert_compares_nothing(long_towers, tasks):
    model = cells.vilbert(long_towers, cells.learned(tasks["snli-ve"]))
    assert cell(model, tasks["snli-ve"]).way == "decide"
    for name in ("retrieval", "captions", "vcr"):
        assert "has no head for choices" in cell(model, tasks[name]).why_not
    with pytest.raises(UserError, match=r"task mvsa: a ViLBERTForTasks cannot answer it, because it was not trained"):
        evaluate(model, tasks["mvsa"], cells.asked(tasks["mvsa"]))


# --------------------------------------------------------------------------------------------------------- data2vec


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A user's file of pictures, with the labels of a packaged task."""
    folder = tmp_path_factory.mktemp("labelled")
    records = []
    for number in range(16):
        draw(folder / f"{number}.png", number)
        records.append({"image": f"{number}.png", "label": GROUP_NAMES[number % 3]})
    (folder / "my.jsonl").write_text("\n".join(map(json.dumps, records)))
    return folder / "my.jsonl"


@pytest.fixture(scope="module")
def data2vec(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("data2vec")
    data2vec_recipe("v2", "image").build().save(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def finetuned(data2vec, labelled):
    torch.manual_seed(0)
    model = FineTuneRecipe(str(data2vec), "image", HeadConfig()).build()
    model.fit(cells.asked(open_task(str(labelled))))
    with torch.no_grad():
        # The logits of an untrained head are too small to prefer any label.
        for parameter in model.head.parameters():
            parameter.mul_(20)
    return model.eval()


def test_a_finetuned_data2vec_decides_labels(finetuned, labelled):
    task = open_task(str(labelled))
    examples = cells.asked(task)
    found = evaluate(finetuned, task, examples)
    assert found.way == "decide"
    with torch.no_grad():
        logits = [finetuned.logits(finetuned.inputs.read([e.prompt]).values)[0] for e in examples]
    expected = [finetuned.labels[int(row.argmax())] for row in logits]
    assert [prediction.answer for prediction in found.predictions] == expected
    right = [answer == e.target.name for answer, e in zip(expected, examples, strict=True)]
    assert found.figures["accuracy"].value == sum(right) / 16


# -------------------------------------------------------------------------- the size of a batch changes nothing


BATCHED = (
    *(("flamingo", name) for name in ("vqa", "captions", "vcr", "r2r", "nlvr2", "retrieval")),
    *(("dual encoder", name) for name in ("vcr", "r2r", "mvsa", "captions", "retrieval")),
    *(("vilbert", name) for name in (*cells.DECIDED, "captions")),
)


@pytest.mark.parametrize(("model", "name"), BATCHED, ids=lambda value: value)
def test_neither_the_size_of_a_batch_nor_the_order_changes_anything(models, tasks, model, name):
    model, task = models[model], tasks[name]
    examples, support = cells.asked(task), task.support()
    settings = {"with_blind": False, "with_perplexity": False}
    one, *others = (evaluate(model, task, examples, support, batch_size=size, **settings) for size in (1, 3, 7))
    backwards = evaluate(model, task, examples[::-1], support, batch_size=3, **settings)
    for other in (*others, backwards):
        same_figures(other.figures, one.figures)
    if isinstance(task, Retrieval):
        assert [p.answer for p in one.predictions] == [p.answer for p in others[0].predictions]
        assert sorted(p.answer for p in backwards.predictions) == sorted(p.answer for p in one.predictions)
        return
    for other in (*others, backwards):
        by_id = {prediction.id: prediction for prediction in other.predictions}
        for prediction in one.predictions:
            same = by_id[prediction.id]
            if isinstance(prediction.answer, float):
                assert same.answer == pytest.approx(prediction.answer, abs=1e-4)
            else:
                assert same.answer == prediction.answer
            assert same.candidates == prediction.candidates
            assert same.scores == pytest.approx(prediction.scores, abs=1e-4)


@pytest.mark.parametrize("name", ["vqa", "vcr", "r2r", "retrieval"])
def test_the_size_of_a_batch_changes_nothing_after_shots(models, tasks, name):
    model, task = models["flamingo"], tasks[name]
    examples, support = cells.asked(task), task.support()
    one, *others = (
        evaluate_point(model, task, support, examples, Setting(2), [3], batch_size=size).predictions[3, 0]
        for size in (1, 3, 7)
    )
    for other in others:
        agree(other, one)


@pytest.mark.parametrize(
    ("name", "way"), [("data2vec", "embed"), ("finetuned", "embed"), ("finetuned", "decide"), ("dual encoder", "embed")]
)
def test_the_size_of_a_batch_changes_no_label(models, data2vec, finetuned, labelled, name, way):
    model = {**models, "finetuned": finetuned}[name] if name != "data2vec" else vislang.load(data2vec)
    task = open_task(str(labelled))
    examples = cells.asked(task)
    support, queries = examples[:10], examples[10:]
    one, *others = (
        evaluate(model, task, queries, support, way=way, batch_size=size).predictions for size in (1, 4, 64)
    )
    assert len({prediction.scores for prediction in one}) > 1
    for other in others:
        agree(other, one)


def test_the_size_of_a_batch_changes_nothing_after_retrieved_shots(models, tasks):
    """Each query then has shots of its own, and prompts of different lengths stand beside each other."""
    model, task = models["flamingo"], tasks["snli-ve"]
    examples, support = cells.asked(task), task.support()
    similarity = similarities(model, examples, support)
    assert len({tuple(row.topk(2).indices.tolist()) for row in similarity}) > 1
    one, *others = (
        evaluate_point(model, task, support, examples, Setting(2, "retrieved"), [0], similarity, size).predictions[0, 0]
        for size in (1, 3, 7)
    )
    for other in others:
        agree(other, one)


# ---------------------------------------------------------------------------------------------------- the whole table


def stand_in(entry, folder) -> ReadTask:
    """A packaged set by what its entry says of it, with pictures of our own."""
    labels = entry.labels or ("red", "blue")

    def examples(start: int) -> list[Example]:
        made = []
        for number in range(start, start + 8):
            draw(folder / f"{number}.png", number)
            parts: list = [Image(folder / f"{number}.png")] if "image" in entry.media else []
            parts += [f"a shape {number}"] if "text" in entry.media else []
            targets = {
                "label": Label(labels[number % len(labels)]),
                "text": Text((f"a {number}",)),
                "answers": Answers({("red", "blue")[number % 2]: 1.0}),
                "box": Box(1, 8, 9, 24),
            }
            made.append(Example(str(number), Document(parts), targets[entry.kind]))
        return made

    read: dict[str, Callable] = {"train": lambda p, q: examples(0), "test": lambda p, q: examples(8)}
    support = "train" if entry.support_split else None
    return ReadTask(entry.name, entry.about, entry.kind, entry.media, read, "test", support, entry.labels)


FAMILIES = families_by_name()


@pytest.mark.parametrize("name", ["flamingo", "dual encoder", "vilbert", "data2vec", "finetuned"])
def test_the_table_holds_what_it_claims(saved, data2vec, finetuned, name, tmp_path, capsys):
    """Of tasks that are given their data it says what is expected, and test_cells_by_verb.py runs it. Each other
    ``how`` is executed here, and each ``why_not`` is what the evaluation says as well."""
    folder = {**saved, "data2vec": data2vec, "finetuned": tmp_path / "finetuned"}[name]
    if name == "finetuned":
        finetuned.save(folder)
    assert main(["tasks", "--model", str(folder), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert list(table) == list(TASKS)
    expected = {**cells.CELLS.get(name, {}), **cells.PACKAGED[name]}
    # The tests of the families and of the composed sets do the same for their tasks.
    table = {task: row for task, row in table.items() if task not in FAMILIES and task not in COMPOSED}
    assert {task: row["how"] for task, row in table.items()} == {task: expected.get(task) for task in table}
    model = vislang.load(folder)
    for task_name, row in table.items():
        entry = TASKS[task_name]
        assert {"target", "metrics", "how", "why_not"} <= set(row)
        assert row["target"] == entry.kind
        assert row["metrics"] == list(entry.metrics)
        if (how := row["how"]) is None:
            assert row["why_not"].startswith(f"task {task_name}: a {type(model).__name__} cannot answer it, because")
            assert f"of the kind {entry.kind}" in row["why_not"]
            continue
        assert row["why_not"] is None
        assert how in WAYS[entry.kind]
        if task_name in FOLDERS:
            continue
        task = stand_in(entry, tmp_path)
        examples = cells.asked(task)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = evaluate(model, task, examples, task.support(), way=how, with_blind=False, with_perplexity=False)
        assert how == found.way == ways(model, task)[0]
        assert len(found.predictions) == len(task.ids(examples))
        assert found.figures
    assert isinstance(model, Prefills) == (name == "flamingo")
    assert main(["tasks", "--model", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert all(TASKS[task].spec[:12] in shown for task in TASKS)
    assert "not: it" in shown
