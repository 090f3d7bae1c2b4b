"""What MediaPipe's TextClassifier and TextEmbedder need to know of a LiteRT file, written into the file.

They take strings, and find in the file which input is which, the vocabulary for their own tokenizer and the labels. The
description is a flatbuffer of TensorFlow Lite's metadata schema (tensorflow.org/lite/models/convert/metadata) in a
buffer of the model; the files lie in a ZIP archive behind the model, beside the one of origin.py.

MediaPipe's tokenizer is not BERT's: it lowers the case of ASCII letters only, keeps accents, and knows ASCII's white
space only, so that a word with "é" and one after an ideographic space are unknown. Texts that got other ids than BERT's
with the vocabulary of bert-base-uncased: 0.6 % of SST-2's, 7 % of Wikipedia's lines, 60 % of German captions; with
bert-base-chinese, 0.3 % of ChnSentiCorp's and 3 % of a novel's lines. A client that gives MediaPipe
`prepare_for_mediapipe(text)` gets BERT's for all of them; it is three standard string operations in any language.
"""

from __future__ import annotations

import os
import unicodedata

import flatbuffers

from keras_bert.atomic import atomic_file
from keras_bert.checkpoints import ModelFolder
from keras_bert.export.mediapipe_file import LiteRTFile, put_vector
from keras_bert.text.special_tokens import SPECIAL_TOKENS

# By these names TextClassifier and TextEmbedder find the inputs (mediapipe/tasks/cc/components/utils and
# text_model_utils.cc).
_INPUTS = {
    "input_ids": ("ids", "The ids of the pieces."),
    "token_type_ids": ("segment_ids", "0 for the first text and 1 for the second."),
    "attention_mask": ("mask", "1 for pieces and 0 for padding."),
}
# What a client finds in the first of the results.
_FIRST_OUTPUT = {"classifier": "probabilities", "embedder": "embedding"}
_VOCABULARY, _LABELS = "vocab.txt", "labels.txt"

# Slots and values of tensorflow/lite/metadata/metadata_schema.fbs.
_AXIS_LABELS, _VOCABULARY_FILE = 2, 5  # AssociatedFileType
_BERT_TOKENIZER = 4  # ProcessUnitOptions
_METADATA = "TFLITE_METADATA"
_FEATURE = 1  # ContentProperties


def add_mediapipe_metadata(path: str | os.PathLike, folder: ModelFolder) -> None:
    """Makes a file from `save_litert` one that MediaPipe's TextClassifier or TextEmbedder loads as it is.

    The file stays what it was for every other reader. Texts that are longer than its length are cut by MediaPipe. A
    classifier's first result are the probabilities, and its second one the logits.

    Args:
      path: a classifier or an embedder of single texts, with one `max_length`.
      folder: the model that the file was made from.

    Raises:
      ValueError: MediaPipe has no task for the model, or would give its texts other ids; `save_bundle` serves those.
    """
    _check_folder(folder)
    file = LiteRTFile(path)
    _check_inputs(file, path)
    file.put_output_first(_FIRST_OUTPUT[folder.task])
    files = {_VOCABULARY: _lines(folder.tokenizer.vocabulary)}
    if folder.task == "classifier":
        files[_LABELS] = _lines(folder.labels or map(str, range(folder.model.output.shape[-1])))
    metadata = _metadata(file, folder)
    with atomic_file(path) as new:
        file.write(new, {_METADATA: metadata}, files)


def prepare_for_mediapipe(text: str) -> str:
    """What MediaPipe's tokenizer reads as BERT's reads `text`: without accents, in lower case, with plain spaces.

    In JavaScript: `text.normalize("NFD").replace(/\\p{Mn}/gu, "").toLowerCase().replace(/\\s/gu, " ")`.
    """
    plain = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    return "".join(" " if c.isspace() else c for c in plain.lower())


def _check_folder(folder):
    """Raises where MediaPipe has no task, or a tokenizer that could only be wrong."""
    task = folder.problem_type if folder.problem_type == "regression" else folder.task
    if task not in _FIRST_OUTPUT:
        raise ValueError(
            f"Expected a task that MediaPipe has: {', '.join(_FIRST_OUTPUT)}. Received: {task}; write a bundle instead."
        )
    if folder.segments != 1:
        raise ValueError("Expected a model of single texts. Received: one of pairs, which MediaPipe cannot be given.")
    tokenizer = folder.tokenizer
    if not tokenizer.lowercase:
        raise ValueError(
            "Expected a tokenizer with lowercase=True: MediaPipe's lowers the case of every text. Received: one that "
            "tells cases apart; write a bundle."
        )
    others = {role: piece for role, piece in tokenizer.special_tokens.items() if piece != SPECIAL_TOKENS[role]}
    if others:
        raise ValueError(f"Expected special pieces with BERT's names. Received: {others}; write a bundle.")


def _check_inputs(file, path):
    if {*file.inputs} != {*_INPUTS}:
        raise ValueError(
            f"Expected a file with the inputs {', '.join(_INPUTS)}. Received: {os.fspath(path)} with "
            f"{', '.join(file.inputs)}."
        )
    if any(-1 in shape for shape in file.inputs.values()):
        # MediaPipe would run it, until one text has more tokens than the model has positions: from then on the task
        # refuses every text.
        raise ValueError(
            f"Expected a file of fixed length, to which MediaPipe cuts texts. Received: {os.fspath(path)}, of any "
            "length; export it with max_length=128 or another number."
        )


def _metadata(file, folder):
    """The description, a flatbuffer of its own."""
    vocabulary = {0: _VOCABULARY, 1: "The pieces, a line each.", 2: _VOCABULARY_FILE}
    tokenizer = {0: _BERT_TOKENIZER, 1: {0: [vocabulary]}}
    graph = {
        2: [_tensor(*_INPUTS[name]) for name in file.inputs],
        3: [_tensor(name, name) for name in file.outputs],
        5: [tokenizer],
    }
    if folder.task == "classifier":
        for output in graph[3]:
            output[6] = [{0: _LABELS, 1: "The classes, a line each.", 2: _AXIS_LABELS}]
    builder = flatbuffers.Builder(4096)
    model = {0: folder.model.name, 3: [graph], 7: "1.0.0"}
    builder.Finish(_put(builder, model), file_identifier=b"M001")
    return bytes(builder.Output())


def _tensor(name, description):
    return {0: name, 1: description, 3: {0: _FEATURE, 1: {}}}


def _put(builder, value):
    """Writes a string, a list of tables, or a table given as {slot: value} whose numbers are bytes."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list):
        return put_vector(builder, [_put(builder, one) for one in value])
    placed = {slot: one if isinstance(one, int) else _put(builder, one) for slot, one in value.items()}
    builder.StartObject(max(value, default=-1) + 1)
    for slot, one in placed.items():
        if isinstance(value[slot], int):
            builder.PrependInt8Slot(slot, one, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, one, 0)
    return builder.EndObject()


def _lines(strings):
    return "".join(f"{string}\n" for string in strings).encode()
