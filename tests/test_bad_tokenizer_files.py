"""Tokenizer folders that are damaged, of another kind, or would give other ids: each is refused, and says why."""

import json
import re

import pytest
from tokenizer_folders import (
    BERT,
    SIZE,
    VOCABULARY,
    add,
    added,
    lines,
    put,
    template,
    with_json,
    with_settings,
    write,
)

from keras_bert.text import load_max_length, load_tokenizer

CONFIG, ADDED = "tokenizer_config.json", "added_tokens.json"
UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]]}
NO_CLS = [piece for piece in VOCABULARY if piece not in ("[CLS]", "[MASK]")]

OTHER_KINDS = [
    ({"spiece.model": b"\n\x0e", CONFIG: {}}, "Received: spiece.model in .*, a SentencePiece model"),
    (with_settings(tokenizer_class="XLMRobertaTokenizer"), "tokenizer_class of BERT's kind.*'XLMRobertaTokenizer'"),
    (with_settings(tokenizer_class="BertJapaneseTokenizer"), "'BertJapaneseTokenizer' in .*ids in another way"),
    (with_settings(tokenizer_class=3), "tokenizer_class of BERT's kind.*Received: 3"),
    ({"vocab.txt": lines(), "config.json": {"model_type": "mpnet"}}, "the model_type 'mpnet' in config.json"),
    (
        with_settings(tokenizer_class="PreTrainedTokenizerFast"),
        "Expected tokenizer.json in .*PreTrainedTokenizerFast.*Received: tokenizer_config.json, vocab.txt",
    ),
    ({**with_json(put("model", value=UNIGRAM)), **BERT}, "model type WordPiece.*'Unigram', a SentencePiece model"),
    (with_json(put("model", "type", value="BPE")), "Received: 'BPE', byte-pair encoding"),
    (with_json(put("model", "type", value="New")), "Received: 'New'"),
    ({"vocab.txt": '!\n"\n'}, "Is it the vocabulary of a BERT model"),
]

DAMAGED = [
    ({"tokenizer.json": json.dumps(with_json())[:500]}, "Expected JSON in .*JSONDecodeError.*interrupted"),
    ({"tokenizer.json": ""}, "tokenizer.json. Received: an empty file"),
    ({"vocab.txt": lines(), CONFIG: "\n"}, "tokenizer_config.json. Received: an empty file"),
    ({"vocab.txt": lines(), CONFIG: {}, "special_tokens_map.json": "{"}, "Expected JSON in .*special_tokens_map.json"),
    ({"vocab.txt": lines(), CONFIG: {}, ADDED: "[]"}, r"JSON object in .*added_tokens.json. Received: \[\]"),
    ({"vocab.txt": "\n"}, "the file is empty"),
    ({"vocab.txt": b"\0"}, "which is binary"),
    ({"tokenizer.json": "<html>"}, "Expected JSON in .*tokenizer.json"),
    ({"tokenizer.json": b'{"a": "\xe9"}'}, "UnicodeDecodeError"),
    ({"tokenizer.json": "[" * 200_000}, "RecursionError|JSONDecodeError"),
    ({"tokenizer.json": "[1]"}, r"JSON object in .*Received: \[1\]"),
    ({"tokenizer.json": {}}, "Expected a normalizer BertNormalizer.*Received: None"),
    (with_json(put("model", value=[1])), r"object 'model' in .*Received: \[1\]"),
    (with_json(put("model", "vocab", value={})), r"Expected the vocabulary in .*Received: {}"),
    (with_json(put("model", "vocab", value=["a"])), "Expected the vocabulary in"),
    (with_json(put("model", "vocab", "a", value=6)), "Received: 6 for both 'a' and 'b'"),
    (with_json(put("model", "vocab", "a", value=99)), "Received: 99 for 'a', which leaves gaps"),
    (with_json(put("model", "vocab", "a", value="5")), "Received: '5' for 'a'"),
    (with_json(put("model", "vocab", "a", value=-1)), "Received: -1 for 'a'"),
    (with_json(put("model", "unk_token", value="<unk>")), "Missing: <unk>"),
    (with_json(put("model", "unk_token", value=None)), "piece as unk_token .*Received: None"),
    (with_json(put("model", "type", value=["BPE"])), r"Received: \['BPE'\]"),
    (with_json(put("normalizer", value={"type": "BertNormalizer"})), "lowercase in .*Received: None"),
    (with_json(put("added_tokens", value={})), "added_tokens in .*to be a list"),
    (with_json(add("x", 0)), "added_tokens in .*'x'"),
    (with_json(add("<e>", SIZE)), f"'<e>' .*id {VOCABULARY.index('<e>')}, .*Received: {SIZE}"),
    (with_json(add("<n>", SIZE + 5)), f"id {SIZE}, .*Received: {SIZE + 5}"),
    ({**with_json(), "vocab.txt": lines(VOCABULARY[::-1])}, r"at id 0 '##a' in the former and '\[PAD\]' in the latter"),
    ({**with_json(), "vocab.txt": lines(VOCABULARY[:9])}, f"9 pieces in the former and {SIZE} in the latter"),
    ({**with_json(), "vocab.txt": lines([*VOCABULARY, "x"])}, f"{SIZE + 1} pieces in the former"),
    ({"vocab.txt": lines([*VOCABULARY, "a"])}, f"'a' in lines 6, {SIZE + 1}"),
    ({"vocab.txt": lines(NO_CLS)}, r"Missing: \[CLS\], \[MASK\]"),
    (with_settings(do_lower_case="false"), "do_lower_case in .*Received: 'false'"),
    (with_settings(strip_accents=1), "strip_accents in .*Received: 1"),
    (with_settings(additional_special_tokens="<e>"), "list of special pieces.*'<e>'"),
    (with_settings(additional_special_tokens=[3]), "Expected a piece in .*Received: 3"),
    (with_settings(cls_token={"lstrip": True}), "Expected a piece in .*lstrip"),
    (with_settings(added_tokens_decoder=[]), "added_tokens_decoder in .*to be an object"),
    (with_settings(added_tokens_decoder={"x": added("<n>")}), "id of its own. Received: 'x'"),
    ({**with_settings(), ADDED: {"<n>": "1"}}, "id of its own. Received: '1'"),
]

OTHER_IDS = [
    (with_json(put("model", "continuing_subword_prefix", value="@@")), "continuing_subword_prefix '##'.*'@@'"),
    (with_json(put("model", "max_input_chars_per_word", value=200)), "max_input_chars_per_word 100.*Received: 200"),
    (with_json(put("normalizer", value=None)), "normalizer BertNormalizer.*Received: None"),
    (with_json(put("normalizer", value={"type": "NFC"})), "normalizer BertNormalizer.*Received: NFC"),
    (with_json(put("normalizer", "clean_text", value=False)), "clean_text true"),
    (with_json(put("pre_tokenizer", value={"type": "Whitespace"})), "BertPreTokenizer.*Received: Whitespace"),
    (with_json(put("post_processor", value=None)), "post_processor.*Received: None"),
    (with_json(put("post_processor", value={"type": "RobertaProcessing"})), "post_processor.*gives other inputs"),
    (with_json(put("post_processor", value={"type": "TemplateProcessing", "single": [{}]})), "gives other inputs"),
    (
        with_json(put("added_tokens", value=[{"id": 0, **added("[PAD]")}])),
        r"Missing: \[CLS\], \[MASK\], \[SEP\], \[UNK\]",
    ),
    (with_json(template(single="[CLS]:0 $A:0")), "post_processor.*gives other inputs"),
    (with_json(template(pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0")), "post_processor.*gives other inputs"),
    (with_settings(do_basic_tokenize=False), "do_basic_tokenize True.*Received: False"),
    (with_settings(padding_side="left"), "padding_side 'right'.*Received: 'left'"),
    (with_settings(never_split=["un"]), r"never_split.*Received: \['un'\]"),
    (with_settings(added_tokens_decoder={SIZE: added("<n>", single_word=True)}), "single_word for '<n>'"),
    ({**with_settings(), ADDED: {"covid": SIZE}}, "normalized for 'covid'.*\"normalized\": false"),
]


@pytest.mark.parametrize(("files", "message"), [*OTHER_KINDS, *DAMAGED, *OTHER_IDS])
def test_what_cannot_be_loaded_is_named(tmp_path, files, message):
    write(tmp_path, files)
    with pytest.raises(ValueError, match=r"Expected|Received") as raised:
        load_tokenizer(tmp_path)
    assert re.search(message, str(raised.value)), str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(("files", "message"), [({}, "an empty folder"), ({"weights.bin": ""}, "weights.bin")])
def test_nothing_to_load(tmp_path, files, message):
    write(tmp_path, files)
    with pytest.raises(FileNotFoundError, match=f"Expected vocab.txt or tokenizer.json in .*Received: {message}"):
        load_tokenizer(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="none, which does not exist"):
        load_tokenizer(tmp_path / "none")
    write(tmp_path, {"vocab.txt": lines()})
    with pytest.raises(FileNotFoundError, match=r"vocab.txt, which is a file; give its folder"):
        load_tokenizer(tmp_path / "vocab.txt")


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", CONFIG])
def test_files_that_are_none(tmp_path, name):
    write(tmp_path, with_settings())
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"Expected a file. Received: .*{name}"):
        load_tokenizer(tmp_path)
    (tmp_path / name).rmdir()
    with open(tmp_path / name, "wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(ValueError, match=f"at most 100,000,000 bytes.*Received: 200,000,000 in .*{name}"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("value", ["512", 0, -1, True, [512]])
def test_max_length_is_a_number(tmp_path, value):
    write(tmp_path, {CONFIG: {"model_max_length": value}})
    with pytest.raises(ValueError, match="model_max_length in .* to be a number of tokens. Received"):
        load_max_length(tmp_path)
