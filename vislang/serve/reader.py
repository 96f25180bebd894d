"""How a model reads the prompts of all requests: shared examples once, prompts and generated texts together."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from vislang.capabilities import Continues, Prefix, Resumes
from vislang.document import Document


class _Waiting:
    """A prompt that is to be read; then its decode state, or what kept it from being read."""

    def __init__(self, prompt: Document):
        self.prompt = prompt
        self.state: Any = None
        self.error: Exception | None = None


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
        self._waiting: list[_Waiting] = []

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

    def read(self, prompt: Document) -> Generator[None, None, Any]:
        """The decode state after a prompt; yields None once before, so that requests that begin at the same time have
        their prompts read together.

        Raises:
            UserError: the prompt is too long, or an image cannot be decoded.
        """
        own = _Waiting(prompt)
        self._waiting.append(own)
        try:
            yield None
            if own in self._waiting:
                self._read_all()
        finally:
            # Its client may have gone.
            self._waiting = [other for other in self._waiting if other is not own]
        if own.error is not None:
            raise own.error
        return own.state

    def _read_all(self) -> None:
        """Read the prompts that wait; those that continue the same examples, or none, together."""
        waiting, self._waiting = self._waiting, []
        groups: dict[int, tuple[Any, list[tuple[_Waiting, Document]]]] = {}
        for each in waiting:
            try:
                state, rest = self.resume(each.prompt)
            except Exception as error:
                each.error = error
            else:
                groups.setdefault(id(state), (state, []))[1].append((each, rest))
        for state, group in groups.values():
            self._read_group(state, group)

    def _read_group(self, state: Any, group: Sequence[tuple[_Waiting, Document]]) -> None:
        try:
            found = self.model.prefill_each([rest for _, rest in group], state)
        except Exception as error:
            if len(group) == 1:
                group[0][0].error = error
            else:
                # One prompt's mistake is not that of the others.
                for one in group:
                    self._read_group(state, [one])
        else:
            for (each, _), own in zip(group, found, strict=True):
                each.state = own
