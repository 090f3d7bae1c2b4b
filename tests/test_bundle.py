"""Bundles: the tokenizer in plain Python beside the others, and the file beside Keras."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from test_served import folder_of
from test_tokenizer_parity import alone_and_inside_words, wide_vocabulary
from tiny_classifier import LABELS, MAX_LENGTH, TEXTS, VOCABULARY, preprocessor, shared_classifier
from tokenizer_reference import are_marks_moved, generated, reference

import keras_bert as kb
from keras_bert.export import bundle, bundle_tokenizer
from keras_bert.export.bundle import save_bundle

TAGS = ["O", "B-PER", "I-PER"]
HEADS = {
    "pairs": lambda: folder_of(lambda e: kb.build_classifier(e, 3), "classifier", labels=LABELS, segments=2),
    "regression": lambda: folder_of(lambda e: kb.build_classifier(e, 1), "classifier", problem_type="regression"),
    "token_classifier": lambda: folder_of(lambda e: kb.build_token_classifier(e, 3), "token_classifier", labels=TAGS),
    "question_answerer": lambda: folder_of(kb.build_question_answerer, "question_answerer"),
    "multiple_choice": lambda: folder_of(kb.build_multiple_choice, "multiple_choice"),
    "embedder": lambda: folder_of(kb.build_embedder, "embedder"),
    "masked_lm": lambda: folder_of(kb.build_masked_lm, "masked_lm"),
}


def classifier_folder():
    return kb.ModelFolder(shared_classifier(), preprocessor().tokenizer, "classifier", MAX_LENGTH, labels=LABELS)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "sentiment"
    save_bundle(classifier_folder(), path, {"text": TEXTS}, max_length=MAX_LENGTH)
    return path


def read(path, name):
    return json.loads((path / name).read_text(encoding="utf-8"))


def plain_tokenizer(tokenizer, path):
    """The tokenizer of a bundle, from the files that it reads."""
    rules = tokenizer.get_config()
    strips = rules["lowercase"] if rules["strip_accents"] is None else rules["strip_accents"]
    characters = bundle.character_rules(rules["lowercase"], strips, rules["split_chinese"])
    settings = {"max_length": 32, "tokenizer": {name: rules[name] for name in bundle._RULES}}
    path.mkdir(exist_ok=True)
    (path / "vocab.txt").write_bytes("".join(f"{piece}\n" for piece in tokenizer.vocabulary).encode())
    (path / "characters.json").write_text(json.dumps(characters))
    (path / "bundle.json").write_text(json.dumps(settings))
    return bundle_tokenizer.BertTokenizer(path)


def check_same(tokenizer, texts, path):
    plain = plain_tokenizer(tokenizer, path)
    ids, starts, ends = (values.to_list() for values in tokenizer.tokenize_with_offsets(texts))
    for text, *expected in zip(texts, ids, starts, ends, strict=True):
        assert plain.tokenize(text) == list(zip(*expected, strict=True)), repr(text)
    return plain


RULES = [
    {},
    {"lowercase": False},
    {"lowercase": True, "strip_accents": False, "split_chinese": False},
    {"split_special_tokens": True},
    {"additional_special_tokens": ["the"], "added_tokens": ["[MASK", "U.S."]},
]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_generated_texts_get_the_ids_and_offsets_of_the_tokenizer_in_the_graph(rules, tmp_path):
    added = [piece for name in ("additional_special_tokens", "added_tokens") for piece in rules.get(name, ())]
    letters = [chr(code) for code in (*range(97, 123), *range(0x410, 0x450), *range(0x1100, 0x1200))]
    vocabulary = [*VOCABULARY, *letters, *(f"##{letter}" for letter in letters), *"#[]@-/:=?'", *added]
    tokenizer = kb.Tokenizer(list(dict.fromkeys(vocabulary)), **rules)
    check_same(tokenizer, [*TEXTS, *generated(400, seed=3)], tmp_path)


def test_every_character_gets_its_piece(tmp_path):
    texts = alone_and_inside_words([*range(1, 0xD800), *range(0xE000, 0x20000)])
    check_same(kb.Tokenizer(wide_vocabulary(odd=False)), texts, tmp_path)


def test_ids_are_those_of_tokenizers(tmp_path):
    tokenizer = kb.Tokenizer(wide_vocabulary(odd=False))
    plain, other = plain_tokenizer(tokenizer, tmp_path), reference(tokenizer)
    texts = [text for text in generated(300, seed=4) if not are_marks_moved(text)]
    assert len(texts) > 200
    for text in texts:
        assert [one for one, _, _ in plain.tokenize(text)] == other.encode(text, add_special_tokens=False).ids, text


def test_long_words_and_lone_surrogates(tmp_path):
    tokenizer = kb.Tokenizer([*VOCABULARY, "x", "##x"])
    plain = check_same(tokenizer, ["x" * 100, "x" * 101, "坏" * 101], tmp_path)
    assert plain.tokenize("ca\ud800t")[0][0] == tokenizer.tokenize(["cat"]).to_list()[0][0]


@pytest.mark.parametrize("length", [3, 7, 8])
def test_texts_and_pairs_are_cut_as_in_the_preprocessor(length, tmp_path):
    tokenizer = preprocessor().tokenizer
    plain = plain_tokenizer(tokenizer, tmp_path)
    prepare = kb.Preprocessor(tokenizer, length)
    pairs = [(first, second) for first in TEXTS[1:5] for second in TEXTS[1:5]]
    for one, other in pairs:
        for texts, arguments in (([one], [one]), (([one], [other]), [one, other])):
            expected = {name: value.numpy()[0].tolist() for name, value in prepare(texts).items()}
            assert plain.encode(*arguments, max_length=length) == expected


def test_the_bundle_has_what_an_app_needs(path):
    names = ["bundle.json", "characters.json", "golden.json", "labels.txt", "model.tflite", "tokenizer.py", "vocab.txt"]
    assert sorted(os.listdir(path)) == names
    assert (path / "labels.txt").read_text(encoding="utf-8").splitlines() == LABELS
    settings = read(path, "bundle.json")
    assert settings["inputs"] == dict.fromkeys(("attention_mask", "input_ids", "token_type_ids"), [1, MAX_LENGTH])
    assert settings["outputs"] == ["logits", "probabilities"]
    assert settings["largest_difference_from_keras"] < 1e-5
    assert settings["tokenizer"]["hash"] == preprocessor().tokenizer.hash


def test_the_tokenizer_runs_alone_and_gives_the_golden_ids(path):
    program = (
        "import json, sys, tokenizer\n"
        "tokens = tokenizer.BertTokenizer('.')\n"
        "golden = json.load(open('golden.json', encoding='utf-8'))\n"
        "for one in golden:\n"
        "    ids = tokens.encode(one['texts']['text'])['input_ids']\n"
        "    fed = one['rows'][0]['ids']['input_ids']\n"
        "    assert ids == fed[:len(ids)] and not any(fed[len(ids):]), one\n"
        "assert not {'tensorflow', 'numpy', 'keras_bert', 'tokenizers'} & {*sys.modules}\n"
        "print(len(golden))\n"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=path, capture_output=True, text=True, env={"PYTHONPATH": "."}
    )
    assert (result.stdout, result.stderr) == (f"{len(TEXTS)}\n", "")


def test_golden_answers_are_kerass(path):
    golden = read(path, "golden.json")
    ids = preprocessor()(TEXTS)
    logits = shared_classifier()(ids, training=False)
    run = Interpreter(str(path / "model.tflite")).get_signature_runner()
    for one, row in zip(golden, logits, strict=True):
        np.testing.assert_allclose(one["rows"][0]["outputs"]["logits"], row, atol=1e-5)
        assert one["answers"]["label"] == LABELS[int(np.argmax(row))]
        fed = {name: np.array([value], "int32") for name, value in one["rows"][0]["ids"].items()}
        np.testing.assert_allclose(run(**fed)["logits"][0], one["rows"][0]["outputs"]["logits"], atol=1e-6)


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=[] if head == "token_classifier" else [pytest.mark.slow]) for head in HEADS]
)
def test_every_head_has_a_bundle(head, tmp_path):
    save_bundle(HEADS[head](), tmp_path / "bundle.zip")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "bundle")
    settings, golden = read(tmp_path / "bundle", "bundle.json"), read(tmp_path / "bundle", "golden.json")
    # Of random weights, whose logits are in the tens.
    assert settings["largest_difference_from_keras"] < 1e-4
    assert len(golden) == 4
    plain = bundle_tokenizer.BertTokenizer(tmp_path / "bundle")
    for one in golden:
        texts = one["texts"]
        if head == "multiple_choice":
            encoded = [plain.encode(texts["question"], choice)["input_ids"] for choice in texts["choices"]]
            fed = one["rows"][0]["ids"]["input_ids"]
            assert [row[: len(ids)] for row, ids in zip(fed, encoded, strict=True)] == encoded
        elif len(one["rows"]) == 1:
            assert plain.encode(*texts.values())["input_ids"] == one["rows"][0]["ids"]["input_ids"]
        assert one["answers"]
    assert len({json.dumps(one["rows"][0]["outputs"]) for one in golden}) > 1


def test_quantized_bundles_say_how_far_they_are_from_keras(tmp_path):
    save_bundle(classifier_folder(), tmp_path / "bundle", {"text": TEXTS[:1]}, quantize="dynamic")
    assert 1e-5 < read(tmp_path / "bundle", "bundle.json")["largest_difference_from_keras"] < 0.5


def test_a_bundle_is_replaced_and_something_else_is_not(tmp_path):
    for name in ("bundle", "bundle.zip"):
        for label in "ab":
            folder = classifier_folder()
            folder.labels = [label, "x", "y"]
            save_bundle(folder, tmp_path / name, {"text": ["the cat"]})
    assert (tmp_path / "bundle" / "labels.txt").read_text() == "b\nx\ny\n"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("irreplaceable")
    with pytest.raises(ValueError, match="something else"):
        save_bundle(classifier_folder(), tmp_path / "thesis")
    assert os.listdir(tmp_path / "thesis") == ["chapter"]
    with pytest.raises(ValueError, match="examples for text, as many of each. Received: 1 of question"):
        save_bundle(classifier_folder(), tmp_path / "bundle", {"question": ["?"]})
