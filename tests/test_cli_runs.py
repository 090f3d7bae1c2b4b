"""Runs of finetune: several seeds, few examples, recipes, TensorFlow Datasets, what is reused and what goes on."""

import json
import shutil
import signal
import statistics

import pytest
import yaml
from cli_runs import hidden, make_launcher, run, start
from task_data import TRAINING, read, save_pretrained, write, write_files

from keras_bert.cli import console
from keras_bert.cli.stages import MODEL_FILES

pytest.importorskip("tensorflow_text")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    save_pretrained(folder / "pretrained")
    write_files("classifier", folder)
    return folder


@pytest.fixture(autouse=True)
def _in_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


BASE = ["finetune", "--checkpoint", "pretrained", *TRAINING, "--epochs", 2]
FINETUNE = [*BASE, "--train", "train.tsv.gz", "--dev", "dev.tsv.gz"]


def metrics_in(path):
    return json.loads((path / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def seeds(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run(*FINETUNE, "--few-shot", 6, "--seeds", 3, 1, 2, "--out", "seeds")


def test_mean_and_deviation_are_those_of_the_seeds(seeds, folder):
    assert seeds.status == 0, seeds.err
    values = []
    for seed in (3, 1, 2):
        record = json.loads((folder / "seeds" / f"seed_{seed}" / "stage.json").read_text(encoding="utf-8"))
        assert record["settings"]["seed"] == seed
        assert record["report"]["examples"] == 2 * 6
        values.append(record["report"]["evaluation"]["metrics"]["accuracy"])
    found = metrics_in(folder / "seeds")
    assert found["seeds"]["seeds"] == [3, 1, 2]
    assert found["seeds"]["values"] == values
    assert found["seeds"]["mean"] == pytest.approx(statistics.mean(values))
    assert found["seeds"]["deviation"] == pytest.approx(statistics.stdev(values))
    assert found["accuracy"] == max(values)
    assert json.loads(seeds.out)["seeds"]["mean"] == found["seeds"]["mean"]
    best = folder / "seeds" / f"seed_{found['seeds']['best']}"
    for name in MODEL_FILES:
        assert (folder / "seeds" / name).read_bytes() == (best / name).read_bytes()
    scores = run("evaluate", "--checkpoint", "seeds", "--dev", "dev.tsv.gz")
    assert json.loads(scores.out)["accuracy"] == pytest.approx(max(values))


def test_seeds_that_are_done_are_reused(seeds, folder):
    before = metrics_in(folder / "seeds")
    again = run(*FINETUNE, "--few-shot", 6, "--seeds", 3, 1, 2, "--out", "seeds")
    assert again.err.count("complete already") == 3
    assert again.out == seeds.out
    assert metrics_in(folder / "seeds") == before
    more = run(*FINETUNE, "--few-shot", 6, "--seeds", 3, 1, 2, 4, "--out", "seeds")
    assert (more.err.count("complete already"), more.err.count("finetune: done")) == (3, 1)
    assert len(metrics_in(folder / "seeds")["seeds"]["values"]) == 4


def test_another_setting_trains_anew_and_the_same_again_does_not(folder):
    command = [*FINETUNE, "--epochs", 1, "--out", "one"]
    first = run(*command)
    written = (folder / "one" / "model.keras").read_bytes()
    same = run(*command)
    assert "complete already" in same.err
    assert same.out == first.out
    for other in (["--label-smoothing", 0.1], ["--class-weights", "good=2"], ["--seed", 5]):
        again = run(*command, *other)
        assert "finetune: done" in again.err, other
        assert (folder / "one" / "model.keras").read_bytes() != written
    one_seed = run(*command, "--seeds", 1, 2)
    assert one_seed.status == 0
    assert not (folder / "one" / "stage.json").exists()  # it told of a model that has gone
    assert "finetune: done" in run(*command).err


def test_the_result_of_another_command_stays(folder, tmp_path):
    shutil.copytree(folder / "pretrained", tmp_path / "other")
    record = {"name": "pretrain", "seconds": 1, "settings": {}, "files": {}, "report": {}}
    (tmp_path / "other" / "stage.json").write_text(json.dumps(record))
    refused = run(*FINETUNE, "--seeds", 1, 2, "--out", tmp_path / "other")
    assert refused.status == 2
    assert "holds the result of pretrain; choose another --out" in refused.last_error()
    refused = run("evaluate", "--checkpoint", "pretrained", "--dev", "dev.tsv.gz", "--out", folder / "pretrained")
    assert refused.status == 2
    assert "Expected an --out other than --checkpoint" in refused.last_error()


def test_a_recipe_alone_gives_the_same_figures(folder, tmp_path):
    """In processes of their own: deterministic ops are a switch for a whole process."""
    launcher = make_launcher(tmp_path)
    given = ["--deterministic", "--class-weights", "good=1.5,bad=0.5", "--no-bucketing", "--seed", 7, "--freeze", 0]
    with start(launcher, *FINETUNE, *given, "--out", "first") as process:
        out, said = process.communicate()
    assert process.returncode == 0, said
    recipe = folder / "first" / "recipe.yaml"
    contents = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    assert contents["expected"]["value"] == metrics_in(folder / "first")["accuracy"]
    assert contents["expected"]["seconds"] > 0
    assert contents["environment"]["tensorflow"]
    with start(launcher, "finetune", "--recipe", recipe, "--out", tmp_path / "again") as process:
        again, said = process.communicate()
    assert process.returncode == 0, said
    assert again == out
    first, second = (
        json.loads((path / "stage.json").read_text(encoding="utf-8")) for path in (folder / "first", tmp_path / "again")
    )
    assert first["settings"] == second["settings"]
    rows = [[row["loss"] for row in record["report"]["curve"]] for record in (first, second)]
    assert rows[0] == rows[1]
    assert contents.keys() == yaml.safe_load((tmp_path / "again" / "recipe.yaml").read_text(encoding="utf-8")).keys()


def test_tensorflow_datasets_are_data(folder, tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    parts = {"train": read(folder / "train.tsv.gz"), "validation": read(folder / "dev.tsv.gz")}
    rows = {name: [line.split("\t") for line in text.splitlines()[1:]] for name, text in parts.items()}

    class TinyTask(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            label = tfds.features.ClassLabel(names=["bad", "good"])
            columns = tfds.features.FeaturesDict({"sentence": tfds.features.Text(), "label": label})
            return tfds.core.DatasetInfo(builder=self, features=columns, disable_shuffling=True)

        def _split_generators(self, download_manager):
            return {name: self._generate_examples(name) for name in rows}

        def _generate_examples(self, name):
            yield from enumerate({"sentence": text, "label": label} for text, label in rows[name])

    TinyTask(data_dir=tmp_path).download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    source = ["--train", "tfds:tiny_task", "--dev", "tfds:tiny_task", "--columns", "text=sentence"]
    outcome = run(*BASE, *source, "--out", "from_tfds")
    assert outcome.status == 0, outcome.err
    from_files = run(*FINETUNE, "--out", "from_files")
    assert json.loads(outcome.out) == pytest.approx(json.loads(from_files.out))
    said = run("predict", "--checkpoint", "from_tfds", "--input", "tfds:tiny_task#validation", *source[-2:])
    assert [json.loads(line)["text"] for line in said.out.splitlines()] == [text for text, _ in rows["validation"]]


def test_dev_examples_that_are_training_examples(folder):
    text = read(folder / "dev.tsv.gz")
    write(folder / "both.tsv", text + "".join(read(folder / "train.tsv.gz").splitlines(True)[1:4]))
    outcome = run(*BASE, "--train", "train.tsv.gz", "--dev", "both.tsv", "--epochs", 1, "--out", "both")
    shared = metrics_in(folder / "both")["data"]["dev_in_train"]
    assert shared >= 3
    assert f"warning: {shared} of 18 dev examples are training examples too" in outcome.err


def test_sigterm_in_the_middle_and_the_same_command_goes_on(folder, monkeypatch):
    command = [*FINETUNE, "--epochs", 4, "--out", "stopped"]
    whole = run(*FINETUNE, "--epochs", 4, "--out", "whole")

    def progress(self, name):
        class Shown:
            def __enter__(self):
                return lambda done, total, figures: signal.raise_signal(signal.SIGTERM) if done == 12 else None

            def __exit__(self, *error):
                return None

        return Shown()

    with monkeypatch.context() as patch:
        patch.setattr(console.Console, "progress", progress)
        stopped = run(*command)
    assert stopped.status == 1
    assert stopped.last_error().endswith("what was finished is kept, and the same command goes on from there.")
    assert not (folder / "stopped" / "model.keras").exists()
    assert not (folder / "stopped" / "metrics.json").exists()
    again = run(*command)
    assert again.status == 0, again.err
    assert not hidden(folder / "stopped")
    assert not (folder / "stopped" / "progress").exists()
    first, second = (metrics_in(folder / name) for name in ("whole", "stopped"))
    assert [row["step"] for row in second["curve"]] == [row["step"] for row in first["curve"]]
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-3)
    assert json.loads(again.out)["accuracy"] == json.loads(whole.out)["accuracy"]


def test_a_masked_lm_of_a_pretraining_model(folder):
    said = run("predict", "--checkpoint", "pretrained", "--task", "masked_lm", "the [MASK] sat")
    assert said.status == 0, said.err
    (fillings,) = json.loads(said.out)["fillings"]
    assert len(fillings) == 5
    assert "random" not in said.err
