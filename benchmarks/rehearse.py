"""Rehearsals of interruptions in their long form: 25 kills of each of four recipes, one of each kind of model.

Each recipe is cut to a few examples and small batches. A quarter of the kills is of each kind: SIGKILL and SIGTERM, at
a random moment and while a checkpoint is written. Half of the copies have one process, half have two, and one goes
from one to two and back. With ``--json FILE`` what each kill did is written to ``FILE`` with the ending
``.rehearsals.json``.

    vislang data fetch emoji && python benchmarks/rehearse.py [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import resource
import tempfile
from pathlib import Path

import torch
from compare import Row, arguments, report
from transformers import AutoConfig, AutoModelForCausalLM

from vislang.commands.rehearse import as_json
from vislang.models.towers.language import load_language_tower
from vislang.runs.kills import GRACE
from vislang.runs.rehearse import Rehearsal, Settings, rehearse

RECIPES = Path(__file__).parents[1] / "recipes"

SMALL = ("--limit=64", "--train.batch_size=4", "--train.threads=1", "--train.device=cpu")
CASES = {
    "flamingo-easyvqa": ("--model.bridge.gated_layers=[2,3]", "--model.bridge.resampler_width=64"),
    "vilbert-pretrain": ("--eval_data=null", "--data=emoji-google-names", "--hold_out=0.1"),
    "data2vec-image": ("--data=emoji-google", "--hold_out=0.1", "--model.choices.copies=2"),
    # Without dropout, so that its losses are those of one process.
    "dual-encoder": (
        *("--eval_data=null", "--data=emoji-google-names", "--hold_out=0.1"),
        *("--model.encoders.text.dropout=0", "--model.encoders.vision.dropout=0"),
    ),
}
"""Changes of each recipe, beside those of all."""

WAITS = 120.0
"""Seconds that a copy may take to end after SIGTERM; a busy machine takes longer than a quiet one."""

MINUTES = 20
"""The goal for all on two quiet cores."""


def save_small_language_model(folder: Path) -> None:
    """A random language model of four layers, with the tokenizer of SmolLM2."""
    packaged = load_language_tower("HuggingFaceTB/SmolLM2-135M-Instruct")
    small = {"num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        **{**packaged.lm.lm.config.to_dict(), **small, "num_key_value_heads": 2, "head_dim": 16}
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    packaged.tokenizer.save_pretrained(folder)


def rows_of(name: str, found: Rehearsal) -> list[Row]:
    """The figures of a rehearsal."""
    exact = [case for case in found.cases if case.promise == "exact"]
    different = [max([0.0, *case.differences.values()]) for case in exact]
    changed = [case for case in found.cases if case.promise != "exact"]
    faults = [kill for kill in found.kills if kill.fault]
    stopped = [kill.seconds for kill in found.kills if kill.signal == "SIGTERM"]
    lost = max(kill.lost for kill in found.kills if kill.signal == "SIGKILL")
    # Those since the last checkpoint, and those while it was being written: the next one waits for it.
    most = 2 * found.checkpoint_every

    def row(what: str, value: float, unit: str, goal: str, met: bool) -> Row:
        return Row(f"{name}: {what}", value, unit, goal, met, 0.0, 0.0, len(found.kills))

    rows = [
        row(f"{len(found.kills)} kills, of which failed", len(faults), "kills", "= 0", not faults),
        row("same processes, any difference", max(different), "difference", "= 0", max(different) == 0),
        row("most steps lost by SIGKILL", lost, "steps", f"<= {most}", lost <= most),
        row("SIGTERM to the end of all, most", max(stopped), "s", f"<= {GRACE:.0f}", max(stopped) <= GRACE),
    ]
    for case in changed:
        if case.promise == "tolerance":
            goal = f"<= {found.tolerance}"
            rows.append(row("1, 2, 1 processes, loss", case.relative_difference, "relative", goal, case.kept))
        else:
            goal = "equal up to the change"
            rows.append(row("1, 2, 1 processes (dropout), loss", case.relative_difference, "relative", goal, case.kept))
    return rows


def cost() -> Row:
    """The processor time of all runs: two cores that do nothing else take half of it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes = (used.ru_utime + used.ru_stime) / 60
    goal = 2 * MINUTES
    return Row("all four recipes", minutes, "processor minutes", f"<= {goal}", minutes <= goal, 0.0, 0.0, 1)


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "")
    rows: list[Row] = []
    all_found = {}
    for name, changes in CASES.items():
        with tempfile.TemporaryDirectory(prefix="vislang-rehearsal-") as temporary:
            folder = Path(temporary) / name
            folder.mkdir()
            kills = 4 if options.quick else 25
            changes = [*SMALL, *changes]
            if name.startswith("flamingo"):
                save_small_language_model(Path(temporary) / "language")
                changes.append(f"--model.language_model={Path(temporary) / 'language'}")
            settings = Settings(RECIPES / f"{name}.yaml", changes, kills, (1, 2), grace=WAITS)
            found = rehearse(settings, folder, report=lambda line: print(line, flush=True))
            all_found[name] = as_json(found)
            rows += rows_of(name, found)
            if options.json is not None:
                whole = options.json.with_suffix(".rehearsals.json")
                whole.write_text(json.dumps(all_found, indent=1) + "\n", encoding="utf-8")
    rows.append(cost())
    report(rows, options.json)


if __name__ == "__main__":
    main()
