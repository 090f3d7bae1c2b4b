"""Compares what a running TF Serving says with what its SavedModel says here, on strings, over REST and gRPC.

    TF_SERVING_URL=http://localhost:8501 python examples/tf_serving/check_server.py artifacts/sentiment/1

With TF_SERVING_GRPC=localhost:8500 also over gRPC, which needs tensorflow-serving-api. It ends with an error where
anything differs. Empty, long and odd texts are among those that it asks.
"""

import os
import sys
from pathlib import Path

import numpy as np
import rest_client
import tensorflow as tf
import tensorflow_text  # noqa: F401  its ops are in the graph

ODD = ["", " ", "\U0001f600 emoji, é and 我爱北京", "[MASK] [SEP]", "very long " * 2000]
TEXTS = ["a lovely film", "two hours that I want back", *ODD]
TOLERANCE = 1e-5


def check(path, url, address=None):
    """Returns what differs, a line each."""
    path = Path(path).absolute()
    model = tf.saved_model.load(str(path))  # the functions go when it goes
    signature = model.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    texts = {
        name: [[text, "another"] for text in TEXTS] if spec.shape.rank == 2 else TEXTS for name, spec in specs.items()
    }
    found = []
    for rows in (slice(0, 1), slice(0, len(TEXTS))):
        inputs = {name: values[rows] for name, values in texts.items()}
        expected = signature(**{name: tf.constant(values) for name, values in inputs.items()})
        expected = {name: value.numpy() for name, value in expected.items()}
        model_name = f"{path.parent.name}/versions/{path.name}"
        answers = {"REST": rest_client.predict(url, model_name, inputs)}
        if address:
            import grpc_client

            answers["gRPC"] = grpc_client.predict(address, path.parent.name, inputs)
        for protocol, outputs in answers.items():
            if len(expected) == 1:
                outputs = dict(zip(expected, outputs.values(), strict=True))
            found += [f"{protocol}, {name}: {said}" for name, said in _differences(expected, outputs)]
    return found


def _differences(expected, outputs):
    if {*expected} != {*outputs}:
        yield "outputs", f"{sorted(outputs)} instead of {sorted(expected)}"
        return
    for name, ours in expected.items():
        theirs = np.asarray(outputs[name])
        if ours.dtype == object:
            theirs = np.asarray([one if isinstance(one, bytes) else one.encode() for one in theirs.ravel()], object)
            if theirs.tolist() != ours.ravel().tolist():
                yield name, f"{theirs.tolist()} instead of {ours.ravel().tolist()}"
        elif theirs.shape != ours.shape or np.abs(theirs - ours).max() > TOLERANCE:
            yield name, f"{theirs} instead of {ours}"


if __name__ == "__main__":
    if len(sys.argv) != 2 or "TF_SERVING_URL" not in os.environ:
        sys.exit(__doc__)
    differences = check(sys.argv[1], os.environ["TF_SERVING_URL"], os.environ.get("TF_SERVING_GRPC"))
    if differences:
        sys.exit("\n".join(differences))
    print("The server says what the SavedModel says.")
