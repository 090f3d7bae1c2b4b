"""Batches from a corpus on disk: what they hold, in which order, and that any step can be made again."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_corpus import make_corpus

from keras_bert.training.corpus_dataset import make_corpus_dataset
from keras_bert.training.masking import Masker

BATCH = 4


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, documents, tokenizer):
    def make(name, **settings):
        return make_corpus(documents * 3, tokenizer, tmp_path_factory.mktemp(name), **settings)

    return {
        "nsp": make("nsp", shards=3),
        "mlm": make("mlm", objective="mlm", shards=2),
        "static": make("static", masking="static"),
        "packed": make("packed", max_length=48, packed=True, shards=2),
        "packed mlm": make("packed_mlm", max_length=48, packed=True, objective="mlm"),
    }


def batches(corpus, steps, split="train", **options):
    masker = Masker(corpus.tokenizer, 0.15, 8)
    dataset = make_corpus_dataset(corpus, split, masker, BATCH, steps, **{"seed": 3, **options})
    return [tf.nest.map_structure(lambda part: part.numpy(), batch) for batch in dataset]


def whole(batch):
    """The rows of a batch as they were before tokens were hidden."""
    inputs, labels, weights = batch
    rows = inputs["input_ids"].copy()
    for row, positions, ids, used in zip(
        rows, inputs["masked_lm_positions"], labels["masked_lm"], weights["masked_lm"], strict=True
    ):
        row[positions[used > 0]] = ids[used > 0]
    return rows


def rows_on_disk(corpus, split="train"):
    files = [str(corpus.folder / shard["name"]) for shard in corpus.shards(split)]
    examples = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(files)]
    return [tuple(example.features.feature["input_ids"].int64_list.value) for example in examples]


def assert_same(one, other):
    tf.nest.map_structure(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", ["nsp", "mlm", "packed", "packed mlm"])
def test_an_epoch_has_every_example_once_in_a_new_order(corpora, name):
    corpus = corpora[name]
    stored = rows_on_disk(corpus)
    epochs = 3
    seen = [tuple(row) for batch in batches(corpus, epochs * len(stored) // BATCH) for row in whole(batch)]
    each = [seen[start : start + len(stored)] for start in range(0, len(seen), len(stored))]
    assert sorted(each[0]) == sorted(each[1]) == sorted(stored)
    assert each[0] != each[1]
    assert each[0] != stored


def test_masks_are_drawn_anew_in_every_epoch(corpora):
    corpus = corpora["mlm"]
    count = len(rows_on_disk(corpus))
    masked: dict = {}
    for batch in batches(corpus, 4 * count // BATCH):
        for row, hidden in zip(whole(batch), batch[0]["input_ids"], strict=True):
            masked.setdefault(tuple(row), []).append(tuple(hidden))
    assert np.mean([len(set(seen)) for seen in masked.values()]) > 2


@pytest.mark.parametrize("name", ["nsp", "static", "packed"])
@pytest.mark.parametrize("start", [1, 13, 14, 15, 60])
def test_a_run_that_goes_on_sees_the_very_same_batches(corpora, name, start):
    steps = 64  # several epochs
    assert_same(batches(corpora[name], steps, start_step=start), batches(corpora[name], steps)[start:])


def test_the_seed_decides(corpora):
    one, other = batches(corpora["nsp"], 3), batches(corpora["nsp"], 3, seed=4)
    assert not np.array_equal(whole(one[0]), whole(other[0]))


def test_held_out_rows_come_in_order_under_the_same_masks(corpora):
    corpus = corpora["nsp"]
    stored = rows_on_disk(corpus, "dev")
    steps = 2 * len(stored) // BATCH
    seen = batches(corpus, steps, "dev", shuffle=False)
    rows = [tuple(row) for batch in seen for row in whole(batch)]
    assert rows[: len(stored)] == stored
    hidden = np.concatenate([batch[0]["input_ids"] for batch in seen])
    again = len(hidden) - len(stored)
    np.testing.assert_array_equal(hidden[:again], hidden[len(stored) :])


def test_what_was_masked_on_disk_stays_so(corpora):
    corpus = corpora["static"]
    rows = {tuple(row) for batch in batches(corpus, 10) for row in batch[0]["input_ids"]}
    assert rows <= set(rows_on_disk(corpus))
    assert any(corpus.tokenizer.mask_id in row for row in rows)


def test_weights_make_a_mean_over_the_used_places(corpora):
    for name in ("nsp", "packed"):
        for _, labels, weights in batches(corpora[name], 5):
            for output, weight in weights.items():
                assert weight.shape == labels[output].shape
                np.testing.assert_allclose(weight.sum(), weight.size, rtol=1e-6)
                assert len(np.unique(weight[weight > 0])) == 1


def test_documents_of_a_packed_row(corpora):
    corpus = corpora["packed"]
    several = 0
    for inputs, _, weights in batches(corpus, 10):
        numbers = inputs["attention_mask"]
        for row, ids, starts, used in zip(
            numbers, inputs["input_ids"], inputs["cls_positions"], weights["next_sentence"] > 0, strict=True
        ):
            assert row.max() == used.sum()
            assert (ids[starts[used]] == corpus.tokenizer.cls_id).all()
            assert row[starts[used]].tolist() == list(range(1, row.max() + 1))
            several += row.max() > 1
    assert several


def test_a_corpus_without_held_out_documents(tmp_path, documents, tokenizer):
    corpus = make_corpus(documents, tokenizer, tmp_path, held_out=0.0)
    with pytest.raises(ValueError, match="Expected a corpus with rows in 'dev'.*has none"):
        batches(corpus, 1, "dev")
