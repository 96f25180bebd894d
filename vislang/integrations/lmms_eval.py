"""vislang's models in lmms-eval (0.7): ``python -m lmms_eval --model vislang --model_args pretrained=DIR --tasks T``.

lmms-eval finds :func:`manifests` by the entry point ``lmms_eval.models`` of this package. Its chat tasks send messages;
a message of the role ``assistant`` answers the user's message before it. Such pairs become examples in the prompt, with
their images (:func:`vislang.prompt.from_turns`), so a task whose ``doc_to_messages`` begins with such turns is a
few-shot task. The examples of lmms-eval's own ``--num_fewshot`` have no images.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from lmms_eval.protocol import ChatMessages
from PIL import Image as Pillow

from vislang.capabilities import Decides, Generates, Matches, Ranks
from vislang.document import Audio, Image, Part, Video
from vislang.errors import UserError
from vislang.evaluate.decide import decide
from vislang.evaluate.generate import MAX_NEW_TOKENS, generate
from vislang.evaluate.match import match
from vislang.evaluate.rank import rank
from vislang.example import Example, Prediction, shown_answer
from vislang.models.loading import load
from vislang.prompt import from_turns
from vislang.train.device import device_of

OFF: dict[str, tuple[Any, ...]] = {
    "do_sample": (None, False),
    "temperature": (None, 0),
    "num_beams": (None, 1),
}
"""Settings of generation that have to be off: decoding is greedy."""

AT_ONCE = 256
"""Requests whose images are in memory at a time."""

MEDIA: dict[str, type[Image] | type[Video] | type[Audio]] = {"image": Image, "video": Video, "audio": Audio}
"""Media by the type of their content in a message."""


def manifests() -> list[ModelManifest]:
    """What lmms-eval registers."""
    return [ModelManifest(model_id="vislang", chat_class_path=f"{__name__}.VislangModel")]


class VislangModel(lmms):
    """Any model of vislang.

    A model that generates continues the prompt. With ``options``, a model that ranks or compares images with texts
    chooses among them. Other models answer with a head.

    Args:
        pretrained: folder of the model, or a Hub id.
        batch_size: number of prompts at a time; it does not change the answers.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        options: the answers to choose from, with ``|`` between them.
        head: which of the model's heads answers, if it has several.

    Raises:
        UserError: the model cannot be opened, or cannot answer in any of these ways.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 64,
        device: str = "auto",
        options: str = "",
        head: str | None = None,
    ):
        super().__init__()
        self.model = load(pretrained, device_of(device or "auto"))
        self.batch_size = int(batch_size)
        self.options = tuple(option.strip() for option in options.split("|")) if options else ()
        self.head = head
        self.answer = self._way()

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The answer to each request, in their order.

        Raises:
            UserError: a request asks for sampling or beam search, or its messages are in another order.
        """
        # The images of all requests together may not fit into memory.
        parts = (requests[start : start + AT_ONCE] for start in range(0, len(requests), AT_ONCE))
        return [text for part in parts for text in self._answered(part)]

    def _answered(self, requests: list[Instance]) -> list[str]:
        examples, shots, by_length = [], [], defaultdict(list)
        for index, request in enumerate(requests):
            _, doc_to_messages, settings, doc_id, task, split = request.args
            # lmms-eval hands the document over by its number.
            messages = ChatMessages(messages=doc_to_messages(self.task_dict[task][split][doc_id]))
            own, question = from_turns(turns_of(messages), name=f"{task}, document {doc_id}")
            examples.append(question)
            shots.append(own)
            by_length[_length(settings, task)].append(index)
        texts = [""] * len(requests)
        for length, indices in by_length.items():
            found = self.answer([examples[i] for i in indices], [shots[i] for i in indices], length)
            for index, prediction in zip(indices, found, strict=True):
                text = "" if prediction.answer is None else shown_answer(prediction.answer)
                texts[index] = _cut(text, requests[index].args[2].get("until"))
        return texts

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not for chat models in lmms-eval, which gives them tasks of generation only."""
        raise NotImplementedError("lmms-eval gives chat models tasks of generation only; use options=A|B to choose.")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not supported: these models hold no conversation."""
        raise NotImplementedError(
            "vislang's models answer one question each; tasks of several rounds are not supported."
        )

    def _way(self) -> Callable[[Sequence[Example], Sequence[Sequence[Example]], int], list[Prediction]]:
        """How the model answers: from examples, their shots, and the greatest number of new tokens."""
        model, size = self.model, self.batch_size
        if self.options and isinstance(model, Ranks):
            return lambda examples, shots, length: rank(model, examples, self.options, shots=shots, batch_size=size)
        if self.options and isinstance(model, Matches) and model.why_unmatched() is None:
            return _alone(lambda examples: match(model, examples, self.options, batch_size=size))
        if isinstance(model, Generates) and not self.options:
            return lambda examples, shots, length: generate(
                model, examples, shots=shots, batch_size=size, max_new_tokens=length
            )
        if isinstance(model, Decides) and model.heads and not self.options:
            if self.head is None and len(model.heads) > 1:
                raise UserError(f"head: this model has the heads {', '.join(model.heads)}; choose one with head=NAME.")
            head = self.head or next(iter(model.heads))
            if model.heads.get(head) not in ("answers", "label", "value"):
                raise UserError(f"head={head}: this model has no head {head} that gives an answer in words.")
            return _alone(lambda examples: decide(model, examples, head, batch_size=size))
        wanted = "choose among options" if self.options else "give an answer in words without options=A|B"
        raise UserError(f"a {type(model).__name__} cannot {wanted}.")


def turns_of(messages: ChatMessages) -> list[tuple[str, list[Part]]]:
    """The role and the parts of each message.

    Raises:
        UserError: a message has the role ``system``, which no model here was trained with.
    """
    found = []
    for message in messages.messages:
        if message.role == "system":
            raise UserError("a message has the role system; vislang's models know examples and questions only.")
        found.append((message.role, [_part(content) for content in message.content]))
    return found


def _part(content: Any) -> Part:
    if content.type == "text":
        return content.text
    made = MEDIA[content.type]
    source = content.url
    if isinstance(source, Pillow.Image):
        # Losslessly: the model reads the same pixels.
        buffer = io.BytesIO()
        source.save(buffer, "PNG")
        return Image(buffer.getvalue())
    if isinstance(source, bytes | str | Path):
        return made(source)
    raise UserError(
        f"{content.type}: of the type {type(source).__name__}; give a path, encoded bytes or a Pillow image."
    )


def _alone(answer: Callable[[Sequence[Example]], list[Prediction]]) -> Callable[..., list[Prediction]]:
    """A way of answering without examples in the prompt."""

    def answered(examples: Sequence[Example], shots: Sequence[Sequence[Example]], length: int) -> list[Prediction]:
        if any(shots):
            raise UserError("the task gives examples in the prompt, and this model cannot be prompted with examples.")
        return answer(examples)

    return answered


def _length(settings: Mapping[str, Any], task: str) -> int:
    for name, values in OFF.items():
        if settings.get(name) not in values:
            raise UserError(f"{task}: {name} is {settings[name]}; vislang's models decode greedily in lmms-eval.")
    return int(settings.get("max_new_tokens") or MAX_NEW_TOKENS)


def _cut(text: str, until: str | Sequence[str] | None) -> str:
    """The text up to the first of the stop strings."""
    for stop in [until] if isinstance(until, str) else until or ():
        text = text.split(stop)[0] if stop else text
    return text.strip()
