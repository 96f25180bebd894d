"""``vislang VERB``. Only the module of the verb on the command line is imported, so that help answers at once."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from vislang.errors import UserError

VERBS: dict[str, tuple[str, str, str]] = {
    "demo": ("demo", "Demo", "train and ask a bridge between two frozen models, in ten minutes"),
    "train": ("train", "Train", "train as a recipe says; any of its values can be changed: --train.lr 3e-4"),
    "eval": ("evaluate", "Evaluate", "score a model, or a file of predictions, on a task"),
    "ask": ("ask", "Ask", "ask a model about an image or a video"),
    "tasks": ("tasks", "Tasks", "list the tasks, and how a model would answer each"),
    "search": ("search", "Search", "find the images that go best with a text"),
    "classify": ("search", "Classify", "find which of some labels goes best with each image"),
    "explain": ("explain", "Explain", "write a page: what text and image attended to in each other"),
    "report": ("report", "Report", "draw the page of a run again"),
    "embed": ("embed", "Embed", "write a vector for each file into a Parquet table"),
    "probe": ("probe", "Probe", "measure what frozen representations know: linear probe, nearest neighbours"),
    "data list": ("data", "List", "list every data source"),
    "data show": ("data", "Show", "show a few records of a source"),
    "data check": ("data", "Check", "list every bad record of a JSON Lines file"),
    "data fetch": ("data", "Fetch", "bring a data set into the cache, by its package"),
    "convert fairseq": ("convert", "Fairseq", "convert a data2vec checkpoint of fairseq, either generation"),
    "convert transformers": ("convert", "Transformers", "convert a data2vec model of transformers"),
    "convert vilbert": ("convert", "ViLBERT", "convert a ViLBERT of vilbert-multi-task, vilbert_beta or MMF"),
    "convert open-flamingo": ("convert", "OpenFlamingo", "convert a checkpoint of OpenFlamingo"),
    "convert verify": ("convert", "Verify", "compare a converted model with recorded outputs of the original"),
    "export transformers": ("export", "Export", "write a data2vec model for transformers' Auto classes"),
    "plan": ("plan", "Plan", "say what a recipe takes: parameters, memory, operations, time, and what fits"),
    "doctor": ("doctor", "Doctor", "say what is installed and what is missing"),
}
"""By verb: module in :mod:`vislang.commands`, class in it, and its line of help."""


_ELSEWHERE = "Name a folder that may be written to (VISLANG_CACHE names the folder of the cache)."
_REMEDIES = {
    errno.ENOSPC: "Free some space, or name a folder on another disk.",
    errno.EDQUOT: "Free some space, or name a folder on another disk.",
    errno.EROFS: _ELSEWHERE,
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
}
"""What a user can do about errors of the system that are not ours."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status: 0 done, 1 a check failed, 2 a user's mistake, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--version"]:
        from vislang import __version__

        print(f"vislang {__version__}")
        return 0
    verb = next((" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in VERBS), None)
    if verb is None:
        return _no_verb(words)
    # Progress bars and advice of the libraries below say nothing to a user of vislang.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.showwarning = _warn  # type: ignore[assignment]  # it passes over what it does not need
    module, name, _ = VERBS[verb]
    try:
        from vislang.commands.options import parse

        command = getattr(importlib.import_module(f"vislang.commands.{module}"), name)
        status = parse(command, f"vislang {verb}", words[len(verb.split()) :]).run()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; that is no failure, and nothing more can be written there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        print(f"vislang: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"vislang: {where}{error.strerror}. {_REMEDIES[error.errno]}", file=sys.stderr)
        return 2


def _no_verb(words: Sequence[str]) -> int:
    """Help, or what is wrong with a verb that does not exist."""
    if not words or words[0] in ("-h", "--help"):
        print(_help(VERBS))
        return 0 if words else 2
    group = {name: entry for name, entry in VERBS.items() if name.startswith(f"{words[0]} ")}
    wanted = " ".join(words[:2] if group else words[:1])
    if group and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_help(group))
        return 0 if len(words) > 1 else 2
    known = ", ".join(group or dict.fromkeys(name.split()[0] for name in VERBS))
    print(f"vislang: {wanted}: no such verb; there are {known}. See vislang --help.", file=sys.stderr)
    return 2


def _help(verbs: dict[str, tuple[str, str, str]]) -> str:
    width = max(map(len, verbs))
    lines = [f"  {name:{width}}  {about}" for name, (_, _, about) in verbs.items()]
    return "\n".join(
        [
            "usage: vislang VERB ...    (vislang VERB --help says more of a verb)",
            "",
            "Join images and language: train, evaluate and ask models on one machine.",
            "",
            *lines,
        ]
    )


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: object) -> None:
    """Our own warnings in a line of their own; others' warnings, which say nothing to a user, not at all."""
    if category.__module__.startswith("vislang."):
        print(f"note: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
