import os
import re
import signal
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from tiny_classifier import LABELS, TEXTS, classifier, preprocessor, shared_classifier

import keras_bert as kb
from keras_bert.export import format_table, origin, save_litert, save_saved_model, verify, verify_artifacts

FIELDS = [
    *("name", "kind", "signature", "path", "bytes", "quantized", "examples", "max_abs_difference"),
    *("mean_abs_difference", "label_agreement", "accuracy", "import_seconds", "cold_start_seconds"),
    *("latency_ms_median", "latency_ms_p99", "ok", "problem"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    save_litert(shared_classifier(), folder / "float.tflite")
    return folder


def verified(artifacts, texts=TEXTS, **arguments):
    return verify_artifacts(shared_classifier(), preprocessor(), artifacts, texts, **arguments)


def test_artifacts_agree_in_a_process_without_this_package(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())  # where this package is, on the path of the parent only
    save_saved_model(shared_classifier(), preprocessor(), tmp_path / "1", LABELS)
    save_litert(shared_classifier(), tmp_path / "int8.tflite", quantize="dynamic")
    # 24 pieces is what the longest of the texts is cut to elsewhere: this file cuts it further.
    save_litert(shared_classifier(), tmp_path / "fixed.tflite", max_length=12)
    expected = shared_classifier()(preprocessor()(TEXTS)).numpy().argmax(axis=1)
    right = expected.copy()
    right[0] = (right[0] + 1) % 3
    paths = [tmp_path / "1", folder / "float.tflite", tmp_path / "int8.tflite", tmp_path / "fixed.tflite"]
    results = verified(paths, labels=LABELS, label_ids=right.tolist())

    assert [(result["kind"], result["signature"], result["quantized"]) for result in results] == [
        ("saved_model", "serving_default", False),
        ("saved_model", "ids", False),
        ("litert", "serving_default", False),
        ("litert", "serving_default", True),
        ("litert", "serving_default", False),
    ]
    for result in results:
        assert sorted(result) == sorted(FIELDS)
        assert (result["ok"], result["problem"]) == (True, None)
        assert result["examples"] == len(TEXTS)
        assert result["label_agreement"] == 1
        assert 0 < result["import_seconds"] < result["cold_start_seconds"] < 60
        assert 0 < result["latency_ms_median"] <= result["latency_ms_p99"]
        assert 0 <= result["mean_abs_difference"] <= result["max_abs_difference"]
        assert (result["max_abs_difference"] < 1e-5) != result["quantized"]
    assert [result["accuracy"] for result in results[:4]] == [pytest.approx(5 / 6)] * 4
    assert results[2]["bytes"] == os.path.getsize(folder / "float.tflite")
    assert results[0]["bytes"] > os.path.getsize(tmp_path / "1" / "saved_model.pb")


def test_another_tokenizer_is_refused_with_both_hashes(tmp_path):
    other = kb.Tokenizer(preprocessor().tokenizer.vocabulary, lowercase=False)
    for_another = kb.Preprocessor(other, preprocessor().max_length)
    save_saved_model(shared_classifier(), for_another, tmp_path / "1", LABELS)
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
    assert result["label_agreement"] < 1
    assert re.fullmatch(r"probabilities differ by up to .*; at most 1e-04 is expected", result["problem"])
    assert result["accuracy"] is None
    save_litert(classifier(seed=1), tmp_path / "other.tflite", quantize="dynamic")
    (result,) = verified([tmp_path / "other.tflite"])
    assert result["problem"].startswith("labels agree on ")
    table = format_table([result])
    assert table.splitlines()[-1] == f"other.tflite, serving_default: {result['problem']}"
    assert table.splitlines()[1].endswith("FAILED")


def test_an_artifact_with_other_classes_is_an_error(tmp_path):
    save_litert(classifier(num_classes=2), tmp_path / "two.tflite")
    with pytest.raises(ValueError, match=r"Expected 3 probabilities .*two.tflite.* made from another model"):
        verified([tmp_path / "two.tflite"])


def test_labels_in_another_order_are_a_problem():
    answers = np.eye(3, dtype="float32")
    signature = {"quantized": False, "max_length": None, "labels": ["a", "b", "c"]}
    assert verify._compare("m", signature, answers, answers, ["a", "b", "c"], None)["ok"]
    assert "other labels" in verify._compare("m", signature, answers, answers, ["b", "a", "c"], None)["problem"]
    answers[0] = np.nan
    assert "not finite" in verify._compare("m", signature, answers, answers, None, None)["problem"]


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
    (tmp_path / "half.tflite").write_bytes(content[: len(content) // 2])
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"\xff" * 40)
    for name in ("half.tflite", "1"):
        with pytest.raises(
            ValueError, match=rf"Expected .*{name} to answer in a fresh process.* export the model again"
        ):
            verified([tmp_path / name])


def test_another_signature_is_an_error(tmp_path):
    double = tf.function(lambda x: {"y": 2 * x}, autograph=False, input_signature=[tf.TensorSpec([1, 4], name="x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()], tf.Module())
    (tmp_path / "double.tflite").write_bytes(converter.convert())
    with pytest.raises(ValueError, match="expected a signature serving_default from attention_mask, input_ids"):
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
    monkeypatch.setitem(verify._SCRIPTS, "litert", str(tmp_path / "script.py"))
    with pytest.raises(
        ValueError, match=r"float.tflite to answer in a fresh process that has ai_edge_litert only"
    ) as error:
        verified([folder / "float.tflite"], timeout_seconds=1)
    assert re.search(message, str(error.value))


def test_a_process_that_loads_this_package_is_refused(tmp_path, folder, monkeypatch):
    with open(os.path.join(os.path.dirname(verify.__file__), "run_litert.py"), encoding="utf-8") as file:
        script = file.read()
    (tmp_path / "script.py").write_text(f"import sys\nsys.modules['keras_bert'] = sys\n{script}")
    monkeypatch.setitem(verify._SCRIPTS, "litert", str(tmp_path / "script.py"))
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
    monkeypatch.setitem(verify._SCRIPTS, "litert", str(tmp_path / "script.py"))

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


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": []}, ValueError, "at least one text"),
        ({"texts": [b"bytes"]}, TypeError, "list of str"),
        ({"label_ids": [0]}, ValueError, "for each of the 6 texts. Received: 1"),
        ({"label_ids": [0, 1, 2, 3, 0, 0]}, ValueError, r"from 0 to 2. Received: \[0, 1, 2, 3\]"),
        ({"labels": ["a", "b"]}, ValueError, "Expected 3 distinct labels"),
    ],
)
def test_bad_arguments(folder, arguments, error, message):
    with pytest.raises(error, match=message):
        verified([folder / "float.tflite"], **arguments)


def test_a_table_has_a_line_for_each_signature():
    result = dict.fromkeys(FIELDS, 0.5) | {"name": "model", "signature": "ids", "ok": True, "bytes": 2_500_000}
    table = format_table([result, {**result, "accuracy": None, "name": "a longer name"}])
    assert table.splitlines() == [
        "artifact       signature    MB  max diff   agree  accuracy  cold s  median ms  p99 ms",
        "model          ids        2.50   5.0e-01  50.00%    50.00%     0.5       0.50    0.50  ok",
        "a longer name  ids        2.50   5.0e-01  50.00%         -     0.5       0.50    0.50  ok",
    ]


def test_the_scripts_import_neither_this_package_nor_keras():
    for name in verify._SCRIPTS.values():
        with open(os.path.join(os.path.dirname(verify.__file__), name), encoding="utf-8") as file:
            imported = re.findall(r"^\s*(?:import|from) (\w+)", file.read(), flags=re.MULTILINE)
        assert set(imported) <= {*sys.stdlib_module_names, "numpy", "tensorflow", "tensorflow_text", "ai_edge_litert"}
