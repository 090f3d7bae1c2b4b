"""`keras-bert export` and `verify` as users run them, on models of random weights."""

import json
import re

import pytest
from cli_runs import hidden, run
from test_verify_tasks import trained

import keras_bert as kb
from keras_bert.export import origin

pytest.importorskip("tensorflow_text")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """By task, a model folder and its dev file."""
    made = {}

    def model(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            _, model, dev, columns = trained(name, folder)
            kb.save_model_folder(model, folder / "model")
            flag = ["--columns", ",".join(f"{key}={value}" for key, value in columns.items())] if columns else []
            made[name] = folder / "model", dev, flag
        return made[name]

    return model


def table(outcome):
    """The lines of the table of what was verified, by their first two columns."""
    return {tuple(line.split()[:2]): line for line in outcome.out.splitlines()}


@pytest.mark.parametrize(
    ("task", "flags"),
    [
        ("classifier", ["--quantize", "float16"]),
        ("classifier", ["--quantize", "dynamic", "--keep-float", "block_0", "embeddings"]),
        ("classifier", ["--strings"]),
        ("regression", ["--strings"]),
        ("embedder", ["--strings"]),
        ("token_classifier", ["--lengths", "8,16"]),
        ("question_answerer", ["--lengths", "16"]),
        ("multiple_choice", []),
        ("masked_lm", []),
    ],
    ids=str,
)
def test_a_litert_file_that_is_verified(models, tmp_path, task, flags):
    model, dev, columns = models(task)
    out = tmp_path / "model.tflite"
    limit = ["--max-drop", "100"] if "--quantize" in flags else []
    outcome = run(
        "export", model, "--to", "litert", "--out", out, *flags, "--verify-data", dev, *columns, *limit, "--overwrite"
    )
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[-1] == str(out)
    assert " ok" in outcome.out.splitlines()[1]
    assert list(tmp_path.iterdir()) == [out]
    assert origin.tokenizer_hash(out) == kb.load_model_folder(model).tokenizer.hash


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_what_needs_a_quantizer(models, tmp_path, quantize):
    pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")
    model, dev, _ = models("classifier")
    calibration = ["--calibration", dev] if quantize == "int8" else []
    out = tmp_path / "model.tflite"
    outcome = run("export", model, "--to", "litert", "--quantize", quantize, *calibration, "--out", out)
    assert outcome.status == 0, outcome.err
    outcome = run("verify", model, out, "--data", dev, "--max-drop", 1, "--out", tmp_path / "proof")
    assert outcome.status == 0, outcome.err
    (result,) = json.loads((tmp_path / "proof" / "verify.json").read_text(encoding="utf-8"))["artifacts"]
    assert result["weights"] == quantize
    assert result["max_abs_difference"] > 1e-4
    assert result["agreement"] > 0.5


def test_an_artifact_that_cuts_texts_further_is_compared_at_its_length(models, tmp_path):
    model, dev, _ = models("classifier")
    out = tmp_path / "1"
    assert run("export", model, "--to", "saved_model", "--out", out, "--max-length", 5).status == 0
    assert origin.read(out)["max_length"] == 5
    outcome = run("verify", model, out, "--data", dev)
    assert outcome.status == 0, outcome.out
    assert ("FAILED" in outcome.out, outcome.out.count(" ok\n") >= 2) == (False, True)


def test_calibration_goes_with_int8(models, tmp_path):
    model, dev, _ = models("classifier")
    base = ("export", model, "--to", "litert", "--out", tmp_path / "m.tflite")
    for flags in (("--quantize", "int8"), ("--quantize", "dynamic", "--calibration", dev), ("--calibration", dev)):
        outcome = run(*base, *flags)
        assert outcome.status == 2
        assert "Expected --calibration FILE with --quantize int8" in outcome.last_error()
    (tmp_path / "none.tsv").write_text("text\tlabel\n")
    outcome = run(*base, "--quantize", "int8", "--calibration", tmp_path / "none.tsv")
    assert "expected rows, but the file has none after its header" in outcome.last_error()
    assert not (tmp_path / "m.tflite").exists()


def test_calibration_of_another_domain_is_warned_of(models, tmp_path):
    pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")
    model, _, _ = models("classifier")
    (tmp_path / "other.tsv").write_text("text\n" + "zxqv wvut srqp onml kjih\n" * 20)
    out = tmp_path / "m.tflite"
    outcome = run(
        *(
            "export",
            model,
            "--to",
            "litert",
            "--quantize",
            "int8",
            "--calibration",
            tmp_path / "other.tsv",
            "--out",
            out,
        )
    )
    assert outcome.status == 0, outcome.err
    assert "calibration texts may not be like those" in outcome.err
    assert "[UNK]" in outcome.err


def test_an_artifact_that_exists_is_kept(models, tmp_path):
    model, _, _ = models("classifier")
    out = tmp_path / "served" / "1"
    command = ("export", model, "--to", "saved_model", "--out", out)
    first = run(*command)
    assert (first.status, first.out) == (0, f"{out}\n")
    second = run(*command)
    assert second.status == 2
    assert re.search("Received: .*1, which exists; choose another one .*next number", second.last_error())
    (out / "saved_model.pb").write_bytes(b"mine")
    assert run(*command).status == 2
    assert (out / "saved_model.pb").read_bytes() == b"mine"
    assert run(*command, "--overwrite").status == 0
    assert (out / "saved_model.pb").stat().st_size > 1000
    assert not hidden(tmp_path)


def test_another_models_artifact_is_refused(models, tmp_path):
    model, dev, _ = models("classifier")
    other = kb.load_model_folder(model)
    other.tokenizer = kb.Tokenizer(other.tokenizer.vocabulary, lowercase=False)
    kb.save_model_folder(other, tmp_path / "other")
    out = tmp_path / "model.tflite"
    assert run("export", tmp_path / "other", "--to", "litert", "--out", out).status == 0
    outcome = run("verify", model, out, "--data", dev)
    assert outcome.status == 1
    assert "made for the model's tokenizer, hash" in outcome.last_error()
    content = out.read_bytes()
    out.write_bytes(content[: len(content) // 2])
    outcome = run("verify", model, out, "--data", dev)
    assert "damaged or cut off" in outcome.last_error()


def test_a_bundle_that_is_verified(models, tmp_path):
    model, dev, _ = models("token_classifier")
    out = tmp_path / "bundle"
    outcome = run("export", model, "--to", "bundle", "--out", out, "--verify-data", dev)
    assert outcome.status == 0, outcome.err
    assert {"model.tflite", "vocab.txt", "labels.txt", "golden.json"} <= {path.name for path in out.iterdir()}
    assert list(tmp_path.iterdir()) == [out]
    archive = run("export", model, "--to", "bundle", "--out", tmp_path / "b.zip", "--verify-data", dev)
    assert archive.status == 2
    assert "Expected a folder for --out, whose file --verify-data can run" in archive.last_error()


# tf2onnx and what Keras does to make it work with NumPy 2.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_onnx_file(models, tmp_path):
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model, dev, _ = models("classifier")
    out = tmp_path / "model.onnx"
    assert run("export", model, "--to", "onnx", "--out", out).status == 0
    outcome = run("verify", model, out, "--data", dev, "--out", tmp_path / "proof")
    assert outcome.status == 0, outcome.err
    (result,) = json.loads((tmp_path / "proof" / "verify.json").read_text(encoding="utf-8"))["artifacts"]
    assert (result["kind"], result["agreement"]) == ("onnx", 1)
    assert result["max_abs_difference"] < 2e-5
    out.write_bytes(out.read_bytes()[:500])
    assert "one that is damaged or cut off" in run("verify", model, out, "--data", dev).last_error()
