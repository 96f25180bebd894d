"""``vislang embed``: a vector for each file, in a Parquet table."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from vislang.capabilities import Embeds
from vislang.commands.outputs import must_hold_file
from vislang.console import console, reporting
from vislang.data.jsonl import Problem, must_be_good
from vislang.document import Document
from vislang.errors import UserError
from vislang.models.loading import load
from vislang.tasks.unlabelled import unlabelled


def embed(source: str, files: list[str], out: Path, skip_bad: bool, batch_size: int) -> int:
    """Embed files, folders, JSON Lines files or data sets; returns 0.

    The table has a column ``name`` (the file, record or passage) and a column ``vector`` (float32, of fixed width); its
    metadata names the model.
    """
    must_hold_file(out)
    model = load(source)
    if not isinstance(model, Embeds):
        raise UserError(f"{source}: is a {type(model).__name__}, which gives no vectors; give a data2vec model, say.")
    problems: list[Problem] = []
    documents: list[Document] = []
    with reporting("checking files") as report:
        for file in files:
            documents += unlabelled(file, problems, report)
    must_be_good(problems, skip_bad)
    with reporting("embedding") as report:
        vectors = model.embed(documents, batch_size, progress=report)
    width = vectors.shape[1]
    table = pa.table(
        {
            "name": pa.array([document.name for document in documents]),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.numpy().ravel()), width),
        }
    ).replace_schema_metadata({"vislang.model": source})
    unfinished = out.with_name(f".{out.name}.unfinished")
    pyarrow.parquet.write_table(table, unfinished)
    os.replace(unfinished, out)
    console.print(f"{len(documents):,} vectors of width {width} in {out}")
    return 0
