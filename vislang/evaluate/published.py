"""Numbers that papers published, as data: ``papers/*.yaml``, a file for each paper.

A file names the ``paper`` and its ``url``, and has ``tables``. A table has the protocol of its numbers, ``columns``
(task, data set, split, metric) and ``rows`` (model, perhaps shots, and a value for each column as it is printed, null
where the paper or our source has none). :func:`published` turns the cells into :class:`Entry` objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).with_name("papers")

LEARNING = ("in context", "fine-tuned", "zero-shot")
"""How a published model has learned the task."""

LARGEST = {"cider_d": 1000.0}
"""Largest possible value of a metric as papers print it; 100 for all others."""


@dataclass(frozen=True)
class Entry:
    """A published number and its protocol.

    Attributes:
        model: the model as the paper names it.
        value: the number as our metrics have it: papers print 100 times as much.
        sd: its standard deviation over ``draws``, if it is published.
        metric: snake_case name of the metric; see :data:`vislang.metrics.figure.METRICS`.
        task: name of the task as it is typed.
        data_set, split: the data, as the field names them.
        shots: number of examples in the prompt; None if the model was not prompted with examples.
        learning: one of :data:`LEARNING`.
        select: how examples for the prompt were chosen: ``random`` or ``retrieved``.
        draws: number of draws of examples, or of runs of fine-tuning, that the number is the mean of.
        decoding, prompt: how answers were decoded, and the wording of prompts; empty where the paper does not say.
        labels: how much labelled data the model was fine-tuned on, if less than all.
        paper, url, table: where it is published.
        by: who had measured it, if the paper quotes it.
        read_in: where we read it, if not in the paper itself.
        note: what else must be known.
    """

    model: str
    value: float
    sd: float | None
    metric: str
    task: str
    data_set: str
    split: str
    shots: int | None
    learning: str
    select: str
    draws: int
    decoding: str
    prompt: str
    labels: str
    paper: str
    url: str
    table: str
    by: str
    read_in: str
    note: str

    @property
    def source(self) -> str:
        """The paper in brief, and the table.

        >>> next(entry.source for entry in published() if entry.model == "Flamingo-9B")
        'Alayrac et al., 2022, Table 1'
        """
        return f"{self.paper.rpartition('(')[2].rstrip(')')}, Table {self.table}"

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@cache
def published() -> tuple[Entry, ...]:
    """All published numbers, in the order of the files."""
    return tuple(entry for path in sorted(FOLDER.glob("*.yaml")) for entry in entries_of(path))


def entries_of(path: Path) -> Iterator[Entry]:
    """The entries of a file.

    Raises:
        ValueError: the file does not follow the format; the message names the table and what is wrong.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    about = {"paper": content["paper"], "url": content["url"]}
    for table in content["tables"]:
        where = f"{path.name}, table {table['table']}"
        for row in table["rows"]:
            yield from _cells(table, row, about, f"{where}, {row['model']}")


def _cells(table: Mapping[str, Any], row: Mapping[str, Any], about: Mapping[str, str], where: str) -> Iterator[Entry]:
    """The entries of a row, without those that have no value."""
    columns, values, sds = table["columns"], row["values"], row.get("sd")
    if len(values) != len(columns) or (sds is not None and len(sds) != len(columns)):
        raise ValueError(f"{where}: has {len(values)} values for {len(columns)} columns.")
    if table["learning"] not in LEARNING:
        raise ValueError(f"{where}: learning is {table['learning']!r}, none of {', '.join(LEARNING)}.")
    if (table["learning"] == "in context") != ("shots" in row):
        raise ValueError(f"{where}: a row has shots if, and only if, the model learns in context.")
    for number, (column, value) in enumerate(zip(columns, values, strict=True)):
        if value is None:
            continue
        if not 0 <= value <= LARGEST.get(column["metric"], 100.0) or not math.isfinite(value):
            raise ValueError(f"{where}: {column['metric']} is {value}, out of its range.")
        yield Entry(
            **about,
            model=row["model"],
            value=value / 100,
            sd=None if sds is None else sds[number] / 100,
            metric=column["metric"],
            task=column["task"],
            data_set=column["data_set"],
            split=column["split"],
            labels=column.get("labels", ""),
            shots=row.get("shots"),
            learning=table["learning"],
            select=table.get("select", ""),
            draws=table.get("draws", 1),
            decoding=table.get("decoding", ""),
            prompt=table.get("prompt", ""),
            table=table["table"],
            by=row.get("by", ""),
            read_in=table.get("read_in", ""),
            note=table.get("note", ""),
        )


def named(task: str) -> list[Entry]:
    """The entries of a task or of a data set, whichever has this name, or this first word, such as ``glue``; case,
    spaces and hyphens do not matter.

    >>> {entry.task for entry in named("ms-coco")}
    {'coco-captions'}
    """
    wanted = plain_name(task)
    return [
        entry
        for entry in published()
        if wanted in map(plain_name, (entry.task, entry.data_set, entry.data_set.split()[0]))
    ]


def plain_name(name: str) -> str:
    """A name in lower case, without spaces, hyphens and underscores."""
    return name.lower().translate(str.maketrans("", "", " -_"))
