"""``vislang embed``: write a vector for each file to a Parquet table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vislang.commands.by_server import connected, embed
from vislang.commands.options import positional
from vislang.commands.outputs import must_hold_file
from vislang.console import console, reporting
from vislang.data.problems import Problem, must_be_good
from vislang.document import Document
from vislang.errors import UserError, needs
from vislang.example import Example
from vislang.files import whole_file

if TYPE_CHECKING:
    import numpy as np

    from vislang.serve.client import Client


@dataclass(frozen=True)
class Embed:
    """Write a vector for each file to a Parquet table.

    The table has the columns ``name`` (the file, record or passage) and ``vector`` (float32, of fixed width). Its
    metadata names the model.

    Attributes:
        model: folder of a model, or a Hub id; with --server, the name of a model that it serves
        files: media and text files, or any data sources
        out: Parquet file to write
        batch_size: number of files that are embedded at once
        device: where the model runs: auto, cpu, cuda or mps
        skip_bad_records: skip bad files and count them
        server: address of a running vislang serve that embeds texts and images, such as http://127.0.0.1:8000
        token: the server's token (default: the variable VISLANG_TOKEN)
    """

    model: str = positional()
    files: list[str] = positional()
    out: Path = Path("embeddings.parquet")
    batch_size: int = 64
    device: str = "auto"
    skip_bad_records: bool = False
    server: str | None = None
    token: str | None = None

    def run(self) -> int:
        """Write the table; returns 0."""
        client = connected(self, ["device"])
        must_hold_file(self.out)
        needs("pyarrow", "eval", "a Parquet table")
        if self.batch_size < 1:
            raise UserError(f"--batch-size is {self.batch_size}; it must be at least 1.")
        from vislang.data.sources import load_source

        problems: list[Problem] = []
        examples: list[Example] = []
        with reporting("checking files") as report:
            for file in self.files:
                examples += load_source(file, problems=problems, progress=report, targets=False)
        must_be_good(problems, self.skip_bad_records)
        if not examples:
            raise UserError(f"{', '.join(self.files)}: no usable files.")
        documents = [example.prompt for example in examples]
        vectors = self._vectors(documents) if client is None else self._vectors_of(client, documents)
        self._write([example.name for example in examples], vectors)
        if problems:
            console.print(f"skipped {len(problems)} bad files")
        console.print(f"{len(examples):,} vectors of width {vectors.shape[1]} in {self.out}")
        return 0

    def _vectors(self, documents: list[Document]) -> np.ndarray:
        from vislang.capabilities import Embeds
        from vislang.models.base import must_be_numbers
        from vislang.models.loading import load
        from vislang.train.device import device_of

        model = load(self.model, device_of(self.device))
        if not isinstance(model, Embeds):
            raise self._cannot(type(model).__name__)
        with reporting("embedding") as report:
            vectors = model.embed(documents, self.batch_size, progress=report)
        must_be_numbers(vectors, self.model)
        return vectors.numpy()

    def _vectors_of(self, client: Client, documents: list[Document]) -> np.ndarray:
        """The same from a server."""
        model = client.model(self.model)
        if "embeddings" not in model.abilities:
            raise self._cannot(model.architecture)
        with reporting("embedding") as report:
            return embed(client, model, documents, self.batch_size, report)

    def _cannot(self, architecture: str) -> UserError:
        return UserError(f"{self.model}: a {architecture} gives no vectors.")

    def _write(self, names: list[str], vectors: np.ndarray) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        table = pa.table({"name": pa.array(names), "vector": column})
        with whole_file(self.out) as unfinished:
            pyarrow.parquet.write_table(table.replace_schema_metadata({"vislang.model": self.model}), unfinished)
