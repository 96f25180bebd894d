"""``vislang ask --abstain``: a threshold from an evaluation with ``vislang eval --abstain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.evaluate.abstain import confidence_of, shown_confidence
from vislang.evaluate.results import RESULTS
from vislang.example import Prediction
from vislang.runs.folder import read_json


@dataclass(frozen=True)
class Limit:
    """The least confidence of an answer that is given.

    Attributes:
        threshold: the confidence.
        allowed: the share of given answers that may be wrong.
        task: the task of the evaluation.
        way: how the model answered it.
        folder: the folder of the evaluation, for messages.
    """

    threshold: float
    allowed: float
    task: str
    way: str
    folder: Path

    @staticmethod
    def read(folder: Path, model: str, shots: int) -> Limit:
        """Read the threshold of an evaluation.

        Args:
            folder: the folder of the evaluation.
            model: the model that is asked; the threshold holds for no other.
            shots: number of examples in the prompt.

        Raises:
            UserError: the folder has no threshold for this model and number of shots.
        """
        values: Any = read_json(folder / RESULTS)
        card: Any = read_json(folder / "card.json")
        recorded = card["model"]
        from vislang.models.loading import identity

        if identity(model) != {name: recorded.get(name) for name in ("class", "weights_sha256", "fingerprints")}:
            raise UserError(
                f"--abstain {folder}: was measured with {recorded.get('source')}, whose weights are not those of "
                f"{model}. Evaluate {model} with --abstain and --out."
            )
        found, way = values.get("abstention"), values.get("way")
        if "points" in values:
            fitting = [
                point["abstention"]
                for point in values["points"]
                if "abstention" in point and point["shots"] == shots and point["select"] == "random"
            ]
            found, way = (fitting or [None])[0], card["decoding"]["way"]
        elif shots:
            found = None
        if found is None:
            raise UserError(
                f"--abstain {folder}: has no threshold for {shots} shots. Evaluate {values.get('spec')} with --abstain"
                f"{f' --shots {shots}' if shots else ''} and --out."
            )
        if found["threshold"] is None:
            raise UserError(
                f"--abstain {folder}: no threshold keeps the wrong answers at {100 * found['allowed']:g} % or less. "
                "Evaluate more examples, or allow more wrong answers."
            )
        return Limit(found["threshold"], found["allowed"], values["task"], way, folder)

    def must_be_way(self, way: str) -> None:
        """Raise an error unless the question is answered in the way that was evaluated.

        Raises:
            UserError: it is not; the confidences of different ways cannot be compared.
        """
        if way != self.way:
            wanted = {"generate": "leave --options out", "rank": "give the same answers with --options"}
            raise UserError(
                f"--abstain {self.folder}: was measured for answers by the way {self.way!r}, not {way!r}: "
                f"{wanted.get(self.way, 'ask the same model')}."
            )

    def allows(self, prediction: Prediction) -> bool:
        """Whether an answer is given; if not, prints why."""
        confidence = confidence_of(prediction)
        if confidence >= self.threshold:
            return True
        print(
            f"no answer: its confidence is {shown_confidence(confidence)}, and from {shown_confidence(self.threshold)} "
            f"on at most {100 * self.allowed:g} % of given answers were wrong on {self.task}"
        )
        return False
