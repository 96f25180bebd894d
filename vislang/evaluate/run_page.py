"""``report.html`` of a run: one self-contained page with its figures, curves, answers, and what pretraining learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.capabilities import Embeds, Progress, Reveals
from vislang.evaluate.curves import run_plots, single_values, typical_speed
from vislang.evaluate.evaluation import Evaluation
from vislang.evaluate.figure_rows import loss_rows
from vislang.evaluate.gallery import gallery_of
from vislang.evaluate.intervals import task_scores
from vislang.evaluate.page import provenance, template
from vislang.evaluate.revealed import revealed_of
from vislang.evaluate.run_record import RunRecord
from vislang.example import Example
from vislang.files import write_text
from vislang.metrics.figure import metric
from vislang.train.log import rates_in_words


def write_run_page(
    path: Path,
    run: RunRecord,
    model: Any = None,
    evaluations: Mapping[str, Evaluation] | None = None,
    streams: Mapping[str, tuple[Sequence[Example], Sequence[Example]]] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the page of a run; of one that has not come to its end, its curves so far.

    Args:
        path: of the page.
        run: what its folder says.
        model: the trained model; None where there is none yet.
        evaluations: what it answered, by task.
        streams: held-out examples and training examples, by stream.
        progress: called with (parts done, parts in all).
    """
    galleries = []
    for evaluation in (evaluations or {}).values():
        if (made := gallery_of(model, evaluation, progress)) is not None:
            galleries.append(made)
    revealed = []
    if streams and isinstance(model, Reveals) and isinstance(model, Embeds):
        for number, (name, (kept, trained)) in enumerate(streams.items(), start=1):
            revealed.append({"name": name, **revealed_of(model, kept or trained, trained)})
            if progress is not None:
                progress(number, len(streams))
    metrics = run.metrics or {"tasks": {}, "held_out": {}}
    page = template("run").render(
        title=_title(run),
        summary=_summary(run),
        facts=rates_in_words(typical_speed(run.rows)),
        tasks=[task_scores(name, values) for name, values in metrics["tasks"].items()],
        losses=list(loss_rows(metrics["held_out"])),
        plots=run_plots(run.rows),
        singles=single_values(run.rows) if run.metrics is None or not metrics["tasks"] else [],
        galleries=galleries,
        streams=revealed,
        **provenance(run.about),
    )
    write_text(path, page)


def _title(run: RunRecord) -> str:
    """The first figure of a run with one task; otherwise what it was trained on."""
    if run.metrics is not None and len(run.metrics["tasks"]) == 1:
        ((task, values),) = run.metrics["tasks"].items()
        name, figure = next(iter(values["figures"].items()))
        if metric(name).percent and figure["value"] is not None:
            return f"{task}: {100 * figure['value']:.1f} % {metric(name).title} on {values['n']:,} examples"
    data = run.recipe.get("data", run.name)
    names = [data] if isinstance(data, str) else [stream["name"] for stream in data]
    return f"{run.name}: trained on {', '.join(names)}"


def _summary(run: RunRecord) -> str:
    if run.metrics is None:
        return (
            f"This run has not come to its end: step {run.steps:,} of {run.recipe['train']['steps']:,} after "
            f"{run.minutes:.1f} minutes of training on {run.threads}. Draw the page again to see it go on."
        )
    return (
        f"{run.metrics['steps']:,} steps in {run.metrics['train_seconds'] / 60:.1f} minutes of training on "
        f"{run.threads}; {run.metrics['total_seconds'] / 60:.1f} minutes in all."
    )
