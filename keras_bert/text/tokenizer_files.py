"""Tokenizers in Hugging Face's files: vocab.txt, tokenizer.json, tokenizer_config.json and their older companions.

Which file decides is as in transformers 5 (AutoTokenizer, BertTokenizer):
- The pieces come from tokenizer.json, and from vocab.txt where there is none.
- The rules come from tokenizer_config.json, lower case where it says nothing, whatever tokenizer.json says. Only where
  no file names a class or a model type, or the class is one that stands for tokenizer.json itself, its rules count.
- special_tokens_map.json wins over tokenizer_config.json, but neither it nor the added tokens of the other files are
  read where tokenizer_config.json has `added_tokens_decoder`.

Special pieces are found as they are written. transformers 5 finds some of them in any case where the model lower-cases:
[MASK] and the like where a file says `normalized`, and pieces of added_tokens.json that special_tokens_map.json alone
calls special. That is of no use to anyone, and refusing such folders would not be either.
White space around a piece with the flag `lstrip` or `rstrip` is not counted to it in
offsets; ids are the same.

Nothing in these files is executed, and no path that they name is opened.
"""

import json
import os
from pathlib import Path

from keras_bert.atomic import atomic_file
from keras_bert.text.special_tokens import SPECIAL_TOKENS
from keras_bert.text.tokenizer import Tokenizer
from keras_bert.text.tokenizer_json import (
    added_tokens_of,
    check_pipeline,
    make_tokenizer_json,
    pieces_of,
    read_added_token,
    read_bytes,
    read_json,
    roles_of,
    short,
    without_sequence,
)
from keras_bert.text.vocabulary import check_vocabulary, load_vocabulary, save_vocabulary

# Classes and model types for which transformers 5 makes a BertTokenizer, by tokenizer_config.json's rules.
_BERT_CLASSES = tuple(
    f"{name}Tokenizer"
    for name in ("Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "LayoutLM", "Lxmert", "SqueezeBert")
)
_BERT_MODEL_TYPES = ("bert", "distilbert", "electra", "mobilebert", "convbert", "layoutlm", "lxmert", "squeezebert")
# Those for which it takes tokenizer.json as it is.
_FILE_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")
# Every role that names a special piece, in transformers' order, which is that of the ids of new pieces.
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# Settings of tokenizer_config.json that change ids, with the only value that is supported.
_FIXED_SETTINGS = {
    "do_basic_tokenize": True,
    "wordpieces_prefix": "##",
    "clean_text": True,
    "padding_side": "right",
    "truncation_side": "right",
}
# Where no maximum is known, transformers writes int(1e30).
_NO_MAXIMUM = 1_000_000_000


def load_tokenizer(folder: str | os.PathLike) -> Tokenizer:
    """Makes the tokenizer of a checkpoint folder in Hugging Face's format.

    Raises:
        FileNotFoundError: there is no folder, or no vocabulary in it.
        ValueError: a file is damaged, files disagree about the pieces, or the tokenizer is of another kind than BERT's,
            or has a setting that changes ids and is not supported; the message names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Expected a folder with vocab.txt or tokenizer.json. Received: {folder}, which "
            + ("is a file; give its folder." if folder.exists() else "does not exist.")
        )
    settings = read_json(folder / "tokenizer_config.json") or {}
    backend = read_json(folder / "tokenizer.json")
    by_backend = _is_backend_alone(folder, settings, backend)
    file = folder / "tokenizer.json"
    if backend is None:
        pieces = _read_vocabulary(folder)
    else:
        backend = {**backend, "normalizer": without_sequence(backend.get("normalizer"))}
        check_pipeline(backend, file)
        pieces = pieces_of(backend, file)
    known = len(pieces)

    named, further, added = _special_tokens(settings, folder, backend, by_backend)
    roles = {role: named[role].content if role in named else piece for role, piece in SPECIAL_TOKENS.items()}
    if by_backend:
        roles |= roles_of(backend, file)
        padding = backend.get("padding")
        if "pad_token" not in named and isinstance(padding, dict) and isinstance(padding.get("pad_token"), str):
            roles["pad_token"] = padding["pad_token"]
    # A piece that the vocabulary lacks gets the next id, as in transformers; but one of BERT's own must be there.
    ids = {piece: i for i, piece in enumerate(pieces)}
    for index, token in sorted(added.items()):
        _add_piece(pieces, ids, index, token.content, folder)
    check_vocabulary(pieces, str(folder), tuple(roles.values()))
    for token in (*named.values(), *further):
        _add_piece(pieces, ids, None, token.content, folder)
    if backend is not None and (folder / "vocab.txt").exists():
        _check_same_pieces(_read_vocabulary(folder), pieces, known, folder)

    if by_backend:
        rules = _rules(backend["normalizer"], ("lowercase", "strip_accents", "handle_chinese_chars"), None, file)
    else:
        names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
        rules = _rules(settings, names, True, folder / "tokenizer_config.json")
    found_whole = {token.content: token for token in (*further, *named.values(), *added.values())}
    special = {token.content for token in (*further, *named.values(), *added.values()) if token.special}
    if by_backend and not found_whole.keys() >= {*roles.values()}:
        raise ValueError(
            f"Expected all special pieces among added_tokens in {file}: {', '.join(roles.values())}. Missing: "
            f"{', '.join(sorted({*roles.values()} - found_whole.keys()))}. Those are found in texts, others are not."
        )
    _check_found_whole(found_whole.values(), roles.values(), rules, folder)
    _check_settings(settings, {*roles.values(), *found_whole}, folder / "tokenizer_config.json")
    return Tokenizer(
        pieces,
        **rules,
        special_tokens=roles,
        additional_special_tokens=sorted(special - {*roles.values()}, key=ids.get),
        added_tokens=sorted(found_whole.keys() - special - {*roles.values()}, key=ids.get),
        split_special_tokens=_boolean(settings, "split_special_tokens", False, folder / "tokenizer_config.json"),
    )


def load_max_length(folder: str | os.PathLike) -> int | None:
    """Returns `model_max_length` of a folder's tokenizer_config.json; None where it is not there or no limit."""
    path = Path(folder) / "tokenizer_config.json"
    settings = read_json(path) or {}
    value = settings.get("model_max_length", settings.get("max_len"))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        raise ValueError(f"Expected model_max_length in {path} to be a number of tokens. Received: {value!r}")
    return int(value) if value < _NO_MAXIMUM else None


def save_tokenizer(
    tokenizer: Tokenizer,
    folder: str | os.PathLike,
    model_max_length: int | None = None,
    tokenizer_class: str = "BertTokenizer",
) -> None:
    """Writes vocab.txt, tokenizer.json, tokenizer_config.json and special_tokens_map.json for Hugging Face's libraries.

    transformers' AutoTokenizer and BertTokenizerFast then give the same ids, as does `load_tokenizer`. Each file
    appears whole or not at all; other files of the folder, which is made if it does not exist, stay as they are.

    Args:
        model_max_length: the most tokens that the model takes; None: not recorded.
        tokenizer_class: "BertTokenizer" or "DistilBertTokenizer"; the latter returns no token types.
    """
    if tokenizer_class not in ("BertTokenizer", "DistilBertTokenizer"):
        raise ValueError(
            f"Expected BertTokenizer or DistilBertTokenizer. Received: tokenizer_class={tokenizer_class!r}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    special = tokenizer.special_tokens
    additional = sorted(tokenizer.additional_special_tokens, key=tokenizer.vocabulary.index)
    names = {**special, **({"additional_special_tokens": additional} if additional else {})}
    settings = {
        "tokenizer_class": tokenizer_class,
        "do_lower_case": bool(tokenizer.lowercase),
        "strip_accents": tokenizer.strip_accents,
        "tokenize_chinese_chars": bool(tokenizer.split_chinese),
        **names,
        **({"split_special_tokens": True} if tokenizer.split_special_tokens else {}),
        **({"model_max_length": model_max_length} if model_max_length is not None else {}),
    }
    must_hold = (*special.values(), *additional, *tokenizer.added_tokens)
    save_vocabulary(tokenizer.vocabulary, folder / "vocab.txt", must_hold)
    _write(folder / "tokenizer.json", make_tokenizer_json(tokenizer))
    _write(folder / "tokenizer_config.json", json.dumps(settings, indent=2, ensure_ascii=False))
    _write(folder / "special_tokens_map.json", json.dumps(names, indent=2, ensure_ascii=False))


def _write(path, text):
    with atomic_file(path) as scratch:
        scratch.write_text(f"{text}\n", encoding="utf-8", newline="\n")


def _is_backend_alone(folder, settings, backend):
    """Whether tokenizer.json says everything; ValueError for other tokenizers than BERT's."""
    config = read_json(folder / "config.json") or {}
    name = settings.get("tokenizer_class") or config.get("tokenizer_class")
    model_type = config.get("model_type")
    if name is None:
        if model_type in _BERT_MODEL_TYPES:
            return False
        if model_type is None:
            return backend is not None
        raise ValueError(
            f"Expected the tokenizer of a BERT model. Received: {folder}, with the model_type {short(model_type)} in "
            f"config.json; if its tokenizer is BERT's, write tokenizer_class BertTokenizer into tokenizer_config.json."
        )
    base = name.removesuffix("Fast") if isinstance(name, str) else name
    if base in _BERT_CLASSES:
        return False
    if base not in _FILE_CLASSES:
        raise ValueError(
            f"Expected a tokenizer_class of BERT's kind, such as BertTokenizer. Received: {short(name)} in {folder}, "
            "which makes ids in another way."
        )
    if backend is None:
        raise ValueError(
            f"Expected tokenizer.json in {folder}: its tokenizer_class, {name}, has its rules there. Received: "
            f"{_names(folder)}"
        )
    return True


def _read_vocabulary(folder):
    path = folder / "vocab.txt"
    if path.exists():
        read_bytes(path)
        return load_vocabulary(path, special_pieces=())
    others = sorted(file.name for file in folder.glob("*.model"))
    if others:
        raise ValueError(
            f"Expected BERT's WordPiece vocabulary, vocab.txt or tokenizer.json. Received: {', '.join(others)} in "
            f"{folder}, a SentencePiece model, which makes ids in another way."
        )
    raise FileNotFoundError(f"Expected vocab.txt or tokenizer.json in {folder}. Received: {_names(folder)}")


def _names(folder):
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if names[10:] else "") or "an empty folder"


def _special_tokens(settings, folder, backend, by_backend):
    """Returns named pieces by role, further special pieces, and added pieces by id."""
    path = folder / "tokenizer_config.json"
    map_path, added_path = folder / "special_tokens_map.json", folder / "added_tokens.json"
    new, old = "extra_special_tokens", "additional_special_tokens"
    extra = settings.get(new) or settings.get(old, settings.get(new))
    older = {}
    if "added_tokens_decoder" in settings:
        added = _by_id(settings["added_tokens_decoder"], path)
    else:
        older = read_json(map_path) or {}
        added = {}
    values = {**settings, **older}
    named = {}
    for role in (*_ROLES, *(key for key in values if key.endswith("_token") and key not in _ROLES)):
        source = map_path if role in older else path
        value = values.get(role)
        # Not add_bos_token and such; nor, of roles that transformers does not know, what it does not take for a piece.
        if value is None or isinstance(value, bool):
            continue
        if role not in _ROLES and role in settings and not (isinstance(value, str) or _is_typed(value)):
            continue
        named[role] = read_added_token(value, source, special=True)
    further = _listed(extra, path) + _listed(older.get(new), map_path)
    # A list in the settings, even an empty one, hides that of the older name in the map.
    if new not in older and (isinstance(extra, dict) or not {new, old} & settings.keys()):
        further += _listed(older.get(old), map_path)
    if "added_tokens_decoder" not in settings:
        special = {token.content for token in (*named.values(), *further)}
        for piece, index in (read_json(added_path) or {}).items():
            _check_id(index, added, added_path)
            added[index] = read_added_token({"content": piece, "special": piece in special}, added_path)
        if backend is not None:
            added |= added_tokens_of(backend, folder / "tokenizer.json")
    elif by_backend:
        added = {**added_tokens_of(backend, folder / "tokenizer.json"), **added}
    return named, further, added


def _is_typed(value):
    return isinstance(value, dict) and "__type" in value


def _listed(values, path):
    """Reads a list of pieces, or an object of them."""
    if isinstance(values, dict):
        values = list(values.values())
    if values is not None and not isinstance(values, list):
        raise ValueError(f"Expected a list of special pieces in {path}. Received: {short(values)}")
    return [read_added_token(value, path, special=True) for value in values or ()]


def _by_id(values, path):
    if not isinstance(values, dict):
        raise ValueError(f"Expected added_tokens_decoder in {path} to be an object. Received: {short(values)}")
    added = {}
    for key, value in values.items():
        index = int(key) if key.isdecimal() and len(key) < 10 else key
        _check_id(index, added, path)
        added[index] = read_added_token(value, path)
    return added


def _check_id(index, added, path):
    if isinstance(index, bool) or not isinstance(index, int) or index < 0 or index in added:
        raise ValueError(f"Expected each added piece in {path} to have an id of its own. Received: {short(index)}")


def _add_piece(pieces, ids, index, piece, path):
    """Appends a piece that the vocabulary lacks; ValueError where its id is not the next one."""
    if piece not in ids:
        ids[piece] = len(pieces)
        pieces.append(piece)
    if index is not None and ids[piece] != index:
        raise ValueError(
            f"Expected the added piece {piece!r} in {path} to have the id {ids[piece]}, by the vocabulary. Received: "
            f"{index}; the files belong to different tokenizers, or pieces are missing."
        )


def _check_same_pieces(listed, pieces, known, folder):
    """vocab.txt may or may not hold the added pieces; all others must be those of tokenizer.json."""
    differs = next((i for i, (one, other) in enumerate(zip(listed, pieces, strict=False)) if one != other), None)
    if differs is not None:
        what = f"at id {differs} {listed[differs]!r} in the former and {pieces[differs]!r} in the latter"
    elif not known <= len(listed) <= len(pieces):
        what = f"{len(listed)} pieces in the former and {len(pieces)} in the latter"
    else:
        return
    raise ValueError(
        f"Expected the same pieces in {folder / 'vocab.txt'} and tokenizer.json. Received: {what}. Remove the file "
        "that does not belong to the model."
    )


def _rules(values, names, default, path):
    lowercase, strip_accents, split_chinese = names
    return {
        "lowercase": _boolean(values, lowercase, default, path),
        "strip_accents": None if values.get(strip_accents) is None else _boolean(values, strip_accents, None, path),
        "split_chinese": _boolean(values, split_chinese, default, path),
    }


def _boolean(values, name, default, path):
    value = values.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"Expected {name} in {path} to be true or false. Received: {short(value)}")
    return value


def _check_found_whole(tokens, roles, rules, path):
    """Raises ValueError for pieces that transformers finds in the text in another way than as they are written."""
    stripped = rules["lowercase"] if rules["strip_accents"] is None else rules["strip_accents"]
    lowers = rules["lowercase"] or stripped
    for token in tokens:
        if token.single_word:
            raise ValueError(
                f"Expected pieces that are found inside words too. Received: single_word for {token.content!r} in "
                f"{path}, which is not supported and gives other ids."
            )
        # After lower case and accents, other texts can match it too, unless it has no letters or only ideographs.
        other_forms = token.content not in roles and not all(map(_has_one_form, token.content))
        if token.normalized and lowers and other_forms:
            raise ValueError(
                f"Expected added pieces that are looked for before lower case and accents. Received: normalized for "
                f"{token.content!r} in {path}, which is not supported and gives other ids; if the model never saw it "
                'in another case, write "normalized": false.'
            )


def _has_one_form(character):
    return not character.isalpha() or "\u4e00" <= character <= "\u9fff"


def _check_settings(settings, found_whole, path):
    for name, expected in _FIXED_SETTINGS.items():
        if settings.get(name, expected) not in (expected, None):
            raise ValueError(
                f"Expected {name} {expected!r} in {path}: another value gives other ids and is not supported. "
                f"Received: {short(settings[name])}"
            )
    never_split = settings.get("never_split") or []
    if not isinstance(never_split, list) or not all(piece in found_whole for piece in never_split):
        raise ValueError(
            f"Expected only special pieces in never_split in {path}. Received: {short(never_split)}; transformers 5 "
            "ignores it: remove it to do the same, or add its pieces to additional_special_tokens."
        )
