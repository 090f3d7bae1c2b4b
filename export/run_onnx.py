"""Runs an ONNX file in ONNX Runtime: `python run_onnx.py ARTIFACT FOLDER ASKED`, started by verify.py.

It imports onnxruntime and numpy: neither TensorFlow nor Keras nor this package. All else is as in run_litert.py.
"""

import os
import runpy
import sys

# Python puts the folder of the script first, and the modules beside this one are not meant to be found by their names.
del sys.path[0]


def make_opener(text_ops):
    """A class with the part of LiteRT's Interpreter that run_litert.py uses."""
    import onnxruntime

    class Interpreter:
        def __init__(self, model_path, num_threads):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = num_threads
            self.session = onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])
            self.outputs = [output.name for output in self.session.get_outputs()]

        def get_signature_runner(self, name):
            return lambda **inputs: dict(zip(self.outputs, self.session.run(None, inputs), strict=True))

    return Interpreter


if __name__ == "__main__":
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run_litert.py")
    sys.path.insert(0, "")  # which the script takes away again
    runpy.run_path(script)["main"](*sys.argv[1:], make_opener)
