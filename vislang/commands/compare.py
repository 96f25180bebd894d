"""``vislang compare``: the paired difference of two evaluations of the same questions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vislang.commands.options import positional


@dataclass(frozen=True)
class Compare:
    """Compare two evaluations of the same questions: the paired difference of their scores with its interval, and
    McNemar's test.

    Attributes:
        a: folder of the first evaluation (vislang eval --out)
        b: folder of the second evaluation; a positive difference means that it is better
        json: print one JSON object
    """

    a: Path = positional()
    b: Path = positional()
    json: bool = False

    def run(self) -> int:
        """Print the differences; returns 0.

        Raises:
            UserError: the evaluations cannot be compared, or a file is missing or was changed.
        """
        from vislang.console import console
        from vislang.evaluate.card import in_words
        from vislang.evaluate.compare import compare
        from vislang.evaluate.tables import comparison_table

        found = compare(self.a, self.b)
        if self.json:
            print(json.dumps(found.as_json()))
            return 0
        console.print(comparison_table(found))
        for sentence in found.sentences():
            console.print(f"* {sentence}")
        if found.differences:
            console.print("They also differ in (A, B):")
            for difference in found.differences:
                console.print(f"  {in_words([difference])}", markup=False)
        return 0
