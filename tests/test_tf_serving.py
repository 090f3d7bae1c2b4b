"""What stands beside a SavedModel for TF Serving, and clients against stand-ins that answer in its formats."""

import concurrent.futures
import functools
import http.server
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tiny_classifier import LABELS, MAX_LENGTH, TEXTS, preprocessor, probabilities, shared_classifier

import keras_bert as kb
from keras_bert.export import save_saved_model
from keras_bert.export.tf_serving import WARMUP_FILE, write_tf_serving_files

EXAMPLES = Path(__file__).parents[1] / "examples" / "tf_serving"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "sentiment" / "1"
    folder = kb.ModelFolder(shared_classifier(), preprocessor().tokenizer, "classifier", MAX_LENGTH, labels=LABELS)
    save_saved_model(folder, path)
    write_tf_serving_files(path, {"text": TEXTS})
    return path


@pytest.fixture
def clients(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import check_server
    import rest_client

    return rest_client, check_server


@pytest.fixture(scope="module")
def apis():
    """The message types of TF Serving."""
    return pytest.importorskip("tensorflow_serving.apis", reason="needs tensorflow-serving-api")


def run(path, signature, inputs):
    """What TF Serving does with a Predict request."""
    return {name: value.numpy() for name, value in loaded(path).signatures[signature](**inputs).items()}


@functools.cache
def loaded(path):
    return tf.saved_model.load(str(path))


def test_warm_up_requests_are_what_the_signatures_take(apis, path):
    from tensorflow_serving.apis import prediction_log_pb2

    records = list(tf.data.TFRecordDataset(str(path / WARMUP_FILE)).as_numpy_iterator())
    asked = {}
    for record in records:
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "sentiment"
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        outputs = run(path, request.model_spec.signature_name, inputs)
        assert len(outputs["probabilities"]) == len(next(iter(inputs.values())))
        asked.setdefault(request.model_spec.signature_name, []).append(inputs)
    assert set(asked) == {"serving_default", "ids", "examples"}
    sizes = [len(inputs["text"]) for inputs in asked["serving_default"]]
    assert sizes == [1] * len(TEXTS) + [len(TEXTS)]
    assert [text.decode() for text in asked["serving_default"][-1]["text"].numpy()] == TEXTS


def test_the_model_config_is_one_with_labels(apis, path, tmp_path):
    from tensorflow_serving.config import model_server_config_pb2

    def config(folder):
        text = (folder / "models.config").read_text()
        (one,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
        return one

    one = config(path.parent)
    assert (one.name, one.base_path, one.model_platform) == ("sentiment", "/models/sentiment", "tensorflow")
    assert dict(one.version_labels) == {"stable": 1}
    # The newest of several versions is tried beside the one before it.
    for version, labels in ((2, {"stable": 2}), (9, {"stable": 2, "canary": 9}), (10, {"stable": 9, "canary": 10})):
        shutil.copytree(path, tmp_path / "sentiment" / str(version))
        write_tf_serving_files(tmp_path / "sentiment" / str(version))
        one = config(tmp_path / "sentiment")
        assert dict(one.version_labels) == labels
        assert sorted(one.model_version_policy.specific.versions) == sorted(labels.values())


def test_the_guide_names_what_is_there(path):
    guide = (path.parent / "SERVING.md").read_text()
    for name in ("models.config", "batching_parameters.txt"):
        assert (path.parent / name).is_file()
        assert f"/models/sentiment/{name}" in guide
    assert 'curl -d \'{"inputs": {"text": ["word"]}}\' http://localhost:8501/v1/models/sentiment:predict' in guide


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ({"texts": ["a"]}, "examples for text, as many of each. Received: 1 of texts"),
        ({"text": []}, "Received: 0 of text"),
        ({}, "Received: none"),
    ],
)
def test_examples_that_do_not_fit_are_refused(path, examples, message):
    before = (path / WARMUP_FILE).read_bytes()
    with pytest.raises(ValueError, match=message):
        write_tf_serving_files(path, examples)
    assert (path / WARMUP_FILE).read_bytes() == before


def test_a_folder_that_is_no_version_is_refused(path, tmp_path):
    shutil.copytree(path, tmp_path / "newest")
    for folder in (tmp_path / "newest", tmp_path / "1"):
        with pytest.raises(ValueError, match="SavedModel in a folder with the number of its version"):
            write_tf_serving_files(folder)


class Rest(http.server.BaseHTTPRequestHandler):
    """Answers as tensorflow.org/tfx/serving/api_rest says, in the columnar format."""

    path_of_model: Path
    change = staticmethod(lambda outputs: None)

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path not in ("/v1/models/sentiment:predict", "/v1/models/sentiment/versions/1:predict"):
            status, body = 404, {"error": f"Servable not found for request: {self.path}"}
        else:
            inputs = {name: tf.constant(values) for name, values in request["inputs"].items()}
            outputs = run(self.path_of_model, request["signature_name"], inputs)
            self.change(outputs)
            texts = {name: np.char.decode(v.astype("S")) for name, v in outputs.items() if v.dtype == object}
            status, body = 200, {"outputs": {name: v.tolist() for name, v in {**outputs, **texts}.items()}}
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Not on standard error."""


@pytest.fixture
def rest(path):
    Rest.path_of_model = path
    with http.server.ThreadingHTTPServer(("localhost", 0), Rest) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def grpc_address(apis, path):
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            spec = request.model_spec
            if spec.name != "sentiment" or spec.version_label not in ("", "stable"):
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
            inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
            response = predict_pb2.PredictResponse()
            for name, value in run(path, spec.signature_name, inputs).items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait()


def test_the_rest_client_gets_keras_probabilities(clients, rest):
    client, _ = clients
    answers = client.predict(rest, "sentiment", {"text": TEXTS})
    expected = probabilities(shared_classifier(), TEXTS)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    assert answers["label"] == [LABELS[i] for i in expected.argmax(axis=1)]
    with pytest.raises(RuntimeError, match="404: .*Servable not found"):
        client.predict(rest, "sentimant", {"text": TEXTS})


def test_the_grpc_client_gets_keras_probabilities(clients, grpc_address):
    import grpc_client

    expected = probabilities(shared_classifier(), TEXTS)
    for label in (None, "stable"):
        answers = grpc_client.predict(grpc_address, "sentiment", {"text": TEXTS}, label=label)
        np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    answers = grpc_client.predict(
        grpc_address, "sentiment", {k: v.numpy() for k, v in preprocessor()(TEXTS).items()}, signature="ids"
    )
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)


def test_the_check_tells_a_right_server_from_a_wrong_one(clients, rest, grpc_address, path, monkeypatch):
    _, check_server = clients
    assert check_server.check(path, rest, grpc_address) == []

    def wrong(outputs):
        outputs["probabilities"] += 0.001

    monkeypatch.setattr(Rest, "change", staticmethod(wrong))
    differences = check_server.check(path, rest)
    assert len(differences) == 2
    assert all(line.startswith("REST, probabilities: ") for line in differences)


def test_a_real_server_says_what_the_saved_model_says(clients):
    _, check_server = clients
    url, model = os.environ.get("TF_SERVING_URL"), os.environ.get("TF_SERVING_MODEL")
    if not url or not model:
        pytest.skip(
            "needs a server: TF_SERVING_URL=http://localhost:8501, and the version folder that it serves as "
            "TF_SERVING_MODEL; TF_SERVING_GRPC=localhost:8500 for gRPC as well"
        )
    assert check_server.check(model, url, os.environ.get("TF_SERVING_GRPC")) == []
