"""Artifacts of every head, verified on each task's own examples."""

import numpy as np
import pytest
from task_data import FLAGS, write_files
from tiny_classifier import VOCABULARY

import keras_bert as kb
from keras_bert.cli import trials
from keras_bert.export import save_litert, save_saved_model
from keras_bert.training.finetune import evaluate
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.tasks import TASKS

pytest.importorskip("tensorflow_text")

LENGTH = 24


def trained(name, folder):
    """A task, a model of random weights for it, and the examples."""
    files = write_files(name, folder)
    flags = FLAGS.get(name, [])
    columns = dict(pair.split("=") for pair in flags[1].split(",")) if "--columns" in flags else None
    task = TASKS[name](kb.Tokenizer(VOCABULARY), LENGTH)
    settings = FinetuneSettings(max_length=LENGTH, stride=4)
    train, dev = (task.read(files[split], columns) for split in ("train", "dev"))
    config = kb.BertConfig(len(VOCABULARY), 32, 2, 4, 64, max_position_embeddings=LENGTH)
    encoder = kb.build_encoder(config)
    task.learn(train, dev, settings)
    task.start_from(kb.ModelFolder(encoder, task.tokenizer, "encoder", LENGTH))
    model = task.build_model(encoder)
    random = np.random.default_rng(5)
    for weight in model.trainable_weights:
        gain = 2.0 * weight.shape[0] ** -0.5 if len(weight.shape) == 2 and "embeddings" not in weight.name else 0.5
        weight.assign((weight.name == "gamma") + gain * random.normal(size=weight.shape))
    return task, task.folder(model), str(files["dev"]), columns


@pytest.mark.parametrize("name", TASKS)
def test_ids_of_every_task(name, tmp_path):
    task, folder, dev, columns = trained(name, tmp_path)
    examples, labelled = trials.read_examples(task, dev, columns)
    assert labelled
    save_litert(folder, tmp_path / "float.tflite")
    save_litert(folder, tmp_path / "int8.tflite", quantize="dynamic")
    paths = [tmp_path / "float.tflite", tmp_path / "int8.tflite"]
    exact, quantized = trials.verify_on(task, folder, paths, examples, labelled)
    assert (exact["ok"], exact["problem"]) == (True, None)
    assert exact["max_abs_difference"] < 2e-5
    assert exact["agreement"] == pytest.approx(1)
    assert exact["value"] == pytest.approx(exact["keras_value"], abs=1e-5)
    assert quantized["weights"] == "int8"
    assert quantized["max_abs_difference"] > 1e-4
    assert 0.3 < quantized["agreement"] <= 1
    assert quantized["keras_value"] == exact["keras_value"]
    if name != "masked_lm":  # whose rows are cut to what fits into memory
        scores = evaluate(task, folder.model, examples).metrics
        assert exact["metric"] == task.metric
        assert exact["keras_value"] == pytest.approx(scores[task.metric], abs=1e-6)


def test_each_row_goes_through_the_shortest_signature_that_holds_it(tmp_path):
    task, folder, dev, columns = trained("token_classifier", tmp_path)
    examples, labelled = trials.read_examples(task, dev, columns)
    save_litert(folder, tmp_path / "lengths.tflite", max_length=[4, 6, 16])
    (result,) = trials.verify_on(task, folder, [tmp_path / "lengths.tflite"], examples, labelled)
    assert result["signature"] == "length_4, length_6, length_16"
    assert (result["ok"], result["problem"]) == (True, None)
    assert result["max_abs_difference"] < 2e-5


def test_examples_without_labels_are_compared(tmp_path):
    task, folder, _, _ = trained("question_answerer", tmp_path)
    (tmp_path / "asked.jsonl").write_text('{"question": "the cat ?", "context": "the cat sat on the mat"}\n')
    examples, labelled = trials.read_examples(task, str(tmp_path / "asked.jsonl"))
    save_litert(folder, tmp_path / "model.tflite")
    (result,) = trials.verify_on(task, folder, [tmp_path / "model.tflite"], examples, labelled)
    assert not labelled
    assert (result["ok"], result["value"], result["agreement"]) == (True, None, 1)


@pytest.mark.parametrize(
    "name", [name if name == "question_answerer" else pytest.param(name, marks=pytest.mark.slow) for name in TASKS]
)
def test_strings_of_every_task(name, tmp_path):
    task, folder, dev, columns = trained(name, tmp_path)
    examples, labelled = trials.read_examples(task, dev, columns)
    save_saved_model(folder, tmp_path / "1")
    results = {
        result["signature"]: result for result in trials.verify_on(task, folder, [tmp_path / "1"], examples, labelled)
    }
    assert {"serving_default", "ids", "examples"} <= set(results)
    for result in results.values():
        assert (result["ok"], result["problem"]) == (True, None)
        assert result["agreement"] == pytest.approx(1)
        assert result["max_abs_difference"] < 2e-5
        assert (result["value"] is None) == (name == "masked_lm" and result["signature"] != "ids")
        if result["value"] is not None:
            assert result["value"] == pytest.approx(result["keras_value"], abs=1e-5)
    assert ("classify" in results, "regress" in results) == (
        name in ("classifier", "multi_label"),
        name == "regression",
    )
