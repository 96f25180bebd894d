"""``vislang VERB``. Only the module of the verb on the command line is imported, so help is printed at once."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from vislang.program import run_program

VERBS: dict[str, tuple[str, str, str]] = {
    "demo": ("demo", "Demo", "train a small Flamingo in ten minutes, score it, and ask it questions"),
    "train": ("train", "Train", "train a model by a recipe, or resume a run"),
    "rehearse": ("rehearse", "Rehearse", "kill and resume copies of a short run, and compare them with the run"),
    "eval": ("evaluate", "Evaluate", "score a model, or a file of predictions, on a task"),
    "compare": ("compare", "Compare", "compare two evaluations of the same questions, question by question"),
    "leaderboard": ("leaderboard", "Leaderboard", "print published numbers of a task beside your own evaluations"),
    "ask": ("ask", "Ask", "ask a model about an image or a video"),
    "tasks": ("tasks", "Tasks", "list the tasks, and how a model would answer each"),
    "index": ("index", "Index", "index a folder of images for search, or bring an index up to date"),
    "search": ("search", "Search", "find the images that match a text or an image best"),
    "classify": ("search", "Classify", "choose the label that matches each image best, without training"),
    "explain": (
        "explain",
        "Explain",
        "write an HTML page that explains an answer: its co-attention, or its shots",
    ),
    "report": ("report", "Report", "write the HTML report of a run, or a page that compares runs"),
    "embed": ("embed", "Embed", "write a vector for each file to a Parquet table"),
    "paths": ("paths", "Paths", "make the paths that a model chooses from in R2R, ranked by a speaker"),
    "study": ("study", "Study", "test a published claim with small models, and say whether the results support it"),
    "probe": ("probe", "Probe", "evaluate frozen features with a linear probe and nearest neighbours"),
    "data list": ("data", "List", "list the data sets that vislang can download"),
    "data show": ("data", "Show", "show a few records of a data source"),
    "data check": ("data", "Check", "list every bad record of a data source"),
    "data fetch": ("data", "Fetch", "download a data set into the cache"),
    "convert fairseq": ("convert", "Fairseq", "convert a data2vec checkpoint from fairseq"),
    "convert transformers": ("convert", "Transformers", "convert a data2vec model from transformers"),
    "convert vilbert": ("convert", "ViLBERT", "convert a checkpoint from vilbert-multi-task, vilbert_beta or MMF"),
    "convert open-flamingo": ("convert", "OpenFlamingo", "convert a checkpoint from OpenFlamingo"),
    "convert verify": ("convert", "Verify", "compare a converted model with recorded outputs of the original"),
    "export transformers": ("export", "Export", "write a data2vec model for transformers' Auto classes"),
    "pack": ("pack", "Pack", "keep the examples of a prompt in a file, as a model has read them"),
    "serve": ("serve", "Serve", "serve models over HTTP, with OpenAI's API"),
    "plan": ("plan", "Plan", "estimate memory, time and cost of a recipe, and which parallel setting fits"),
    "doctor": ("doctor", "Doctor", "list what is installed and what is missing"),
}
"""For each verb: its module in :mod:`vislang.commands`, its class there, and its line of help."""


SHORT = ("ask", "explain", "search")
"""Verbs that compute for less than a second.

The threads of OpenMP wait for each other in a loop, by default. That is the fastest where a program has the machine for
itself; beside other programs it took as much processor time as all else that these verbs do.
"""

NEW_OBJECTS = 50_000
"""New objects after which Python looks for garbage.

torch, transformers and the examples of a data set are a million objects that stay. By default Python looks for garbage
among them after every few hundred of these, which takes a sixth of the time until a run's first step. Tensors are freed
when their last reference goes, and do not wait for this.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status, see :func:`~vislang.program.run_program`."""
    return run_program(lambda: _run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(words: Sequence[str]) -> int:
    """Run the verb that the words begin with, or print the help."""
    if words[:1] == ["--version"]:
        from vislang import __version__

        print(f"vislang {__version__}")
        return 0
    verb = next((" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in VERBS), None)
    if verb is None:
        return _no_verb(words)
    # Progress bars and advice of other libraries mean nothing to a user of vislang.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.showwarning = _warn  # type: ignore[assignment]  # it ignores the arguments that it does not need
    if verb in SHORT:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    gc.set_threshold(NEW_OBJECTS)
    # Otherwise Python looks for garbage among all objects before the process ends, which takes a second.
    atexit.register(gc.freeze)
    module, name, _ = VERBS[verb]
    from vislang.commands.options import parse

    command = getattr(importlib.import_module(f"vislang.commands.{module}"), name)
    return parse(command, f"vislang {verb}", words[len(verb.split()) :]).run()


def _no_verb(words: Sequence[str]) -> int:
    """Print the help, or an error for a verb that does not exist."""
    if not words or words[0] in ("-h", "--help"):
        print(_help(VERBS))
        return 0 if words else 2
    group = {name: entry for name, entry in VERBS.items() if name.startswith(f"{words[0]} ")}
    wanted = " ".join(words[:2] if group else words[:1])
    if group and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_help(group))
        return 0 if len(words) > 1 else 2
    known = ", ".join(group or dict.fromkeys(name.split()[0] for name in VERBS))
    print(f"vislang: no verb {wanted!r}. The verbs are {known}. See vislang --help.", file=sys.stderr)
    return 2


def _help(verbs: dict[str, tuple[str, str, str]]) -> str:
    width = max(map(len, verbs))
    lines = [f"  {name:{width}}  {about}" for name, (_, _, about) in verbs.items()]
    return "\n".join(
        [
            "usage: vislang VERB ...    (vislang VERB --help describes the options of a verb)",
            "",
            "Train, evaluate and use Flamingo, ViLBERT and data2vec.",
            "",
            *lines,
        ]
    )


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: object) -> None:
    """Print vislang's own warnings, one per line, and drop those of other libraries."""
    if category.__module__.startswith("vislang."):
        print(f"note: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
