"""Documents to masked sentence pairs. Every token of the made documents is unique, so that it says where it is from."""

import types

import numpy as np
import pytest

from keras_bert.training.masking import Masker
from keras_bert.training.pretraining_data import (
    SentencePairs,
    make_evaluation_dataset,
    make_pretraining_dataset,
    make_sentence_pairs,
    tokenize_documents,
)

PAD, CLS, SEP, MASK = 0, 1, 2, 3
TOKENIZER = types.SimpleNamespace(
    pad_id=PAD, cls_id=CLS, sep_id=SEP, mask_id=MASK, special_ids=(0, 1, 2, 3), vocab_size=40_000
)


def unique_documents(count=60, sentences=(6, 20), words=(2, 12), seed=0):
    """(documents of token ids that are never used twice, {token: document})."""
    random, token, documents, home = np.random.default_rng(seed), 10, [], {}
    for index in range(count):
        document = []
        for _ in range(random.integers(*sentences)):
            size = int(random.integers(*words))
            document.append(list(range(token, token + size)))
            token += size
        documents.append(document)
        home |= {word: index for sentence in document for word in sentence}
    return documents, home


@pytest.fixture(scope="module")
def made():
    documents, home = unique_documents()
    return make_sentence_pairs(documents, TOKENIZER, 32, seed=1), home


def split(row, types):
    """(first segment, second segment) of a packed row, with its special tokens and token types checked."""
    ends = np.flatnonzero(row == SEP)
    assert row[0] == CLS
    assert len(ends) == 2
    first, second = row[1 : ends[0]], row[ends[0] + 1 : ends[1]]
    assert not np.isin(np.concatenate([first, second]), TOKENIZER.special_ids).any()
    assert (row[ends[1] + 1 :] == PAD).all()
    expected = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert types.tolist() == expected + [0] * (len(row) - len(expected))
    return first.tolist(), second.tolist()


def pairs_of(pairs):
    rows = zip(pairs.input_ids, pairs.token_type_ids, pairs.next_sentence_labels, strict=True)
    return [(*split(row, types), int(label)) for row, types, label in rows]


def test_both_segments_are_there_and_fit(made):
    pairs, _ = made
    assert pairs.input_ids.shape == pairs.token_type_ids.shape == (len(pairs), 32)
    assert {array.dtype for array in (pairs.input_ids, pairs.token_type_ids, pairs.next_sentence_labels)} == {
        np.dtype("int32")
    }
    assert all(first and second and len(first) + len(second) <= 29 for first, second, _ in pairs_of(pairs))


def test_most_examples_use_the_room(made):
    """A tenth of the documents makes short ones on purpose."""
    pairs, _ = made
    lengths = (pairs.input_ids != PAD).sum(axis=1)
    assert np.mean(lengths >= 24) > 0.6


def test_label_0_follows_and_label_1_comes_from_another_document(made):
    pairs, home = made
    for first, second, label in pairs_of(pairs):
        assert first == list(range(first[0], first[0] + len(first))), "A is a piece of running text"
        assert len({home[token] for token in first}) == 1
        assert second == list(range(second[0], second[0] + len(second)))
        same = home[first[0]] == home[second[0]]
        assert same == (label == 0)
        if label == 0:
            assert second[0] > first[-1]
            if len(first) + len(second) < 29:  # nothing was cut
                assert second[0] == first[-1] + 1


def test_about_half_of_the_labels_are_1(made):
    pairs, _ = made
    count, ones = len(pairs), pairs.next_sentence_labels.sum()
    assert count > 200
    assert 0.42 < ones / count < 0.62


def test_no_sentence_is_lost():
    """Sentences that a wrong next sentence displaces come again: with room for all, every token is in some A or B."""
    documents, home = unique_documents(20, words=(1, 3))
    pairs = make_sentence_pairs(documents, TOKENIZER, 64, seed=0)
    assert set(home) <= set(np.unique(pairs.input_ids))


def test_the_seed_decides():
    documents, _ = unique_documents(10)
    one, same, other = (make_sentence_pairs(documents, TOKENIZER, 24, seed).input_ids for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or (one != other).any()


@pytest.mark.parametrize("length", [5, 6, 16])
def test_short_lengths(length):
    documents, _ = unique_documents(8)
    pairs = make_sentence_pairs(documents, TOKENIZER, length, seed=0)
    assert all(first and second for first, second, _ in pairs_of(pairs))


@pytest.mark.parametrize(
    ("documents", "length", "message"),
    [
        ([[[9, 9]]], 32, "at least two documents.*Received: 1; separate documents by a blank line"),
        ([], 32, "Received: 0"),
        ([[[9]], [[8]]], 4, "at least 5.*max_length=4"),
    ],
)
def test_refused_input(documents, length, message):
    with pytest.raises(ValueError, match=message):
        make_sentence_pairs(documents, TOKENIZER, length, seed=0)


def test_documents_are_tokenized_sentence_by_sentence(tokenizer):
    ids = tokenize_documents([["The cat sat.", "", "  "], [""], ["我爱北京", "Dogs!"]], tokenizer)
    words = [[[tokenizer.vocabulary[i] for i in sentence] for sentence in document] for document in ids]
    assert words == [[["the", "cat", "sat", "."]], [["我", "爱", "北", "京"], ["dog", "##s", "!"]]]


# The dataset.


def numbered(examples=11, length=12):
    """Pairs whose second token is the number of the example."""
    ids = np.full((examples, length), 30, np.int32)
    ids[:, 0], ids[:, 1], ids[:, -3], ids[:, -1] = CLS, 100 + np.arange(examples), SEP, PAD
    return SentencePairs(ids, np.zeros_like(ids), np.arange(examples, dtype=np.int32) % 2)


MASKER = Masker(TOKENIZER, 0.3, 3)


def batches(start, stop, batch_size=4, seed=9, **options):
    dataset = make_pretraining_dataset(numbered(), MASKER, batch_size, stop, seed=seed, start_step=start, **options)
    return list(dataset.as_numpy_iterator())


def leaves(batch):
    inputs, labels, weights = batch
    return {**inputs, **labels, **{f"weight/{key}": value for key, value in weights.items()}}


def numbers(batch):
    """Which examples a batch holds: the second token, or its label where it is masked."""
    inputs, labels, _ = batch
    masked = inputs["masked_lm_positions"] == 1
    shown = inputs["input_ids"][:, 1]
    return np.where(masked.any(axis=1), (labels["masked_lm"] * masked).sum(axis=1), shown) - 100


def test_what_fit_gets():
    (inputs, labels, weights), *_ = batches(0, 1)
    assert {key: (value.dtype.name, value.shape) for key, value in inputs.items()} == {
        "input_ids": ("int32", (4, 12)),
        "token_type_ids": ("int32", (4, 12)),
        "attention_mask": ("int32", (4, 12)),
        "masked_lm_positions": ("int32", (4, 3)),
    }
    np.testing.assert_array_equal(inputs["attention_mask"], [[1] * 11 + [0]] * 4)
    assert labels["masked_lm"].shape == weights["masked_lm"].shape == (4, 3)
    assert labels["next_sentence"].shape == weights["next_sentence"].shape == (4,)
    np.testing.assert_array_equal(labels["next_sentence"], numbers((inputs, labels, weights)) % 2)


def test_weights_make_the_loss_the_mean_over_the_used_places():
    """Keras divides by all places, used or not; an example of two tokens uses one of its three."""
    pairs = numbered(8)
    pairs.input_ids[::2, 3:] = PAD  # two tokens, one prediction
    (_, _, weights), *_ = make_pretraining_dataset(pairs, MASKER, 8, 1, seed=0).as_numpy_iterator()
    used = weights["masked_lm"] > 0
    assert used.sum() == 4 * 1 + 4 * 3
    np.testing.assert_allclose(weights["masked_lm"][used], 24 / 16, rtol=1e-6)
    np.testing.assert_array_equal(weights["next_sentence"], np.ones(8))


@pytest.mark.parametrize("start", [1, 3, 7])
def test_batch_n_is_the_same_wherever_the_run_started(start):
    whole, part = batches(0, 9), batches(start, 9)
    assert len(whole) == 9
    assert len(part) == 9 - start
    for one, other in zip(whole[start:], part, strict=True):
        for key, value in leaves(one).items():
            np.testing.assert_array_equal(value, leaves(other)[key], err_msg=key)


def test_every_epoch_has_every_example_in_an_order_of_its_own():
    stream = np.concatenate([numbers(batch) for batch in batches(0, 11, batch_size=3)])  # three epochs of 11
    epochs = stream.reshape(3, 11)
    for epoch in epochs:
        assert sorted(epoch) == list(range(11))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert tuple(epochs[0]) != tuple(range(11))


def test_every_epoch_has_masks_of_its_own():
    epochs = [batch for batch in batches(0, 2, batch_size=11, shuffle=False)]
    assert (epochs[0][0]["input_ids"] != epochs[1][0]["input_ids"]).any()
    assert (epochs[0][0]["masked_lm_positions"] != epochs[1][0]["masked_lm_positions"]).any()
    np.testing.assert_array_equal(numbers(epochs[0]), numbers(epochs[1]))


def test_the_datasets_seed_decides():
    one, same, other = batches(0, 3), batches(0, 3), batches(0, 3, seed=10)
    for first, second in zip(one, same, strict=True):
        for key, value in leaves(first).items():
            np.testing.assert_array_equal(value, leaves(second)[key])
    assert any((x[0]["input_ids"] != y[0]["input_ids"]).any() for x, y in zip(one, other, strict=True))


def test_evaluation_sees_every_example_under_fixed_masks():
    datasets = [list(make_evaluation_dataset(numbered(), MASKER, 4, seed=0).as_numpy_iterator()) for _ in range(2)]
    seen = np.concatenate([numbers(batch) for batch in datasets[0]])
    assert set(seen) == set(range(11))
    for one, other in zip(*datasets, strict=True):
        np.testing.assert_array_equal(one[0]["input_ids"], other[0]["input_ids"])


def test_evaluation_of_fewer_examples_than_a_batch():
    (batch,) = make_evaluation_dataset(numbered(3), MASKER, 32, seed=0).as_numpy_iterator()
    assert sorted(numbers(batch)) == [0, 1, 2]
