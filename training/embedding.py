"""Vectors to compare texts by, learned from pairs, triplets and scored pairs of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_bert.checkpoints.folder import ModelFolder, head_arguments
from keras_bert.head_layers import LAST_4, POOLINGS
from keras_bert.heads import build_embedder
from keras_bert.text import Preprocessor
from keras_bert.training import metrics, tables
from keras_bert.training.encoding import Features, encode
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.tables import Table
from keras_bert.training.task import MOST_ERRORS, Evaluation, Task, shown

_SIMILARITIES = 2**22  # in memory at a time


class Embedder(Task):
    """One vector of length 1 for a text (Reimers and Gurevych 2019); cosines say how like two texts are.

    What is learned depends on the columns: of pairs (`text`, `text_pair`) and triplets (with `negative`), to tell a
    text's pair from all other pairs and negatives of the batch; of scored pairs (with `label`), the order of the
    scores. Dev rows may have other columns than training rows: scored ones are judged by Spearman's correlation, others
    by retrieval, all of the rows' `text_pair` and `negative` being the documents.

    Under tf.distribute the other pairs are those of the replica's own part of the batch.
    """

    name = "embedder"
    head = "embedder"
    metric = "spearman"
    columns = ("text", "text_pair", "label", "negative")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Of a model that was trained elsewhere nothing is known.
        self.options = {"temperature": 0.05, "loss_batch_size": 32, **self.options}
        self._scored = False

    @classmethod
    def read(cls, source, columns=None, *, labelled=True, split="train") -> Table:
        if not labelled:
            return tables.read_table(source, columns, ("text",), ("text_pair",), split)
        table = tables.read_table(source, columns, ("text", "text_pair"), ("label", "negative"), split, ("label",))
        if "label" in table and "negative" in table:
            raise ValueError(
                f"{table.name}: expected scored pairs (text, text_pair, label) or triplets (text, text_pair, negative)"
                ". Received: rows with both a label and a negative; drop or rename one of these columns."
            )
        return table

    @classmethod
    def remarks(cls, examples: Table) -> list[str]:
        kind = "triplets" if "negative" in examples else "scored pairs" if "label" in examples else "pairs, no scores"
        return [f"{examples.name}: {kind} ({', '.join(examples.columns)})"]

    @classmethod
    def parse(cls, lines: Sequence[str], segments: int = 1) -> Table:
        parts = [line.split("\t") for line in lines]
        for line, part in zip(lines, parts, strict=True):
            if len(part) != len(parts[0]) or len(part) > 2:
                raise ValueError(
                    "Expected a text in every line, or in every line two texts with a tab between them. Received: "
                    f"{line!r:.200}"
                )
        columns = dict(zip(("text", "text_pair"), map(list, zip(*parts, strict=True)), strict=False))
        return Table("texts", columns or {"text": []}, list(range(1, len(lines) + 1)))

    def learn(self, train: Table, dev: Table, settings: FinetuneSettings) -> None:
        if settings.pooling not in (None, *POOLINGS, LAST_4):
            raise ValueError(
                f"pooling must be one of {', '.join((*POOLINGS, LAST_4))}. Received: pooling={settings.pooling!r}"
            )
        if "negative" not in train and settings.batch_size < 2:
            raise ValueError(
                "batch_size must be at least 2 for an embedder, which learns from the other pairs of a batch. "
                f"Received: batch_size={settings.batch_size}"
            )
        if "label" in train and len(np.unique(tables.float_labels(train))) < 2:
            raise ValueError(
                f"{train.name}: expected scores of which some are higher than others. Received: "
                f"{train['label'][0]} in all {len(train)} rows; without the column label they are pairs that belong "
                "together."
            )
        if "label" in dev:
            tables.float_labels(dev)
        self._judge_by(dev)
        self._scored = "label" in train
        self.options |= {
            "pooling": settings.pooling,
            "temperature": settings.temperature,
            "loss_batch_size": settings.batch_size,
        }

    def _judge_by(self, examples: Table) -> None:
        self.metric = "spearman" if "label" in examples else "mrr"

    def start_from(self, checkpoint: ModelFolder) -> None:
        """Keeps the pooling of a checkpoint's embedder, and the dense layer that may be behind it."""
        self.options["projection"] = {}
        asked = self.options["pooling"]
        if checkpoint.task != "embedder":
            self.options["pooling"] = asked or "mean"
            return
        given = head_arguments(checkpoint.model, "embedder")
        if asked is None:
            self.options["pooling"] = list(given["pooling"])
        elif tuple(given["pooling"]) != (asked,):
            raise ValueError(
                f"Expected the pooling of the checkpoint's embedder, {' and '.join(given['pooling'])}. Received: "
                f"pooling={self.options['pooling']!r}; change it, or give --new-head to begin with the encoder alone."
            )
        self.options["projection"] = {name: value for name, value in given.items() if name.startswith("projection_")}

    def encode(self, examples: Table, *, labelled: bool = True) -> Features:
        columns = [examples[name] for name in ("text", "text_pair", "negative") if name in examples]
        texts = [text for row in zip(*columns, strict=True) for text in row]
        encoding, _ = encode(Preprocessor(self.tokenizer, self.max_length), texts)
        return Features(encoding, self._targets(examples, texts) if labelled else {}, len(columns))

    def _targets(self, examples: Table, texts: list[str]) -> dict[str, np.ndarray]:
        if "label" in examples:
            return {"label": tables.float_labels(examples)}
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        return {"texts": np.array([numbers[text] for text in texts], np.int32).reshape(len(examples), -1)}

    def build_model(self, encoder: keras.Model) -> keras.Model:
        return build_embedder(encoder, self.options["pooling"] or "mean", **self.options.get("projection", {}))

    def loss(self, settings):
        return ScoredPairs(settings.temperature) if self._scored else InBatchNegatives(settings.temperature)

    def to_example(self, inputs, tokens, targets):
        # A label a row of tokens, so that tf.distribute parts both alike.
        if "label" in targets:
            return inputs, tf.repeat(targets["label"], 2)
        group = tf.shape(targets["texts"])[1]
        numbers = tf.unique(tf.reshape(targets["texts"], [-1])).idx  # small ones, which a float holds
        return inputs, tf.stack([numbers, tf.fill(tf.shape(numbers), group)], axis=1)

    def predictions(self, examples, features, outputs):
        found = []
        for row, text in enumerate(examples["text"]):
            vectors = outputs["output"][row].reshape(features.group, -1)
            entry = {"text": text}
            if "text_pair" in examples:
                first, second = _unit(vectors)
                entry |= {"text_pair": examples["text_pair"][row], "similarity": float(first @ second)}
            found.append({**entry, "embedding": vectors[0].tolist()})
        return found

    def evaluate(self, examples, features, outputs):
        self._judge_by(examples)
        vectors = _unit(outputs["output"])  # (N, group, D)
        loss = {"loss": self._dev_loss(features, vectors)}
        if "label" in examples:
            scores = features.targets["label"]
            figures = metrics.similarity_metrics(vectors[:, 0], vectors[:, 1], scores)
            cosines = np.sum(vectors[:, 0] * vectors[:, 1], axis=-1)
            return Evaluation({**loss, **figures}, _misjudged(examples, scores, cosines))
        texts, documents = features.targets["texts"], []
        places: dict[int, int] = {}
        for (row, column), number in np.ndenumerate(texts[:, 1:]):
            if number not in places:  # a document is there once, however often it occurs
                places[number] = len(documents)
                documents.append((row, column + 1))
        rows, columns = np.array(documents).T
        relevant = np.array([places[number] for number in texts[:, 1]])
        figures = metrics.retrieval_metrics(vectors[:, 0], vectors[rows, columns], relevant)
        names = [(examples["text_pair"] if column == 1 else examples["negative"])[row] for row, column in documents]
        return Evaluation({**loss, **figures}, _misled(examples, names, vectors, vectors[rows, columns], relevant))

    def _dev_loss(self, features: Features, vectors: np.ndarray) -> float:
        """The mean over batches as in training, since both losses depend on what else is in a batch."""
        count, temperature = len(vectors), self.options["temperature"]
        batches = max(1, count // self.options["loss_batch_size"])
        total = 0.0
        for first in range(batches):
            part = tf.constant(vectors[first::batches])
            if "label" in features.targets:
                losses = cosent_loss(part, features.targets["label"][first::batches], temperature)
            else:
                losses = ranking_losses(part, features.targets["texts"][first::batches], temperature)
            total += float(tf.reduce_mean(losses)) * len(part)
        return total / count


def ranking_losses(vectors: tf.Tensor, texts: tf.Tensor, temperature: float) -> tf.Tensor:
    """How well each text's pair is told from the other pairs and negatives of a batch, in nats, `(B,)`.

    Multiple negatives ranking: Henderson et al. 2017, section 4.4. What is no negative although it is another row's
    stays out: the text itself, its own pair again, and a pair of the same text in another row.

    Args:
      vectors: `(B, 2 or 3, D)` of length 1: of a text, its pair and perhaps a negative.
      texts: `(B, 2 or 3)`, numbers that are equal where the texts are.
      temperature: what cosines are divided by.
    """
    count, columns = tf.shape(texts)[0], tf.shape(texts)[1] - 1
    # All pairs, then all negatives.
    documents = tf.reshape(tf.transpose(vectors[:, 1:], (1, 0, 2)), (-1, vectors.shape[-1]))
    numbers = tf.reshape(tf.transpose(texts[:, 1:]), (1, -1))
    logits = tf.matmul(vectors[:, 0], documents, transpose_b=True) / temperature  # (B, B * columns)
    of_same_text = tf.pad(texts[:, :1] == texts[None, :, 0], [[0, 0], [0, count * (columns - 1)]])
    no_negative = (numbers == texts[:, :1]) | (numbers == texts[:, 1:2]) | of_same_text
    no_negative &= ~tf.eye(count, count * columns, dtype=tf.bool)
    logits = tf.where(no_negative, logits.dtype.min, logits)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.range(count), logits)


def cosent_loss(vectors: tf.Tensor, scores: tf.Tensor, temperature: float) -> tf.Tensor:
    """How far cosines are from the order of the scores, a number for the batch: Huang et al. 2024, CoSENT, equation 6.

    log(1 + sum of exp((cosine_i - cosine_j) / temperature) over all i and j where score_i < score_j).

    Args:
      vectors: `(B, 2, D)` of length 1.
      scores: `(B,)`, on any scale.
    """
    cosines = tf.reduce_sum(vectors[:, 0] * vectors[:, 1], axis=-1) / temperature
    differences = cosines[:, None] - cosines[None, :]
    differences = tf.where(scores[:, None] < scores[None, :], differences, differences.dtype.min)
    return tf.reduce_logsumexp(tf.concat([[0.0], tf.reshape(differences, [-1])], axis=0))


class InBatchNegatives(keras.losses.Loss):
    """`ranking_losses` of the rows of a batch: `y_true` `(B * group, 2)` has the text's number and the group."""

    def __init__(self, temperature: float):
        super().__init__(name="in_batch_negatives")
        self.temperature = temperature

    def call(self, y_true, y_pred):
        group = tf.cast(y_true[0, 1], tf.int32)
        vectors = tf.reshape(y_pred, (-1, group, y_pred.shape[-1]))
        return ranking_losses(vectors, tf.reshape(y_true[:, 0], (-1, group)), self.temperature)


class ScoredPairs(keras.losses.Loss):
    """`cosent_loss` of the rows of a batch: `y_true` `(B * 2,)` has each pair's score twice."""

    def __init__(self, temperature: float):
        super().__init__(name="scored_pairs")
        self.temperature = temperature

    def call(self, y_true, y_pred):
        return cosent_loss(tf.reshape(y_pred, (-1, 2, y_pred.shape[-1])), y_true[::2], self.temperature)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1: a model that comes from elsewhere may have others."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def _misjudged(examples: Table, scores: np.ndarray, cosines: np.ndarray) -> list[dict]:
    """The pairs whose ranks by score and by cosine are farthest apart."""
    from scipy import stats

    distances = np.abs(stats.rankdata(scores) - stats.rankdata(cosines))
    return [
        {
            "text": shown(examples["text"][row]),
            "text_pair": shown(examples["text_pair"][row]),
            "label": float(scores[row]),
            "predicted": float(cosines[row]),
        }
        for row in np.argsort(-distances, kind="stable")[:MOST_ERRORS]
        if distances[row]
    ]


def _misled(
    examples: Table, names: list[str], vectors: np.ndarray, documents: np.ndarray, relevant: np.ndarray
) -> list[dict]:
    """The texts to which another document is nearer than their own, by how much nearer it is."""
    nearest = np.zeros(len(vectors), int)
    distances = np.zeros(len(vectors))
    for rows in _blocks(len(vectors), len(documents)):
        cosines = vectors[rows, 0] @ documents.T
        nearest[rows] = cosines.argmax(-1)
        distances[rows] = cosines.max(-1) - np.take_along_axis(cosines, relevant[rows, None], -1)[:, 0]
    return [
        {
            "text": shown(examples["text"][row]),
            "label": shown(names[relevant[row]]),
            "predicted": shown(names[nearest[row]]),
        }
        for row in np.argsort(-distances, kind="stable")[:MOST_ERRORS]
        if nearest[row] != relevant[row]
    ]


def _blocks(queries: int, documents: int) -> Iterator[slice]:
    """Slices of queries whose similarities to all documents are not too many at a time."""
    size = max(1, _SIMILARITIES // documents)
    return (slice(start, start + size) for start in range(0, queries, size))
