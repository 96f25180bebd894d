"""How a model that generates text reads the prompts of all requests: shared examples once, texts together."""

from __future__ import annotations

from typing import Any

from vislang.capabilities import Continues, Prefix, Resumes
from vislang.document import Document


class Reader:
    """What the requests to a model share.

    Args:
        model: continues prompts, and resumes them.
        prefix_bytes: greatest size of the examples that are kept.

    Attributes:
        together: the texts that are being generated.
        prefixes: the examples that were in prompts.
    """

    def __init__(self, model: Any, prefix_bytes: int):
        self.model = model
        self.together = model.together()
        self.prefixes = model.prefixes(prefix_bytes)

    @staticmethod
    def can_read(model: Any) -> bool:
        """Whether a model has what it takes."""
        return isinstance(model, Continues) and isinstance(model, Resumes)

    def pin(self, pack: Prefix) -> None:
        """Never read the examples of a pack."""
        self.prefixes.pin(pack)

    def resume(self, prompt: Document) -> tuple[Any, Document]:
        """The decode state after a prompt's examples, and the rest of the prompt; see
        :meth:`vislang.capabilities.Resumes.resume`."""
        return self.model.resume(prompt, self.prefixes)

    def read(self, prompt: Document) -> Any:
        """The decode state after a prompt."""
        state, rest = self.resume(prompt)
        return self.model.prefill(rest, state)
