"""Figures as rows of text, for tables in the terminal, on pages and in notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vislang.metrics.figure import Figure, figures_from_json, metric, show, title_of
from vislang.metrics.variance import Component


def loss_rows(held_out: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Stream, name and value of the losses on held-out examples in ``metrics.json``."""
    for stream, figures in held_out.items():
        for name, figure in figures_from_json(figures).items():
            yield stream, name.replace("_", " "), f"{figure.value:.4f}"


def figure_rows(tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str, str]]:
    """Task, source of the answers, metric, value and interval of every figure; see :func:`answerers`."""
    for task, values in tasks.items():
        first = task
        for who, figures in answerers(values):
            for name, figure in figures.items():
                whole = show(name, figure)
                value, bracket, interval = whole.partition(" (")
                yield first, who, metric(name).title, value, interval.rstrip(")") if bracket else ""
                first, who = "", ""
        if "reference_perplexity" in values:
            yield first, "", "perplexity of the references, per token", f"{values['reference_perplexity']:.3f}", ""
        if values.get("unread"):
            yield first, "", "answers without a number", f"{values['unread']:,}", ""


def answerers(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Figure]]]:
    """The sources of answers with their figures: the model or a file, the model without images, and the baselines."""
    read = values["way"] == "file"
    yield "the predictions" if read else f"the model ({values['way']})", figures_from_json(values["figures"])
    if "blind" in values:
        yield "the same model without images", figures_from_json(values["blind"])
    for name, figures in values.get("guesses", {}).items():
        yield title_of(name), figures_from_json(figures)


def show_sd(name: str, component: Component | None, interval: bool = True) -> str:
    """A standard deviation as text, with its interval; empty if it was not measured."""
    return "" if component is None else show(name, Figure(component.sd, component.low, component.high, 0), interval)
