"""Claims that are judged by the committed results of longer experiments, each with a program of its own."""

from __future__ import annotations

from typing import Any

from vislang.metrics.figure import figures_as_json, plain
from vislang.studies.study import Recorded, Row, Select

LU = "Lu et al. 2019 (ViLBERT)"
BAEVSKI = "Baevski et al. 2022 (data2vec)"
ALAYRAC = "Alayrac et al. 2022 (Flamingo)"


def rows_where(arm: str = "arm", **keys: Any) -> Select:
    """The rows with these keys, of which ``arm`` names the arm; of each arm and seed the one of the last step."""

    def select(saved: dict[str, Any]) -> list[Row]:
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for row in saved["rows"]:
            if "seed" not in row or any(row.get(key) != value for key, value in keys.items()):
                continue
            key = (row[arm], row["seed"])
            if key not in found or row.get("step", 0) >= found[key].get("step", 0):
                found[key] = {**row, "arm": row[arm]}
        return list(found.values())

    return select


def _probed(study: str, probe: str, than: str = "v2, before training", **claim: str) -> Recorded:
    """A claim about a data2vec experiment: that v2 has better features than others."""
    return Recorded(
        metric="accuracy",
        better="v2",
        than=(than,),
        file=f"data2vec-{study}/results.json",
        select=rows_where("representation", probe=probe, kind="linear"),
        command=f"python -m vislang.studies.data2vec {study} --out docs/results/data2vec-{study}",
        **claim,
    )


def _shots(saved: dict[str, Any]) -> list[Row]:
    """The points of a few-shot evaluation of one trained model, by number and selection of shots."""
    return [
        {"arm": f"{point['shots']} {point['select']} shots", "seed": 0, "figures": point["figures"]}
        for point in saved["points"]
        if not point["blind"]
    ]


def _demo(saved: dict[str, Any]) -> list[Row]:
    """The last accuracy of each arm of the demo's study, on the held-out questions of its curves."""
    from vislang.studies.demo import EXAMPLES, STEPS

    return [
        {**row, "figures": figures_as_json({"accuracy": plain(row["accuracy"][str(STEPS)], EXAMPLES)})}
        for row in saved["rows"]
        if "accuracy" in row
    ]


RETRIEVAL: dict[str, Any] = {
    "metric": "recall_at_10_text_to_image",
    "file": "vilbert-retrieval/results.json",
    "select": rows_where(test="stamp-pictures-test"),
    "command": "python -m vislang.studies.retrieval --out docs/results/vilbert-retrieval",
}
MIXING: dict[str, Any] = {
    "source": f"{ALAYRAC}, section 2.4 and table 3, rows of the optimisation",
    "metric": "loss_per_token",
    "better": "weighted sum, 200 steps",
    "file": "flamingo-mixture/results.json",
    "select": rows_where(stream="easy-vqa"),
    "command": "python -m vislang.studies.mixing --out docs/results/flamingo-mixture",
}


def _tower(kind: str, told: str) -> Recorded:
    """The claim that pretraining teaches a tower one of the properties of :mod:`vislang.studies.tower_knowledge`.

    Args:
        kind: the property.
        told: what a probe of it tells, in words.
    """
    return Recorded(
        name=f"tower-{kind}",
        claim=f"Pretraining without labels gives features that tell {told} better than before training.",
        source="this project, vislang.studies.tower_knowledge",
        metric="accuracy",
        better="data2vec",
        than=("data2vec, before training",),
        file="tower-knowledge/results.json",
        select=rows_where("tower", property=kind, labels=100),
        command="python -m vislang.studies.tower_knowledge --out docs/results/tower-knowledge",
        note="A linear probe that is fitted on 100 labelled images.",
    )


FEW_SHOT: dict[str, Any] = {
    "metric": "accuracy",
    "file": "flamingo-few-shot/emoji-groups-coded.json",
    "select": _shots,
    "command": "vislang eval runs/flamingo-few-shot/model --task emoji-groups-coded --shots 0,4,8,16,32 --select both",
    "note": "One trained model. Whether its shots help is judged question by question in flamingo.md.",
}

RECORDED = (
    Recorded(
        name="grounding",
        claim="Two streams find what an expression refers to better than one stream.",
        source=f"{LU}, table 1, columns RefCOCO+",
        metric="accuracy",
        better="two streams",
        than=("one stream",),
        file="vilbert-scenes/results.json",
        select=rows_where(test="test", kind="all"),
        command="python -m vislang.studies.grounding --out docs/results/vilbert-scenes",
    ),
    Recorded(
        name="retrieval-streams",
        claim="Two streams find the image of a caption better than one stream.",
        source=f"{LU}, table 1, columns of image retrieval",
        better="two streams, fine-tuned",
        than=("one stream, fine-tuned",),
        **RETRIEVAL,
    ),
    Recorded(
        name="retrieval-pretraining",
        claim="Two streams that were pretrained find the image of a caption better than without pretraining.",
        source=f"{LU}, table 1, rows with and without a dagger, columns of image retrieval",
        better="two streams, fine-tuned",
        than=("two streams, fine-tuned, not pretrained",),
        **RETRIEVAL,
    ),
    Recorded(
        name="mixing",
        claim="After as many steps, the weighted sum of all streams in each step is better than one stream in turn.",
        than=("in turn, 200 steps",),
        **MIXING,
    ),
    Recorded(
        name="mixing-equal-examples",
        claim="After as many examples, the weighted sum of all streams in each step is better than one stream in turn.",
        than=("in turn, 600 steps",),
        note="In turn, a step has a third of the examples, so there are three times as many steps.",
        **MIXING,
    ),
    Recorded(
        name="in-context",
        claim="Gated blocks before the induction heads are better for learning from examples in the prompt.",
        source="this project, after Olsson et al. 2022 (induction heads)",
        metric="accuracy",
        better="gates before layers 12, 16, 20, 24",
        than=("gates before layers 20, 23, 26, 29",),
        file="flamingo-in-context/results.json",
        select=rows_where(task="emoji-groups-coded", shots=32),
        command="python -m vislang.studies.in_context --out docs/results/flamingo-in-context",
    ),
    Recorded(
        name="shots",
        claim="32 examples in the prompt are better than none.",
        source=f"{ALAYRAC}, table 1",
        better="32 random shots",
        than=("0 random shots",),
        **FEW_SHOT,
    ),
    Recorded(
        name="shots-retrieved",
        claim="Four examples with similar images are better than four random ones.",
        source=f"{ALAYRAC}, appendix, few-shot classification with RICES",
        better="4 retrieved shots",
        than=("4 random shots",),
        **FEW_SHOT,
    ),
    Recorded(
        name="demo",
        claim="Training questions in pairs, and text that is standardised, make the demo learn.",
        source="this project, vislang.studies.demo",
        metric="accuracy",
        better="all choices",
        than=("training questions not in pairs", "text not standardised"),
        file="flamingo-demo/results.json",
        select=_demo,
        command="python -m vislang.studies.demo --out docs/results/flamingo-demo",
    ),
    _probed(
        *("pictures", "emoji-groups"),
        name="data2vec-pictures",
        claim="Pretraining on images gives features that are better than those of the same network before training.",
        source=f"{BAEVSKI}, table 1",
    ),
    _probed(
        *("pictures", "emoji-groups"),
        than="v1",
        name="data2vec-v2",
        claim="After equal time, data2vec 2.0 is better than data2vec.",
        source="Baevski et al. 2023 (data2vec 2.0), comparison with data2vec on images",
    ),
    _probed(
        *("prose", "emoji-name-groups"),
        name="data2vec-prose",
        claim="Pretraining on text gives features that are better than those of the same network before training.",
        source=f"{BAEVSKI}, table of GLUE",
    ),
    _probed(
        *("recordings", "spoken-stamps-fr"),
        name="data2vec-recordings",
        claim="Pretraining on speech gives features that are better than those of the same network before training.",
        source=f"{BAEVSKI}, table of LibriSpeech",
    ),
    _probed(
        *("shared", "emoji-groups"),
        name="data2vec-shared",
        claim="One encoder for images, text and speech learns features that are better than before training.",
        source="this project; the papers train an encoder for each modality",
    ),
    _tower("colour", "the colour of a shape"),
    _tower("shape", "circles, rectangles and triangles apart"),
    _tower("position", "where in the image a shape is"),
)
