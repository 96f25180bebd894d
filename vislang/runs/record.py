"""Runs from their folders, finished or not, without their models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vislang.errors import UserError
from vislang.evaluate.run_record import RunRecord
from vislang.runs.folder import read_json, recorded
from vislang.train.log import read_metrics


def read_record(folder: Path, name: str | None = None) -> RunRecord:
    """What the folder of a run says of it.

    Args:
        folder: of the run, which may still be training.
        name: what to call it; None takes that of the folder.

    Raises:
        UserError: no run there.
        DataError: its log was changed.
    """
    run = recorded(folder)
    log, final = folder / "metrics.jsonl", folder / "metrics.json"
    rows = read_metrics(log) if log.is_file() else []
    metrics = read_json(final) if final.is_file() else None
    if metrics is not None and rows and rows[-1]["step"] > metrics["steps"]:
        # A finished run is being extended: the figures are of its earlier end.
        metrics = None
    return RunRecord(name or folder.resolve().name, run, rows, metrics)


def read_records(folders: Sequence[Path]) -> list[RunRecord]:
    """Several runs, named by as much of their paths as tells them apart."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        twice = next(folder for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1)
        raise UserError(f"{twice}: is named twice. Name each run once.")
    parts = 1
    while len({path.parts[-parts:] for path in paths}) < len(paths):
        parts += 1
    return [read_record(folder, "/".join(path.parts[-parts:])) for folder, path in zip(folders, paths, strict=True)]
