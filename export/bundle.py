"""A folder or ZIP archive with a LiteRT file and all that an app needs around it, for every task.

    model.tflite        takes ids
    vocab.txt           the pieces, a line each
    characters.json     what the tokenizer does with every character, see tokenizer.py
    labels.txt          the classes, where there are any
    bundle.json         task, length, segments, special pieces, what the file takes and returns
    tokenizer.py        the tokenizer in plain Python, to use or to write again in another language
    golden.json         texts with their ids, what the file returns for them, and the answers that this means

An implementation on a device is right when it gives the ids of golden.json, and the outputs to within a little: other
processors round otherwise.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_bert.atomic import atomic_file, atomic_folder, scratch_folder
from keras_bert.checkpoints import ModelFolder
from keras_bert.checkpoints.folder import special_pieces
from keras_bert.export import bundle_tokenizer
from keras_bert.export.litert import save_litert
from keras_bert.export.served import served_of
from keras_bert.text import save_vocabulary

_TEXTS = ("A short text.", "我爱北京，天安门很好。", "Café No. 7, 100% naïve — and a much longer one, " * 4, "")
_EXAMPLES = {
    "text": _TEXTS,
    "text_pair": ("Another one!", "", "And its pair.", "Only this."),
    "question": ("Which text?", "哪里？", "What is longer?", "None?"),
    "context": ("A short text. And a second one.", *_TEXTS[1:3], "Nothing."),
    "choices": (["One", "two"], ["北京", "上海"], ["A much longer one", "No. 7"], ["Yes.", "No."]),
}
_MASKED = ("A [MASK] text.", "我爱[MASK]京。", "[MASK]", "Two [MASK] in [MASK] text")
_RULES = ("special_tokens", "additional_special_tokens", "split_special_tokens", "added_tokens")


def save_bundle(
    folder: ModelFolder, path: str | os.PathLike, examples: Mapping[str, Sequence] | None = None, **litert
) -> None:
    """Writes the bundle.

    Args:
      folder: the model.
      path: a folder; or an archive, if it ends in ".zip". A bundle that is there is replaced.
      examples: the texts of golden.json by name, such as {"text": [...]}; some of our own by default.
      **litert: quantize, max_length, calibration and keep_float, as `save_litert` takes them.

    Raises:
      ValueError: the model cannot be exported, `examples` are not what it takes, or `path` is something else.
    """
    path = Path(path)
    _check_destination(path)
    served = served_of(folder)
    columns = [*served.text_specs()]
    if examples is None:
        examples = {"text": _MASKED} if folder.task == "masked_lm" else {name: _EXAMPLES[name] for name in columns}
    if {*examples} != {*columns} or len({len(texts) for texts in examples.values()}) != 1:
        raise ValueError(
            f"Expected examples for {', '.join(columns)}, as many of each. Received: "
            + (", ".join(f"{len(texts)} of {name}" for name, texts in examples.items()) or "none")
        )
    if path.suffix != ".zip":
        with atomic_folder(path) as new:
            _write(folder, served, new, examples, litert)
        return
    with scratch_folder(path.absolute().parent, path.name) as scratch, atomic_file(path) as new:
        _write(folder, served, scratch, examples, litert)
        with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(scratch.iterdir()):
                archive.write(file, file.name)


def _check_destination(path):
    if path.is_dir():
        foreign = path.suffix == ".zip" or (any(path.iterdir()) and not (path / "bundle.json").is_file())
    else:
        foreign = path.exists() and path.suffix != ".zip"
    if foreign:
        raise ValueError(
            f"Expected a new folder or .zip file, or an older bundle, to write to. Received: {path}, which is "
            "something else. Choose another name."
        )


def _write(folder, served, path, examples, litert):
    save_litert(folder, path / "model.tflite", **litert)
    tokenizer = folder.tokenizer
    save_vocabulary(tokenizer.vocabulary, path / "vocab.txt", special_pieces(tokenizer))
    rules = tokenizer.get_config()
    strips_accents = rules["lowercase"] if rules["strip_accents"] is None else rules["strip_accents"]
    characters = character_rules(rules["lowercase"], strips_accents, rules["split_chinese"])
    _write_json(path / "characters.json", characters, indent=None)
    if folder.labels is not None:
        (path / "labels.txt").write_bytes("".join(f"{label}\n" for label in folder.labels).encode())
    shutil.copyfile(bundle_tokenizer.__file__, path / "tokenizer.py")
    golden, inputs, difference = _golden(folder, served, path / "model.tflite", examples)
    _write_json(path / "golden.json", golden)
    description = {
        "format_version": 1,
        "task": folder.task,
        "problem_type": folder.problem_type,
        "labels": folder.labels,
        "max_length": folder.max_length,
        "segments": folder.segments,
        "options": folder.options,
        "inputs": inputs,
        "outputs": [*golden[0]["rows"][0]["outputs"]] if golden else [],
        "largest_difference_from_keras": difference,
        "tokenizer": {**{name: rules[name] for name in _RULES}, "hash": tokenizer.hash},
    }
    _write_json(path / "bundle.json", description)


def _write_json(path, values, indent=1):
    path.write_text(json.dumps(values, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


def _golden(folder, served, path, examples):
    """The contents of golden.json, the shapes of the file's inputs, and the largest difference from Keras."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner("serving_default")
    shapes = {name: detail["shape_signature"].tolist() for name, detail in run.get_input_details().items()}
    golden, difference = [], 0.0
    for i in range(len(next(iter(examples.values())))):
        texts = {name: values[i] for name, values in examples.items()}
        columns = {name: tf.constant([value], tf.string) for name, value in texts.items()}
        ids, context = served.encode(columns)
        rows = []
        for row in range(len(ids["input_ids"])):
            fed = {name: _fitted(ids[name][row : row + 1].numpy(), shape) for name, shape in shapes.items()}
            outputs = {name: value for name, value in sorted(run(**fed).items())}
            expected = folder.model(fed, training=False)
            if not isinstance(expected, dict):
                expected = {next(name for name in outputs if name != "probabilities"): expected}
            difference = max(difference, *(np.abs(outputs[name] - value).max() for name, value in expected.items()))
            rows.append({"ids": _as_json(fed), "outputs": _as_json(outputs)})
        answers = {name: value.numpy() for name, value in served.answer(served.outputs(ids), context).items()}
        golden.append({"texts": texts, "rows": rows, "answers": _as_json(answers)})
    return golden, shapes, float(difference)


def _fitted(ids, shape):
    """Ids filled up, or cut, to the last dimension of the shape where that is fixed."""
    if shape[-1] == -1:
        return ids
    ids = ids[..., : shape[-1]]
    return np.pad(ids, [(0, 0)] * (ids.ndim - 1) + [(0, shape[-1] - ids.shape[-1])])


def _as_json(arrays):
    """Arrays as lists; of rows that are one, without that dimension."""

    def plain(value):
        if isinstance(value, list):
            return [plain(one) for one in value]
        return value.decode() if isinstance(value, bytes) else value

    return {name: plain(value.tolist()[0]) for name, value in arrays.items()}


@functools.cache
def character_rules(lowercase: bool, strip_accents: bool, split_chinese: bool) -> dict:
    """The contents of characters.json, read off `tokenizers`, whose ids the tokenizer in the graph gives, too."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    rewrite = BertNormalizer(
        clean_text=True, handle_chinese_chars=False, strip_accents=strip_accents, lowercase=lowercase
    ).normalize_str
    part = BertNormalizer(
        clean_text=False, handle_chinese_chars=split_chinese, strip_accents=False, lowercase=False
    ).normalize_str
    words = BertPreTokenizer().pre_tokenize_str
    drop, space, split, replace = list(range(0xD800, 0xE000)), [], [], {}
    for code in (*range(0xD800), *range(0xE000, 0x110000)):
        character = chr(code)
        new = rewrite(character)
        if new in ("", " "):
            (space if new else drop).append(code)
            continue
        if new != character:
            replace[character] = new
        if part(character) != character or len(words(f"a{character}a")) == 3:
            split.append(code)
    return {"drop": _ranges(sorted(drop)), "space": _ranges(space), "split": _ranges(split), "replace": replace}


def _ranges(codes):
    """First and last of each run of numbers."""
    found = []
    for code in codes:
        if found and code == found[-1][1] + 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found
