"""Every task served: from strings to answers in the graph, and classes, numbers, choices and vectors themselves."""

from __future__ import annotations

import tensorflow as tf

from keras_bert.checkpoints import ModelFolder
from keras_bert.export.served_answers import ServedQuestionAnswerer
from keras_bert.export.served_entities import ServedTokenClassifier
from keras_bert.export.served_masks import ServedMaskedLM
from keras_bert.export.served_task import Served
from keras_bert.export.unpadded import Chunk, dense, padded
from keras_bert.head_layers import LAST_4
from keras_bert.text import Preprocessor

__all__ = ["Served", "served_of"]


def served_of(folder: ModelFolder) -> Served:
    """The functions of a model's task.

    Raises:
      ValueError: the task has no answers to serve.
    """
    if folder.task == "classifier":
        if folder.problem_type == "multi_label_classification":
            return ServedMultiLabel(folder)
        is_number = folder.problem_type == "regression" or folder.model.output.shape[-1] == 1
        return (ServedRegression if is_number else ServedClassifier)(folder)
    if folder.task not in _TASKS:
        raise ValueError(
            f"Expected a model for one of the tasks classifier, {', '.join(_TASKS)}. Received: one for "
            f"{folder.task!r}; train it for one of them with keras-bert finetune --task."
        )
    return _TASKS[folder.task](folder)


class _ServedTexts(Served):
    """Texts, or pairs of texts, cut to the model's length."""

    def __init__(self, folder):
        super().__init__(folder)
        self.columns = ("text", "text_pair")[: folder.segments]
        self._prepare = Preprocessor(folder.tokenizer, folder.max_length)

    def encode(self, inputs):
        texts = tuple(inputs[name] for name in self.columns)
        return self._prepare(texts if len(texts) > 1 else texts[0]), {}


class _ServedLogits(_ServedTexts):
    """A dense layer on the pooled output."""

    head_layers = frozenset({"classifier_dropout", "logits"})

    def output_shapes(self):
        return {"logits": [self.model.output.shape[-1]]}, {}

    def plain_head(self, chunk: Chunk):
        pooled = dense(self.encoder.pooler, self.encoder.first_token(chunk))
        return {"logits": dense(self.model.get_layer("logits"), pooled)}


class ServedClassifier(_ServedLogits):
    """One of several classes: "logits" and "probabilities" in the order of the labels, `(B, C)`, the most probable
    "label" `(B,)`, and "labels" and "scores" `(B, C)`, most probable first."""

    def __init__(self, folder):
        super().__init__(folder)
        classes = folder.model.output.shape[-1]
        self.labels = folder.labels or [str(index) for index in range(classes)]

    def probabilities(self, outputs):
        return {"probabilities": tf.nn.softmax(outputs["logits"])}

    def answer(self, outputs, context):
        probabilities = self.probabilities(outputs)["probabilities"]
        scores, order = tf.math.top_k(probabilities, len(self.labels))
        labels = tf.gather(tf.constant(self.labels), order)
        return {
            "logits": outputs["logits"],
            "probabilities": probabilities,
            "label": labels[:, 0],
            "labels": labels,
            "scores": scores,
        }


class ServedMultiLabel(ServedClassifier):
    """Any number of labels: as for one class, but without "label", and "chosen" says which of "labels" are given."""

    def probabilities(self, outputs):
        return {"probabilities": tf.sigmoid(outputs["logits"])}

    def answer(self, outputs, context):
        answers = super().answer(outputs, context)
        del answers["label"]
        return {**answers, "chosen": answers["scores"] >= self.folder.options.get("threshold", 0.5)}


class ServedRegression(_ServedLogits):
    """A number: "value" `(B,)`."""

    def answer(self, outputs, context):
        return {"value": outputs["logits"][:, 0]}


class ServedMultipleChoice(Served):
    """The right one of a question's choices, `(B, C)` strings with "" where a question has fewer: "logits" and
    "probabilities" `(B, C)`, and "choice" `(B,)`, the number of the most probable one."""

    columns = ("question", "choices")
    head_layers = frozenset({"classifier_dropout", "logits", "flatten_choices", "unflatten_choices"})

    def __init__(self, folder):
        super().__init__(folder)
        self._prepare = Preprocessor(folder.tokenizer, folder.max_length)

    def text_specs(self):
        return {**super().text_specs(), "choices": tf.TensorSpec([None, None], tf.string, name="choices")}

    def encode(self, inputs):
        choices = inputs["choices"]
        count = tf.shape(choices)[1]
        ids = self._prepare((tf.repeat(inputs["question"], count), tf.reshape(choices, [-1])))
        length = tf.shape(ids["input_ids"])[1]
        shape = [tf.shape(choices)[0], count, length]
        ids = {name: tf.reshape(value, shape) for name, value in ids.items()}
        ids["attention_mask"] *= tf.cast(tf.expand_dims(choices != "", 2), tf.int32)
        return ids, {}

    def output_shapes(self):
        return {"logits": [1]}, {}

    def outputs(self, ids):
        shape = tf.shape(ids["input_ids"])
        rows = {name: tf.reshape(value, [shape[0] * shape[1], shape[2]]) for name, value in ids.items()}
        logits = super().outputs(rows)["logits"]
        return {"logits": self.model.get_layer("unflatten_choices")(logits, ids["attention_mask"])}

    def plain_head(self, chunk):
        pooled = dense(self.encoder.pooler, self.encoder.first_token(chunk))
        return {"logits": dense(self.model.get_layer("logits"), pooled)}

    def keras_head(self, chunk):
        ids = {name: tf.expand_dims(value, 1) for name, value in chunk.ids.items()}
        return {"logits": self.model(ids, training=False)}

    def probabilities(self, outputs):
        return {"probabilities": tf.nn.softmax(outputs["logits"])}

    def answer(self, outputs, context):
        choice = tf.argmax(outputs["logits"], axis=1, output_type=tf.int32)
        return {**outputs, **self.probabilities(outputs), "choice": choice}


class ServedEmbedder(_ServedTexts):
    """A vector for a text: "embedding" `(B, D)`."""

    head_layers = frozenset({LAST_4, "pooling", "projection", "normalization"})

    def __init__(self, folder):
        super().__init__(folder)
        self.columns = ("text",)  # of a pair each text by itself

    def output_shapes(self):
        return {"embedding": [self.model.output.shape[-1]]}, {}

    def plain_head(self, chunk):
        states = self.encoder.hidden_states(chunk)
        layers = {layer.name: layer for layer in self.model.layers}
        x = tf.concat(states[-4:], axis=1) if LAST_4 in layers else states[-1]
        x = layers["pooling"](padded(chunk, x), chunk.ids["attention_mask"])
        for name in ("projection", "normalization"):
            x = layers[name](x) if name in layers else x
        return {"embedding": x}

    def answer(self, outputs, context):
        return outputs


_TASKS = {
    "token_classifier": ServedTokenClassifier,
    "question_answerer": ServedQuestionAnswerer,
    "multiple_choice": ServedMultipleChoice,
    "embedder": ServedEmbedder,
    "masked_lm": ServedMaskedLM,
}
