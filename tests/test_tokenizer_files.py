"""Tokenizer folders as transformers' AutoTokenizer reads them, and folders that it reads back."""

import os
import pathlib

import pytest
import tokenizers
from tokenizer_folders import (
    BERT,
    CLASS,
    SIZE,
    VOCABULARY,
    add,
    added,
    lines,
    put,
    renamed,
    template,
    with_json,
    with_settings,
    write,
)

from keras_bert.text import Tokenizer, load_max_length, load_tokenizer, load_vocabulary, save_tokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
TEXTS = [
    "A é 中文文 b[SEP]<e> a<e>b",
    "un[MASK]a [mask] [ mask ]",
    "<new> a<new>b <NEW> <n>",
    "E\u0301e, [PAD][CLS] [unused1]",
    "bbb " + "b" * 100 + " " + "b" * 101,
    "<pad> zz <unk>",
    "<1> a<1> x中文文 中文",
    "",
]
MAP, CONFIG, ADDED = "special_tokens_map.json", "tokenizer_config.json", "added_tokens.json"

FOLDERS = {
    "vocab.txt and a model type": {"vocab.txt": lines(), **BERT},
    "of DistilBERT": {"vocab.txt": lines(), "config.json": {"model_type": "distilbert"}},
    "of Electra": with_settings(tokenizer_class="ElectraTokenizer"),
    "Windows line ends": {"vocab.txt": lines().replace("\n", "\r\n"), **BERT},
    "class in config.json": {"vocab.txt": lines(), "config.json": CLASS},
    "cased, no class": {"vocab.txt": lines(), CONFIG: {"do_lower_case": False}, **BERT},
    "cased": with_settings(do_lower_case=False, strip_accents=None),
    "accents kept": with_settings(strip_accents=False),
    "accents dropped, cased": with_settings(strip_accents=True, do_lower_case=False),
    "ideographs joined": with_settings(tokenize_chinese_chars=False),
    "tokenizer.json alone, cased": with_json(lowercase=False),
    "tokenizer.json alone, rules": with_json(strip_accents=False, handle_chinese_chars=False),
    "tokenizer.json alone, a template": with_json(template()),
    "tokenizer.json cased, nothing said": {**with_json(lowercase=False), **BERT},
    "tokenizer.json cased, class named": {**with_json(lowercase=False), CONFIG: CLASS},
    "tokenizer.json lower, settings cased": {
        **with_json(),
        CONFIG: {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False},
    },
    "tokenizer.json decides": {
        **with_json(lowercase=False),
        CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True},
        **BERT,
    },
    "tokenizer.json decides, other names": {
        **with_json(
            pieces=renamed(UNK="<unk>", CLS="<s>", SEP="</s>"), unk_token="<unk>", cls_token="<s>", sep_token="</s>"
        ),
        CONFIG: {"tokenizer_class": "TokenizersBackend", "unk_token": "<unk>", "pad_token": "[PAD]"},
    },
    "all three": {**with_json(), **with_settings(do_lower_case=True, never_split=None, model_max_length=512)},
    "no limit": with_settings(model_max_length=int(1e30)),
    "no type in tokenizer.json": {**with_json(lambda values: values["model"].pop("type")), **BERT},
    "no template, but a model type": {**with_json(put("post_processor", value=None)), **BERT},
    "other names": with_settings(
        renamed(UNK="<unk>", PAD="<pad>"),
        unk_token="<unk>",
        pad_token={"__type": "AddedToken", **added("<pad>")},
    ),
    "marks that transformers writes": with_settings(
        mask_token={"__type": "AddedToken", **added("[MASK]", lstrip=True, rstrip=True)},
        additional_special_tokens=[{"__type": "AddedToken", **added("<e>")}],
    ),
    "other names in the map": {
        **with_settings(renamed(UNK="<unk>"), unk_token="[UNK]"),
        MAP: {"unk_token": {"content": "<unk>", "lstrip": True, "normalized": False}},
    },
    "further pieces": with_settings(additional_special_tokens=["<e>"]),
    "further pieces, new name": with_settings(
        extra_special_tokens=["<e>", {"__type": "AddedToken", **added("[unused1]")}]
    ),
    "further pieces by role": with_settings(extra_special_tokens={"my_token": "<e>"}),
    "further pieces in the map": {**with_settings(), MAP: {"additional_special_tokens": ["<e>"]}},
    "further pieces in the map, and a list": {
        **with_settings(additional_special_tokens=[]),
        MAP: {"additional_special_tokens": ["<e>"]},
    },
    "further pieces in the map, and roles": {
        **with_settings(extra_special_tokens={"my_token": "[unused1]"}),
        MAP: {"additional_special_tokens": ["<e>"]},
    },
    "further pieces in the map, new name": {
        **with_settings(extra_special_tokens=["[unused1]"]),
        MAP: {"additional_special_tokens": ["mask"], "extra_special_tokens": ["<e>"]},
    },
    "further pieces in both": {
        **with_settings(additional_special_tokens=["[unused1]"]),
        MAP: {"additional_special_tokens": ["<e>"]},
    },
    "roles that BERT does not have": with_settings(
        bos_token="<e>", image_token="[unused1]", add_bos_token=True, other_token={"content": "un"}
    ),
    "new pieces": with_settings(bos_token="<n>", additional_special_tokens=["<new>", "<e>"]),
    "added_tokens.json": {
        **with_settings(do_lower_case=False),
        ADDED: {"<new>": SIZE, "<1>": SIZE + 1},
        MAP: {"additional_special_tokens": ["<new>"]},
    },
    "added_tokens.json, not special": {**with_settings(do_lower_case=False), ADDED: {"<new>": SIZE}},
    "added_tokens.json, special": {**with_settings(additional_special_tokens=["<new>"]), ADDED: {"<new>": SIZE}},
    "added_tokens.json, without letters": {**with_settings(), ADDED: {"<1>": SIZE}},
    "added_tokens_decoder": {
        **with_settings(
            added_tokens_decoder={str(SIZE): added("<new>", lstrip=True), "0": added("[PAD]")},
            additional_special_tokens=["<new>"],
        ),
        MAP: {"additional_special_tokens": ["<e>"]},
        ADDED: {"<ignored>": 99},
    },
    "added in tokenizer.json": {**with_json(add("<new>", SIZE)), "vocab.txt": lines(), **BERT},
    "added in tokenizer.json, which decides": with_json(add("<new>", SIZE)),
    "split": with_settings(split_special_tokens=True),
    "paths and code": with_settings(
        vocab_file="/etc/passwd", tokenizer_file="../x.json", auto_map={"AutoTokenizer": ["x.X", None]}
    ),
}


def auto_tokenizer(folder):
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    return transformers.AutoTokenizer.from_pretrained(str(folder))


@pytest.mark.parametrize("name", FOLDERS)
def test_as_autotokenizer(tmp_path, name):
    write(tmp_path, FOLDERS[name])
    other = auto_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocabulary == other.convert_ids_to_tokens(list(range(len(other))))
    assert tokenizer.tokenize(TEXTS).to_list() == other(TEXTS, add_special_tokens=False)["input_ids"]
    a, cls, sep = VOCABULARY.index("a"), tokenizer.cls_id, tokenizer.sep_id
    assert [cls, a, sep, a, sep] == other("a", "a")["input_ids"]
    for role in ("pad", "unk", "mask"):
        expected = getattr(other, f"{role}_token_id")
        assert expected in (None, getattr(tokenizer, f"{role}_id"))
    longest = other.model_max_length
    assert load_max_length(tmp_path) == (longest if longest < 10**9 else None)


def test_normalized_special_pieces(tmp_path):
    """transformers finds them in other cases too; here they are found as they are written."""
    write(tmp_path, with_settings(mask_token={"__type": "AddedToken", **added("[MASK]", normalized=True)}))
    texts = ["a[MASK]b", "a [ mask ] b"]
    ids = load_tokenizer(tmp_path).tokenize(texts).to_list()
    assert ids == auto_tokenizer(tmp_path)(texts, add_special_tokens=False)["input_ids"]


def test_added_ideographs(tmp_path):
    """To transformers, the name of such a piece is with the spaces that its normalizer makes; the ids are the same."""
    write(tmp_path, {**with_settings(), ADDED: {"中文": SIZE}})
    ids = load_tokenizer(tmp_path).tokenize(TEXTS).to_list()
    assert ids == auto_tokenizer(tmp_path)(TEXTS, add_special_tokens=False)["input_ids"]
    assert SIZE in ids[0]


def test_only_a_vocabulary(tmp_path):
    """Google's, say. AutoTokenizer asks for a model type; BertTokenizer takes it for a lower-casing one."""
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    write(tmp_path, {"vocab.txt": lines()})
    other = transformers.BertTokenizerFast.from_pretrained(str(tmp_path))
    assert load_tokenizer(tmp_path).tokenize(TEXTS).to_list() == other(TEXTS, add_special_tokens=False)["input_ids"]
    assert load_max_length(tmp_path) is None


SAVED = {
    "as it is": {},
    "cased": {"lowercase": False},
    "accents kept": {"strip_accents": False},
    "accents dropped, cased": {"lowercase": False, "strip_accents": True},
    "ideographs joined": {"split_chinese": False},
    "other names": {
        "vocabulary": renamed(PAD="<pad>", UNK="<unk>", CLS="<s>", SEP="</s>"),
        "special_tokens": {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"},
    },
    "further pieces": {"additional_special_tokens": ["[unused1]", "<e>"]},
    "split": {"split_special_tokens": True, "additional_special_tokens": ["<e>"]},
    "odd pieces": {"vocabulary": [*VOCABULARY, "\u2028", "\x85", " ", "a b", "\u3000"]},
}


@pytest.mark.parametrize("name", SAVED)
def test_what_is_saved_gives_the_same_ids(tmp_path, name):
    tokenizer = Tokenizer(**{"vocabulary": VOCABULARY, **SAVED[name]})
    folder = tmp_path / "new" / "folder"
    save_tokenizer(tokenizer, folder, model_max_length=77)
    assert {path.name for path in folder.iterdir()} == {MAP, CONFIG, "tokenizer.json", "vocab.txt"}
    loaded = load_tokenizer(folder)
    assert loaded.hash == tokenizer.hash
    assert loaded.special_ids[:5] == tokenizer.special_ids[:5]
    assert sorted(loaded.additional_special_tokens) == sorted(tokenizer.additional_special_tokens)
    assert load_max_length(folder) == 77
    ids = tokenizer.tokenize(TEXTS).to_list()
    assert loaded.tokenize(TEXTS).to_list() == ids

    alone = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    alone.encode_special_tokens = tokenizer.split_special_tokens
    assert [encoding.ids for encoding in alone.encode_batch(TEXTS, add_special_tokens=False)] == ids
    assert alone.encode("a", "b").type_ids == [0, 0, 0, 1, 1]

    other = auto_tokenizer(folder)
    assert type(other).__name__ == "BertTokenizer"
    assert other.model_max_length == 77
    assert other(TEXTS, add_special_tokens=False)["input_ids"] == ids
    assert [getattr(other, f"{role}_id") for role in tokenizer.special_tokens] == tokenizer.special_ids[:5]

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    save_tokenizer(loaded, folder, model_max_length=77)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("files", [("tokenizer.json",), ("vocab.txt", CONFIG, MAP), ("vocab.txt", CONFIG)])
def test_part_of_what_is_saved_is_enough(tmp_path, files):
    tokenizer = Tokenizer(VOCABULARY, lowercase=False, additional_special_tokens=["<e>"])
    save_tokenizer(tokenizer, tmp_path)
    for path in tmp_path.iterdir():
        if path.name not in files:
            path.unlink()
    assert load_tokenizer(tmp_path).hash == tokenizer.hash


def test_for_distilbert(tmp_path):
    save_tokenizer(Tokenizer(VOCABULARY), tmp_path, tokenizer_class="DistilBertTokenizer")
    assert load_tokenizer(tmp_path).hash == Tokenizer(VOCABULARY).hash
    assert sorted(auto_tokenizer(tmp_path)("a")) == ["attention_mask", "input_ids"]
    with pytest.raises(ValueError, match="BertTokenizer or DistilBertTokenizer. Received: tokenizer_class='X'"):
        save_tokenizer(Tokenizer(VOCABULARY), tmp_path, tokenizer_class="X")


@pytest.mark.skipif(not (SHARED / "vocabs").is_dir(), reason=f"no vocabularies at {SHARED / 'vocabs'}")
@pytest.mark.parametrize("name", ["uncased", "cased", "chinese", "multilingual-cased"])
def test_published_vocabularies(tmp_path, name):
    pieces = load_vocabulary(SHARED / "vocabs" / f"bert-base-{name}-vocab.txt")
    tokenizer = Tokenizer(pieces, lowercase=name in ("uncased", "chinese"))
    save_tokenizer(tokenizer, tmp_path, model_max_length=512)
    assert load_tokenizer(tmp_path).hash == tokenizer.hash
