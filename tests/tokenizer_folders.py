"""What the tests of tokenizer files share: a small vocabulary, and folders in Hugging Face's format."""

import json

import tokenizers

from keras_bert.text.vocabulary import SPECIAL_PIECES

VOCABULARY = [*SPECIAL_PIECES, *"abcAé中文<>e,[]", "##b", "<e>", "##文", "[unused1]", "mask", "un", "##a"]
SIZE = len(VOCABULARY)
BERT = {"config.json": {"model_type": "bert"}}
CLASS = {"tokenizer_class": "BertTokenizer"}


def lines(pieces=VOCABULARY) -> str:
    """A vocab.txt."""
    return "".join(f"{piece}\n" for piece in pieces)


def renamed(**names):
    """The vocabulary with other names for special pieces."""
    return [names.get(piece.strip("[]"), piece) for piece in VOCABULARY]


def with_settings(pieces=VOCABULARY, **settings) -> dict:
    """A folder with vocab.txt and tokenizer_config.json."""
    return {"vocab.txt": lines(pieces), "tokenizer_config.json": {**CLASS, **settings}}


def with_json(change=None, pieces=VOCABULARY, **rules) -> dict:
    """A folder with a tokenizer.json as `tokenizers` writes it, but for what `change` does to it."""
    backend = tokenizers.BertWordPieceTokenizer({piece: i for i, piece in enumerate(pieces)}, **rules)
    values = json.loads(backend.to_str())
    if change:
        change(values)
    return {"tokenizer.json": values}


def put(*keys, value):
    """Changes one entry of a tokenizer.json."""

    def change(values):
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return change


def add(content, index, **flags):
    """Adds a piece to a tokenizer.json."""
    return lambda values: values["added_tokens"].append({"id": index, **added(content, **flags)})


def added(content, **flags) -> dict:
    flags = {"special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False, **flags}
    return {"content": content, **flags}


def template(single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"):
    """Makes the template of a tokenizer.json."""
    special = [("[CLS]", VOCABULARY.index("[CLS]")), ("[SEP]", VOCABULARY.index("[SEP]"))]
    made = tokenizers.processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    return put("post_processor", value=json.loads(made.__getstate__()))


def write(folder, files) -> None:
    for name, content in files.items():
        content = content if isinstance(content, (str, bytes)) else json.dumps(content)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
