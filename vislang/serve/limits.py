"""What one request, and all requests together, may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass

from vislang.document import MAX_PIXELS


@dataclass(frozen=True)
class Limits:
    """The caps of a server.

    Attributes:
        body_bytes: of a request's body, counted while it arrives.
        bodies_bytes: of the bodies of all requests that are in the server at once.
        body_seconds: for a body to arrive.
        images: in a request.
        image_pixels: of an image, from its header.
        request_pixels: of all images of a request together.
        messages: in a conversation; every two are an example in the prompt.
        characters: of all texts of a request together.
        texts: inputs of an embeddings request, documents of a reranking request, or allowed answers.
        new_tokens: of a generated text; a request that asks for more gets this many.
        returns: texts of a request (``n``).
        running: requests that the models answer at once.
        waiting: requests that wait for the models; beyond it, a request is told to come back.
        seconds: that a request may take once it has arrived.
        prefix_bytes: of a model's keys and values of examples that were in prompts; those used last are kept.
        kept_images: of which regions are kept in memory; nothing of a client's images is written to disk.
    """

    body_bytes: int = 20 * 2**20
    bodies_bytes: int = 256 * 2**20
    body_seconds: float = 30.0
    images: int = 32
    image_pixels: int = MAX_PIXELS
    request_pixels: int = 5 * MAX_PIXELS
    messages: int = 129
    characters: int = 200_000
    texts: int = 256
    new_tokens: int = 512
    returns: int = 8
    running: int = 8
    waiting: int = 64
    seconds: float = 120.0
    prefix_bytes: int = 512 * 2**20
    kept_images: int = 64
