"""What a served model does with strings, in the graph: one class for each task, this one above them."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_bert.checkpoints import ModelFolder
from keras_bert.export.graphs import IDS, in_float32
from keras_bert.export.unpadded import Chunk, UnpaddedEncoder, in_chunks
from keras_bert.layers import EncoderBlock

_ENCODER_LAYERS = {"embeddings", "attention_bias", "first_token", "pooler"}


class Served:
    """A trained model as functions of a graph, from strings to answers.

    A subclass has the class attributes and fills in the methods that raise here.

    Attributes:
      columns: the names of the strings.
      head_layers: the names of the model's layers besides those of the encoder. A model with others runs as Keras has
        it, one without runs over real tokens alone (unpadded.py).
    """

    columns: tuple[str, ...] = ("text",)
    head_layers: frozenset[str] = frozenset()

    def __init__(self, folder: ModelFolder):
        self.folder = folder
        self.tokenizer = folder.tokenizer
        self.model = in_float32(folder.model)
        names = {
            layer.name for layer in self.model.layers if not isinstance(layer, (EncoderBlock, keras.layers.InputLayer))
        }
        self.is_plain = names <= _ENCODER_LAYERS | self.head_layers
        self.encoder = UnpaddedEncoder(self.model)

    def text_specs(self) -> dict[str, tf.TensorSpec]:
        """The strings that it takes, `(B,)` each."""
        return {name: tf.TensorSpec([None], tf.string, name=name) for name in self.columns}

    def ids_specs(self) -> dict[str, tf.TensorSpec]:
        """The model's inputs, of any size."""
        names = [*IDS, *(name for name in self.model.input if name not in IDS)]
        shapes = {name: [None] * len(self.model.input[name].shape) for name in names}
        return {name: tf.TensorSpec(shapes[name], tf.int32, name=name) for name in names}

    def encode(self, inputs: dict) -> tuple[dict, dict]:
        """Strings to the model's inputs, and what `answer` needs besides the outputs."""
        raise NotImplementedError

    def outputs(self, ids: dict) -> dict:
        """The model's inputs to its outputs by name, float32; those of padding are 0."""
        return in_chunks(ids, self.head, *self.output_shapes())

    def answer(self, outputs: dict, context: dict) -> dict:
        """Outputs to what a client can use as it is."""
        raise NotImplementedError

    def answers(self, inputs: dict) -> dict:
        """Strings to what a client can use as it is."""
        ids, context = self.encode(inputs)
        return self.answer(self.outputs(ids), context)

    def probabilities(self, outputs: dict) -> dict:
        """What the signature on ids says besides the outputs."""
        return {}

    def output_shapes(self) -> tuple[dict, dict]:
        """Of outputs that a row has, and of those that a token has, what follows the row or token in their shapes."""
        raise NotImplementedError

    def head(self, chunk: Chunk) -> dict:
        """The outputs of a chunk, as `output_shapes` says."""
        return self.plain_head(chunk) if self.is_plain else self.keras_head(chunk)

    def plain_head(self, chunk: Chunk) -> dict:
        """From a model that has the layers of `head_layers`."""
        raise NotImplementedError

    def keras_head(self, chunk: Chunk) -> dict:
        """From any model."""
        outputs = self.model(chunk.ids, training=False)
        per_row, per_token = self.output_shapes()
        (name, *others) = [*per_row, *per_token]
        outputs = outputs if others else {name: outputs}
        of_tokens = {
            name: tf.gather(tf.reshape(outputs[name], [-1, *shape]), chunk.places) for name, shape in per_token.items()
        }
        return {**{name: outputs[name] for name in per_row}, **of_tokens}


def ragged_rows(row_splits: tf.Tensor, values: tf.Tensor, otherwise, most: int | None = None) -> tf.Tensor:
    """Values of rows end to end, `(V, ...)`, as a tensor `(B, longest or most, ...)` filled up with `otherwise`."""
    ragged = tf.RaggedTensor.from_row_splits(values, row_splits, validate=False)
    return ragged.to_tensor(otherwise, shape=None if most is None else [None, most])
