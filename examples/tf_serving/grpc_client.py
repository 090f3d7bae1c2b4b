"""Asks TF Serving over gRPC, with tensorflow-serving-api.

    pip install "keras-bert[serving]"
    python examples/tf_serving/grpc_client.py sentiment "a lovely film" "two hours that I want back"

TF_SERVING_GRPC is where the server is, localhost:8500 if it is not set.
"""

import os
import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def predict(address, model, inputs, signature="serving_default", label=None):
    """Returns the outputs of a signature by name, as arrays.

    Args:
      address: host and port of the server's gRPC port.
      model: its name.
      inputs: arrays or lists by name, such as {"text": ["a lovely film"]}.
      label: of a version, such as "stable"; the newest one if None.
    """
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if label is not None:
        request.model_spec.version_label = label
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    # Ten thousand rows with their probabilities are more than gRPC's usual 4 MB.
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(request, timeout=60)
    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    answers = predict(os.environ.get("TF_SERVING_GRPC", "localhost:8500"), sys.argv[1], {"text": sys.argv[2:]})
    for name, values in sorted(answers.items()):
        print(f"{name}: {np.char.decode(values.astype(bytes)) if values.dtype == object else values}")
