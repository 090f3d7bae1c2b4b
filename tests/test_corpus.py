"""The corpus of pretraining on disk, built in this process; tests/test_corpus_workers.py starts others."""

import dataclasses
import gzip
import json
import random
import shutil

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_text")

from keras_bert.text import Tokenizer
from keras_bert.training import corpus_readers
from keras_bert.training.corpus import CorpusSettings, open_corpus
from keras_bert.training.corpus_build import build_corpus
from keras_bert.training.duplicates import drop_near_duplicates
from keras_bert.training.text_files import read_documents

LENGTH = 32
SETTINGS = CorpusSettings(max_length=LENGTH, held_out=0.1)
FIXED = {name: tf.io.FixedLenFeature([LENGTH], tf.int64) for name in ("input_ids", "input_mask", "segment_ids")}
LABEL = {"next_sentence_labels": tf.io.FixedLenFeature([1], tf.int64)}


@pytest.fixture(scope="module")
def documents(tokenizer):
    """24 documents of 5 to 9 sentences of 2 to 7 words."""
    draw = random.Random(2)
    words = [piece for piece in tokenizer.vocabulary if piece.isascii() and piece.isalpha()]
    return [
        [" ".join(draw.choices(words, k=draw.randint(2, 7))).capitalize() + "." for _ in range(draw.randint(5, 9))]
        for _ in range(24)
    ]


@pytest.fixture(scope="module")
def text(tmp_path_factory, documents):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(map(" ".join, documents)))
    return path


def build(inputs, tokenizer, folder, settings=SETTINGS, **options):
    return build_corpus(inputs, tokenizer, folder, settings, workers=0, **options)


def records(corpus, split="train"):
    files = [str(corpus.folder / shard["name"]) for shard in corpus.shards(split)]
    return [record.numpy() for record in tf.data.TFRecordDataset(files)]


def parsed(corpus, features, split="train"):
    """{name: the rows' values, stacked}"""
    rows = tf.io.parse_example(records(corpus, split), features)
    return {name: values.numpy() for name, values in rows.items()}


def test_what_is_on_disk(text, tokenizer, tmp_path, documents):
    corpus = build(text, tokenizer, tmp_path / "corpus")
    again = open_corpus(tmp_path / "corpus")
    assert again.settings == SETTINGS
    assert again.tokenizer.hash == tokenizer.hash
    assert again.manifest == json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    names = {"manifest.json", "vocab.txt", "train-00000-of-00001.tfrecord", "dev-00000-of-00001.tfrecord"}
    assert {path.name for path in (tmp_path / "corpus").iterdir()} == names
    again.verify()
    manifest = corpus.manifest
    assert manifest["documents"] == len(documents)
    assert manifest["sentences"] == sum(map(len, documents))
    assert manifest["dropped"] == {"exact": 0, "near": 0, "empty": 0}
    assert 0 <= manifest["unknown_part"] < 0.2
    (shard,) = corpus.shards("train")
    rows = parsed(corpus, {**FIXED, **LABEL})
    assert len(rows["input_ids"]) == shard["examples"]
    assert rows["input_mask"].sum() == shard["tokens"]
    np.testing.assert_array_equal(rows["input_mask"], rows["input_ids"] != tokenizer.pad_id)
    assert (rows["input_ids"][:, 0] == tokenizer.cls_id).all()
    assert ((rows["input_ids"] == tokenizer.sep_id).sum(axis=1) == 2).all()
    assert set(np.unique(rows["next_sentence_labels"])) == {0, 1}
    assert manifest["examples"] == sum(s["examples"] for s in manifest["shards"])
    places = manifest["examples"] * LENGTH
    assert manifest["padding_part"] == pytest.approx(1 - sum(s["tokens"] for s in manifest["shards"]) / places)


def test_static_masking_writes_the_seven_fields_of_the_published_script(text, tokenizer, tmp_path):
    settings = dataclasses.replace(SETTINGS, masking="static", max_predictions=5, dupe_factor=3)
    masked = build(text, tokenizer, tmp_path / "static", settings)
    plain = build(text, tokenizer, tmp_path / "dynamic", dataclasses.replace(SETTINGS, dupe_factor=3))
    features = {**FIXED, **LABEL}
    features |= {name: tf.io.FixedLenFeature([5], tf.int64) for name in ("masked_lm_positions", "masked_lm_ids")}
    features["masked_lm_weights"] = tf.io.FixedLenFeature([5], tf.float32)
    rows, whole = parsed(masked, features), parsed(plain, FIXED)["input_ids"]
    assert set(tf.train.Example.FromString(records(masked)[0]).features.feature) == set(features)
    used = rows["masked_lm_weights"] == 1
    assert used.any(axis=1).all()
    restored = rows["input_ids"].copy()
    np.put_along_axis(
        restored,
        np.where(used, rows["masked_lm_positions"], 0),
        np.where(used, rows["masked_lm_ids"], tokenizer.cls_id),
        1,
    )
    np.testing.assert_array_equal(restored, whole)
    assert not np.isin(rows["masked_lm_ids"][used], tokenizer.special_ids).any()
    chosen = np.take_along_axis(rows["input_ids"], rows["masked_lm_positions"], 1)[used]
    assert 0.7 < np.mean(chosen == tokenizer.mask_id) < 0.9
    assert len(np.unique(rows["masked_lm_positions"], axis=0)) > len(used) / 2  # each row has a seed of its own


@pytest.mark.parametrize("packed", [False, True])
def test_masked_lm_alone_has_every_token_once(text, tokenizer, tmp_path, packed):
    settings = dataclasses.replace(SETTINGS, objective="mlm", packed=packed)
    corpus = build(text, tokenizer, tmp_path / "corpus", settings)
    features = FIXED | ({"document_ids": FIXED["input_ids"]} if packed else {})
    found = np.concatenate([parsed(corpus, features, split)["input_ids"] for split in ("train", "dev")])
    assert "next_sentence_labels" not in tf.train.Example.FromString(records(corpus)[0]).features.feature
    counts = np.bincount(found.ravel(), minlength=tokenizer.vocab_size)
    counts[[tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id]] = 0
    sentences = [sentence for document in read_documents(text) for sentence in document]
    expected = np.bincount(tokenizer.tokenize(sentences).flat_values.numpy(), minlength=tokenizer.vocab_size)
    np.testing.assert_array_equal(counts, expected)
    assert corpus.manifest["text_tokens"] == expected.sum()


def test_packed_rows_have_labels_for_each_of_their_examples(text, tokenizer, tmp_path):
    settings = dataclasses.replace(SETTINGS, packed=True, short_example_probability=0.5)
    corpus = build(text, tokenizer, tmp_path / "corpus", settings)
    loose = build(text, tokenizer, tmp_path / "loose", dataclasses.replace(settings, packed=False))
    features = {**FIXED, "document_ids": FIXED["input_ids"], "next_sentence_labels": tf.io.RaggedFeature(tf.int64)}
    rows = tf.io.parse_example(records(corpus), features)
    np.testing.assert_array_equal(rows["next_sentence_labels"].row_lengths(), rows["document_ids"].numpy().max(axis=1))
    assert int(rows["next_sentence_labels"].row_lengths().numpy().sum()) == loose.shards("train")[0]["examples"]
    assert corpus.manifest["padding_part"] < loose.manifest["padding_part"] / 2


def test_held_out_documents_are_whole_and_copies_stay_together(tokenizer, tmp_path):
    words = [piece for piece in tokenizer.vocabulary if piece.isalpha()]
    draw = random.Random(0)
    texts = [". ".join(" ".join(draw.choices(words, k=5)) for _ in range(4)) for _ in range(100)]
    lines = [line for line in texts for _ in range(3)]
    draw.shuffle(lines)
    (tmp_path / "t.txt").write_text("\n".join(lines))
    settings = CorpusSettings(
        max_length=64, objective="mlm", documents="line", held_out=0.2, short_example_probability=0
    )
    corpus = build(tmp_path / "t.txt", tokenizer, tmp_path / "corpus", settings)
    fixed = {"input_ids": tf.io.FixedLenFeature([64], tf.int64)}
    rows = {split: list(map(tuple, parsed(corpus, fixed, split)["input_ids"])) for split in ("train", "dev")}
    assert not set(rows["train"]) & set(rows["dev"])
    assert 0.1 < len(rows["dev"]) / 300 < 0.3
    assert len(rows["train"]) + len(rows["dev"]) == 300
    assert len(rows["dev"]) == 3 * len(set(rows["dev"]))


def test_little_text_still_has_two_documents_to_hold_out_and_none_where_none_are_wanted(text, tokenizer, tmp_path):
    corpus = build(text, tokenizer, tmp_path / "a", dataclasses.replace(SETTINGS, held_out=0.0001))
    assert corpus.shards("dev")[0]["examples"] >= 2
    corpus = build(text, tokenizer, tmp_path / "b", dataclasses.replace(SETTINGS, held_out=0))
    assert corpus.shards("dev") == []


def test_shards_are_as_many_as_asked_for_and_hold_the_same_documents(text, tokenizer, tmp_path):
    settings = dataclasses.replace(SETTINGS, objective="mlm", shards=3, short_example_probability=0)
    three = build(text, tokenizer, tmp_path / "3", settings)
    one = build(text, tokenizer, tmp_path / "1", dataclasses.replace(settings, shards=1))
    assert [shard["name"] for shard in three.shards("train")] == [f"train-0000{n}-of-00003.tfrecord" for n in range(3)]
    assert sorted(records(three)) == sorted(records(one))
    with pytest.raises(ValueError, match="each of 500 shards.*ask for fewer shards"):
        build(text, tokenizer, tmp_path / "500", dataclasses.replace(settings, shards=500))


# Reading.


def test_large_files_are_cut_between_documents(tmp_path, monkeypatch):
    draw = random.Random(0)
    documents = ["\n".join("word " * draw.randint(1, 30) for _ in range(draw.randint(1, 8))) + "\n" for _ in range(300)]
    (tmp_path / "t.txt").write_text("".join(d + draw.choice(["\n", "\r\n", " \n\n"]) for d in documents))
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))

    def texts(name, borders):
        units = corpus_readers.cut_units(tmp_path / name, borders)
        return len(units), [
            t for unit in units for part in unit for t in corpus_readers.read_documents(part, borders, "text")
        ]

    whole = {case: texts(*case) for case in (("t.txt", "blank_line"), ("t.txt", "line"), ("t.jsonl", "blank_line"))}
    assert [line.strip() for line in whole["t.txt", "blank_line"][1]] == [document.strip() for document in documents]
    assert whole["t.jsonl", "blank_line"][1] == documents
    monkeypatch.setattr(corpus_readers, "UNIT_BYTES", 1000)
    for case, (count, found) in whole.items():
        assert count == 1
        units, parts = texts(*case)
        assert units > 20
        assert parts == found


def test_a_document_without_end_is_cut_at_a_line_end(tmp_path, monkeypatch, tokenizer):
    lines = [f"the cat sat {n}.\n" for n in range(3000)]
    (tmp_path / "t.txt").write_text("".join(lines))
    monkeypatch.setattr(corpus_readers, "UNIT_BYTES", 10_000)
    monkeypatch.setattr(corpus_readers, "MOST_DOCUMENT_CHARACTERS", 4000)
    for borders in ("blank_line", "file"):
        units = corpus_readers.cut_units(tmp_path / "t.txt", borders)
        texts = [t for unit in units for part in unit for t in corpus_readers.read_documents(part, borders, "text")]
        assert "".join(texts) == "".join(lines)
        assert all(text.endswith("\n") for text in texts)
        assert 4000 <= max(map(len, texts)) < 4100


def test_every_kind_of_file_gives_the_same_documents(tokenizer, tmp_path):
    bodies = [f"The cat sat on {n} dogs. {'It ran. ' * n}" for n in range(2, 12)]
    files = {
        "a.txt": "\n\n".join(bodies).encode(),
        "b.txt.gz": gzip.compress("\n\n".join(bodies).encode()),
        "c.jsonl": "".join(json.dumps({"text": body, "id": 1}) + "\n\n" for body in bodies).encode(),
        "d.jsonl.gz": gzip.compress("".join(json.dumps({"text": body}) + "\n" for body in bodies).encode()),
        "e.md": "".join(f"# {n}\n\n{body}\n\n" for n, body in enumerate(bodies)).encode(),
        "f.txt": b"\xef\xbb\xbf" + "\r\n\r\n".join(bodies).encode(),
    }
    shards = {}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        corpus = build(tmp_path / name, tokenizer, tmp_path / f"{name}.out")
        shards[name] = corpus.manifest["shards"]
    (tmp_path / "g.txt").write_text("\n".join(bodies))
    shards["line"] = build(
        tmp_path / "g.txt", tokenizer, tmp_path / "g.out", dataclasses.replace(SETTINGS, documents="line")
    ).manifest["shards"]
    for n, body in enumerate(bodies):
        (tmp_path / f"h{n}.txt").write_text(body.replace(". ", ".\n\n"))
    shards["file"] = build(
        f"{tmp_path}/h*.txt", tokenizer, tmp_path / "h.out", dataclasses.replace(SETTINGS, documents="file")
    ).manifest["shards"]
    for found in shards.values():
        assert found == shards["a.txt"]


def test_data_sets_of_hugging_face(tokenizer, tmp_path, text, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    bodies = text.read_text().split("\n\n")
    data = datasets.Dataset.from_dict({"text": bodies, "label": list(range(len(bodies)))})
    data.save_to_disk(tmp_path / "set")
    expected = build(text, tokenizer, tmp_path / "a").manifest
    monkeypatch.setattr(corpus_readers, "UNIT_BYTES", 300)
    assert len(corpus_readers.cut_units(f"hf:{tmp_path / 'set'}", "blank_line")) > 3
    corpus = build(f"hf:{tmp_path / 'set'}", tokenizer, tmp_path / "b")
    assert corpus.manifest["documents"] == len(bodies)
    assert corpus.manifest["text_tokens"] == expected["text_tokens"]
    with pytest.raises(ValueError, match="expected a data set that the package datasets can load"):
        build(f"hf:{tmp_path / 'none'}", tokenizer, tmp_path / "c")
    with pytest.raises(ValueError, match="example 1: expected a text in the field 'label'"):
        build(f"hf:{tmp_path / 'set'}", tokenizer, tmp_path / "d", dataclasses.replace(SETTINGS, text_field="label"))


def test_data_sets_of_tensorflow(tokenizer, tmp_path, text, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    bodies = text.read_text().split("\n\n")

    class SmallCorpus(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"text": tfds.features.Text()})
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from ((n, {"text": body}) for n, body in enumerate(bodies))

    SmallCorpus(data_dir=str(tmp_path / "tfds")).download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(corpus_readers, "UNIT_BYTES", 1000)
    units = corpus_readers.cut_units("tfds:small_corpus", "blank_line")
    assert len(units) > 2
    texts = [t for unit in units for part in unit for t in corpus_readers.read_documents(part, "blank_line", "text")]
    assert sorted(texts) == sorted(bodies)
    for split, message in (("dev", "one of the splits 'train'"), ("train[:10%]", "splits train, as a whole")):
        with pytest.raises(ValueError, match=message):
            corpus_readers.cut_units(f"tfds:small_corpus#{split}", "blank_line")


def split_at_bars(text):
    return [part.strip() for part in text.split("|") if part.strip()]


def test_another_sentence_splitter(tokenizer, tmp_path):
    (tmp_path / "t.txt").write_text("\n\n".join(f"the cat | sat. It ran {n}. | the dog" for n in range(8)))
    corpus = build(tmp_path / "t.txt", tokenizer, tmp_path / "a", sentence_splitter=split_at_bars)
    assert corpus.manifest["sentences"] == 24
    same = build(tmp_path / "t.txt", tokenizer, tmp_path / "b", sentence_splitter="test_corpus:split_at_bars")
    assert same.manifest == corpus.manifest


# Words.


def two_by_two(text):
    return [text[n : n + 2] for n in range(0, len(text), 2)]


def test_a_segmenter_marks_words_and_changes_no_id(tmp_path, tokenizer):
    characters = [piece for piece in tokenizer.vocabulary if "一" <= piece <= "鿿"]
    assert len(characters) >= 4
    draw = random.Random(0)
    lines = ["".join(draw.choices(characters, k=draw.randint(4, 12))) + "。" for _ in range(60)]
    (tmp_path / "t.txt").write_text("\n\n".join("".join(lines[n : n + 4]) for n in range(0, 60, 4)), encoding="utf-8")
    plain = build(tmp_path / "t.txt", tokenizer, tmp_path / "plain")
    words = build(tmp_path / "t.txt", tokenizer, tmp_path / "words", segmenter=two_by_two)
    rows = parsed(words, {**FIXED, "word_starts": FIXED["input_ids"]})
    np.testing.assert_array_equal(rows["input_ids"], parsed(plain, FIXED)["input_ids"])
    starts = rows["word_starts"][rows["input_mask"] == 1]
    assert 0.5 < starts.mean() < 0.75  # about half, and the special pieces
    assert not rows["word_starts"][rows["input_mask"] == 0].any()
    with pytest.raises(ValueError, match="the words of the text, unchanged and in order"):
        build(tmp_path / "t.txt", tokenizer, tmp_path / "bad", segmenter=lambda text: ["nowhere"])


# Duplicates.


def test_equal_documents_are_dropped(text, tokenizer, tmp_path, documents):
    body = text.read_text()
    (tmp_path / "t.txt").write_text(f"{body}\n\n{body}\n\n{body.replace('. ', '.   ')}")
    settings = dataclasses.replace(SETTINGS, deduplicate="exact")
    corpus = build(tmp_path / "t.txt", tokenizer, tmp_path / "a", settings)
    assert corpus.manifest["dropped"] == {"exact": 2 * len(documents), "near": 0, "empty": 0}
    expected = build(text, tokenizer, tmp_path / "b", settings)
    assert corpus.manifest["shards"] == expected.manifest["shards"]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_near_duplicates_are_those_of_the_exact_method(tmp_path, monkeypatch, threshold):
    draw = random.Random(0)
    words = [f"{a}{b}" for a in "bcdfghkl" for b in "aeiou"]
    texts = []
    for _ in range(300):
        if texts and draw.random() < 0.5:
            changed = draw.choice(texts).split()
            for _ in range(draw.choice([1, 2, 4, 30])):
                changed[draw.randrange(len(changed))] = draw.choice(words)
        else:
            changed = draw.choices(words, k=draw.randint(60, 90))
        texts.append(" ".join(changed))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (tmp_path / "t.txt").write_text("\n".join(texts))
    monkeypatch.setattr(corpus_readers, "UNIT_BYTES", 5000)
    settings = dataclasses.replace(SETTINGS, documents="line", deduplicate="near", near_threshold=threshold)
    corpus = build(tmp_path / "t.txt", Tokenizer(vocabulary), tmp_path / "c", settings)
    kept = drop_near_duplicates(texts, threshold)
    assert len(kept) < 280
    # A signature of 128 places estimates the similarity: few pairs are so near the threshold that it decides otherwise.
    assert abs(corpus.manifest["documents"] - len(kept)) <= 0.05 * len(texts)
    assert corpus.manifest["documents"] + sum(corpus.manifest["dropped"].values()) == len(texts)


# What goes on, and what is refused.


def test_a_finished_corpus_is_opened_and_another_one_is_not_replaced(text, tokenizer, tmp_path):
    first = build(text, tokenizer, tmp_path / "c")
    before = (tmp_path / "c" / "train-00000-of-00001.tfrecord").stat().st_mtime_ns
    assert build(text, tokenizer, tmp_path / "c").manifest == first.manifest
    assert (tmp_path / "c" / "train-00000-of-00001.tfrecord").stat().st_mtime_ns == before
    other = dataclasses.replace(SETTINGS, seed=1)
    with pytest.raises(ValueError, match="whose corpus has other seed; choose another folder"):
        build(text, tokenizer, tmp_path / "c", other)
    assert build(text, tokenizer, tmp_path / "c", other, overwrite=True).settings.seed == 1
    text_2 = tmp_path / "text.txt"
    shutil.copy(text, text_2)
    with pytest.raises(ValueError, match="other inputs"):
        build(text_2, tokenizer, tmp_path / "c", other)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("second_pass", [False, True])
def test_a_run_that_was_stopped_goes_on(text, tokenizer, tmp_path, monkeypatch, second_pass):
    monkeypatch.setattr(corpus_readers, "UNIT_BYTES", 500)
    units = len(corpus_readers.cut_units(text, "blank_line"))
    assert units > 4
    at = units + 2 if second_pass else 2
    settings = dataclasses.replace(SETTINGS, shards=3)
    whole = build(text, tokenizer, tmp_path / "whole", settings)

    def stop(done, total, figures):
        if done == at:
            raise Stopped

    with pytest.raises(Stopped):
        build(text, tokenizer, tmp_path / "c", settings, progress=stop)
    with pytest.raises(FileNotFoundError, match="one that is not finished; run the same command again"):
        open_corpus(tmp_path / "c")
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("counts.json")}
    finished |= {path: path.stat().st_mtime_ns for path in (tmp_path / "c").glob("*.tfrecord")}
    assert finished
    seen = []

    def look(done, total, figures):
        seen.append(done)
        for path, time in finished.items():
            if path.exists():
                assert path.stat().st_mtime_ns == time

    assert build(text, tokenizer, tmp_path / "c", settings, progress=look).manifest == whole.manifest
    assert at in seen
    assert min(seen) == min(at, units)
    assert not (tmp_path / "c" / ".work").exists()


def test_unfinished_work_of_other_options_is_started_over(text, tokenizer, tmp_path, caplog):
    def stop(done, total, figures):
        if done:
            raise Stopped

    with pytest.raises(Stopped):
        build(text, tokenizer, tmp_path / "c", progress=stop)
    other = dataclasses.replace(SETTINGS, documents="line", objective="mlm")
    assert (
        build(text, tokenizer, tmp_path / "c", other).manifest == build(text, tokenizer, tmp_path / "d", other).manifest
    )
    assert "started over" in caplog.text


def test_a_damaged_shard_is_named(text, tokenizer, tmp_path):
    corpus = build(text, tokenizer, tmp_path / "c")
    path = tmp_path / "c" / "dev-00000-of-00001.tfrecord"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"dev-00000-of-00001\.tfrecord: expected the SHA-256"):
        corpus.verify()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"dev-00000-of-00001\.tfrecord: expected \d+ bytes"):
        open_corpus(tmp_path / "c")
    path.unlink()
    with pytest.raises(ValueError, match=r"dev-00000-of-00001\.tfrecord: expected this shard"):
        open_corpus(tmp_path / "c")


def test_a_changed_vocabulary_or_manifest_is_refused(text, tokenizer, tmp_path):
    build(text, tokenizer, tmp_path / "c")
    vocabulary = (tmp_path / "c" / "vocab.txt").read_text(encoding="utf-8")
    (tmp_path / "c" / "vocab.txt").write_text(vocabulary.replace("cat", "cow"), encoding="utf-8")
    with pytest.raises(ValueError, match="the vocabulary that the corpus was made with"):
        open_corpus(tmp_path / "c")
    for content, message in (
        ("{", "JSONDecodeError"),
        ("{}", "KeyError"),
        ('{"schema_version": 9}', "schema_version 9"),
    ):
        (tmp_path / "c" / "manifest.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            open_corpus(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="Received: none"):
        open_corpus(tmp_path)


BAD = [
    ({"t.txt": b""}, {}, "Expected text. Received: inputs that are empty"),
    ({"t.txt": b" \n\n \n"}, {}, "Expected text"),
    ({"t.md": b"# Only a title\n"}, {}, "Expected text"),
    ({"t.txt": b"One.\n\nTwo.\n\nThree."}, {}, "at least 4 documents of different text.*Received: 3"),
    ({"t.txt": b"One.\n\nTwo.\n\nOne.\n\nTwo."}, {"deduplicate": "exact"}, "at least 4 documents.*Received: 2"),
    ({"t.txt": b"one\n\ntwo \xff here"}, {}, r"t\.txt, line 3: expected UTF-8, but the byte 0xff at offset 9"),
    ({"t.txt": b"one\n\0two"}, {}, r"t\.txt, line 2: .*binary"),
    ({"t.jsonl": b'{"text": "a"}\n{"text"\n'}, {}, r"t\.jsonl, line 2: expected one JSON object"),
    ({"t.jsonl": b'{"body": "a"}\n'}, {}, r"t\.jsonl, line 1: expected a text in the field 'text'. Received: body"),
    ({"t.jsonl": b"[1]\n"}, {}, r"t\.jsonl, line 1: expected a text in the field"),
    ({"t.txt.gz": gzip.compress(b"some text\n" * 1000)[:-12]}, {}, r"t\.txt\.gz: the gzip file ends"),
]


@pytest.mark.parametrize(("files", "options", "message"), BAD, ids=[message[:30] for _, _, message in BAD])
def test_bad_input(files, options, message, tokenizer, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        build([tmp_path / name for name in files], tokenizer, tmp_path / "c", dataclasses.replace(SETTINGS, **options))
    assert not list((tmp_path / "c").glob("[!.]*"))


def test_bad_places_are_named_by_their_line_in_the_whole_file(tokenizer, tmp_path, monkeypatch):
    (tmp_path / "t.jsonl").write_bytes(b'{"text": "the cat sat"}\n' * 500 + b"{\n" + b'{"text": "x"}\n')
    (tmp_path / "t.txt").write_bytes(b"the cat sat\n\n" * 500 + b"\xff\n")
    monkeypatch.setattr(corpus_readers, "UNIT_BYTES", 1000)
    with pytest.raises(ValueError, match=r"t\.jsonl, line 501: expected one JSON"):
        build(tmp_path / "t.jsonl", tokenizer, tmp_path / "a")
    with pytest.raises(ValueError, match=r"t\.txt, line 1001: expected UTF-8, but the byte 0xff at offset 6500"):
        build(tmp_path / "t.txt", tokenizer, tmp_path / "b")
    monkeypatch.setattr(corpus_readers, "MOST_LINE_BYTES", 10)
    with pytest.raises(ValueError, match=r"t\.txt, line 1: expected lines of at most"):
        build(tmp_path / "t.txt", tokenizer, tmp_path / "c")


def test_inputs_that_are_not_there(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.txt: file does not exist"):
        build(tmp_path / "gone.txt", tokenizer, tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="at least one text file"):
        build([], tokenizer, tmp_path / "c")
    with pytest.raises(ValueError, match="expected a file, received a folder"):
        build(tmp_path, tokenizer, tmp_path / "c")
    (tmp_path / "t.txt").write_text("One.")
    with pytest.raises(ValueError, match="Expected a function as module:function.*nothing_here"):
        build(tmp_path / "t.txt", tokenizer, tmp_path / "c", segmenter="nothing_here:cut")


SETTINGS_ERRORS = [
    ({"objective": "clm"}, "objective to be one of nsp, sop, mlm"),
    ({"masking": "none"}, "masking to be one of"),
    ({"max_length": 4}, "max_length to be a whole number from 5"),
    ({"dupe_factor": 0}, "dupe_factor"),
    ({"held_out": 1.0}, "held_out to be a part"),
    ({"shards": 0}, "shards"),
    ({"near_threshold": 0.0}, "near_threshold"),
]


@pytest.mark.parametrize(("options", "message"), SETTINGS_ERRORS)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        CorpusSettings(**options)


def test_documents_of_one_sentence_and_mixed_languages(tokenizer, tmp_path):
    (tmp_path / "t.txt").write_text("\n\n".join(["The cat sat.", "我爱北京。", "dogs 我", "!!!"] * 5), encoding="utf-8")
    for objective in ("nsp", "sop", "mlm"):
        settings = dataclasses.replace(SETTINGS, objective=objective)
        corpus = build(tmp_path / "t.txt", tokenizer, tmp_path / objective, settings)
        assert corpus.manifest["documents"] == 20
        assert corpus.manifest["examples"] >= 15


def test_lone_surrogates_and_characters_without_tokens(tokenizer, tmp_path):
    rows = [
        {"text": "the \ud800cat sat"},
        {"text": "\u200b\u00ad"},
        {"text": ""},
        {"text": None},
        *[{"text": f"dogs {word}"} for word in ("sat", "ran", "was", "good", "mat")],
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = build(tmp_path / "t.jsonl", tokenizer, tmp_path / "c", dataclasses.replace(SETTINGS, deduplicate="near"))
    assert corpus.manifest["documents"] + corpus.manifest["dropped"]["near"] == 6
    assert corpus.manifest["dropped"]["empty"] == 3


def test_a_line_of_ten_megabytes(tokenizer, tmp_path):
    (tmp_path / "t.txt").write_text(
        "the cat sat " * (10 << 20 >> 4) + "\n\n" + "\n\n".join(f"A cat. {n}" for n in range(9))
    )
    settings = dataclasses.replace(SETTINGS, objective="mlm")
    corpus = build(tmp_path / "t.txt", tokenizer, tmp_path / "c", settings)
    assert corpus.manifest["text_tokens"] > 1_900_000


def test_a_vocabulary_that_does_not_fit_is_said(tokenizer, tmp_path, caplog):
    (tmp_path / "t.txt").write_text("\n\n".join(f"слово ещё {n}" for n in range(20)), encoding="utf-8")
    corpus = build(tmp_path / "t.txt", tokenizer, tmp_path / "c")
    assert corpus.manifest["unknown_part"] > 0.5
    assert "of the tokens are [UNK]; the vocabulary does not fit the text" in caplog.text
