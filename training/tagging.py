"""A tag for each word of a sentence: named entities, parts of speech."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_bert.heads import build_token_classifier
from keras_bert.training import metrics, tables
from keras_bert.training.classification import categorical_loss, class_weights, is_soft
from keras_bert.training.conll import check_tags, read_tagged, tag_scheme
from keras_bert.training.encoding import Features
from keras_bert.training.entities import (
    as_iobes,
    entity_spans,
    few_sentences,
    join_words,
    labels_of,
    scheme_of_labels,
)
from keras_bert.training.table_rows import TFDS_PREFIX
from keras_bert.training.tables import Table, listed
from keras_bert.training.task import LOSS_SETTINGS, MOST_ERRORS, Evaluation, Task, cross_entropy, softmax
from keras_bert.training.text_files import read_lines, text_suffix
from keras_bert.training.word_windows import encode_words, pieces_of_words, words_of_texts

_WORDS_BEFORE, _MOST_WORDS = 20, 200  # of a long sentence among the errors, around the first word that is wrong


class TokenClassifier(Task):
    """A tag for each word, from its first piece (Devlin et al. 2019, section 5.3); entities where tags have a scheme.

    Examples are sentences of words with tags, or texts to predict. Labels are the tags as the training file has them;
    `options` hold its scheme ("scheme": see `conll`) and how many pieces windows of long sentences share ("stride").
    A word without pieces, such as one of control characters, is "O".
    """

    name = "token_classifier"
    head = "token_classifier"
    per_token = True
    loss_settings = LOSS_SETTINGS
    uses_windows = True
    columns = ("words", "tags", "text")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._class_weights = None
        self._soft = False  # whether the loss takes labels as rows of probabilities

    @property
    def scheme(self) -> str:
        return self.options.get("scheme") or scheme_of_labels(self.labels or ())

    @property
    def stride(self) -> int:
        return self.options.get("stride", min(self.stride_default, self.max_length // 3))

    @property
    def metric(self) -> str:
        """Entities' F1; of plain tags the accuracy."""
        return "accuracy" if self.scheme == "plain" else "f1"

    # Data

    @classmethod
    def read(cls, source, columns=None, *, labelled=True, split="train") -> Table:
        """Sentences as `read_tagged` reads them; to predict, also tables with the column `text` and no `words`."""
        if labelled or not _may_hold_texts(source, columns or {}):
            return read_tagged(source, columns, labelled, split)
        table = tables.read_table(source, columns, (), ("words", "text", "tags"), split)
        if "words" not in table and "text" not in table:
            raise ValueError(
                f"{table.name}: expected a column of words or of texts. Received neither; name one with --columns "
                "words=NAME or --columns text=NAME"
            )
        return table

    @classmethod
    def parse(cls, lines: Sequence[str], segments: int = 1) -> Table:
        return Table("texts", {"text": list(lines)}, list(range(1, len(lines) + 1)))

    def learn(self, train, dev, settings):
        room = self.max_length - 2
        if room < 1 or settings.stride >= room:
            raise ValueError(
                f"Expected max_length of at least 3 and stride below the {room} pieces that a window has room for. "
                f"Received: max_length={self.max_length}, stride={settings.stride}; make one longer or the other "
                "smaller."
            )
        scheme = tag_scheme(train)
        self.options = {"scheme": scheme, "stride": settings.stride}
        check_tags(dev, scheme)
        self.labels = labels_of(tables.label_names(train, "tags"), scheme, tables.label_names(dev, "tags"))
        if len(self.labels) < 2:
            raise ValueError(
                f"{train.name}: expected at least two tags, but every word has the tag {self.labels[0]!r}. Train on "
                "sentences with entities, or with several parts of speech."
            )
        self._tag_ids(dev)
        counts = np.bincount(self._tag_ids(train), minlength=len(self.labels))
        self._class_weights = class_weights(settings.class_weights, self.labels, counts)
        self._soft = is_soft(settings)

    def encode(self, examples, *, labelled=True):
        tag_ids = self._tag_ids(examples) + 1 if labelled else None
        if "words" in examples:
            words = pieces_of_words(self.tokenizer, examples["words"])
        else:
            words = words_of_texts(self.tokenizer, examples["text"])
        features = encode_words(words, self.tokenizer, self.max_length, self.stride, tag_ids)
        if labelled and len(examples) and not features.encoding.values["tag_ids"].any():
            raise ValueError(f"{examples.name}: expected words. Received only such as the tokenizer drops whole.")
        return features

    def few(self, examples, per_class, seed):
        """Sentences with at least so many entities of each type, or words of each plain tag."""
        if self.scheme == "plain":
            kinds = examples["tags"]
        else:
            kinds = [[span[0] for span in entity_spans(tags, self.scheme)] for tags in examples["tags"]]
        return examples.take(few_sentences(kinds, per_class, seed, examples.name))

    def _tag_ids(self, examples: Table) -> np.ndarray:
        """The labels' numbers, `(words,)`."""
        ids = {label: index for index, label in enumerate(self.labels)}
        for row, tags in enumerate(examples["tags"]):
            for index, tag in enumerate(tags):
                if tag not in ids:
                    word = examples["words"][row][index]
                    raise ValueError(
                        f"{examples.where(row)}, word {index + 1} ({word[:40]!r}): the tag {tag[:60]!r} does not occur "
                        f"in training. Known tags: {listed(self.labels)}. Correct the tag, or train with it."
                    )
        return np.array([ids[tag] for tags in examples["tags"] for tag in tags], np.int32)

    # Model

    def build_model(self, encoder):
        return build_token_classifier(encoder, len(self.labels))

    def loss(self, settings):
        return categorical_loss(settings)

    def training_metrics(self):
        kind = keras.metrics.CategoricalAccuracy if self._soft else keras.metrics.SparseCategoricalAccuracy
        return [kind(name="accuracy")]

    def to_example(self, inputs, tokens, targets):
        tag_ids = tokens["tag_ids"]  # 0 where there is no first piece of a word
        labels = tf.maximum(tag_ids - 1, 0)
        weights = tf.cast(tag_ids > 0, tf.float32)
        if self._class_weights is not None:
            weights *= tf.gather(tf.constant(self._class_weights), labels)
        # Keras divides by the number of places, replica by replica: with weights that sum to it over the global batch,
        # the loss is the weighted mean over first pieces, as PyTorch's cross-entropy has it.
        weights *= tf.math.divide_no_nan(tf.cast(tf.size(weights), tf.float32), tf.reduce_sum(weights))
        return inputs, tf.one_hot(labels, len(self.labels)) if self._soft else labels, weights

    # Outcome

    def predictions(self, examples, features, outputs):
        """Of sentences {"words", "tags"}, of texts {"text"}; with "entities", or for plain tags of texts "tags".

        Entities and the tags of a text have "text", "type" or "tag", "start", "end" (characters) and "score", the mean
        of their words' probabilities. Entities of sentences have "start_word" and "end_word" too; their characters are
        those of "text", the words joined.
        """
        tags, scores = self._tags(features, outputs)
        splits = features.mapping["word_splits"]
        found = []
        for row, row_tags in enumerate(tags):
            words = slice(splits[row], splits[row + 1])
            if "words" in examples:
                found.append(self._of_words(examples["words"][row], row_tags, scores[words]))
            else:
                places = features.mapping["word_places"][words].tolist()
                found.append(self._of_text(examples["text"][row], places, row_tags, scores[words]))
        return found

    def evaluate(self, examples, features, outputs):
        tokens = features.mapping["word_tokens"]
        tokens = tokens[tokens >= 0]
        logits = outputs["output"][tokens]
        if not np.isfinite(logits).all():
            raise ValueError("Expected logits that are finite. Received: NaN or infinity; the training diverged.")
        loss = float(np.mean(cross_entropy(logits, features.encoding.values["tag_ids"][tokens] - 1)))
        true, (predicted, _) = examples["tags"], self._tags(features, outputs)
        errors = self._errors(examples["words"], true, predicted)
        if self.scheme == "IOBES":
            true, predicted = ([as_iobes(tags) for tags in rows] for rows in (true, predicted))
        return Evaluation({"loss": loss, **metrics.tagging_metrics(true, predicted, self.scheme)}, errors)

    def _tags(self, features: Features, outputs) -> tuple[list[list[str]], np.ndarray]:
        """The tags of each example's words, and the probability of each tag, `(words,)`."""
        tokens = features.mapping["word_tokens"]
        probabilities = softmax(outputs["output"][tokens[tokens >= 0]]) if (tokens >= 0).any() else np.zeros((0, 1))
        scores, tags = np.ones(len(tokens)), ["O"] * len(tokens)
        scores[tokens >= 0] = probabilities.max(-1)
        for word, label in zip(np.flatnonzero(tokens >= 0), probabilities.argmax(-1), strict=True):
            tags[word] = self.labels[label]
        splits = features.mapping["word_splits"]
        return [tags[start:stop] for start, stop in zip(splits[:-1], splits[1:], strict=True)], scores

    def _of_words(self, words: list[str], tags: list[str], scores: np.ndarray) -> dict:
        if self.scheme == "plain":
            return {"words": words, "tags": tags}
        text, starts = join_words(words)
        entities = []
        for kind, first, last in entity_spans(tags, self.scheme):
            start, end = starts[first], starts[last - 1] + len(words[last - 1])
            entity = _marked(text, "type", kind, start, end, scores[first:last])
            entities.append({**entity, "start_word": first, "end_word": last})
        return {"text": text, "words": words, "tags": tags, "entities": entities}

    def _of_text(self, text: str, places: list[list[int]], tags: list[str], scores: np.ndarray) -> dict:
        if self.scheme == "plain":
            tagged = zip(tags, places, scores, strict=True)
            return {"text": text, "tags": [_marked(text, "tag", tag, *place, [score]) for tag, place, score in tagged]}
        spans = entity_spans(tags, self.scheme)
        entities = [
            _marked(text, "type", kind, places[first][0], places[last - 1][1], scores[first:last])
            for kind, first, last in spans
        ]
        return {"text": text, "entities": entities}

    def _errors(self, sentences, true, predicted) -> list[dict]:
        """The sentences with most entities, or plain tags, that are wrong."""
        wrong = []
        for tags, others in zip(true, predicted, strict=True):
            if self.scheme == "plain":
                wrong.append(sum(tag != other for tag, other in zip(tags, others, strict=True)))
            elif tags == others:
                wrong.append(0)
            else:
                wrong.append(len({*entity_spans(tags, self.scheme)} ^ {*entity_spans(others, self.scheme)}))
        worst = np.argsort(-np.array(wrong), kind="stable")[:MOST_ERRORS]
        found = []
        for row in worst.tolist():
            if not wrong[row]:
                break
            first = next(i for i, pair in enumerate(zip(true[row], predicted[row], strict=True)) if pair[0] != pair[1])
            start = max(first - _WORDS_BEFORE, 0) if len(true[row]) > _MOST_WORDS else 0
            shown = slice(start, start + _MOST_WORDS)
            parts = {"words": sentences[row], "tags": true[row], "predicted": predicted[row]}
            found.append({name: list(values[shown]) for name, values in parts.items()})
        return found


def _marked(text: str, name: str, value: str, start: int, end: int, scores) -> dict:
    return {"text": text[start:end], name: value, "start": start, "end": end, "score": float(np.mean(scores))}


def _may_hold_texts(source, columns) -> bool:
    """Whether a file to predict is a table that may have the column `text` instead of `words`."""
    suffix = text_suffix(source)
    if suffix == ".tsv" and not columns:
        header = next(read_lines(source))[1].rstrip("\r\n").split("\t")
        return "text" in header and "words" not in header
    return str(source).startswith(TFDS_PREFIX) or suffix in (".jsonl", ".csv", ".tsv")
