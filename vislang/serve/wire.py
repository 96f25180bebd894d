"""Requests and replies as they are sent: OpenAI's, and those of vislang's own endpoints.

Fields of OpenAI's that are not listed here are ignored, as clients send many. Fields that would change the answer and
that vislang cannot follow are listed, so that they are errors (see :mod:`vislang.serve.chat`).
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat


def _unicode(text: str) -> str:
    """The same text; an error for half of a surrogate pair, which JSON can spell and no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("not valid Unicode") from None
    return text


Unicode = Annotated[str, AfterValidator(_unicode)]


class _Wire(BaseModel):
    """What is sent: unknown fields are ignored, and values have exactly the declared type."""

    model_config = ConfigDict(strict=True, extra="ignore")


# Requests


class ImageUrl(_Wire):
    """An image as a ``data:`` URL. ``detail`` is ignored: a model has one image size."""

    url: Unicode
    detail: Unicode | None = None


class TextPart(_Wire):
    """A text in a message."""

    type: Literal["text"]
    text: Unicode


class ImageUrlPart(_Wire):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl | Unicode


Part = Annotated[TextPart | ImageUrlPart, Field(discriminator="type")]


class Message(_Wire):
    """A message: a question with its images (user), an answer to the one before it (assistant), or instructions."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Unicode | list[Part]


class StreamOptions(_Wire):
    """``include_usage`` adds a last chunk with the numbers of tokens."""

    include_usage: bool | None = None


class StructuredOutputs(_Wire):
    """vLLM's field for constrained answers; ``choice`` is supported."""

    choice: list[Unicode] | None = None


class ModelRequest(_Wire):
    """A request to one of the models that are served."""

    model: Unicode


class Conversing(ModelRequest):
    """A request about a conversation.

    Attributes:
        messages: user messages with their answers are examples in the prompt; the last message is the question.
        head: which of the model's heads answers, for a model with several.
    """

    messages: list[Message] = Field(min_length=1)
    head: Unicode | None = None


class ChatRequest(Conversing):
    """``POST /v1/chat/completions``.

    Attributes:
        temperature: 0, the default, always takes the most likely token.
        allowed_answers: the answers to choose from; the reply has the score of each. ``guided_choice``,
            ``structured_outputs`` and a ``response_format`` whose schema is an enumeration mean the same.
    """

    allowed_answers: list[Unicode] | None = None
    guided_choice: list[Unicode] | None = None
    structured_outputs: StructuredOutputs | None = None
    response_format: dict[Unicode, Any] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: FiniteFloat | None = Field(None, ge=0, le=2)
    top_p: FiniteFloat | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    n: int | None = Field(None, ge=1)
    seed: int | None = None
    stop: Unicode | list[Unicode] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: FiniteFloat | None = None
    presence_penalty: FiniteFloat | None = None
    logit_bias: dict[Unicode, FiniteFloat] | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None


class TextInput(_Wire):
    """A text to embed or to rank."""

    text: Unicode


class ImageInput(_Wire):
    """An image to embed or to rank: a ``data:`` URL."""

    image: Unicode


Input = Unicode | TextInput | ImageInput


class EmbeddingsRequest(ModelRequest):
    """``POST /v1/embeddings``: a text, or a list of texts and images."""

    input: Unicode | list[Input] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)


class RerankRequest(ModelRequest):
    """``POST /v1/rerank``: documents in the order in which they fit the query."""

    query: Input
    documents: list[Input] = Field(min_length=1)
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None


class SearchRequest(_Wire):
    """``POST /v1/search``: the images of an index that match a text or an image best.

    Attributes:
        index: its name.
        query: a text or an image.
        top_n: greatest number of results.
        right, wrong: names of images of the index that are right or wrong for this query; marks are kept.
        forget: delete the earlier marks of this query.
        rerank: name of a served model that ranks the first results again.
        thumbnail: longer side of a small copy of each result, in pixels; 0 for none.
    """

    index: Unicode
    query: Input
    top_n: int = Field(20, ge=1, le=200)
    right: list[Unicode] = Field(default=[], max_length=100)
    wrong: list[Unicode] = Field(default=[], max_length=100)
    forget: bool = False
    rerank: Unicode | None = None
    thumbnail: int = Field(0, ge=0, le=512)


class AnswerRequest(Conversing):
    """``POST /v1/answer``: an answer of the model's own kind, with the scores of the alternatives."""

    options: list[Unicode] | None = None
    max_tokens: int | None = Field(None, ge=1)


class GroundRequest(Conversing):
    """``POST /v1/ground``: where in the image of the last message its text is."""

    top_n: int | None = Field(None, ge=1)


class ExplainRequest(Conversing):
    """``POST /v1/explain``: an answer with the attention behind it.

    Attributes:
        leave_out: also report what leaving out each example changes. The prompt is read once more for each.
    """

    max_tokens: int | None = Field(None, ge=1)
    leave_out: bool | None = None


# Replies


class _Reply(BaseModel):
    """A reply."""

    model_config = ConfigDict(extra="forbid")


def now() -> int:
    """The time of a reply, in seconds since 1970."""
    return int(time.time())


def new_id(prefix: str) -> str:
    """The identifier of a reply."""
    return f"{prefix}-{uuid.uuid4().hex}"


class ModelCard(_Reply):
    """A model that is served.

    Attributes:
        architecture: the class of the model, such as ``Flamingo``.
        abilities: the endpoints that it can answer.
        generates: whether it reads examples and generates text; other models read the last message only.
        heads: the kind of answer of each head, by the head's name.
        max_tokens: greatest number of generated tokens of an answer.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "vislang"
    architecture: str
    abilities: list[str]
    generates: bool
    heads: dict[str, str]
    max_tokens: int


class ModelList(_Reply):
    """``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Usage(_Reply):
    """Numbers of tokens; an image is one token of a prompt. 0 for models that do not count them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class TopLogprob(_Reply):
    """A token and its log-probability in nats."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer, with the most likely tokens at its position."""

    top_logprobs: list[TopLogprob]


class Logprobs(_Reply):
    """The tokens of an answer."""

    content: list[TokenLogprob]


class ScoredAnswer(_Reply):
    """An answer that was allowed, and its score; higher is better."""

    answer: str
    score: float


class AssistantMessage(_Reply):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(_Reply):
    """One of the ``n`` answers; ``allowed_answers`` has the score of each answer that was allowed, the best first."""

    index: int
    message: AssistantMessage
    finish_reason: Literal["stop", "length"]
    logprobs: Logprobs | None = None
    allowed_answers: list[ScoredAnswer] | None = None


class ChatCompletion(_Reply):
    """The reply of ``POST /v1/chat/completions``."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(_Reply):
    """What a chunk adds to an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(_Reply):
    """A piece of one of the ``n`` answers."""

    index: int
    delta: Delta
    finish_reason: Literal["stop", "length"] | None = None
    logprobs: Logprobs | None = None


class ChatChunk(_Reply):
    """An event of a streamed reply."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class Embedding(_Reply):
    """The vector of an input: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingList(_Reply):
    """The reply of ``POST /v1/embeddings``."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: Usage = Usage()


class RankedDocument(_Reply):
    """A document of the request, by its index."""

    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class RerankReply(_Reply):
    """The reply of ``POST /v1/rerank``; ``score_kind`` is ``similarity`` or ``log_likelihood`` (per token, in nats)."""

    id: str
    model: str
    score_kind: str
    results: list[RankedDocument]
    usage: Usage = Usage()


class IndexCard(_Reply):
    """An index that can be searched.

    Attributes:
        images: number of images in it.
        queries: what it can be searched by: ``text``, ``image``.
    """

    id: str
    object: Literal["index"] = "index"
    images: int
    queries: list[str]


class IndexList(_Reply):
    """``GET /v1/indexes``."""

    object: Literal["list"] = "list"
    data: list[IndexCard]


class FoundImage(_Reply):
    """A result of a search.

    Attributes:
        name: the path of the image, relative to the indexed folder.
        score: see ``score_kind`` of the reply.
        mark: how it was marked for this query.
        thumbnail: a small copy as a ``data:`` URL, if asked for; null where the file has become unreadable.
    """

    name: str
    score: float
    mark: Literal["right", "wrong"] | None = None
    thumbnail: str | None = None


class SearchReply(_Reply):
    """The reply of ``POST /v1/search``.

    Attributes:
        score_kind: ``similarity``, ``probability`` after marks, or ``log_likelihood`` (per token, in nats) of the query
            after each image, by a second model.
        marks: number of marks that corrected the search.
        ended: whether results ended early, since all others are probably wrong.
        results: the best first.
    """

    id: str
    index: str
    score_kind: Literal["similarity", "probability", "log_likelihood"]
    marks: int
    ended: bool
    results: list[FoundImage]


class ReportCard(_Reply):
    """A report of a run or an evaluation.

    Attributes:
        id: the name of its folder.
        url: its address on this server, for a browser.
        modified: when it was written, in seconds since 1970.
    """

    id: str
    object: Literal["report"] = "report"
    url: str
    modified: int


class ReportList(_Reply):
    """``GET /v1/reports``."""

    object: Literal["list"] = "list"
    data: list[ReportCard]


class BoxReply(_Reply):
    """A box in pixels of the image that was sent, upright."""

    left: float
    top: float
    right: float
    bottom: float


AnswerValue = str | float | BoxReply


class Candidate(_Reply):
    """An alternative and its score; higher is better."""

    answer: AnswerValue
    score: float


class AnswerReply(_Reply):
    """The reply of ``POST /v1/answer``.

    Attributes:
        way: how the model answered: ``decide``, ``rank``, ``match`` or ``generate``.
        answer: a text, a number or a box.
        score_kind: ``probability``, ``log_likelihood`` or ``similarity``.
        candidates: the alternatives, the best first.
    """

    id: str
    model: str
    way: Literal["decide", "rank", "match", "generate"]
    answer: AnswerValue
    score_kind: str
    candidates: list[Candidate]


class ScoredBox(_Reply):
    """A box and its score; higher is better."""

    box: BoxReply
    score: float


class GroundReply(_Reply):
    """The reply of ``POST /v1/ground``: boxes in pixels of the image, the best first."""

    id: str
    model: str
    width: int
    height: int
    boxes: list[ScoredBox]


class TokenMaps(_Reply):
    """A token of an answer, and for each image the share of its attention per cell, as rows from the top."""

    token: str
    maps: list[list[list[float]]]


class Gates(_Reply):
    """How far the gates before a layer of the language model are open: the tanh of each, 0 where it is closed."""

    layer: int
    attention: float
    feed_forward: float


class CoAttentionLayer(_Reply):
    """The mean attention weights of a layer's heads: (tokens, regions) and (regions, tokens)."""

    text_to_regions: list[list[float]]
    regions_to_text: list[list[float]]


class ExplainReply(_Reply):
    """The reply of ``POST /v1/explain``.

    Attributes:
        answer: a text, a number or a box.
        tokens: of a model that generates: the answer's tokens with their attention maps. An answer that fills the
            context is explained without its last token, which has no position to be read at.
        gates: of the layers through which it reads images, the lowest first.
        log_likelihood: with ``leave_out``: of the answer, in nats.
        changes: with ``leave_out``: that log-likelihood minus the one without each example. Above 0, the example made
            the answer more likely.
        change_of_all: with ``leave_out``: the same without any of the examples.
        words, regions, layers: of a model with co-attention: the tokens of the text, the boxes of the regions (the
            first is the whole image), and the layers.
    """

    id: str
    model: str
    answer: AnswerValue
    tokens: list[TokenMaps] | None = None
    gates: list[Gates] | None = None
    log_likelihood: float | None = None
    changes: list[float] | None = None
    change_of_all: float | None = None
    words: list[str] | None = None
    regions: list[BoxReply] | None = None
    layers: list[CoAttentionLayer] | None = None


class ErrorBody(_Reply):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorReply(_Reply):
    """Every reply with a status of 400 or more."""

    error: ErrorBody
