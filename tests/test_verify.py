import os
import re
import shutil
import signal
import sys
import threading
import time

import pytest
import tensorflow as tf
from tiny_classifier import LABELS, MAX_LENGTH, TEXTS, classifier, preprocessor, shared_classifier

import keras_bert as kb
from keras_bert.cli import trials
from keras_bert.export import (
    Limits,
    format_table,
    origin,
    save_litert,
    save_saved_model,
    verify,
    verify_process,
    verify_rows,
)
from keras_bert.training.tables import Table
from keras_bert.training.tasks import task_of

FIELDS = [
    *("name", "kind", "signature", "path", "bytes", "weights", "quantized", "ops", "examples", "max_abs_difference"),
    *("mean_abs_difference", "agreement", "metric", "value", "keras_value", "import_seconds", "cold_start_seconds"),
    *("latency_ms_median", "latency_ms_p99", "per_second", "batch", "ok", "problem"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    save_litert(shared_classifier(), folder / "float.tflite")
    return folder


def model_folder(labels=LABELS, tokenizer=None):
    tokenizer = tokenizer or preprocessor().tokenizer
    return kb.ModelFolder(shared_classifier(), tokenizer, "classifier", MAX_LENGTH, list(labels))


def verified(artifacts, label_ids=None, limits=None):
    folder = model_folder()
    columns = {"text": list(TEXTS)} | ({"label": [LABELS[i] for i in label_ids]} if label_ids else {})
    examples = Table("texts", columns, list(range(1, len(TEXTS) + 1)))
    return trials.verify_on(task_of(folder), folder, artifacts, examples, label_ids is not None, limits)


def keras_label_ids():
    return shared_classifier()(preprocessor()(TEXTS)).numpy().argmax(axis=1)


def test_artifacts_agree_in_a_process_without_this_package(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())  # where this package is, on the path of the parent only
    save_saved_model(model_folder(), tmp_path / "1")
    save_litert(shared_classifier(), tmp_path / "int8.tflite", quantize="dynamic")
    # 24 pieces is what the longest of the texts is cut to elsewhere: this file cuts it further.
    save_litert(shared_classifier(), tmp_path / "fixed.tflite", max_length=12)
    right = keras_label_ids()
    right[0] = (right[0] + 1) % 3
    paths = [tmp_path / "1", folder / "float.tflite", tmp_path / "int8.tflite", tmp_path / "fixed.tflite"]
    results = verified(paths, right.tolist())

    found = [(result["kind"], result["signature"], result["weights"]) for result in results]
    assert {("saved_model", "serving_default", "float32"), ("saved_model", "ids", "float32")} <= {*found[:-3]}
    assert found[0][1] == "serving_default"
    assert found[-3:] == [
        ("litert", "serving_default", "float32"),
        ("litert", "serving_default", "int8"),
        ("litert", "serving_default", "float32"),
    ]
    for result in results:
        assert sorted(result) == sorted(FIELDS)
        assert (result["ok"], result["problem"]) == (True, None)
        assert result["examples"] == len(TEXTS)
        assert result["agreement"] == 1
        assert 0 < result["import_seconds"] < result["cold_start_seconds"] < 120
        assert 0 < result["latency_ms_median"] <= result["latency_ms_p99"]
        assert result["per_second"] > 0
        assert 0 <= result["mean_abs_difference"] <= result["max_abs_difference"]
        assert (result["max_abs_difference"] < 1e-5) != result["quantized"]
        assert result["metric"] == "accuracy"
    # Each keeps its own labels; the file that cuts texts further is compared with a model that does so too.
    assert [result["value"] for result in results[:-1]] == [pytest.approx(5 / 6)] * (len(results) - 1)
    assert [result["value"] for result in results] == [result["keras_value"] for result in results]
    assert [result["batch"] for result in results[-3:]] == [6, 6, 1]
    assert results[-3]["bytes"] == os.path.getsize(folder / "float.tflite")
    assert results[0]["bytes"] > os.path.getsize(tmp_path / "1" / "saved_model.pb")
    assert results[-3]["ops"]["FULLY_CONNECTED"] > 5
    assert results[0]["ops"]["MatMul"] > 5


def test_limits_of_the_figure(tmp_path, folder):
    save_litert(classifier(seed=1), tmp_path / "other.tflite", quantize="dynamic")
    right = keras_label_ids().tolist()
    cases = [
        (Limits(min_metric=0.9), "accuracy is .*; 0.9 was asked for"),
        (Limits(max_drop=0.01), "accuracy is .* worse than the Keras model's 1; at most 0.01 was asked for"),
        (Limits(max_drop=1), None),  # whoever allows that much has said what counts
    ]
    for limits, problem in cases:
        (result,) = verified([tmp_path / "other.tflite"], right, limits)
        assert result["value"] < 0.9
        assert result["ok"] == (problem is None)
        assert problem is None or re.fullmatch(problem, result["problem"])
    with pytest.raises(ValueError, match="Expected examples with labels"):
        verified([folder / "float.tflite"], limits=Limits(max_drop=0.1))


def test_another_tokenizer_is_refused_with_both_hashes(tmp_path):
    other = kb.Tokenizer(preprocessor().tokenizer.vocabulary, lowercase=False)
    for_another = kb.Preprocessor(other, preprocessor().max_length)
    save_saved_model(model_folder(tokenizer=other), tmp_path / "1")
    save_litert(shared_classifier(), tmp_path / "a.tflite", preprocessor=for_another)
    for name in ("1", "a.tflite"):
        assert origin.tokenizer_hash(tmp_path / name) == other.hash
        with pytest.raises(ValueError, match="made for the model's tokenizer, hash") as caught:
            verified([tmp_path / name])
        assert re.findall(r"hash (\w+)", str(caught.value)) == [preprocessor().tokenizer.hash, other.hash]
    save_litert(shared_classifier(), tmp_path / "right.tflite", preprocessor=preprocessor())
    (result,) = verified([tmp_path / "right.tflite"])
    assert result["ok"]
    assert origin.tokenizer_hash(tmp_path / "right.tflite") == preprocessor().tokenizer.hash
    (tmp_path / "damaged.tflite").write_bytes(b"TFL3")
    assert origin.tokenizer_hash(tmp_path / "damaged.tflite") is None


def test_an_artifact_of_other_weights_is_not_ok(tmp_path):
    save_litert(classifier(seed=1), tmp_path / "other.tflite")
    (result,) = verified([tmp_path / "other.tflite"])
    assert not result["ok"]
    assert result["agreement"] < 1
    assert re.fullmatch(r"outputs differ by up to .*; at most .* is expected", result["problem"])
    assert result["value"] is None
    save_litert(classifier(seed=1), tmp_path / "other.tflite", quantize="dynamic")
    (result,) = verified([tmp_path / "other.tflite"])
    assert result["problem"].startswith("answers agree on ")
    table = format_table([result])
    assert table.splitlines()[-1] == f"other.tflite, serving_default: {result['problem']}"
    assert table.splitlines()[1].endswith("FAILED")


def test_an_artifact_with_other_classes_is_an_error(tmp_path):
    save_litert(classifier(num_classes=2), tmp_path / "two.tflite")
    with pytest.raises(ValueError, match=r"Expected logits of shape \(3,\) .*two.tflite.* made from another model"):
        verified([tmp_path / "two.tflite"])


def test_labels_in_another_order_are_a_problem(tmp_path):
    save_saved_model(model_folder(LABELS[::-1]), tmp_path / "1")
    results = {result["signature"]: result for result in verified([tmp_path / "1"])}
    assert "names another label than that of the greatest" in results["serving_default"]["problem"]


def test_what_is_not_an_artifact_is_named(tmp_path, folder):
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("not a model at all")
    (tmp_path / "empty.tflite").write_bytes(b"")
    cases = [
        ("missing", FileNotFoundError, "missing. Received: nothing is there"),
        ("folder", ValueError, "folder. Received: a folder without saved_model.pb"),
        ("notes.txt", ValueError, "notes.txt. Received: a file that does not have the TFL3 mark"),
        ("empty.tflite", ValueError, "empty.tflite. Received: a file that does not have the TFL3 mark"),
    ]
    for name, error, message in cases:
        with pytest.raises(error, match=message):
            verified([folder / "float.tflite", tmp_path / name])


def test_damaged_artifacts_are_named(tmp_path, folder):
    content = (folder / "float.tflite").read_bytes()
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"\xff" * 40)
    for length in (9, len(content) // 2, len(content) - 100):
        (tmp_path / "cut.tflite").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"Expected .*cut.tflite.* export the model again"):
            verified([tmp_path / "cut.tflite"])
    with pytest.raises(ValueError, match=r"Expected a whole SavedModel at .*1. Received: one that is damaged"):
        verified([tmp_path / "1"])


def test_another_signature_is_an_error(tmp_path):
    double = tf.function(lambda x: {"y": 2 * x}, autograph=False, input_signature=[tf.TensorSpec([1, 4], name="x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()], tf.Module())
    (tmp_path / "double.tflite").write_bytes(converter.convert())
    with pytest.raises(
        ValueError,
        match=r"Expected a signature .* of .*double.tflite that takes some of input_ids, .* one that takes x",
    ):
        verified([tmp_path / "double.tflite"])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("print('the last words'); raise SystemExit(3)", r"exit status 3\.(.|\n)*the last words"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("print('no report')", r"an unreadable report(.|\n)*no report"),
        ("import sys; open(sys.argv[2] + '/report.json', 'w').write('garbage')", "an unreadable report"),
        ("print('still busy', flush=True); import time; time.sleep(60)", r"no answer within 1 sec(.|\n)*still busy"),
    ],
)
def test_a_process_that_fails_is_quoted(tmp_path, folder, monkeypatch, script, message):
    (tmp_path / "script.py").write_text(script)
    monkeypatch.setitem(verify_process._SCRIPTS, "litert", str(tmp_path / "script.py"))
    with pytest.raises(
        ValueError, match=r"float.tflite to answer in a fresh process that has ai_edge_litert only"
    ) as error:
        verify_process.run_artifact("litert", str(folder / "float.tflite"), {}, timeout_seconds=1)
    assert re.search(message, str(error.value))


def test_a_process_that_loads_this_package_is_refused(tmp_path, folder, monkeypatch):
    with open(os.path.join(os.path.dirname(verify.__file__), "run_litert.py"), encoding="utf-8") as file:
        script = file.read()
    (tmp_path / "script.py").write_text(f"import sys\nsys.modules['keras_bert'] = sys\n{script}")
    shutil.copy(verify_rows.__file__, tmp_path)
    monkeypatch.setitem(verify_process._SCRIPTS, "litert", str(tmp_path / "script.py"))
    with pytest.raises(ValueError, match="a process that had loaded keras_bert as well"):
        verified([folder / "float.tflite"])


def test_ctrl_c_ends_the_process_as_well(tmp_path, folder, monkeypatch):
    pid_file = tmp_path / "pid"
    (tmp_path / "script.py").write_text(
        f"""import os, time
with open({str(pid_file)!r}, "w") as file:
    file.write(str(os.getpid()))
time.sleep(60)
"""
    )
    monkeypatch.setitem(verify_process._SCRIPTS, "litert", str(tmp_path / "script.py"))

    def press():
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press, daemon=True)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        verified([folder / "float.tflite"])
    presser.join()
    with pytest.raises(ProcessLookupError):  # neither running nor left as a zombie
        os.kill(int(pid_file.read_text()), 0)


def test_a_table_has_a_line_for_each_signature():
    result = dict.fromkeys(FIELDS, 0.5) | {"name": "model", "signature": "ids", "ok": True, "bytes": 2_500_000}
    result |= {"metric": "f1"}
    table = format_table([result, {**result, "value": None, "name": "a longer name"}])
    assert table.splitlines() == [
        "artifact       signature    MB  max diff   agree   f1  cold s  median ms  p99 ms  per s",
        "model          ids        2.50   5.0e-01  50.00%  0.5     0.5       0.50    0.50      0  ok",
        "a longer name  ids        2.50   5.0e-01  50.00%    -     0.5       0.50    0.50      0  ok",
    ]


def test_the_scripts_import_neither_this_package_nor_keras():
    runtimes = {"tensorflow", "tensorflow_text", "ai_edge_litert", "onnxruntime"}
    for name in verify_process._SCRIPTS.values():
        with open(os.path.join(os.path.dirname(verify.__file__), name), encoding="utf-8") as file:
            imported = re.findall(r"^\s*(?:import|from) (\w+)", file.read(), flags=re.MULTILINE)
        assert set(imported) <= {*sys.stdlib_module_names, "numpy", *runtimes}
