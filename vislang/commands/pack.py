"""``vislang pack``: the examples of a prompt in a file, as the model has read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.commands.options import positional
from vislang.commands.outputs import must_hold_file
from vislang.console import console, reporting
from vislang.data.problems import DataError, Problem, must_be_good
from vislang.errors import UserError
from vislang.files import must_be_file

if TYPE_CHECKING:
    from vislang.capabilities import Prefix


@dataclass(frozen=True)
class Pack:
    """Read examples and keep what the model computes of them in a file, for ask, eval and serve.

    Attributes:
        model: folder of a model, or a Hub id
        examples: a data source whose records have answers, such as examples.jsonl; all are used, in their order
        out: file to write, such as bolts.pack
        device: where the model runs: auto, cpu, cuda or mps
        skip_bad_records: skip bad records and count them
    """

    model: str = positional()
    examples: str = positional()
    out: Path = Path("examples.pack")
    device: str = "auto"
    skip_bad_records: bool = False

    def run(self) -> int:
        """Write the pack; returns 0.

        Raises:
            UserError: a record is bad or has no answer, the model does not generate text, or there are more examples
                than it can read.
        """
        must_hold_file(self.out)
        from vislang.data.sources import load_source

        problems: list[Problem] = []
        with reporting("reading records") as progress:
            examples = load_source(self.examples, problems=problems, progress=progress)
        must_be_good(problems, self.skip_bad_records, self.examples)
        if not examples:
            raise DataError(f"{self.examples}: contains no valid records.")
        from vislang.models.loading import load
        from vislang.train.device import device_of

        model = load(self.model, device_of(self.device))
        must_resume(model, self.model)
        prefix = model.pack(examples, self.out)
        if problems:
            console.print(f"skipped {len(problems)} bad records")
        count, tokens = len(examples), model.prompt_tokens(prefix.state)
        console.print(
            f"{count:,} example{'s' if count != 1 else ''} of {tokens:,} tokens together, "
            f"{self.out.stat().st_size / 2**20:.1f} MiB, in {self.out}"
        )
        return 0


def must_resume(model: Any, source: str) -> None:
    """Raise an error unless a model can be given packs.

    Raises:
        UserError: it generates no text.
    """
    from vislang.capabilities import Resumes

    if not isinstance(model, Resumes):
        raise UserError(f"{source}: a {type(model).__name__} reads no examples, so it has no packs. Give a Flamingo.")


def pack_path(path: Path) -> Path:
    """The path of a pack; checked before a model is opened, which takes seconds.

    Raises:
        UserError: there is no such file.
    """
    must_be_file(path, "a pack, which vislang pack writes")
    return path


def opened_pack(model: Any, source: str, path: Path) -> Prefix:
    """The examples in a pack, as the model has read them.

    Raises:
        UserError: the file is damaged or was made by another model, or the model reads no packs.
    """
    must_resume(model, source)
    return model.open_pack(path)
