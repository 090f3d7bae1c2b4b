"""Which tokens are hidden, and behind what: the paper's numbers, within binomial bounds."""

import types

import numpy as np
import pytest
import tensorflow as tf

from keras_bert.training.masking import Masker

VOCAB_SIZE = 50
PAD, UNK, CLS, SEP, MASK = SPECIAL = (0, 7, 8, 9, 10)
TOKENIZER = types.SimpleNamespace(special_ids=SPECIAL, pad_id=PAD, mask_id=MASK, vocab_size=VOCAB_SIZE)
ORDINARY = [i for i in range(VOCAB_SIZE) if i not in SPECIAL]
LENGTH = 48


def example(count, length=LENGTH, seed=0):
    """[CLS] `count` ordinary tokens in two segments [SEP] [PAD]*."""
    ids = np.random.default_rng(seed).choice(ORDINARY, count)
    row = [CLS, *ids[: count // 2], SEP, *ids[count // 2 :], SEP]
    return np.array(row + [PAD] * (length - len(row)), np.int32)


def draw(
    row,
    draws,
    rate=0.15,
    max_predictions=7,
    seed=5,
    tokenizer=TOKENIZER,
    word_starts=None,
    document_ids=None,
    **arguments,
):
    """Masks of one example under `draws` seeds, stacked, as NumPy arrays."""
    masker = Masker(tokenizer, rate, max_predictions, **arguments)
    beside = {
        key: tf.constant(value)
        for key, value in {"word_starts": word_starts, "document_ids": document_ids}.items()
        if value is not None
    }

    @tf.function
    def all_draws():
        signature = {
            "input_ids": tf.TensorSpec(row.shape, tf.int32),
            "masked_lm_positions": tf.TensorSpec(max_predictions, tf.int32),
            "masked_lm_ids": tf.TensorSpec(max_predictions, tf.int32),
            "masked_lm_weights": tf.TensorSpec(max_predictions, tf.float32),
        }
        seeds = tf.stack([tf.fill([draws], tf.constant(seed, tf.int64)), tf.range(draws, dtype=tf.int64)], axis=1)
        return tf.map_fn(lambda one: masker(tf.constant(row), one, **beside), seeds, fn_output_signature=signature)

    return {key: value.numpy() for key, value in all_draws().items()}


@pytest.fixture(scope="module")
def many():
    """(the example, 4000 draws over its 40 tokens, 6 predictions each)."""
    row = example(40)
    return row, draw(row, 4000)


def within(observed, probability, count, deviations=4.5):
    assert abs(observed / count - probability) < deviations * (probability * (1 - probability) / count) ** 0.5


def test_the_rate_is_15_percent(many):
    _, drawn = many
    assert (drawn["masked_lm_weights"].sum(axis=1) == 6).all()


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (3, 1), (10, 2), (20, 3), (40, 6), (45, 7)])
def test_the_number_of_predictions(count, expected):
    """15 % rounded, at least one where there is a token, at most the room; round(1.5) is 2, and 45 tokens want 6.75."""
    assert draw(example(count), 3)["masked_lm_weights"].sum(axis=1).tolist() == [expected] * 3


def test_more_wanted_than_there_is_room_for():
    drawn = draw(example(40), 3, rate=0.9, max_predictions=4)
    assert drawn["masked_lm_weights"].tolist() == [[1, 1, 1, 1]] * 3


def test_room_for_more_than_the_example_holds():
    drawn = draw(example(3, length=6), 2, rate=0.99, max_predictions=20)
    assert drawn["masked_lm_weights"].sum(axis=1).tolist() == [3, 3]
    assert drawn["masked_lm_positions"].shape == (2, 20)


def test_positions_ascend_are_unique_and_never_special(many):
    row, drawn = many
    used = drawn["masked_lm_weights"] == 1
    assert (used[:, :6]).all()
    positions = drawn["masked_lm_positions"][:, :6]
    assert (np.diff(positions, axis=1) > 0).all()
    assert not np.isin(row[positions], SPECIAL).any()


def test_labels_are_the_tokens_that_were_there(many):
    row, drawn = many
    np.testing.assert_array_equal(drawn["masked_lm_ids"][:, :6], row[drawn["masked_lm_positions"][:, :6]])


def test_unused_places_are_zero(many):
    _, drawn = many
    for key in ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"):
        assert not drawn[key][:, 6:].any()


def test_nothing_else_changes(many):
    row, drawn = many
    chosen = np.zeros(drawn["input_ids"].shape, bool)
    np.put_along_axis(chosen, drawn["masked_lm_positions"][:, :6], True, axis=1)
    np.testing.assert_array_equal(np.where(chosen, row, drawn["input_ids"]), np.tile(row, (len(chosen), 1)))


def test_80_10_10(many):
    row, drawn = many
    shown = np.take_along_axis(drawn["input_ids"], drawn["masked_lm_positions"][:, :6], axis=1)
    hidden, same = shown == MASK, shown == drawn["masked_lm_ids"][:, :6]
    within(hidden.sum(), 0.8, hidden.size)
    # One random token in 45 is the token itself.
    within(same.sum(), 0.1 + 0.1 / len(ORDINARY), same.size)
    random = shown[~hidden & ~same]
    assert not np.isin(random, SPECIAL).any()
    assert set(random) == set(ORDINARY), "every ordinary token can be drawn"


def test_every_token_is_as_likely(many):
    row, drawn = many
    counts = np.bincount(drawn["masked_lm_positions"][:, :6].ravel(), minlength=LENGTH)
    for position in np.flatnonzero(~np.isin(row, SPECIAL)):
        within(counts[position], 6 / 40, len(drawn["input_ids"]))


def test_what_replaces_a_token_does_not_depend_on_which_was_chosen(many):
    """The three draws have seeds of their own: [MASK] is as likely at the first chosen position as at the last."""
    _, drawn = many
    shown = np.take_along_axis(drawn["input_ids"], drawn["masked_lm_positions"][:, :6], axis=1)
    for place in range(6):
        within((shown[:, place] == MASK).sum(), 0.8, len(shown))


def test_the_seed_decides():
    row = example(40)
    one, same, other = draw(row, 20), draw(row, 20), draw(row, 20, seed=6)
    for key in one:
        np.testing.assert_array_equal(one[key], same[key])
    assert (one["input_ids"] != other["input_ids"]).any(axis=1).mean() > 0.9
    assert len({tuple(masked) for masked in one["input_ids"]}) == 20, "each seed has a mask of its own"


def test_an_example_without_a_token():
    row = np.array([CLS, SEP, SEP, PAD, PAD], np.int32)
    drawn = draw(row, 2)
    np.testing.assert_array_equal(drawn["input_ids"], [row, row])
    assert not drawn["masked_lm_weights"].any()


@pytest.mark.parametrize("rate", [0, 1, -0.15, 15])
def test_refused_rates(rate):
    with pytest.raises(ValueError, match=f"between 0 and 1.*rate={rate}"):
        Masker(TOKENIZER, rate)
