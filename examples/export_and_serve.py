"""Exports a classifier and asks the SavedModel and the LiteRT file what a server and a phone would ask them.

    keras-bert quickstart --out run
    python examples/export_and_serve.py run/finetune artifacts "Return the absolute value of the argument."

The second half needs neither keras nor keras_bert: copy it into a service.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import keras_bert as kb
from keras_bert.export import save_litert, save_saved_model


def main(checkpoint, out, *texts):
    model = kb.load_model_folder(checkpoint)
    saved_model, litert = Path(out, "saved_model", "1"), Path(out, "model.tflite")
    save_saved_model(model, saved_model)
    save_litert(model, litert)

    # A server sends strings.
    serve = tf.saved_model.load(saved_model).signatures["serving_default"]
    answers = serve(text=tf.constant(texts))
    for text, label, probabilities in zip(texts, answers["label"], answers["probabilities"], strict=True):
        print(f"{label.numpy().decode()} ({np.max(probabilities):.3f}): {text}")

    # A device sends ids.
    on_device = Interpreter(str(litert)).get_signature_runner("serving_default")
    preprocessor = kb.Preprocessor(model.tokenizer, model.max_length)
    ids = {name: tensor.numpy() for name, tensor in preprocessor(tf.constant(texts)).items()}
    difference = np.abs(on_device(**ids)["probabilities"] - answers["probabilities"]).max()
    print(f"{saved_model} and {litert} differ by at most {difference:.1e} in probability")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
