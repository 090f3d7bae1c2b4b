"""Hugging Face's tokenizer.json: what it says of a BERT tokenizer, and one that says it.

A tokenizer.json can describe nearly any tokenizer. What a `Tokenizer` cannot do is an error that names it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from keras_bert.text.tokenizer import Tokenizer
from keras_bert.text.wordpiece import MAX_CHARACTERS_PER_WORD

# The largest real files, of multilingual models of other kinds, have some 20 MB.
_MOST_BYTES = 100_000_000

_OTHER_MODELS = {"Unigram": "a SentencePiece model", "BPE": "byte-pair encoding", "WordLevel": "whole words"}


class AddedToken(NamedTuple):
    """A piece that is found whole in the text."""

    content: str
    single_word: bool = False
    normalized: bool = False
    special: bool = False


def read_added_token(value, path: Path, special: bool = False) -> AddedToken:
    """Reads a piece that is a string or a JSON object; `special` where the object does not say whether it is."""
    if isinstance(value, str) and value:
        return AddedToken(value, special=special)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str) or not value["content"]:
        raise ValueError(f"Expected a piece in {path}, a string or an object with 'content'. Received: {short(value)}")
    # transformers' default: other pieces are looked for after lower case and accents.
    normalized = value.get("normalized", not value.get("special", special))
    is_special = bool(value.get("special", special))
    return AddedToken(value["content"], bool(value.get("single_word")), bool(normalized), is_special)


def pieces_of(backend: Mapping, path: Path) -> list[str]:
    """Returns the pieces in the order of their ids, and checks everything about them but the added ones."""
    model = _part(backend, "model", path)
    kind = model.get("type")
    # Files of 2019 and 2020 do not name the type.
    if kind not in ("WordPiece", None) or (kind is None and "continuing_subword_prefix" not in model):
        raise ValueError(
            f"Expected the model type WordPiece in {path}. Received: {kind!r}"
            + (f", {_OTHER_MODELS[kind]}, which is no BERT's tokenizer." if str(kind) in _OTHER_MODELS else ".")
        )
    for name, expected in {
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": MAX_CHARACTERS_PER_WORD,
    }.items():
        if model.get(name, expected) != expected:
            raise ValueError(
                f"Expected {name} {expected!r} in {path}, the only one that is supported: another gives other ids. "
                f"Received: {short(model[name])}"
            )
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise ValueError(
            f"Expected the vocabulary in {path}, an object of pieces and ids. Received: {short(vocabulary)}"
        )
    pieces = [None] * len(vocabulary)
    for piece, index in vocabulary.items():
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise ValueError(f"Expected whole numbers as ids in {path}. Received: {short(index)} for {piece!r}")
        if index >= len(pieces):
            raise ValueError(
                f"Expected the ids 0 to {len(pieces) - 1} of {len(pieces)} pieces in {path}. Received: {index} for "
                f"{piece!r}, which leaves gaps: some pieces are missing."
            )
        if pieces[index] is not None:
            raise ValueError(
                f"Expected each id once in {path}. Received: {index} for both {pieces[index]!r} and {piece!r}"
            )
        pieces[index] = piece
    return pieces


def without_sequence(normalizer):
    """The normalizer; of lower case before BERT's, as sentence-transformers makes of `do_lower_case`, one of BERT's."""
    parts = normalizer.get("normalizers") if isinstance(normalizer, dict) else None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        return normalizer
    if normalizer.get("type") != "Sequence" or [part.get("type") for part in parts] != ["Lowercase", "BertNormalizer"]:
        return normalizer
    bert = parts[1]
    # The accents stay as BERT's part has it, which takes its own lower case for the answer where nothing is said.
    strips = bert.get("lowercase") if bert.get("strip_accents") is None else bert["strip_accents"]
    return {**bert, "lowercase": True, "strip_accents": strips}


def check_pipeline(backend: Mapping, path: Path) -> None:
    """Raises ValueError unless texts are normalized and split as BERT does."""
    for name, expected in {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}.items():
        part = backend.get(name)
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != expected:
            raise ValueError(
                f"Expected a {name} {expected} in {path}, the only one that is supported: another gives other ids. "
                f"Received: {kind or short(part)}"
            )
    if backend["normalizer"].get("clean_text", True) is not True:
        raise ValueError(f"Expected clean_text true in {path}: false, which gives other ids, is not supported.")


def added_tokens_of(backend: Mapping, path: Path) -> dict[int, AddedToken]:
    """Returns the added pieces by id."""
    values = backend.get("added_tokens", [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"Expected added_tokens in {path} to be a list of objects. Received: {short(values)}")
    found = {}
    for value in values:
        index = value.get("id")
        if isinstance(index, bool) or not isinstance(index, int) or index in found:
            raise ValueError(f"Expected an id of its own for each of added_tokens in {path}. Received: {short(value)}")
        found[index] = read_added_token(value, path)
    return found


def roles_of(backend: Mapping, path: Path) -> dict[str, str]:
    """Returns the pieces of the roles that tokenizer.json itself decides: unk_token, cls_token and sep_token."""
    unknown = _part(backend, "model", path).get("unk_token", "[UNK]")
    template = backend.get("post_processor")
    kind = template.get("type") if isinstance(template, dict) else None
    try:
        if kind == "BertProcessing":
            cls, sep = template["cls"][0], template["sep"][0]
        elif kind == "TemplateProcessing":
            cls, sep = _pieces_of_template(template)
        else:
            raise ValueError
    except (LookupError, StopIteration, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"Expected a post_processor in {path} that packs segments as [CLS] A [SEP] and [CLS] A [SEP] B [SEP], with "
            f"the token types 0 and 1. Received: {short(template)}, which gives other inputs."
        ) from error
    roles = {"unk_token": unknown, "cls_token": cls, "sep_token": sep}
    for role, piece in roles.items():
        if not isinstance(piece, str) or not piece:
            raise ValueError(f"Expected a piece as {role} in {path}. Received: {short(piece)}")
    return roles


def _pieces_of_template(template):
    """Returns the pieces of cls_token and sep_token; ValueError and others for any template but BERT's."""

    def places(name):
        kinds = [next(iter(place.items())) for place in template[name]]
        return [(kind, value["id"], value["type_id"]) for kind, value in kinds]

    single, pair = places("single"), places("pair")
    cls, sep = single[0][1], single[-1][1]
    first = [("SpecialToken", cls, 0), ("Sequence", "A", 0), ("SpecialToken", sep, 0)]
    if single != first or pair != [*first, ("Sequence", "B", 1), ("SpecialToken", sep, 1)]:
        raise ValueError
    # A name stands for pieces, which need not be called as it is.
    ((cls,), (sep,)) = (template["special_tokens"][name]["tokens"] for name in (cls, sep))
    return cls, sep


def _part(backend, name, path):
    part = backend.get(name)
    if not isinstance(part, dict):
        raise ValueError(f"Expected an object '{name}' in {path}. Received: {short(part)}")
    return part


def make_tokenizer_json(tokenizer: Tokenizer) -> str:
    """Returns what a tokenizer.json holds, by which `tokenizers` gives the same ids."""
    from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    ids = {piece: i for i, piece in enumerate(tokenizer.vocabulary)}
    special = tokenizer.special_tokens
    backend = Backend(
        models.WordPiece(ids, unk_token=special["unk_token"], max_input_chars_per_word=MAX_CHARACTERS_PER_WORD)
    )
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(tokenizer.split_chinese),
        strip_accents=tokenizer.strip_accents,
        lowercase=bool(tokenizer.lowercase),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    cls, sep = special["cls_token"], special["sep_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=[f"{cls}:0", "$A:0", f"{sep}:0"],
        pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
        special_tokens=[(cls, tokenizer.cls_id), (sep, tokenizer.sep_id)],
    )
    found_whole = dict.fromkeys((*special.values(), *tokenizer.additional_special_tokens), True)
    found_whole |= dict.fromkeys(tokenizer.added_tokens, False)
    for piece in sorted(found_whole, key=ids.get):
        token = AddedToken(piece, special=found_whole[piece], normalized=False)
        (backend.add_special_tokens if found_whole[piece] else backend.add_tokens)([token])
    return backend.to_str(pretty=True)


def read_json(path: Path) -> dict | None:
    """Returns what a JSON file holds; None if there is no such file."""
    if not path.exists():
        return None
    content = read_bytes(path)
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        what = "an empty file" if not content.strip() else f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(
            f"Expected JSON in {path}. Received: {what}. Was its download interrupted? Get the file again."
        ) from error
    if not isinstance(values, dict):
        raise ValueError(f"Expected a JSON object in {path}. Received: {short(values)}")
    return values


def read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"Expected a file. Received: {path}, which is something else; remove or rename it.")
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"Expected at most {_MOST_BYTES:,} bytes in a tokenizer's file. Received: {size:,} in {path}.")
    return path.read_bytes()


def short(value) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
