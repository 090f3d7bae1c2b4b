"""finetune, evaluate and predict as a user runs them, for every task; test_cli_runs.py is about runs of one of them."""

import io
import json
import math
import shutil
import sys

import pytest
from cli_runs import hidden, run
from task_data import FLAGS, SUFFIXES, TRAINING, read, save_pretrained, write_files

from keras_bert.cli.stages import MODEL_FILES
from keras_bert.training.tasks import TASKS

pytest.importorskip("tensorflow_text")


class Run:
    """A task's finetune; then its three model files alone, elsewhere, for all that comes after."""

    def __init__(self, task, folder, checkpoint):
        self.task, self.folder = task, folder
        self.files = write_files(task, folder)
        self.columns = [part for part in FLAGS.get(task, []) if "=" in part]
        self.columns = ["--columns", *self.columns] if self.columns else []
        self.out, self.model = folder / "out", folder / "moved"
        self.finetune = run(
            *("finetune", "--task", task.replace("_", "-"), "--checkpoint", checkpoint, "--out", self.out),
            *("--train", self.files["train"], "--dev", self.files["dev"], *TRAINING, *FLAGS.get(task, [])),
        )
        assert self.finetune.status == 0, self.finetune.err
        self.model.mkdir()
        for name in MODEL_FILES:
            shutil.copyfile(self.out / name, self.model / name)
        self.metrics = json.loads((self.out / "metrics.json").read_text(encoding="utf-8"))

    def predict(self, *arguments, given=None):
        with pytest.MonkeyPatch.context() as patch:
            if given is not None:
                patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
            outcome = run("predict", "--checkpoint", self.model, *arguments)
        assert outcome.status == 0, outcome.err
        return [json.loads(line) for line in outcome.out.splitlines()]

    def predict_dev(self):
        return self.predict("--input", self.files["dev"], *self.columns)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return save_pretrained(tmp_path_factory.mktemp("pretrained"))


@pytest.fixture(scope="module", params=TASKS)
def done(request, tmp_path_factory, pretrained):
    return Run(request.param, tmp_path_factory.mktemp(request.param), pretrained)


def test_files_of_a_run(done):
    names = {path.name for path in done.out.iterdir()}
    assert names == {*MODEL_FILES, "metrics.json", "report.html", "recipe.yaml", "logs", "stage.json"}
    assert not hidden(done.out)
    assert "Traceback" not in done.finetune.err
    assert "error" not in done.finetune.err
    (events,) = (done.out / "logs").iterdir()
    assert events.stat().st_size > 200
    report = (done.out / "report.html").read_text(encoding="utf-8")
    assert "http" not in report.replace("http://www.w3.org/", "")
    assert json.loads((done.out / "keras_bert.json").read_text(encoding="utf-8"))["task"] == TASKS[done.task].head


def test_figures_stand_by_name(done):
    printed, metrics = json.loads(done.finetune.out), done.metrics
    main = metrics["main_metric"]
    assert metrics[main["name"]] == main["value"] == printed[main["name"]]
    assert all(metrics[name] == value for name, value in printed.items() if name != "notes")
    assert math.isfinite(metrics["loss"])
    assert metrics["data"]["train"] == 40
    epochs = [row for row in metrics["curve"] if "epoch" in row]
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4, 5, 6]
    best = epochs[metrics["data"]["best_epoch"] - 1]
    assert best[f"val_{main['name']}"] == pytest.approx(main["value"], rel=1e-5)


def test_evaluate_gives_the_same_figures(done):
    scores = done.folder / "scores"
    outcome = run("evaluate", "--checkpoint", done.model, "--dev", done.files["dev"], *done.columns, "--out", scores)
    assert outcome.status == 0, outcome.err
    again = json.loads((scores / "metrics.json").read_text(encoding="utf-8"))
    for name, value in json.loads(done.finetune.out).items():
        assert again[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert (scores / "report.html").stat().st_size > 1000


def _accuracy(said, truth):
    return "accuracy", sum(row["label"] == label for row, label in zip(said, truth, strict=True)) / len(truth)


def _rows(done):
    return [json.loads(line) for line in read(done.files["dev"]).splitlines()]


def _fields(done, separator):
    return [line.split(separator) for line in read(done.files["dev"]).splitlines()[1:]]


def _figure(done):
    """A figure's name, and its value from what predict says of the dev file, by another library where there is one."""
    from scipy import stats
    from seqeval.metrics import f1_score

    said = done.predict_dev()
    if done.task == "classifier":
        return _accuracy(said, [fields[1] for fields in _fields(done, "\t")])
    if done.task == "multiple_choice":
        return _accuracy(said, [row["label"] for row in _rows(done)])
    if done.task == "multi_label":
        pairs = zip(said, _rows(done), strict=True)
        return "subset_accuracy", sum(set(one["labels"]) == set(row["labels"]) for one, row in pairs) / len(said)
    if done.task == "token_classifier":
        sentences = read(done.files["dev"]).strip().split("\n\n")
        tags = [[line.split()[-1] for line in sentence.splitlines()] for sentence in sentences]
        assert [row["words"] for row in said] == [[line.split()[0] for line in part.splitlines()] for part in sentences]
        return "f1", f1_score(tags, [row["tags"] for row in said])
    if done.task == "question_answerer":
        asked = [entry for entry in json.loads(read(done.files["dev"]))["data"][0]["paragraphs"]]
        wanted = {qa["id"]: [answer["text"] for answer in qa["answers"]] or [""] for one in asked for qa in one["qas"]}
        return "exact_match", 100 * sum(row["answer"] in wanted[row["id"]] for row in said) / len(said)
    place = "value" if done.task == "regression" else "similarity"
    truth = [float(fields[-1]) for fields in _fields(done, "," if done.task == "regression" else "\t")]
    return "spearman", stats.spearmanr([row[place] for row in said], truth)[0]


def test_predictions_agree_with_the_figure(done):
    if done.task == "masked_lm":
        assert done.metrics["perplexity"] == pytest.approx(math.exp(done.metrics["loss"]))
        return
    name, value = _figure(done)
    assert done.metrics[name] == pytest.approx(value, abs=1e-5)
    assert value  # the least that a model says is right by accident


LINES = {
    "classifier": ["the cat good", "", "我爱 bad"],
    "multi_label": ["the cat good bad", "", "坏"],
    "regression": ["the cat\tthe cat good", "\t", "我\t爱 good good"],
    "token_classifier": ["the cat sat on  the mat.", "", "我爱dog"],
    "question_answerer": ["the cat ?\tthe cat sat on the mat", "the ?\ta dog ran " + "in the mat " * 20],
    "multiple_choice": ["the cat\tgood\tbad", "the dog\tbad\tgood\tmat"],
    "embedder": ["the cat", "", "我爱"],
    "masked_lm": ["the [MASK] sat on the [MASK].", "我[MASK]"],
}


def test_arguments_a_file_and_standard_input_say_the_same(done):
    lines = LINES[done.task]
    said = done.predict(*lines)
    text = done.folder / "lines.txt"
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert len(said) == len(lines)
    assert said == done.predict(given="\ufeff" + "\r\n".join(lines) + "\r\n")
    assert said == done.predict("--input", text)


def test_places_are_of_the_text(done):
    said, lines = done.predict(*LINES[done.task]), LINES[done.task]
    if done.task == "token_classifier":
        places = [(line, entity) for line, row in zip(lines, said, strict=True) for entity in row["entities"]]
        assert places
    elif done.task == "question_answerer":
        places = [
            (line.split("\t")[1], {"text": found["answer"], **found})
            for line, row in zip(lines, said, strict=True)
            for found in row["candidates"]
        ]
    elif done.task == "masked_lm":
        assert [len(row["fillings"]) for row in said] == [2, 1]
        for found in said[0]["fillings"][0]:
            assert found["text"].endswith("sat on the [MASK].")
        return
    else:
        return
    for text, found in places:
        assert text[found["start"] : found["end"]] == found["text"]


def test_a_document_of_100_000_characters(done):
    long = "the cat sat 我爱 " * 8000
    line = {
        "regression": f"the cat\t{long}",
        "question_answerer": f"the cat ?\t{long}",
        "multiple_choice": f"{long}\tgood\tbad",
        "masked_lm": f"the [MASK] {long}",
    }.get(done.task, long)
    assert len(done.predict(line)) == 1


def test_conll_may_be_called_txt(done):
    if SUFFIXES[done.task] != ".conll":
        return
    text = shutil.copyfile(done.files["dev"], done.folder / "dev.txt")
    assert done.predict("--input", text) == done.predict_dev()
