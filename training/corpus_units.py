"""The first pass over a corpus: the text of a unit becomes ids, in files that the second pass takes its pieces from.

A unit's folder holds raw arrays: `ids`, `sentences` (tokens of each), `documents` (DOCUMENT records), and, where they
are asked for, `word_starts` and `signatures`; `counts.json` says how much there is. It appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_bert.atomic import atomic_folder
from keras_bert.training import text_files
from keras_bert.training.corpus_duplicates import DOCUMENT, signatures
from keras_bert.training.corpus_readers import Part, holds_records, read_documents

_BATCH_CHARACTERS = 1 << 20
_BATCH_SENTENCES = 8192


class UnitTokenizer:
    """What a worker needs for the first pass.

    Args:
      tokenizer: a `Tokenizer`.
      sentence_splitter: text to sentences; None: `text_files.split_sentences`.
      segmenter: text to words, for word_starts; None: none are written.
      near_duplicates: whether they will be looked for.
    """

    def __init__(
        self,
        tokenizer,
        documents: str,
        text_field: str,
        sentence_splitter: Callable | None,
        segmenter: Callable | None,
        near_duplicates: bool,
    ):
        self.tokenizer = tokenizer
        self.documents, self.text_field = documents, text_field
        self.split = sentence_splitter or text_files.split_sentences
        self.segmenter = segmenter
        self.near_duplicates = near_duplicates

    def write(self, unit: Sequence[Part], folder: Path) -> dict:
        """Writes a unit's folder; returns its counts: documents, sentences, tokens, unknown and empty."""
        counts = {"documents": 0, "sentences": 0, "tokens": 0, "unknown": 0, "empty": 0}
        with atomic_folder(folder) as scratch:
            names = ["ids", "sentences", "documents"]
            names += ["word_starts"] * (self.segmenter is not None) + ["signatures"] * self.near_duplicates
            files = {name: open(scratch / name, "wb") for name in names}  # noqa: SIM115  closed below
            try:
                for batch in self._batches(unit, counts):
                    for name, array in self._tokenize(batch, counts).items():
                        files[name].write(array.tobytes())
            finally:
                for file in files.values():
                    file.close()
            (scratch / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
        return counts

    def _batches(self, unit: Iterable[Part], counts: dict) -> Iterator[list[list[str]]]:
        batch: list[list[str]] = []
        characters = sentences = 0
        for part in unit:
            for text in read_documents(part, self.documents, self.text_field):
                document = self.split(text)
                if not document:
                    counts["empty"] += holds_records(part) or bool(text.strip())  # blank lines are no documents
                    continue
                batch.append(document)
                characters += len(text)
                sentences += len(document)
                if characters > _BATCH_CHARACTERS or sentences > _BATCH_SENTENCES:
                    yield batch
                    batch, characters, sentences = [], 0, 0
        if batch:
            yield batch

    def _tokenize(self, batch: list[list[str]], counts: dict) -> dict[str, np.ndarray]:
        sentences = [sentence for document in batch for sentence in document]
        if self.segmenter is None:
            ragged, word_starts = self.tokenizer.tokenize(sentences), None
        else:
            ragged, starts, _ = self.tokenizer.tokenize_with_offsets(sentences)
            word_starts = _word_starts(sentences, starts.flat_values.numpy(), starts.row_splits.numpy(), self.segmenter)
        ids = ragged.flat_values.numpy()
        splits = ragged.row_splits.numpy()
        of_sentence = np.diff(splits)
        ends = np.cumsum([len(document) for document in batch])
        begins = np.concatenate([[0], ends[:-1]])
        kept = np.concatenate([[0], np.cumsum(of_sentence > 0)])
        documents = np.empty(len(batch), DOCUMENT)
        documents["sentences"] = kept[ends] - kept[begins]
        documents["tokens"] = splits[ends] - splits[begins]
        has_tokens = documents["tokens"] > 0
        texts = ["\n".join(document) for document, some in zip(batch, has_tokens, strict=True) if some]
        documents = documents[has_tokens]
        digests = b"".join(
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts
        )
        documents["hash"] = np.frombuffer(digests, "<u8").reshape(-1, 2)
        counts["documents"] += len(documents)
        counts["sentences"] += int(documents["sentences"].sum())
        counts["tokens"] += len(ids)
        counts["unknown"] += int(np.count_nonzero(ids == self.tokenizer.unk_id))
        counts["empty"] += len(batch) - len(documents)
        arrays = {
            "ids": ids.astype(id_type(self.tokenizer.vocab_size)),
            "sentences": of_sentence[of_sentence > 0].astype("<u4"),
            "documents": documents,
        }
        if word_starts is not None:
            arrays["word_starts"] = word_starts
        if self.near_duplicates:
            arrays["signatures"] = signatures(texts)
        return arrays


def id_type(vocab_size: int) -> str:
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


def read_counts(folder: Path) -> dict | None:
    """The counts of a unit that is finished."""
    try:
        return json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def callable_name(function: Callable | str | None) -> str | None:
    """`module:function`, by which a worker and a restarted run know a function again."""
    if function is None or isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", type(function).__qualname__)
    return f"{module}:{name}"


def find_callable(name: Callable | str | None) -> Callable | None:
    """The function that `module:function` names; a function is itself."""
    if name is None or callable(name):
        return name
    module, separator, path = name.partition(":")
    try:
        if not (module and separator and path):
            raise ValueError("no colon in it")
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        if not callable(found):
            raise TypeError(f"a {type(found).__name__}")
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"Expected a function as module:function, such as jieba:lcut, that can be imported. Received: {name} "
            f"({error})"
        ) from error
    return found


def _word_starts(sentences: list[str], starts: np.ndarray, splits: np.ndarray, segmenter: Callable) -> np.ndarray:
    """1 where a piece begins a word of the segmenter's, uint8 `(T,)`; `starts` are characters of the sentences."""
    result = np.ones(len(starts), np.uint8)
    for sentence, begin, end in zip(sentences, splits, splits[1:], strict=False):
        if begin == end:
            continue
        # Lone surrogates and such are no characters for the tokenizer.
        text = sentence.encode("utf-8", "ignore").decode("utf-8")
        word_of = np.arange(-1, -len(text) - 1, -1)  # what is in no word is a word of its own
        place = 0
        for number, word in enumerate(segmenter(text)):
            found = text.find(word, place) if isinstance(word, str) else -1
            if found < 0:
                raise ValueError(
                    "Expected the segmenter to give the words of the text, unchanged and in order. Received: "
                    f"{str(word)[:40]!r} where {text[place : place + 40]!r} goes on."
                )
            place = found + len(word)
            word_of[found:place] = number
        words = word_of[starts[begin:end]]
        result[begin + 1 : end] = words[1:] != words[:-1]
    return result
