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
        from vislang.evaluate.compare import as_json, compare
        from vislang.evaluate.tables import comparison_table

        comparisons, differences = compare(self.a, self.b)
        if self.json:
            print(json.dumps(as_json(self.a, self.b, comparisons, differences)))
            return 0
        console.print(comparison_table(str(self.a), str(self.b), comparisons))
        for comparison in comparisons:
            if comparison.setting is None or comparison.setting.variant == "plain":
                console.print(f"* {comparison.in_words}")
        if differences:
            console.print("They also differ in (A, B):")
            for difference in differences:
                console.print(f"  {in_words([difference])}", markup=False)
        return 0
