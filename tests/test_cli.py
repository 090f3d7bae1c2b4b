import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
from cli_runs import ROOT, TRAINING, hidden, make_data, make_launcher, run

from keras_bert import config, head_layers
from keras_bert.checkpoints import convert, load, source
from keras_bert.cli import (
    arguments,
    console,
    corpus_arguments,
    export_arguments,
    finetune_arguments,
    pretrain_arguments,
)
from keras_bert.cli.arguments import COMMANDS, FLAGS
from keras_bert.cli.recipe import with_recipe
from keras_bert.export import litert
from keras_bert.training import corpus, distribution, masking, pretrain, schedules, squad, tables, tasks
from keras_bert.training.pretrain import PretrainSettings
from keras_bert.training.settings import FinetuneSettings

pytest.importorskip("tensorflow_text")


def test_lists_of_choices_are_those_of_the_packages():
    assert set(arguments.PRESETS) == set(config.PRESETS)
    assert arguments.STRATEGIES == distribution.STRATEGIES
    assert tuple(load.FORMATS) == arguments.CHECKPOINT_FORMATS
    assert arguments.WRITTEN_FORMATS == convert.WRITTEN_FORMATS
    assert arguments.TASKS == source.TASKS
    assert set(arguments.PRECISIONS) == set(distribution.PRECISIONS)
    assert tuple(dict.fromkeys((*tables.COLUMNS, *squad.COLUMNS))) == arguments.COLUMNS
    assert tuple(tasks.TASKS) == finetune_arguments.FINETUNE_TASKS
    assert export_arguments.QUANTIZATIONS == litert.QUANTIZATIONS


def test_flags_of_finetune_are_the_settings():
    """What the parser gives is what the settings say where nobody gives anything."""
    words = ["finetune", "--checkpoint", "c", "--train", "t", "--dev", "d", "--out", "o"]
    parsed = vars(arguments.make_parser().parse_args(words))
    for field in dataclasses.fields(FinetuneSettings):
        if field.name not in ("max_length", "stride"):  # a task's own
            assert parsed[field.name] == field.default, field.name
    flags = finetune_arguments.FINETUNE_FLAGS
    assert set(flags["--pooling"]["choices"]) <= {*head_layers.POOLINGS, head_layers.LAST_4}
    assert set(flags["--bad-answers"]["choices"]) == set(squad.BAD_ANSWERS)


def test_flags_of_pretrain_are_the_settings():
    parsed = vars(arguments.make_parser().parse_args(["pretrain", "--corpus", "c", "--out", "o"]))
    for field in dataclasses.fields(PretrainSettings):
        if field.name != "steps":  # a run that is worth a command has more than one that is worth a test
            assert parsed[field.name] == field.default, field.name
    flags = pretrain_arguments.PRETRAIN_FLAGS
    assert set(flags["--optimizer"]["choices"]) == set(pretrain.OPTIMIZERS)
    assert set(flags["--schedule"]["choices"]) == set(schedules.SCHEDULES)
    assert flags["--mask-unit"]["choices"] == masking.UNITS
    assert set(flags["--checkpoint-format"]["choices"]) == set(convert.WRITTEN_FORMATS)
    known = {*distribution.STRATEGIES, *distribution.CLUSTER_STRATEGIES}
    assert set(flags["--strategy"]["choices"]) - known == {"parameter_server"}, "which has an error of its own"


def test_flags_of_corpus_are_the_settings():
    parsed = vars(arguments.make_parser().parse_args(["corpus", "build", "--out", "o"]))
    for field in dataclasses.fields(corpus.CorpusSettings):
        assert parsed[field.name] == field.default, field.name
    assert corpus_arguments.OBJECTIVES == corpus.OBJECTIVES
    assert corpus_arguments.MASKINGS == corpus.MASKINGS
    assert corpus_arguments.MASK_UNITS == masking.UNITS
    assert corpus_arguments.DOCUMENT_BORDERS == corpus.DOCUMENT_BORDERS
    assert corpus_arguments.DEDUPLICATIONS == corpus.DEDUPLICATIONS


def test_every_help_without_tensorflow():
    program = (
        "import sys; sys.argv[0] = 'keras-bert'; from keras_bert.cli.arguments import make_parser, COMMANDS\n"
        "for command in ('', *COMMANDS):\n"
        "    try: make_parser().parse_args([*([command] if command else []), '--help'])\n"
        "    except SystemExit as error: assert error.code == 0\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'tokenizers', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS.values():
        assert command.summary in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_documents_every_flag_the_same_way(name, capsys):
    with pytest.raises(SystemExit):
        arguments.make_parser().parse_args([name, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    command = COMMANDS[name]
    for flag in f"{command.required} {command.optional} --debug".split():
        meaning = (command.own.get(flag) or FLAGS[flag])["help"].split(" (default")[0]
        assert re.search(rf"{flag} .*{re.escape(meaning)}", shown), flag
    for example in command.examples:
        assert " ".join(example.split()) in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_valid(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    for example in COMMANDS[name].examples:
        words = example.split(" < ")[0].replace('"', "").split()[1:]
        parsed = arguments.make_parser().parse_args(with_recipe(words))
        assert parsed.command == name


def test_launcher_answers(tmp_path):
    launcher = make_launcher(tmp_path)
    shown = subprocess.run([launcher, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("keras-bert ")
    wrong = subprocess.run([launcher, "vocab"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "required: --text, --out" in wrong.stderr


class Chain:
    """Each command's outcome, one after the other on the same folders; pretraining is interrupted once."""

    def __init__(self, folder):
        self.folder = make_data(folder)
        data = {name: folder / f"{name}.tsv" for name in ("train", "dev")}
        text, vocab = folder / "text.txt", folder / "vocab" / "vocab.txt"
        self.vocab = run("vocab", "--text", text, "--vocab-size", 200, "--out", folder / "vocab")
        self.pretrain_command = ["pretrain", "--text", text, "--vocab", vocab, "--preset", "tiny", "--steps", 12]
        self.pretrain_command += [*TRAINING, "--out", folder / "pretrained"]
        self.interrupted = self.interrupt_at(5)
        self.left = sorted(path.name for path in (folder / "pretrained").rglob("*") if path.is_file())
        self.pretrain = run(*self.pretrain_command)
        self.finetune = run(
            *("finetune", "--checkpoint", folder / "pretrained", "--train", data["train"], "--dev", data["dev"]),
            *("--epochs", 8, *TRAINING, "--out", folder / "model"),
        )
        self.model = folder / "model"
        self.evaluate = run("evaluate", "--checkpoint", self.model, "--dev", data["dev"], "--out", folder / "scores")
        self.predict = run("predict", "--checkpoint", self.model, "the ball", "", "汤 " * 100)
        self.export = run("export", self.model, "--to", "saved_model", "--out", folder / "artifacts" / "1")
        litert = [folder / "artifacts" / f"{name}.tflite" for name in ("int8", "float")]
        self.export_int8 = run("export", self.model, "--to", "litert", "--quantize", "dynamic", "--out", litert[0])
        self.export_float = run(
            *("export", self.model, "--to", "litert", "--out", litert[1], "--verify-data", data["dev"]),
            *("--max-drop", 0.001),
        )
        self.verify = run("verify", self.model, *litert, "--data", data["dev"], "--out", folder / "proof")

    def interrupt_at(self, step):
        def progress(self, name):
            class Shown:
                def __enter__(self):
                    return lambda done, total, figures: signal.raise_signal(signal.SIGINT) if done == step else None

                def __exit__(self, *error):
                    return None

            return Shown()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(console.Console, "progress", progress)
            return run(*self.pretrain_command)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return Chain(tmp_path_factory.mktemp("chain"))


def test_every_command_ends_well(chain):
    commands = ("vocab", "pretrain", "finetune", "evaluate", "predict", "export", "export_int8", "export_float")
    for name in (*commands, "verify"):
        outcome = getattr(chain, name)
        assert outcome.status == 0, outcome.err
        assert "Traceback" not in outcome.err
        assert "error" not in outcome.err
    assert not hidden(chain.folder)


def test_ctrl_c_saves_and_the_same_command_goes_on(chain):
    assert chain.interrupted.status == 1
    assert chain.interrupted.last_error() == (
        "keras-bert pretrain: interrupted; what was finished is kept, and the same command goes on from there."
    )
    assert "state.json" in chain.left
    assert "step_5.index" in chain.left
    assert "stage.json" not in chain.left
    assert not (chain.folder / "pretrained" / "progress").exists()
    report = json.loads((chain.folder / "pretrained" / "stage.json").read_text(encoding="utf-8"))["report"]
    assert [row["step"] for row in report["curve"]] == list(range(1, 13))


def test_standard_output_holds_results_only(chain):
    pieces = (chain.folder / "vocab" / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert chain.vocab.out.startswith(f"{len(pieces)} pieces in {chain.folder / 'vocab' / 'vocab.txt'}, hash ")
    assert 0 <= json.loads(chain.pretrain.out)["masked_lm_accuracy"] <= 1
    assert json.loads(chain.finetune.out)["accuracy"] == json.loads(chain.evaluate.out)["accuracy"]
    assert chain.export.out == f"{chain.folder / 'artifacts' / '1'}\n"
    assert "float.tflite  serving_default" in chain.export_float.out
    assert chain.export_float.out.endswith(f" ok\n{chain.folder / 'artifacts' / 'float.tflite'}\n")
    assert chain.verify.out.count(" ok\n") == 2


def test_evaluate_counts_what_predict_says(chain):
    table = tables.read_table(chain.folder / "dev.tsv")
    said = run("predict", "--checkpoint", chain.model, *table["text"])
    predicted = [json.loads(line)["label"] for line in said.out.splitlines()]
    right = sum(a == b for a, b in zip(predicted, table["label"], strict=True))
    scores = json.loads(chain.evaluate.out)
    assert scores["accuracy"] == pytest.approx(right / len(table))
    assert right > len(table) / 2
    metrics = json.loads((chain.folder / "scores" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["accuracy"] == scores["accuracy"]
    assert sum(map(sum, metrics["confusion_matrix"])) == len(table)


def test_predict_keeps_the_order_and_answers_for_any_text(chain):
    rows = [json.loads(line) for line in chain.predict.out.splitlines()]
    assert [row["text"] for row in rows] == ["the ball", "", "汤 " * 100]
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
    assert rows[0]["label"] == "sport"
    assert rows[2]["label"] == "食物"


def test_verify_writes_what_it_found(chain):
    proof = json.loads((chain.folder / "proof" / "verify.json").read_text(encoding="utf-8"))["artifacts"]
    assert [artifact["quantized"] for artifact in proof] == [True, False]
    assert all(artifact["ok"] and artifact["examples"] == 21 for artifact in proof)
    accuracy = json.loads(chain.evaluate.out)["accuracy"]
    assert [artifact["keras_value"] for artifact in proof] == [pytest.approx(accuracy)] * 2
    page = (chain.folder / "proof" / "verify.html").read_text(encoding="utf-8")
    assert "int8.tflite" in page
    assert "FULLY_CONNECTED" in page


def test_an_artifact_that_falls_short_leaves_the_old_one_in_place(chain, tmp_path):
    out, data = tmp_path / "model.tflite", chain.folder / "dev.tsv"
    command = ("export", chain.model, "--to", "litert", "--quantize", "dynamic", "--out", out, "--verify-data", data)
    nothing = run(*command, "--min-metric", 1.01)
    assert nothing.status == 1
    assert "accuracy is " in nothing.last_error()
    assert f"nothing was written to {out}" in nothing.last_error()
    assert not list(tmp_path.iterdir())
    assert run(*command, "--min-metric", 0.1).status == 0
    old = out.read_bytes()
    refused = run(*command)
    assert refused.status == 2
    assert "which exists; choose another one" in refused.last_error()
    short = run(*command, "--overwrite", "--min-metric", 1.01)
    assert short.status == 1
    assert f"what was at {out} is as it was" in short.last_error()
    assert out.read_bytes() == old
    assert list(tmp_path.iterdir()) == [out]


def test_a_complete_result_is_reused(chain):
    before = (chain.folder / "pretrained" / "model.keras").stat().st_mtime_ns
    again = run(*chain.pretrain_command)
    assert (again.status, again.out) == (0, chain.pretrain.out)
    assert "complete already, reused" in again.err
    assert (chain.folder / "pretrained" / "model.keras").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["removed", "changed", "record"])
def test_a_damaged_result_is_made_again(chain, tmp_path, damage):
    out = tmp_path / "vocab"
    shutil.copytree(chain.folder / "vocab", out)
    whole = (out / "vocab.txt").read_bytes()
    if damage == "removed":
        (out / "vocab.txt").unlink()
    elif damage == "changed":
        (out / "vocab.txt").write_bytes(whole[:50])
    else:
        (out / "stage.json").write_text("{", encoding="utf-8")
    again = run("vocab", "--text", chain.folder / "text.txt", "--vocab-size", 200, "--out", out)
    assert again.status == 0
    assert "vocab: done" in again.err
    assert (out / "vocab.txt").read_bytes() == whole


def test_other_settings_make_another_result(chain, tmp_path):
    out = tmp_path / "vocab"
    shutil.copytree(chain.folder / "vocab", out)
    again = run("vocab", "--text", chain.folder / "text.txt", "--vocab-size", 100, "--out", out)
    assert again.out.startswith("100 pieces")


def test_a_stage_does_not_replace_another_ones_result(chain):
    refused = run(*chain.pretrain_command[:-1], chain.folder / "vocab")
    assert refused.status == 2
    assert "holds the result of vocab; choose another --out" in refused.err
    assert (chain.folder / "vocab" / "stage.json").exists()
