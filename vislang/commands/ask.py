"""``vislang ask``: a question about an image or a video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.capabilities import Decides, Decoding, Generates
from vislang.commands.by_server import choose, connected, generate
from vislang.commands.options import given, optional_positional, positional, repeated
from vislang.commands.pack import must_resume, pack_path
from vislang.data.files import MEDIA
from vislang.document import Document, Image, MediaError, Video
from vislang.errors import UserError
from vislang.example import Answers, Example, Prediction, shown_answer

if TYPE_CHECKING:
    from vislang.commands.abstain import Limit
    from vislang.serve.client import Client

GENERATION = (
    "shot",
    "pack",
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "beams",
    "length_penalty",
    "returns",
    "stop",
    "drop_examples",
)
"""Options that only a generating model uses."""

IN_A_PROMPT = ("shot", "pack", "drop_examples")
"""Those that it also uses to rank --options."""

DECODING = tuple(name for name in GENERATION if name not in IN_A_PROMPT)
"""Those that change how an answer is generated."""

NOT_BY_SERVER = ("pack", "beams", "length_penalty", "drop_examples", "device", "abstain")
"""Options that have no effect on a running server."""


@dataclass(frozen=True)
class Ask:
    """Ask a model about an image or a video. Without a question, the model writes a caption.

    Attributes:
        model: folder of a model, or a Hub id; with --server, the name of a model that it serves
        image: path of an image or a video
        question: the question
        shot: an example in the prompt: an image, and "question? answer" or an answer to the same question
        pack: a file of examples that vislang pack wrote; they precede those of --shot
        options: possible answers with commas between them; the model gives the probability of each
        head: which head answers, for a model with several heads
        max_new_tokens: greatest length of an answer, in tokens
        temperature: sampling temperature; 0 always takes the most likely token
        top_k: sample among the K most likely tokens; 0 for all
        top_p: sample among the most likely tokens whose probabilities add up to this
        seed: random seed of sampling
        beams: number of beams of beam search
        length_penalty: beams are ranked by log-likelihood / length ** PENALTY
        returns: number of answers, printed one per line
        stop: text that ends an answer
        device: where the model runs: auto, cpu, cuda or mps
        drop_examples: if the prompt is too long, drop its first examples
        abstain: folder of an evaluation with --abstain; no answer is given where the model is less sure than it says
        server: address of a running vislang serve that answers, such as http://127.0.0.1:8000; no model is opened here
        token: the server's token (default: the variable VISLANG_TOKEN)
    """

    model: str = positional()
    image: str = positional()
    question: str | None = optional_positional()
    shot: list[list[str]] = repeated("IMAGE", "TEXT")
    pack: Path | None = None
    options: str | None = None
    head: str | None = None
    max_new_tokens: int = 20
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    beams: int = 1
    length_penalty: float = 1.0
    returns: int = 1
    stop: list[str] = repeated("TEXT")
    device: str = "auto"
    drop_examples: bool = False
    abstain: Path | None = None
    server: str | None = None
    token: str | None = None

    def run(self) -> int:
        """Print one or several answers; returns 0.

        Raises:
            UserError: the model, or the server, cannot do this.
            MediaError: an image or video cannot be used.
        """
        client = connected(self, NOT_BY_SERVER)
        options = self._options()
        if self.abstain is not None and (ignored := given(self, DECODING)):
            raise UserError(f"{ignored}: not used together with --abstain, whose threshold is for greedy decoding.")
        if self.pack is not None:
            self._check_pack(self.pack)
        limit = None if self.abstain is None else self._limit(self.abstain)
        # Opening a model takes seconds, so everything that needs no model is checked first.
        example = Example(self.image, Document(self._parts(), name=self.image), source=self.image)
        shots = [shot_of(path, text, self.question) for path, text in self.shot]
        for medium in (m for e in (example, *shots) for m in e.media):
            medium.decode(max_frames=1) if isinstance(medium, Video) else medium.decode()  # type: ignore[attr-defined]
        settings = {field.name: getattr(self, field.name) for field in fields(Decoding)}
        decoding = Decoding(**{**settings, "stop": tuple(self.stop)})
        if client is not None:
            self._ask_server(client, example, shots, options, decoding)
            return 0
        from vislang.models.loading import load
        from vislang.train.device import device_of

        model = load(self.model, device_of(self.device))
        if isinstance(model, Generates):
            self._must_name_no_head()
            if limit is not None:
                limit.must_be_way("generate" if options is None else "rank")
            self._generate(model, example, shots, options, decoding, limit)
            return 0
        if not isinstance(model, Decides):
            raise self._cannot(type(model).__name__)
        if limit is not None:
            limit.must_be_way("decide")
        self._decide(model, example, options, limit)
        return 0

    def _limit(self, folder: Path) -> Limit:
        # It imports the evaluation of models.
        from vislang.commands.abstain import Limit

        return Limit.read(folder, self.model, len(self.shot))

    def _check_pack(self, pack: Path) -> None:
        if self.drop_examples:
            raise UserError("--drop-examples: the examples of a pack cannot be dropped. Leave it out.")
        if self.abstain is not None:
            raise UserError("--abstain: its threshold is not for the examples of a pack. Leave out one of the two.")
        pack_path(pack)

    def _parts(self) -> list[Any]:
        return [medium_of(self.image), *([] if self.question is None else [checked(self.question, "the question")])]

    def _options(self) -> tuple[str, ...] | None:
        found = options_of(self.options)
        if found is None:
            return None
        if ignored := given(self, DECODING):
            raise UserError(
                f"{ignored}: no effect with --options, which ranks answers and generates none. Leave it out."
            )
        return found

    def _must_name_no_head(self) -> None:
        if self.head is not None:
            raise UserError(f"--head: {self.model} generates text and has no heads. Leave --head out.")

    def _cannot(self, architecture: str) -> UserError:
        return UserError(
            f"{self.model}: a {architecture} neither generates text nor has a task head. Give a Flamingo, a ViLBERT "
            "that was trained on a task, or a fine-tuned data2vec."
        )

    def _ask_server(
        self,
        client: Client,
        example: Example,
        shots: list[Example],
        options: tuple[str, ...] | None,
        decoding: Decoding,
    ) -> None:
        """Print what a server answers."""
        model = client.model(self.model)
        if not model.generates:
            if not model.heads:
                raise self._cannot(model.architecture)
            head = self._head(model, example, options)
            prediction = choose(client, model, example, options=options, head=head)
        else:
            self._must_name_no_head()
            if options is None:
                for piece in generate(client, model, example, shots, decoding):
                    print(piece, end="", flush=True)
                return
            prediction = choose(client, model, example, shots, options)
        if options is None:
            print(shown_answer(prediction.answer))
        else:
            _print_shares(prediction.candidates, prediction.scores, prediction.kind)

    def _head(self, model: Any, example: Example, options: tuple[str, ...] | None) -> str:
        """The head that answers.

        Raises:
            UserError: the model has no such head, or an option or the question does not fit it.
        """
        if ignored := given(self, GENERATION):
            raise UserError(f"{ignored}: no effect, because {self.model} generates no text. Leave it out.")
        if isinstance(example.media[0], Video):
            raise UserError(f"{self.image} is a video, and {self.model} reads only images.")
        head = head_of(model, self.model, self.head)
        if options is None and model.heads[head] == "choice":
            raise UserError(
                f'--options: the head {head} of {self.model} chooses among given answers, such as "cat,dog".'
            )
        return head

    def _decide(self, model: Any, example: Example, options: tuple[str, ...] | None, limit: Limit | None) -> None:
        """Print the head's answer, or the probability of each option."""
        head = self._head(model, example, options)
        if options is None:
            (prediction,) = model.decide([example], head)
            if limit is None or limit.allows(prediction):
                print(shown_answer(prediction.answer))
            return
        from vislang.evaluate.decide import decide_among

        try:
            found = decide_among(model, example, options, head)
        except MediaError:
            raise
        except UserError as error:
            raise UserError(f"--options: {self.model}: {error}") from None
        if limit is None or limit.allows(found):
            _print_shares(options, found.scores)

    def _generate(
        self,
        model: Any,
        example: Example,
        shots: list[Example],
        options: tuple[str, ...] | None,
        decoding: Decoding,
        limit: Limit | None,
    ) -> None:
        if self.drop_examples:
            model.drop_examples()
        state, prompt = self._read(model, example, shots)
        if options is not None:
            (scores,) = model.rank([prompt], options, state=state)
            values = tuple(score.log_likelihood for score in scores)
            best = options[values.index(max(values))]
            if limit is not None and not limit.allows(Prediction("", best, options, values, "log_likelihood")):
                return
            _print_shares(options, values, "log_likelihood")
            return
        if limit is not None:
            (made,) = model.generate_scored([prompt], decoding.max_new_tokens, state=state)
            if limit.allows(Prediction("", made.text, log_likelihood=made.log_likelihood)):
                print(made.text)
            return
        if decoding.beams == 1 and decoding.returns == 1:
            for piece in model.stream(prompt, decoding, state):
                print(piece, end="", flush=True)
            print()
            return
        (texts,) = model.complete([prompt], decoding, state=state)
        for text in texts:
            print(text.text)

    def _read(self, model: Any, example: Example, shots: list[Example]) -> tuple[Any, Document]:
        """The decode state after the examples, if there are any, and the rest of the prompt."""
        prompt = model.prompts.render(example, shots, after_shots=self.pack is not None)
        if self.pack is None and not shots:
            return None, prompt
        must_resume(model, self.model)
        prefixes = model.prefixes(0)
        if self.pack is not None:
            pack = model.open_pack(self.pack)
            prefixes.pin(pack)
            prompt = replace(prompt, parts=(*pack.document.parts, *prompt.parts))
        return model.resume(prompt, prefixes)


def _print_shares(options: Sequence[Any], scores: Sequence[float], kind: str = "probability") -> None:
    """Print the probability of each option, the most likely one first."""
    if kind == "log_likelihood":
        scores = [math.exp(score - max(scores)) for score in scores]
    total = max(sum(scores), 1e-12)
    for score, option in sorted(zip(scores, options, strict=True), key=lambda pair: -pair[0]):
        print(f"{score / total:.3f}  {option}")


def options_of(text: str | None) -> tuple[str, ...] | None:
    """Possible answers with commas between them; None without any.

    Raises:
        UserError: there are fewer than two, or some are equal.
    """
    if text is None:
        return None
    found = tuple(option.strip() for option in text.split(",") if option.strip())
    if len(set(found)) < max(2, len(found)):
        raise UserError('--options: give two or more different answers, such as --options "cat,dog".')
    return found


def medium_of(path: str) -> Image | Video:
    """A video or an image, by the file extension; an unknown one is read as an image."""
    return Video(path) if MEDIA.get(Path(path).suffix.lower()) is Video else Image(path)


def checked(text: str, what: str) -> str:
    """The same text from the command line, if it is usable.

    Raises:
        UserError: it is empty or not valid UTF-8; ``what`` names it in the message.
    """
    if not text.strip():
        raise UserError(f"{what} is empty.")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise UserError(f"{what} is not valid UTF-8. Type it again in a terminal that is set to UTF-8.")
    return text


def shot_of(path: str, text: str, question: str | None) -> Example:
    """An example from the command line: ``question? answer``, or only an answer to ``question``.

    >>> shot_of("a.png", "what shape is it? circle", "what color is it?").target
    Answers(scores={'circle': 1.0})

    Raises:
        UserError: the text contains no answer.
    """
    own, mark, answer = text.rpartition("?")
    if not answer.strip():
        raise UserError(f'--shot {path} "{text}": no answer. Write "question? answer", or only the answer.')
    query = f"{own.strip()}?" if mark else question
    parts = [medium_of(path), *([] if query is None else [checked(query, f"--shot {path}: the question")])]
    return Example(path, Document(parts, name=path), Answers({checked(answer.strip(), "the answer"): 1.0}), source=path)


def head_of(model: Any, source: str, name: str | None) -> str:
    """The named head, or the only one.

    Args:
        model: has task heads.
        source: its folder, for the message.
        name: of the head; None if none was named.

    Raises:
        UserError: the model has no such head, or several; the message lists them.
    """
    fitting = [head for head in model.heads if name in (head, None)]
    if len(fitting) == 1:
        return fitting[0]
    if not model.heads:
        raise UserError(f"{source}: its head gives logits only and no answers. Fine-tune a head for a task.")
    known = ", ".join(f"{head} ({kind})" for head, kind in model.heads.items())
    raise UserError(f"--head{'' if name is None else f' {name}'}: {source} has the heads {known}. Choose one.")
