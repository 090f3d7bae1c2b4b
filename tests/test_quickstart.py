"""The quickstart as a user runs it: one process a run, killed once, run to its end, and run again."""

import json
import shutil
import signal

import numpy as np
import pytest
from cli_runs import hidden, make_data, make_launcher, run, start

import keras_bert as kb
from keras_bert.cli import commands
from keras_bert.training import baselines, tables

pytest.importorskip("tensorflow_text")
pytestmark = pytest.mark.slow

STAGES = ["data", "vocab", "pretrain", "finetune", "evaluate", "export", "verify"]


class Runs:
    def __init__(self, folder):
        self.folder, self.out = make_data(folder), folder / "out"
        launcher = make_launcher(folder)
        self.command = ["quickstart", "--out", self.out, "--text", folder / "text.txt"]
        self.command += ["--train", folder / "train.tsv", "--dev", folder / "dev.tsv", "--vocab-size", 200]
        self.command += ["--steps", 20, "--epochs", 4, "--max-length", 16, "--batch-size", 8]
        with start(launcher, *self.command) as killed:
            for line in iter(killed.stderr.readline, ""):
                if line == "finetune ...\n":
                    break
            killed.send_signal(signal.SIGKILL)
        self.killed_status = killed.returncode
        with start(launcher, *self.command) as process:
            self.printed, self.said = process.communicate()
        self.status = process.returncode
        self.again = run(*self.command)
        self.summary = json.loads((self.out / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("quickstart"))


def test_a_killed_run_goes_on(runs):
    assert runs.killed_status == -signal.SIGKILL
    assert runs.status == 0, runs.said
    for stage in STAGES[:3]:
        assert f"{stage}: complete already, reused from " in runs.said
    for stage in STAGES[3:]:
        assert f"{stage}: done in " in runs.said
    assert not hidden(runs.out)
    assert not list(runs.out.glob("*/progress"))


def test_standard_error_holds_the_stages_and_nothing_else(runs):
    for line in runs.said.splitlines():
        assert line.split(":")[0].removesuffix(" ...").strip() in STAGES, line


def test_a_second_run_reuses_every_stage(runs):
    assert runs.again.status == 0
    assert runs.again.out == runs.printed
    assert runs.again.err.count("complete already") == len(STAGES)
    assert runs.again.err.count("\n") == len(STAGES)


def test_summary_tells_the_run(runs):
    summary = runs.summary
    assert [stage["name"] for stage in summary["stages"]] == STAGES
    assert all(stage["reused"] and stage["seconds"] > 0 for stage in summary["stages"])
    assert summary["total_seconds"] == pytest.approx(sum(stage["seconds"] for stage in summary["stages"]))
    assert summary["command"].startswith("keras-bert quickstart --out ")
    assert summary["settings"]["steps"] == 20
    assert summary["peak_memory_bytes"] > 50e6
    assert summary["data"] == {"documents": 60, "train": 60, "dev": 21}
    assert summary["vocabulary"]["size"] == len((runs.out / "vocab" / "vocab.txt").read_text(encoding="utf-8").split())
    assert [row["step"] for row in summary["pretraining"]["curve"]] == list(range(1, 21))
    assert [row["epoch"] for row in summary["finetuning"]["curve"] if "epoch" in row] == [1, 2, 3, 4]
    losses = [row["loss"] for row in summary["pretraining"]["curve"] + summary["finetuning"]["curve"]]
    assert np.isfinite(losses).all()
    assert summary["finetuning"]["labels"] == ["sport", "食物"]


def test_summary_agrees_with_the_models(runs):
    train, dev = (tables.read_table(runs.folder / f"{name}.tsv") for name in ("train", "dev"))
    scores = runs.summary["evaluation"]
    said = run("predict", "--checkpoint", runs.out / "finetune", *dev["text"])
    predicted = [json.loads(line)["label"] for line in said.out.splitlines()]
    accuracy = np.mean([a == b for a, b in zip(predicted, dev["label"], strict=True)])
    assert scores["accuracy"] == pytest.approx(accuracy)
    assert scores["majority_accuracy"] == pytest.approx(baselines.majority_accuracy(train["label"], dev["label"]))
    assert np.trace(scores["confusion_matrix"]) == round(accuracy * len(dev))
    assert len(scores["errors"]) == len(dev) - np.trace(scores["confusion_matrix"])
    assert runs.summary["finetuning"]["curve"][-1]["val_accuracy"] == pytest.approx(accuracy)
    for artifact in runs.summary["artifacts"]:
        assert artifact["ok"], artifact["problem"]
        assert artifact["value"] == pytest.approx(accuracy) or artifact["quantized"]


def test_artifacts(runs):
    export = runs.out / "export"
    found = {(artifact["kind"], artifact["signature"], artifact["quantized"]) for artifact in runs.summary["artifacts"]}
    assert {("saved_model", "serving_default", False), ("saved_model", "ids", False)} < found
    assert {quantized for kind, _, quantized in found if kind == "litert"} == {False, True}
    sizes = {artifact["name"]: artifact["bytes"] for artifact in runs.summary["artifacts"]}
    assert sizes["model.tflite"] == (export / "model.tflite").stat().st_size
    assert sizes["model.int8.tflite"] < sizes["model.tflite"] / 2
    assert (export / "saved_model" / "1" / "assets.extra" / "labels.txt").read_text(encoding="utf-8") == "sport\n食物\n"


def test_models_are_checkpoints(runs):
    pretrained, finetuned = (kb.load_model_folder(runs.out / name) for name in ("pretrain", "finetune"))
    assert (pretrained.task, finetuned.task) == ("pretraining", "classifier")
    assert pretrained.tokenizer.hash == finetuned.tokenizer.hash == runs.summary["vocabulary"]["hash"]
    assert pretrained.model.count_params() == runs.summary["pretraining"]["parameters"]


def test_report_and_logs(runs):
    report = (runs.out / "report.html").read_text(encoding="utf-8")
    for part in ("sport", "食物", "model.int8.tflite", f"{runs.summary['evaluation']['accuracy']:.1%}"):
        assert part in report
    assert "http://" not in report.replace("http://www.w3.org/", "")
    for stage in ("pretrain", "finetune"):
        (events,) = (runs.out / stage / "logs").iterdir()
        assert events.stat().st_size > 500


def test_changed_settings_run_only_what_depends_on_them(runs, tmp_path, monkeypatch):
    shutil.copytree(runs.out, tmp_path / "out")
    command = [tmp_path / "out" if part == runs.out else part for part in runs.command]
    verified = json.loads((runs.out / "verify" / "stage.json").read_text(encoding="utf-8"))["report"]
    verified["artifacts"][0].update(ok=False, problem="it differs")
    monkeypatch.setattr(commands.stages, "verify_stage", lambda *arguments: verified)  # its processes take long
    monkeypatch.setattr(commands.stages, "export_stage", lambda folder, *arguments: {"artifacts": []})
    again = run(*command, "--epochs", 1)
    assert [line.split(":")[0] for line in again.err.splitlines() if "complete already" in line] == STAGES[:3]
    assert [line.split(":")[0] for line in again.err.splitlines() if ": done in" in line] == STAGES[3:]
    assert again.status == 1
    assert "Expected every artifact to agree with the Keras model. Received: 1 of 6" in again.last_error()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert len(summary["finetuning"]["curve"]) == 1
