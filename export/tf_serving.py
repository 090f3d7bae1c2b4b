"""What TF Serving wants beside a SavedModel: warm-up requests, batching parameters, a model config and its commands.

The folder of all versions of a model then holds

    1/                          the SavedModel
    1/assets.extra/tf_serving_warmup_requests
    batching_parameters.txt     for --batching_parameters_file
    models.config               for --model_config_file: the two newest versions, with labels
    SERVING.md                  the commands that start a server and ask it

TF Serving leaves alone what is no number in there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_bert.atomic import atomic_file

WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
# Where the image tensorflow/serving looks for models.
_MODELS = "/models"

# A word, a sentence and a paragraph: the sizes of buffers, and what is decided at the first run, differ between them.
_TEXTS = (
    "word",
    "a sentence of ten words, as people write them often.",
    "Many words, and then some more of them. " * 20,
)
_CHOICES = ("one", "another one")

_BATCHING = """\
# --batching_parameters_file of tensorflow_model_server. Rows that arrive while others are computed wait for each other.
# A request with more rows than this is refused.
max_batch_size { value: 128 }
# How long the first row of a batch waits for others.
batch_timeout_micros { value: 1000 }
# Requests that find so many batches waiting are told to come again.
max_enqueued_batches { value: 100 }
# Requests of ids, or of several choices, may differ in their second dimension.
pad_variable_length_inputs: true
"""

_GUIDE = """\
# {name} in TF Serving

In this folder, with Docker:

```sh
docker run --rm -p 8500:8500 -p 8501:8501 -v "$PWD:{models}/{name}" tensorflow/serving \\
  --model_config_file={models}/{name}/models.config --allow_version_labels_for_unavailable_models \\
  --enable_batching --batching_parameters_file={models}/{name}/batching_parameters.txt
```

or with `tensorflow_model_server` itself, whose paths have to be absolute:

```sh
sed "s#{models}/{name}#$PWD#" models.config > local.config
tensorflow_model_server --port=8500 --rest_api_port=8501 \\
  --model_config_file="$PWD/local.config" --allow_version_labels_for_unavailable_models \\
  --enable_batching --batching_parameters_file="$PWD/batching_parameters.txt"
```

Then, from another shell:

```sh
curl -d '{request}' http://localhost:8501/v1/models/{name}:predict
curl -d '{request}' http://localhost:8501/v1/models/{name}/labels/{label}:predict
```

Port 8500 is gRPC, 8501 REST. Where one request comes at a time, it is answered sooner without `--enable_batching`.
The newest of several versions is `canary` and the one before it `stable`; `models.config` says which, and a running
server reads it again with `--model_config_file_poll_wait_seconds=60`.
"""


def write_tf_serving_files(path: str | os.PathLike, examples: Mapping[str, Sequence] | None = None) -> None:
    """Writes the files of the module's documentation for a SavedModel from `save_saved_model`.

    Args:
      path: the version folder, `<model name>/<version number>`.
      examples: typical inputs by name, such as {"text": [...]}, which the server is warmed up with: each alone, and all
        in one request; by default three English texts of different length.

    Raises:
      ValueError: `path` is no SavedModel in a folder with a number, or `examples` are not what it takes.
    """
    path = Path(path).absolute()
    signatures = _signatures(path)
    name, rows = path.parent.name, _rows(signatures["serving_default"], examples)
    with atomic_file(path / WARMUP_FILE) as new, tf.io.TFRecordWriter(str(new)) as writer:
        for request in _requests(signatures, rows):
            writer.write(_prediction_log(name, *request))
    versions = sorted(int(folder.name) for folder in path.parent.iterdir() if folder.is_dir() and _is_version(folder))
    # What was exported last is tried before it takes all of the traffic.
    labels = {"stable": versions[-1]} if len(versions) == 1 else {"stable": versions[-2], "canary": versions[-1]}
    simple = {key: values[:1] for key, values in _rows(signatures["serving_default"], None).items()}
    request = json.dumps({"inputs": simple})
    guide = _GUIDE.format(name=name, models=_MODELS, label="stable", request=request)
    files = {"batching_parameters.txt": _BATCHING, "models.config": _config(name, labels), "SERVING.md": guide}
    for file, text in files.items():
        with atomic_file(path.parent / file) as new:
            new.write_text(text, encoding="utf-8")


def _signatures(path):
    """The inputs of each signature that predicts: number of dimensions and type by name."""
    if not (path / "saved_model.pb").is_file() or not _is_version(path):
        raise ValueError(
            "Expected a SavedModel in a folder with the number of its version, such as sentiment/1. Received: "
            f"{path}; export it to such a folder."
        )
    content = saved_model_pb2.SavedModel()
    content.ParseFromString((path / "saved_model.pb").read_bytes())
    signatures = content.meta_graphs[0].signature_def
    return {
        name: {key: (len(one.tensor_shape.dim), one.dtype) for key, one in signature.inputs.items()}
        for name, signature in signatures.items()
        if signature.method_name == tf.saved_model.PREDICT_METHOD_NAME
    }


def _is_version(folder):
    return folder.name.isascii() and folder.name.isdigit()


def _rows(inputs, examples):
    """Inputs of `serving_default` by name, lists of one length."""
    if examples is None:
        return {name: [list(_CHOICES)] * 3 if rank == 2 else list(_TEXTS) for name, (rank, _) in inputs.items()}
    rows = {name: list(values) for name, values in examples.items()}
    if {*rows} != {*inputs} or len({len(values) for values in rows.values()}) != 1 or not all(rows.values()):
        raise ValueError(
            f"Expected examples for {', '.join(inputs)}, as many of each. Received: "
            + (", ".join(f"{len(values)} of {name}" for name, values in rows.items()) or "none")
        )
    return rows


def _requests(signatures, rows):
    """Signature and inputs of every request."""
    count = len(next(iter(rows.values())))
    batches = [slice(i, i + 1) for i in range(count)] + ([slice(0, count)] if count > 1 else [])
    for name, inputs in signatures.items():
        if name == "serving_default":
            for batch in batches:
                yield name, {key: tf.constant(values[batch], tf.string) for key, values in rows.items()}
        elif all(dtype == tf.int32.as_datatype_enum for _, dtype in inputs.values()):
            # Of any size: what they hold makes no difference to the computation.
            yield name, {key: tf.ones([1] + [8] * (rank - 1), tf.int32) for key, (rank, _) in inputs.items()}
        elif len(inputs) == 1 and {*inputs} != {*rows}:
            ((key, _),) = inputs.items()
            for batch in batches:
                yield name, {key: tf.constant([_example(rows, i) for i in range(count)[batch]])}


def _example(rows, i):
    """A serialized tf.Example of row `i`."""
    features = {}
    for name, values in rows.items():
        texts = [values[i]] if isinstance(values[i], (str, bytes)) else values[i]
        texts = [text if isinstance(text, bytes) else text.encode() for text in texts]
        features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _prediction_log(model, signature, inputs):
    """A serialized PredictionLog of a Predict request.

    By hand, since tensorflow-serving-api, which has the message types, is not needed for anything else here. The
    numbers are those of tensorflow_serving/apis: prediction_log.proto, predict.proto and model.proto.
    """
    spec = _field(1, model.encode()) + _field(3, signature.encode())
    request = _field(1, spec)
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def _field(number, data):
    """A field of bytes in protocol buffers' encoding."""
    size, length = len(data), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2]) + bytes(length) + data


def _config(name, labels):
    """A ModelServerConfig in protocol buffers' text format."""
    versions = "".join(f" versions: {version}" for version in sorted(labels.values()))
    lines = "".join(f'    version_labels {{ key: "{label}" value: {version} }}\n' for label, version in labels.items())
    return (
        "# --model_config_file of tensorflow_model_server; labels need --allow_version_labels_for_unavailable_models.\n"
        "model_config_list {\n"
        "  config {\n"
        f'    name: "{name}"\n'
        f'    base_path: "{_MODELS}/{name}"\n'
        '    model_platform: "tensorflow"\n'
        f"    model_version_policy {{ specific {{{versions} }} }}\n"
        f"{lines}"
        "  }\n"
        "}\n"
    )
