"""TFRecord files of create_pretraining_data.py as a corpus. A static corpus of ours has its very fields."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from tiny_config import tiny_config
from tiny_corpus import make_corpus

from keras_bert.training.corpus_dataset import make_corpus_dataset
from keras_bert.training.corpus_index import index_corpus
from keras_bert.training.masking import Masker
from keras_bert.training.pretrain import PretrainSettings, pretrain

V2_NAMES = {"input_ids": "input_word_ids", "segment_ids": "input_type_ids"}


@pytest.fixture(scope="module")
def files(tmp_path_factory, documents, tokenizer):
    """Two files of masked rows; with both sets of names that Google's script writes."""
    folder = tmp_path_factory.mktemp("google")
    corpus = make_corpus(documents, tokenizer, folder, masking="static", shards=2, held_out=0.0, max_predictions=4)
    for number, shard in enumerate(corpus.shards("train")):
        path = str(corpus.folder / shard["name"])
        shutil.copy(path, folder / f"v1_{number}.tfrecord")
        with tf.io.TFRecordWriter(str(folder / f"v2_{number}.tfrecord")) as writer:
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                features = tf.train.Example.FromString(record).features.feature
                renamed = {V2_NAMES.get(name, name): feature for name, feature in features.items()}
                writer.write(tf.train.Example(features=tf.train.Features(feature=renamed)).SerializeToString())
    return folder


@pytest.mark.parametrize("names", ["v1", "v2"])
def test_rows_are_those_of_the_files(files, tokenizer, tmp_path, names):
    corpus = index_corpus(str(files / f"{names}_*.tfrecord"), tokenizer, tmp_path / "corpus")
    (train,), (dev,) = corpus.shards("train"), corpus.shards("dev")
    assert (train["name"], dev["name"]) == tuple(str(files / f"{names}_{number}.tfrecord") for number in (0, 1))
    corpus.verify()
    dataset = make_corpus_dataset(corpus, "train", Masker(tokenizer), 1, train["examples"], seed=0, shuffle=False)
    stored = tf.data.TFRecordDataset(str(files / f"v1_{0}.tfrecord")).as_numpy_iterator()
    for (inputs, labels, _), record in zip(dataset, stored, strict=True):
        features = tf.train.Example.FromString(record).features.feature
        for ours, theirs in [
            (inputs["input_ids"], "input_ids"),
            (inputs["token_type_ids"], "segment_ids"),
            (inputs["attention_mask"], "input_mask"),
            (inputs["masked_lm_positions"], "masked_lm_positions"),
            (labels["masked_lm"], "masked_lm_ids"),
        ]:
            np.testing.assert_array_equal(ours[0], features[theirs].int64_list.value)
        assert labels["next_sentence"][0] == features["next_sentence_labels"].int64_list.value[0]


def test_a_model_is_pretrained_on_one_file(files, tokenizer, tmp_path):
    corpus = index_corpus(files / "v1_0.tfrecord", tokenizer, tmp_path)
    model, report = pretrain(corpus, tiny_config(tokenizer), PretrainSettings(steps=2, batch_size=4))
    assert (model.task, report["evaluation"]) == ("pretraining", {})
    assert np.isfinite(report["curve"][-1]["loss"])


@pytest.mark.parametrize("damage", ["text", "empty", "fields", "vocabulary"])
def test_what_is_no_such_file(files, tokenizer, tmp_path, damage):
    path = tmp_path / "rows.tfrecord"
    if damage == "text":
        path.write_text("no records" * 10)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        name = "other" if damage == "fields" else None
        record = next(tf.data.TFRecordDataset(str(files / "v1_0.tfrecord")).as_numpy_iterator())
        example = tf.train.Example.FromString(record)
        if name:
            example.features.feature[name].CopyFrom(example.features.feature.pop("input_ids"))
        else:
            example.features.feature["input_ids"].int64_list.value[1] = 10_000
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(example.SerializeToString())
    expected = {"text": "TFRecord file", "empty": "an empty file", "fields": "without input_ids"}
    with pytest.raises(ValueError, match=f"rows.tfrecord: expected .*{expected.get(damage, 'ids up to 10000')}"):
        index_corpus(path, tokenizer, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()
