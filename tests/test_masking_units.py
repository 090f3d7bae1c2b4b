"""Whole words, spans and rows of several documents: against the published loops in plain Python, and in figures."""

import types

import numpy as np
import pytest
import tensorflow as tf
from test_masking import CLS, MASK, PAD, SEP, SPECIAL, UNK, draw, example, within

from keras_bert.training.masking import SPANBERT_LENGTHS, Masker, _take_in_order

# Ids from 40 on go on with a word.
PIECES = [f"##{i}" if i >= 40 else str(i) for i in range(50)]
TOKENIZER = types.SimpleNamespace(special_ids=SPECIAL, pad_id=PAD, mask_id=MASK, vocab_size=50, vocabulary=PIECES)
BEGINS = [i for i in range(40) if i not in SPECIAL]


def draws_of(row, draws, **kwargs):
    return draw(row, draws, tokenizer=TOKENIZER, **kwargs)


def words_of(row):
    """Lists of places, by the loop of create_pretraining_data.py; a special token ends a word."""
    words = []
    for place, token in enumerate(row):
        if token in SPECIAL:
            continue
        if token >= 40 and place and row[place - 1] not in SPECIAL:
            words[-1].append(place)
        else:
            words.append([place])
    return words


def sentence(sizes, seed=0):
    """[CLS] words of so many pieces, [SEP] in their midst [SEP] [PAD]*."""
    random = np.random.default_rng(seed)
    row = [CLS]
    for index, size in enumerate(sizes):
        row += [random.choice(BEGINS), *random.integers(40, 50, size - 1)]
        if index == len(sizes) // 2:
            row.append(SEP)
    return np.array([*row, SEP, PAD, PAD], np.int32)


SIZES = np.random.default_rng(1).choice([1, 1, 1, 1, 2, 2, 3, 5], 60)


def chosen_in(drawn, row):
    chosen = np.zeros((len(drawn["input_ids"]), len(row) + 1), bool)
    used = drawn["masked_lm_weights"] == 1
    np.put_along_axis(chosen, np.where(used, drawn["masked_lm_positions"], len(row)), True, axis=1)
    return chosen[:, :-1]


@pytest.mark.parametrize("groups", [1, 3])
def test_taking_in_order_is_the_loop_of_the_original(groups):
    """Its `continue` where a word would go over, its end where the number is reached; group by group."""
    random = np.random.default_rng(0)
    take = tf.function(_take_in_order)
    for _ in range(40):
        order, sizes = random.permutation(30).astype("int32"), random.integers(0, 6, 30).astype("int32")
        group, wanted = random.integers(0, groups, 30).astype("int32"), np.zeros(30, "int32")
        wanted[:groups] = random.integers(0, 25, groups)
        expected, left = np.zeros(30, bool), wanted.copy()
        for item in order:
            if 0 < sizes[item] <= left[group[item]]:
                expected[item] = True
                left[group[item]] -= sizes[item]
        np.testing.assert_array_equal(take(*map(tf.constant, (order, sizes, group, wanted))), expected)


@pytest.fixture(scope="module")
def whole_words():
    row = sentence(SIZES)
    return row, draws_of(row, 3000, unit="whole_word", max_predictions=30)


def test_words_are_masked_whole(whole_words):
    row, drawn = whole_words
    chosen = chosen_in(drawn, row)
    assert not chosen[:, np.isin(row, SPECIAL)].any()
    for word in words_of(row):
        assert (chosen[:, word].all(axis=1) == chosen[:, word].any(axis=1)).all()
    np.testing.assert_array_equal(
        np.where(chosen, row, drawn["input_ids"]), np.tile(row, (len(chosen), 1)), err_msg="nothing else changes"
    )


def test_the_number_of_predictions_is_the_wanted_one(whole_words):
    row, drawn = whole_words
    numbers = drawn["masked_lm_weights"].sum(axis=1)
    wanted = round(0.15 * SIZES.sum())
    assert numbers.max() <= wanted
    assert numbers.mean() > 0.999 * wanted


@pytest.mark.parametrize("size", [2, 3])
def test_the_number_where_no_word_has_one_piece(size):
    """The most that such words can fill, without one that goes over."""
    row = sentence([size] * 40)
    drawn = draws_of(row, 200, unit="whole_word", max_predictions=30)
    assert (drawn["masked_lm_weights"].sum(axis=1) == round(0.15 * 40 * size) // size * size).all()


def test_each_token_of_a_word_has_a_draw_of_its_own(whole_words):
    """80/10/10 for each token, as google-research does it."""
    row, drawn = whole_words
    chosen = chosen_in(drawn, row)
    hidden = drawn["input_ids"][chosen] == MASK
    within(hidden.sum(), 0.8, hidden.size)
    pairs = [word for word in words_of(row) if len(word) == 2]
    both = np.concatenate([drawn["input_ids"][chosen[:, word[0]]][:, word] == MASK for word in pairs])
    within(both.all(axis=1).sum(), 0.64, len(both))


def test_words_are_as_likely_wherever_they_stand(whole_words):
    """Long words a little less than short ones, as in the original; the same for both halves of the row."""
    row, drawn = whole_words
    chosen = chosen_in(drawn, row)
    rng = np.random.default_rng(0)
    reference = np.zeros((6000, len(row)), bool)
    for one in reference:
        left = round(0.15 * SIZES.sum())
        words = words_of(row)
        for index in rng.permutation(len(words)):
            if len(words[index]) <= left:
                one[words[index]] = True
                left -= len(words[index])
    for word in words_of(row):
        p = reference[:, word[0]].mean()
        within(chosen[:, word[0]].sum(), p, len(chosen), deviations=4.5 * (1 + 0.5) ** 0.5)


def test_the_caller_may_say_where_words_begin():
    """Chinese: each character is a piece, and a segmenter knows the words."""
    row = example(30)
    starts = (np.arange(len(row)) % 3 == 1).astype("int32")  # from [CLS] on, words of three
    drawn = draws_of(row, 300, unit="whole_word", word_starts=starts, max_predictions=9)
    chosen = chosen_in(drawn, row)
    plain = draws_of(row, 300, unit="whole_word", max_predictions=9)
    assert (chosen_in(plain, row).sum(axis=1) == 4).all()
    for place in range(1, 15, 3):  # before the [SEP] in the midst
        assert (chosen[:, place] == chosen[:, place + 1]).all()
        assert (chosen[:, place] == chosen[:, place + 2]).all()
    assert chosen.any()


def test_a_special_token_ends_a_word_and_unknown_words_are_never_chosen():
    row = np.array([CLS, 41, 42, UNK, 43, 3, SEP, 44, PAD], np.int32)
    drawn = draws_of(row, 400, unit="whole_word", rate=0.34, max_predictions=5)  # 2 of 6 tokens
    seen = {tuple(np.flatnonzero(one)) for one in chosen_in(drawn, row)}
    assert seen == {(1, 2), (4, 5), (4, 7), (5, 7)}


def test_spans_are_as_long_as_the_papers():
    np.testing.assert_allclose(sum(SPANBERT_LENGTHS), 1)
    assert len(SPANBERT_LENGTHS) == 10
    np.testing.assert_allclose(SPANBERT_LENGTHS[1] / SPANBERT_LENGTHS[0], 0.8)
    # "This yields a mean span length of mean(l) = 3.8."
    assert round(sum(length * p for length, p in enumerate(SPANBERT_LENGTHS, start=1)), 1) == 3.8


@pytest.fixture(scope="module")
def triples():
    """One span of three words, each of one piece, in two runs of 20."""
    row = np.array([CLS, *np.resize(BEGINS, 20), SEP, *np.resize(BEGINS[7:], 20), SEP], np.int32)
    return row, draws_of(row, 6000, unit="span", rate=3 / 40, max_predictions=3, span_lengths=(0, 0, 1))


def test_a_span_is_words_side_by_side(triples):
    row, drawn = triples
    places = drawn["masked_lm_positions"]
    starts, counts = np.unique(places[(np.diff(places, axis=1) == 1).all(axis=1)][:, 0], return_counts=True)
    assert set(starts) == {*range(1, 19), *range(22, 40)}, "and never over a [SEP]"
    # One span in 40 begins at each word, and is whole unless one of the four words is its start that lack room.
    for count in counts[np.isin(starts, [4, 9, 30])]:
        within(count, 1 / 40, len(places))
    split = (np.diff(places, axis=1) != 1).any(axis=1)
    assert 0 < split.mean() < 4.5 / 40, "a span cut at the end of a run is filled up from another"


def test_a_span_is_replaced_as_one(triples):
    """Joshi et al. 2020, section 3.1: "we perform this replacement at the span level"."""
    row, drawn = triples
    places = drawn["masked_lm_positions"]
    whole = (np.diff(places, axis=1) == 1).all(axis=1)
    shown = np.take_along_axis(drawn["input_ids"], places, axis=1)[whole]
    hidden = shown == MASK
    assert (hidden.all(axis=1) == hidden.any(axis=1)).mean() > 0.98  # a few are the halves of two spans
    within(hidden.all(axis=1).sum(), 0.8, len(hidden), deviations=6)
    same = (shown == drawn["masked_lm_ids"][whole]).all(axis=1)
    within(same.sum(), 0.1, len(same), deviations=6)
    assert not np.isin(shown[~hidden], SPECIAL).any()


def test_spans_are_drawn_as_by_the_published_loop():
    """How many words are chosen, and in how many runs: SpanBERT's sampling, one span after the other."""
    row = np.array([CLS, *np.resize(BEGINS, 100), SEP], np.int32)
    drawn = draws_of(row, 2000, unit="span", max_predictions=15)
    chosen = chosen_in(drawn, row)
    assert (chosen.sum(axis=1) == 15).all()
    random, reference = np.random.default_rng(0), np.zeros((2000, 102), bool)
    for one in reference:
        while one.sum() < 15:
            start = random.integers(1, 101)
            length = random.choice(10, p=SPANBERT_LENGTHS) + 1
            if not one[start]:
                for place in range(start, min(start + length, 101)):
                    if one.sum() < 15:
                        one[place] = True
    runs = [(np.diff(rows.astype(int), axis=1) == 1).sum(axis=1) for rows in (chosen, reference)]
    error = (sum(counts.var() for counts in runs) / 2000) ** 0.5
    assert abs(runs[0].mean() - runs[1].mean()) < 4.5 * error, [counts.mean() for counts in runs]
    for places in (range(1, 26), range(26, 76), range(76, 101)):
        shares = [rows[:, list(places)].sum(axis=1) for rows in (chosen, reference)]
        error = (sum(counts.var() for counts in shares) / 2000) ** 0.5
        assert abs(shares[0].mean() - shares[1].mean()) < 4.5 * error


def test_the_rate_of_spans_of_whole_words():
    row = sentence(SIZES)
    drawn = draws_of(row, 500, unit="span", max_predictions=30)
    chosen, wanted = chosen_in(drawn, row), round(0.15 * SIZES.sum())
    assert chosen.sum(axis=1).max() <= wanted
    assert abs(chosen.sum(axis=1).mean() / wanted - 1) < 0.02
    for word in words_of(row):
        assert (chosen[:, word].all(axis=1) == chosen[:, word].any(axis=1)).all()


def packed_row():
    """Documents of 40, 9, 2 and 1 tokens."""
    rows = [[CLS, *np.resize(BEGINS, n), SEP] for n in (40, 9, 2, 1)]
    numbers = np.repeat([1, 2, 3, 4, 0], [*map(len, rows), 3])
    return np.array([*sum(rows, []), PAD, PAD, PAD], np.int32), numbers.astype("int32")


@pytest.mark.parametrize("unit", ["token", "whole_word", "span"])
def test_each_document_has_its_rate(unit):
    row, numbers = packed_row()
    drawn = draws_of(row, 300, unit=unit, document_ids=numbers, max_predictions=12)
    chosen = chosen_in(drawn, row)
    for number, wanted in enumerate((6, 1, 1, 1), start=1):
        assert (chosen[:, numbers == number].sum(axis=1) == wanted).all()
    assert not chosen[:, np.isin(row, SPECIAL)].any()
    assert (np.diff(drawn["masked_lm_positions"][:, :9], axis=1) > 0).all()


def test_less_room_than_documents_want():
    """What is left out is drawn too: 3 of the 9 that are wanted, and every one of them as likely."""
    row, numbers = packed_row()
    drawn = draws_of(row, 4000, document_ids=numbers, max_predictions=6)
    chosen = chosen_in(drawn, row)
    assert (chosen.sum(axis=1) == 6).all()
    for number, wanted in enumerate((6, 1, 1, 1), start=1):
        within(chosen[:, numbers == number].sum(), 6 / 9, wanted * len(chosen))


def test_one_document_is_an_unpacked_row():
    row = example(40)
    plain, packed = draws_of(row, 50), draws_of(row, 50, document_ids=np.where(row == PAD, 0, 1).astype("int32"))
    for key, value in plain.items():
        np.testing.assert_array_equal(packed[key], value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("unit", ["token", "whole_word", "span"])
def test_rows_at_once_are_rows_one_by_one(unit, packed):
    row = sentence(SIZES[:20])
    rows = np.stack([row, row[::-1], np.full_like(row, PAD)])  # the last has nothing to hide
    beside = {"document_ids": np.where(np.arange(len(row)) < 12, 1, 2).astype("int32")[None].repeat(3, 0)}
    beside = beside if packed else {}
    seeds = np.stack([np.full(3, 5), np.arange(3)], axis=1).astype("int64")
    masker = Masker(TOKENIZER, 0.3, 9, unit=unit)
    at_once = tf.function(masker.mask_rows)(rows, seeds, **beside)
    for number, row in enumerate(rows):
        alone = masker(row, seeds[number], **{name: values[number] for name, values in beside.items()})
        for name, values in alone.items():
            np.testing.assert_array_equal(at_once[name][number], values, err_msg=name)


@pytest.mark.parametrize("unit", ["whole_word", "span"])
def test_an_example_without_a_token(unit):
    row = np.array([CLS, SEP, SEP, PAD, PAD], np.int32)
    drawn = draws_of(row, 2, unit=unit)
    np.testing.assert_array_equal(drawn["input_ids"], [row, row])
    assert not drawn["masked_lm_weights"].any()


@pytest.mark.parametrize("unit", ["whole_word", "span"])
def test_the_seed_decides(unit):
    row = sentence(SIZES)
    one, same, other = (draws_of(row, 20, unit=unit, seed=seed) for seed in (5, 5, 6))
    for key in one:
        np.testing.assert_array_equal(one[key], same[key])
    assert (one["input_ids"] != other["input_ids"]).any(axis=1).all()


def test_parts_of_masks_and_random_tokens():
    row = example(40)
    drawn = draws_of(row, 2000, mask_part=0.5, random_part=0.5)
    shown = np.take_along_axis(drawn["input_ids"], drawn["masked_lm_positions"][:, :6], axis=1)
    within((shown == MASK).sum(), 0.5, shown.size)
    within((shown == drawn["masked_lm_ids"][:, :6]).sum(), 0.5 / 45, shown.size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unit": "word"}, r"one of \('token', 'whole_word', 'span'\).*unit='word'"),
        ({"mask_part": 0.9, "random_part": 0.2}, "no more together.*mask_part=0.9, random_part=0.2"),
        ({"mask_part": -0.1}, "parts of 1.*mask_part=-0.1"),
        ({"unit": "span", "span_lengths": (0.5, 0.4)}, r"sum to 1.*\(0.5, 0.4\)"),
        ({"unit": "span", "span_lengths": ()}, "probabilities of spans"),
        ({"unit": "token", "span_lengths": (1.0,)}, "belong to unit='span'.*'token'"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Masker(TOKENIZER, **arguments)
