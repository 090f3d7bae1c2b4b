"""The masked language model on a domain's own text: pretraining gone on with, and the filling of masks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_bert.checkpoints.folder import ModelFolder, head_arguments
from keras_bert.heads import build_masked_lm
from keras_bert.text import Preprocessor, Tokenizer
from keras_bert.training import metrics, tables, text_files
from keras_bert.training.encoding import Encoding, Features, encode
from keras_bert.training.masking import Masker
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.table_rows import TFDS_PREFIX
from keras_bert.training.tables import Table
from keras_bert.training.task import MOST_ERRORS, Evaluation, Task

MOST_FILLINGS = 5  # of a mask, as transformers' FillMaskPipeline has them
_TABLES = (".tsv", ".csv", ".jsonl")
_SENTENCES_AT_ONCE = 4096
_PLACES_OF_A_STEP = 2**20  # more than a batch has rows
_SHOWN_TOKENS = 30  # on each side of an error


@dataclasses.dataclass(frozen=True)
class Documents:
    """Documents as lists of sentences; `name` is the file or pattern that they come from."""

    name: str
    documents: list[list[str]]

    def __len__(self) -> int:
        return len(self.documents)


class MaskedLM(Task):
    """Tokens hidden in plain text and found again (Devlin et al. 2019, section 3.1), without next sentences.

    A document is cut into rows of `max_length` one after the other, as transformers' run_mlm.py does, but no row holds
    parts of two documents. What is hidden is drawn anew each epoch; of dev rows it depends on the seed alone.
    """

    name = "masked_lm"
    head = "masked_lm"
    metric = "loss"
    maximize = False
    columns = ("text",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.options = {"mask_rate": 0.15, "mask_seed": 0, **self.options}
        self._reader: tuple[keras.Model, keras.Model] | None = None

    @classmethod
    def read(cls, source: str | os.PathLike, columns=None, *, labelled=True, split="train") -> Documents | Table:
        """Text files (a path or a pattern), or the `text` column of a table, each of whose rows is a document.

        Not `labelled`, a table of texts with masks: the lines of a text file that are not blank, or a table's rows.
        """
        if str(source).startswith(TFDS_PREFIX) or text_files.text_suffix(source) in _TABLES:
            table = tables.read_table(source, columns, ("text",), (), split)
            return Documents(table.name, [[text] for text in table["text"]]) if labelled else table
        if columns:
            raise ValueError(
                f"{source}: expected no columns, since {cls.name} reads plain text (or the column text of "
                f"{', '.join(_TABLES)}). Received: {', '.join(columns)}"
            )
        if labelled:
            return Documents(str(source), list(text_files.read_documents(source)))
        lines = [(number, line.strip()) for number, line in text_files.read_lines(source) if line.strip()]
        return Table(str(source), {"text": [line for _, line in lines]}, [number for number, _ in lines])

    @classmethod
    def parse(cls, lines: Sequence[str], segments: int = 1) -> Table:
        return Table("texts", {"text": list(lines)}, list(range(1, len(lines) + 1)))

    def learn(self, train: Documents, dev: Documents, settings: FinetuneSettings) -> None:
        self.options |= {"mask_rate": settings.mask_rate, "mask_seed": settings.seed}

    def start_from(self, checkpoint: ModelFolder) -> None:
        """Keeps the activation and epsilon that the head of a checkpoint may have for itself."""
        own = checkpoint.task == "masked_lm"
        self.options["head"] = head_arguments(checkpoint.model, "masked_lm") if own else {}

    def encode(self, examples: Documents | Table, *, labelled: bool = True) -> Features:
        if not labelled:
            return self._encode_masks(examples)
        encoding = pack_documents(examples.documents, self.tokenizer, self.max_length)
        if not np.isin(encoding.values["input_ids"], self.tokenizer.special_ids, invert=True).any():
            raise ValueError(f"{examples.name}: expected text, but it has no token that could be hidden.")
        return Features(encoding, {"row": np.arange(len(encoding), dtype=np.int64)})

    def _encode_masks(self, examples: Table) -> Features:
        encoding, _ = encode(Preprocessor(self.tokenizer, self.max_length), examples["text"])
        places = [
            np.flatnonzero(encoding.row(row, "input_ids") == self.tokenizer.mask_id) for row in range(len(encoding))
        ]
        for row, text in enumerate(examples["text"]):
            if text.count(self._mask) != len(places[row]) or not len(places[row]):
                inside = f" within its first {self.max_length - 2} tokens" if self._mask in text else ""
                raise ValueError(
                    f"{examples.where(row)}: expected a text with {self._mask}{inside} where pieces are to be found. "
                    f"Received: {text!r:.200}"
                )
        positions = np.zeros((len(places), max(map(len, places), default=0)), np.int32)
        for row, found in enumerate(places):
            positions[row, : len(found)] = found
        return Features(encoding, {"masked_lm_positions": positions})

    @property
    def _mask(self) -> str:
        return self.tokenizer.special_tokens["mask_token"]

    def build_model(self, encoder: keras.Model) -> keras.Model:
        return build_masked_lm(encoder, **self.options.get("head", {}))

    def model_to_run(self, model: keras.Model) -> keras.Model:
        """The most likely pieces and the losses alone: logits of a whole vocabulary would not fit into memory."""
        if self._reader is None or self._reader[0] is not model:
            ids = keras.Input(shape=(None,), dtype="int32", name="masked_lm_ids")
            found = MaskReader(name="mask_reader")(model.output, ids, model.input["masked_lm_positions"])
            self._reader = model, keras.Model({**model.input, "masked_lm_ids": ids}, found)
        return self._reader[1]

    def loss(self, settings):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def training_metrics(self):
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def to_inputs(self, inputs, tokens, targets):
        if "masked_lm_positions" in targets:
            positions = targets["masked_lm_positions"]
            return {**inputs, "masked_lm_positions": positions, "masked_lm_ids": tf.zeros_like(positions)}
        inputs, ids, weights = self._hide(inputs, -1 - targets["row"])
        return {**inputs, "masked_lm_ids": tf.where(weights > 0, ids, -1)}

    def to_example(self, inputs, tokens, targets):
        rows = tf.shape(inputs["input_ids"], tf.int64)[0]
        inputs, ids, weights = self._hide(inputs, targets["step"] * _PLACES_OF_A_STEP + tf.range(rows))
        # As in pretraining: Keras divides by all places, replica by replica, and the loss is to be the mean over those
        # that are used.
        weights *= tf.cast(tf.size(weights), tf.float32) / tf.maximum(tf.reduce_sum(weights), 1.0)
        return inputs, ids, weights

    def _hide(self, inputs: dict, keys: tf.Tensor) -> tuple[dict, tf.Tensor, tf.Tensor]:
        """The inputs with tokens hidden, those tokens and their weights `(b, M)`; `keys` decide, beside the seed."""
        ids, length = inputs["input_ids"], tf.shape(inputs["input_ids"])[1]
        masker = Masker(self.tokenizer, self.options["mask_rate"], self._most_masks())
        padding = [[0, 0], [0, self.max_length - length]]
        ids = tf.ensure_shape(tf.pad(ids, padding, constant_values=self.tokenizer.pad_id), (None, self.max_length))
        seed = tf.constant(self.options["mask_seed"], tf.int64)
        places = tf.TensorSpec((masker.max_predictions,), tf.int32)
        names = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
        hidden = tf.map_fn(
            lambda row: masker(row[0], tf.stack([seed, row[1]])),
            (ids, keys),
            fn_output_signature={
                "input_ids": tf.TensorSpec((self.max_length,), tf.int32),
                **dict(zip(names, (places, places, tf.TensorSpec(places.shape)), strict=True)),
            },
        )
        inputs = {
            **inputs,
            "input_ids": hidden["input_ids"][:, :length],
            "masked_lm_positions": hidden["masked_lm_positions"],
        }
        return inputs, hidden["masked_lm_ids"], hidden["masked_lm_weights"]

    def _most_masks(self) -> int:
        """M: how many tokens are hidden of the longest row that there can be."""
        return max(1, round((self.max_length - 2) * self.options["mask_rate"]))

    def predictions(self, examples, features, outputs):
        """For each mask its likeliest pieces, and the text with the piece in that mask's place."""
        found, vocabulary = [], self.tokenizer.vocabulary
        for row, text in enumerate(examples["text"]):
            parts = text.split(self._mask)
            fillings = []
            for place in range(len(parts) - 1):
                before, after = self._mask.join(parts[: place + 1]), self._mask.join(parts[place + 1 :])
                pieces = [vocabulary[int(number)] for number in outputs["ids"][row, place]]
                scores = outputs["scores"][row, place].tolist()
                fillings.append(
                    [
                        {"piece": piece, "score": score, "text": _filled(before, piece, after)}
                        for piece, score in zip(pieces, scores, strict=True)
                    ]
                )
            found.append({"text": text, "fillings": fillings})
        return found

    def evaluate(self, examples, features, outputs):
        used = outputs["labels"] >= 0
        losses = outputs["losses"][used]
        right = outputs["ids"][..., 0] == outputs["labels"]
        figures = metrics.masked_lm_metrics(float(np.mean(losses, dtype=np.float64)), float(np.mean(right[used])))
        rows, places = np.nonzero(used & ~right)
        worst = np.argsort(-outputs["losses"][rows, places], kind="stable")[:MOST_ERRORS]
        errors = [self._error(features, outputs, rows[index], places[index]) for index in worst]
        return Evaluation({**figures, "masked_tokens": int(used.sum())}, errors)

    def _error(self, features: Features, outputs: dict, row: int, place: int) -> dict:
        """A token that was not found, with what stands around it; there too some were hidden."""
        ids, position = features.encoding.row(row, "input_ids"), int(outputs["positions"][row, place])
        around = (ids[max(0, position - _SHOWN_TOKENS) : position], ids[position + 1 : position + 1 + _SHOWN_TOKENS])
        before, after = (self.tokenizer.detokenize(part).numpy().decode("utf-8") for part in around)
        label, predicted = outputs["labels"][row, place], outputs["ids"][row, place, 0]
        return {
            "text": " ".join(filter(None, (before, self._mask, after))),
            "label": self.tokenizer.vocabulary[int(label)],
            "predicted": self.tokenizer.vocabulary[int(predicted)],
            "probability": float(outputs["scores"][row, place, 0]),
        }


class MaskReader(keras.layers.Layer):
    """What is said of masks: `ids` and `scores` (B, M, K) of the likeliest pieces, and the `losses` (B, M) in nats.

    Call arguments:
      logits: `(B, M, V)`.
      labels: `(B, M)`, -1 for a place that is not used.
      positions: `(B, M)`, returned as they are, as the labels are.
    """

    def call(self, logits, labels, positions):
        logs = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        scores, ids = tf.math.top_k(logs, min(MOST_FILLINGS, logits.shape[-1]))
        losses = -tf.gather(logs, tf.maximum(labels, 0), batch_dims=2)
        return {"ids": ids, "scores": tf.exp(scores), "losses": losses, "labels": labels, "positions": positions}


def pack_documents(documents: Sequence[Sequence[str]], tokenizer: Tokenizer, max_length: int) -> Encoding:
    """Documents cut into rows [CLS] tokens [SEP] of at most `max_length`, none of which holds parts of two."""
    sentences = [sentence for document in documents for sentence in document]
    values, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for start in range(0, len(sentences), _SENTENCES_AT_ONCE):
        ids = tokenizer.tokenize(tf.constant(sentences[start : start + _SENTENCES_AT_ONCE]))
        values.append(ids.values.numpy().astype(np.int32))
        lengths.append(ids.row_lengths().numpy())
    of_document = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
    tokens = np.bincount(of_document, np.concatenate(lengths), len(documents)).astype(np.int64)
    room = max_length - 2
    rows = -(-tokens // room)
    row_lengths = np.full(rows.sum(), room)
    last = np.cumsum(rows)[rows > 0] - 1
    row_lengths[last] = (tokens - room * (rows - 1))[rows > 0]
    row_splits = np.concatenate([[0], np.cumsum(row_lengths + 2)])
    input_ids = np.full(row_splits[-1], -1, np.int32)
    input_ids[row_splits[:-1]], input_ids[row_splits[1:] - 1] = tokenizer.cls_id, tokenizer.sep_id
    input_ids[input_ids < 0] = np.concatenate(values)
    return Encoding({"input_ids": input_ids, "token_type_ids": np.zeros_like(input_ids)}, row_splits)


def _filled(before: str, piece: str, after: str) -> str:
    """A text with a piece in it; one that continues a word stands right behind it."""
    return before.rstrip() + piece[2:] + after if piece.startswith("##") else before + piece + after
