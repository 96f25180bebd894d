"""Run the official scorers on the random inputs of ``cases.py`` and record their results beside it.

Nothing of their code is in this repository. Get it, then run ``python -m tests.metrics.official.record`` with

* ``--vqa``: a checkout of GT-Vision-Lab/VQA at a013f004 (Python 2.7 must be installed),
* ``--text-vqa``: a checkout of facebookresearch/mmf at b0ffc7fb,
* ``--gqa``: the authors' ``eval.py`` with the SHA-256 b2ed371d (needs tqdm),
* ``--nlvr2``: a checkout of lil-lab/nlvr at 18924841,
* ``--r2r``: ``tasks/R2R`` of peteanderson80/Matterport3DSimulator at 589d091b (needs networkx),
* ``--dtw``: ``r4r/dtw.py`` of google-research/google-research at 066e6a12,
* ``--captions``: the folder of pycocoevalcap 1.2 from PyPI, which has Stanford's tokenizer (Java must be installed).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import runpy
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from tests.metrics.official import cases

HERE = Path(__file__).parent

VQA = """
import json, sys
sys.path.insert(0, sys.argv[1] + "/PythonEvaluationTools")
from vqaEvaluation.vqaEval import VQAEval
cases = json.load(sys.stdin)
class Read:
    def __init__(self, qa): self.qa = qa
    def getQuesIds(self): return [case["question_id"] for case in cases]
def truth(case):
    answers = [{"answer": a, "answer_id": n, "answer_confidence": "yes"} for n, a in enumerate(case["answers"], 1)]
    return {"answers": answers, "question_type": "what", "answer_type": case["answer_type"]}
gts = Read({case["question_id"]: truth(case) for case in cases})
res = Read({case["question_id"]: {"answer": case["prediction"]} for case in cases})
shown, sys.stdout = sys.stdout, sys.stderr
scorer = VQAEval(gts, res, n=2)
scorer.evaluate()
shown.write(json.dumps({"questions": [scorer.evalQA[n] for n in gts.getQuesIds()], "accuracy": scorer.accuracy}))
"""


def vqa(folder: Path) -> dict[str, Any]:
    """The accuracy of each question in per cent as the program rounds it, and those of all questions."""
    run = subprocess.run(
        ["python2.7", "-c", VQA, str(folder)], input=json.dumps(cases.vqa()).encode(), capture_output=True, check=True
    )
    found = json.loads(run.stdout)
    # Accuracies are multiples of ten per cent, so that a hexadecimal digit holds one.
    found["questions"] = "".join(f"{round(value / 10):x}" for value in found["questions"])
    return found


def text_vqa(folder: Path) -> dict[str, Any]:
    """The accuracy of each of VQA's random questions by TextVQA's rule, and that of all."""
    spec = importlib.util.spec_from_file_location("evaluators", folder / "mmf/utils/m4c_evaluators.py")
    official = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(official)  # type: ignore[union-attr]
    scorer = official.TextVQAAccuracyEvaluator()
    entries = [{"pred_answer": case["prediction"], "gt_answers": case["answers"]} for case in cases.vqa()]
    each = [scorer.eval_pred_list([entry]) for entry in entries]
    return {
        "questions": "".join(f"{round(10 * value):x}" for value in each),
        "accuracy": round(scorer.eval_pred_list(entries), 9),
    }


def gqa(program: Path) -> list[dict[str, float]]:
    """The figures of each file in per cent, and its chi-square statistic, as the program computes them."""
    found = []
    start = os.getcwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for case in cases.gqa():
            sent = [{"questionId": name, "prediction": said} for name, said in case["predictions"].items()]
            for name, content in (
                ("questions", case["questions"]),
                ("choices", case["choices"]),
                ("predictions", sent),
            ):
                Path(f"val_{name}.json").write_text(json.dumps(content))
            sys.argv = ["eval.py", "--consistency"]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                scores = runpy.run_path(str(program))["scores"]
            names = ("accuracy", "binary", "open", "consistency", "validity", "plausibility", "distribution")
            figures = {name: scores[name] for name in names}
            for kind, by_type in (("structural", "Structural"), ("semantic", "Semantic")):
                types = scores[f"accuracyPer{by_type}Type"]
                figures |= {f"{kind} {name}": value for name, (value, _) in types.items()}
            found.append({name: round(value, 9) for name, value in sorted(figures.items())})
        os.chdir(start)
    return found


def nlvr2(folder: Path) -> list[list[float]]:
    """Accuracy and consistency of each file."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        labels, sent = Path(place) / "labels.json", Path(place) / "sent.csv"
        for records, lines in cases.nlvr2():
            labels.write_text("".join(json.dumps(record) + "\n" for record in records))
            sent.write_text("".join(f"{identifier},{answer}\n" for identifier, answer in lines))
            sys.argv = ["metrics.py", str(sent), str(labels)]
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                runpy.run_path(str(folder / "nlvr2/eval/metrics.py"))
            found.append([round(float(line.partition("=")[2]), 9) for line in printed.getvalue().split()])
    return found


def r2r(folder: Path, dtw: Path) -> list[list[float]]:
    """For each building the figures in the order of ``vislang.metrics.navigation.METRICS``."""
    for name, names in (("env", ["R2RBatch"]), ("agent", ["BaseAgent", "StopAgent", "RandomAgent", "ShortestAgent"])):
        sys.modules[name] = types.ModuleType(name)
        for each in names:
            setattr(sys.modules[name], each, None)
    sys.path.insert(0, str(folder))
    import eval as official  # type: ignore[import-not-found]

    spec = importlib.util.spec_from_file_location("dtw", dtw)
    warping = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(warping)  # type: ignore[union-attr]
    found = []
    start = os.getcwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for name in ("tasks/R2R/data", "connectivity"):
            Path(name).mkdir(parents=True)
        for building in cases.r2r():
            scan = building["paths"][0]["scan"]
            Path(f"connectivity/{scan}_connectivity.json").write_text(json.dumps(building["connectivity"]))
            Path("tasks/R2R/data/R2R_val_seen.json").write_text(json.dumps(building["paths"]))
            Path("results.json").write_text(json.dumps(building["results"]))
            scorer = official.Evaluation(["val_seen"])
            summary, _ = scorer.score("results.json")
            warped = warping.DTW(scorer.graphs[scan])
            references = {str(record["path_id"]): record["path"] for record in building["paths"]}
            fidelity = {
                name: [
                    float(warped([step[0] for step in r["trajectory"]], references[r["instr_id"].split("_")[0]], name))
                    for r in building["results"]
                ]
                for name in ("ndtw", "sdtw")
            }
            names = ("success_rate", "oracle success_rate", "spl", "nav_error", "length")
            means = [sum(values) / len(values) for values in fidelity.values()]
            found.append([round(float(value), 9) for value in (*(summary[name] for name in names), *means)])
        os.chdir(start)
    return found


def captions(folder: Path) -> dict[str, Any]:
    """CIDEr-D of each candidate, BLEU-1 to BLEU-4 of each corpus, and a checksum of the words of each caption."""
    sys.path.insert(0, str(folder.parent))
    from pycocoevalcap.bleu.bleu import Bleu  # type: ignore[import-not-found]
    from pycocoevalcap.cider.cider import Cider  # type: ignore[import-not-found]
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer  # type: ignore[import-not-found]

    os.environ["JAVA_TOOL_OPTIONS"] = "-Dfile.encoding=UTF-8"
    corpora = cases.captions()
    every = cases.every_caption()
    # The tokenizer reads all captions as one text: "no." at the end of one keeps its full stop if the next begins with
    # a number. A caption of its own between two of them keeps their words apart.
    apart = {number: [{"caption": text}, {"caption": "x"}] for number, text in enumerate(every)}
    split = PTBTokenizer().tokenize(apart)
    words = dict(zip(every, (split[number][0] for number in range(len(every))), strict=True))
    scores, bleus = [], []
    for candidates, references in corpora:
        given = {n: [words[text]] for n, text in enumerate(candidates)}
        wanted = {n: [words[text] for text in own] for n, own in enumerate(references)}
        with contextlib.redirect_stdout(io.StringIO()):
            bleus.append([round(value, 9) for value in Bleu(4).compute_score(wanted, given)[0]])
            scores.append([round(float(value), 7) for value in Cider().compute_score(wanted, given)[1]])
    # The scorers divide the tokenizer's line with Python's own split.
    sums = [cases.checksum(words[text].split()) for text in every]
    return {"cider_d": scores, "bleu": bleus, "words": "".join(sums)}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("vqa", "text-vqa", "gqa", "nlvr2", "r2r", "dtw", "captions"):
        parser.add_argument(f"--{name}", type=Path)
    given = parser.parse_args()
    results: dict[str, Any] = {}
    if given.vqa:
        results["vqa"] = vqa(given.vqa)
    if given.text_vqa:
        results["text_vqa"] = text_vqa(given.text_vqa)
    if given.gqa:
        results["gqa"] = gqa(given.gqa.resolve())
    if given.nlvr2:
        results["nlvr2"] = nlvr2(given.nlvr2)
    if given.r2r:
        results["r2r"] = r2r(given.r2r.resolve(), given.dtw.resolve())
    if given.captions:
        results["captions"] = captions(given.captions.resolve())
    for name, values in results.items():
        (HERE / f"{name}.json").write_text(json.dumps(values, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
