"""Added pieces that are no special ones, as a model gets them that learnt words of its own: beside `tokenizers`."""

import pytest
import tokenizers

import keras_bert as kb

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), "covid", "<e1>"]
TEXTS = ["a covid test", "xcovidy <e1>covid[MASK]", "Covid covidcovid", "", "no such word"]


def ours(**options):
    return kb.Tokenizer(
        VOCABULARY, lowercase=False, additional_special_tokens=["<e1>"], added_tokens=["covid"], **options
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    kb.save_tokenizer(ours(), folder)
    return folder


def test_ids_offsets_and_text_are_those_of_tokenizers(saved):
    theirs = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    encodings = theirs.encode_batch(TEXTS, add_special_tokens=False)
    ids, starts, ends = ours().tokenize_with_offsets(TEXTS)
    assert ids.to_list() == [encoding.ids for encoding in encodings]
    offsets = [list(zip(*row, strict=True)) for row in zip(starts.to_list(), ends.to_list(), strict=True)]
    assert offsets == [encoding.offsets for encoding in encodings]
    texts = [text.decode() for text in ours().detokenize(ids).numpy()]
    assert texts == [theirs.decode(encoding.ids) for encoding in encodings]
    assert "covid" in texts[0]
    assert "<e1>" not in texts[1]


def test_transformers_finds_them_the_same(saved):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra test-parity)")
    theirs = transformers.AutoTokenizer.from_pretrained(saved)
    assert ours().tokenize(TEXTS).to_list() == [theirs(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert "covid" not in theirs.all_special_tokens
    assert "<e1>" in theirs.all_special_tokens


def test_they_come_back_and_count_for_the_hash(saved):
    again = kb.load_tokenizer(saved)
    assert (again.added_tokens, again.additional_special_tokens) == (["covid"], ["<e1>"])
    assert again.hash == ours().hash == kb.Tokenizer.from_config(ours().get_config()).hash
    assert again.hash != kb.Tokenizer(VOCABULARY, lowercase=False, additional_special_tokens=["<e1>"]).hash


def test_a_file_whose_special_pieces_have_other_names(tmp_path):
    roles = {"pad_token": "<pad>", "unk_token": "<unk>"}
    pieces = ["<pad>", "<unk>", *VOCABULARY[2:]]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    read = kb.Tokenizer.from_vocab_file(tmp_path / "vocab.txt", special_tokens=roles)
    assert read.hash == kb.Tokenizer(pieces, special_tokens=roles).hash
    assert (read.pad_id, read.unk_id) == (0, 1)


def test_strangers_texts_may_hold_them():
    """`split_special_tokens` is about special pieces only, as in Hugging Face's tokenizers."""
    ids = ours(split_special_tokens=True).tokenize(["covid [SEP]"]).to_list()[0]
    assert ids[0] == VOCABULARY.index("covid")
    assert VOCABULARY.index("[SEP]") not in ids


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (["[SEP]"], r"no special pieces. Received: \[SEP\]"),
        (["new"], "Missing: new"),
        ("covid", "added_tokens to be a list of pieces.*'covid'"),
    ],
)
def test_refused(pieces, message):
    with pytest.raises(ValueError, match=message):
        kb.Tokenizer(VOCABULARY, added_tokens=pieces)
