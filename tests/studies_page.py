"""Writes docs/results/studies.md from the committed results: ``python -m tests.studies_page``."""

from __future__ import annotations

from pathlib import Path

from vislang.studies.catalogue import all_claims
from vislang.studies.pages import INDEX, entry_of, markdown

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def page() -> str:
    """The whole page."""
    return markdown(entry_of(claim, RESULTS) for claim in all_claims().values())


if __name__ == "__main__":
    (RESULTS / f"{INDEX}.md").write_text(page(), encoding="utf-8")
