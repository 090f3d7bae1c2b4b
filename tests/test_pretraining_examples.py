"""Which tokens stand together. Every token of the made documents is unique, so that it says where it is from."""

import numpy as np
import pytest
import tensorflow as tf

from keras_bert.training.corpus_draws import Draw, mix, mix_array
from keras_bert.training.corpus_records import serialize
from keras_bert.training.pretraining_examples import (
    SPECIAL_PLACES,
    Documents,
    Layout,
    example_lengths,
    make_examples,
    make_rows,
    one_a_row,
    pack,
)

PAD, CLS, SEP = 0, 1, 2


def make_documents(count=60, sentences=(6, 20), words=(2, 12), seed=0):
    """Lists of sentences, which are lists of tokens that are never used twice; and the same as `Documents`."""
    random, token, documents = np.random.default_rng(seed), 10, []
    for _ in range(count):
        document = []
        for _ in range(random.integers(*sentences)):
            size = int(random.integers(*words))
            document.append(list(range(token, token + size)))
            token += size
        documents.append(document)
    return documents, as_documents(documents)


def as_documents(documents):
    sentences = [sentence for document in documents for sentence in document]
    return Documents(
        np.array([token for sentence in sentences for token in sentence], np.int32),
        np.cumsum([len(sentence) for sentence in sentences]),
        np.cumsum([len(document) for document in documents]),
        np.arange(len(documents)) * 7 + 3,
    )


def segments(documents, examples):
    return [
        (documents.tokens[a:b].tolist(), documents.tokens[c:d].tolist(), label)
        for a, b, c, d, label in examples.tolist()
    ]


def by_the_book(documents, numbers, room, seed, short):
    """create_instances_from_document and truncate_seq_pair as published, token by token, with our draws in place of
    Python's; tokens are cut at the end where the first coin of a cut says so."""
    found = []
    for index, document in enumerate(documents):
        draw = Draw(seed, int(numbers[index]), 0)
        target = room
        if draw.chance(short):
            target = draw.between(2, room)
        chunk, length, i = [], 0, 0
        while i < len(document):
            chunk.append(document[i])
            length += len(document[i])
            if i == len(document) - 1 or length >= target:
                a_end = 1
                if len(chunk) >= 2:
                    a_end = draw.between(1, len(chunk) - 1)
                tokens_a = sum(chunk[:a_end], [])
                tokens_b = []
                if len(chunk) == 1 or draw.chance(0.5):
                    label = 1
                    other = draw.below(len(documents) - 1)
                    other = documents[other if other < index else other + 1]
                    for sentence in other[draw.below(len(other)) :]:
                        tokens_b.extend(sentence)
                        if len(tokens_b) >= target - len(tokens_a):
                            break
                    i -= len(chunk) - a_end
                else:
                    label = 0
                    tokens_b = sum(chunk[a_end:], [])
                removed = [0, 0]
                while len(tokens_a) + len(tokens_b) - sum(removed) > room:
                    longer = 0 if len(tokens_a) - removed[0] > len(tokens_b) - removed[1] else 1
                    removed[longer] += 1
                if sum(removed):
                    for tokens, count, front in zip(
                        (tokens_a, tokens_b), removed, map(draw.heads, removed), strict=True
                    ):
                        del tokens[:front]
                        del tokens[len(tokens) - (count - front) :]
                found.append((tokens_a, tokens_b, label))
                chunk, length = [], 0
            i += 1
    return found


@pytest.mark.parametrize(("room", "short"), [(29, 0.1), (125, 0.1), (2, 0.0), (13, 1.0)])
def test_sentence_pairs_are_those_of_the_published_script(room, short):
    lists, documents = make_documents(40)
    lists[3:5] = [[[5]], [[6, 7, 8]]]  # documents of one sentence
    documents = as_documents(lists)
    examples = make_examples(documents, "nsp", room + 3, seed=5, short_example_probability=short)
    assert segments(documents, examples) == by_the_book(lists, documents.numbers, room, 5, short)


def test_label_0_follows_and_label_1_comes_from_another_document():
    lists, documents = make_documents()
    home = {token: index for index, document in enumerate(lists) for sentence in document for token in sentence}
    labels = []
    for first, second, label in segments(documents, make_examples(documents, "nsp", 32, seed=1)):
        assert first == list(range(first[0], first[0] + len(first)))
        assert second == list(range(second[0], second[0] + len(second)))
        assert (home[first[0]] == home[second[0]]) == (label == 0)
        if label == 0:
            assert second[0] > first[-1]
            if len(first) + len(second) < 29:
                assert second[0] == first[-1] + 1
        labels.append(label)
    assert len(labels) > 200
    assert 0.42 < np.mean(labels) < 0.62


def test_displaced_sentences_come_again():
    """With room for all, every token is in some A or B."""
    _, documents = make_documents(20, words=(1, 3))
    seen = {t for pair in segments(documents, make_examples(documents, "nsp", 64, seed=0)) for s in pair[:2] for t in s}
    assert seen == set(documents.tokens.tolist())


def test_sentence_order_is_swapped_half_of_the_time():
    lists, documents = make_documents(200)
    labels = []
    for first, second, label in segments(documents, make_examples(documents, "sop", 64, seed=1)):
        earlier, later = (second, first) if label else (first, second)
        assert later[0] >= earlier[-1] + 1
        if len(first) + len(second) < 61:
            assert later[0] == earlier[-1] + 1
        labels.append(label)
    assert 0.45 < np.mean(labels) < 0.55
    alone = as_documents([[[5]], [[6, 7, 8]]])
    for first, second, label in segments(alone, make_examples(alone, "sop", 64, seed=0)):
        assert sorted(first + second) == [6, 7, 8]
        assert (first < second) == (label == 0)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("length", [5, 12, 64])
def test_masked_lm_alone_has_every_token_once(cut, length):
    lists, documents = make_documents(40, words=(1, 30))
    examples = make_examples(documents, "mlm", length, seed=2, cut_sentences=cut)
    found = segments(documents, examples)
    assert [token for first, second, _ in found for token in first + second] == documents.tokens.tolist()
    assert not any(second for _, second, _ in found)
    assert max(len(first) for first, _, _ in found) <= length - 2
    home = {token: index for index, document in enumerate(lists) for sentence in document for token in sentence}
    assert all(len({home[token] for token in first}) == 1 for first, _, _ in found)
    if not cut and length == 64:
        ends = {sentence[-1] for document in lists for sentence in document}
        assert all(first[-1] in ends for first, _, _ in found if len(first) > 31)


def test_copies_have_draws_of_their_own_and_order_does_not_matter():
    _, documents = make_documents(20)
    once = make_examples(documents, "nsp", 32, seed=1)
    twice = make_examples(documents, "nsp", 32, seed=1, copies=2)
    np.testing.assert_array_equal(twice[: len(once)], once)
    assert twice[len(once) :].tolist() != once.tolist()
    assert make_examples(documents, "nsp", 32, seed=2).tolist() != once.tolist()


def test_a_document_needs_another():
    with pytest.raises(ValueError, match="at least two documents.*Received: 1"):
        make_examples(as_documents([[[7, 8]]]), "nsp", 32, seed=0)


def test_a_sentence_of_millions_of_tokens():
    documents = Documents(np.arange(3_000_010), np.array([3_000_000, 3_000_010]), np.array([1, 2]), np.array([0, 1]))
    for objective, count in (("nsp", 2), ("mlm", 3_000_000 // 126 + 2)):
        examples = make_examples(documents, objective, 128, seed=0, short_example_probability=0)
        assert abs(len(examples) - count) <= 1


# Rows.


def rows_of(documents, examples, layout, objective, length, packed=False):
    blocks = list(
        make_rows(documents, examples, layout, objective, length, (PAD, CLS, SEP), packed=packed, rows_at_once=7)
    )
    assert all(block["input_ids"].dtype == np.int32 for block in blocks)
    return blocks


@pytest.mark.parametrize("objective", ["nsp", "sop", "mlm"])
def test_rows_hold_the_examples(objective):
    _, documents = make_documents(12)
    examples = make_examples(documents, objective, 32, seed=1)
    blocks = rows_of(
        documents,
        examples,
        Layout(np.arange(len(examples)), np.zeros(len(examples), int), len(examples)),
        objective,
        32,
    )
    ids, mask, types = (
        np.concatenate([b[name] for b in blocks]) for name in ("input_ids", "input_mask", "segment_ids")
    )
    for row, (first, second, _) in enumerate(segments(documents, examples)):
        expected = [CLS, *first, SEP] + ([*second, SEP] if objective != "mlm" else [])
        padding = 32 - len(expected)
        assert ids[row].tolist() == expected + [PAD] * padding
        assert mask[row].tolist() == [1] * len(expected) + [0] * padding
        second_size = len(second) + 1 if objective != "mlm" else 0
        assert types[row].tolist() == [0] * (len(first) + 2) + [1] * second_size + [0] * padding
    if objective != "mlm":
        labels = np.concatenate([block["next_sentence_labels"] for block in blocks])
        np.testing.assert_array_equal(labels, examples[:, 4])


@pytest.mark.parametrize("objective", ["nsp", "mlm"])
def test_packed_rows_hold_every_example_once(objective):
    _, documents = make_documents(30)
    examples = make_examples(documents, objective, 48, seed=1, short_example_probability=0.5, cut_sentences=True)
    layout = pack(example_lengths(examples, objective), 48, seed=3)
    found, labels = [], []
    for block in rows_of(documents, examples, layout, objective, 48, packed=True):
        begin = 0
        for row in range(len(block["input_ids"])):
            ids, numbers = block["input_ids"][row], block["document_ids"][row]
            assert ((numbers > 0) == (block["input_mask"][row] == 1)).all()
            used = int((numbers > 0).sum())
            assert (numbers[:used] > 0).all()
            assert (np.diff(numbers[:used]) >= 0).all()
            inside = [ids[numbers == number].tolist() for number in range(1, numbers.max() + 1)]
            assert all(example[0] == CLS and example[-1] == SEP for example in inside)
            found += inside
            if objective == "nsp":
                end = block["label_ends"][row]
                assert end - begin == len(inside)
                labels += block["next_sentence_labels"][begin:end].tolist()
                begin = end
    made = [
        [CLS, *first, SEP] + ([*second, SEP] if objective == "nsp" else [])
        for first, second, _ in segments(documents, examples)
    ]
    assert sorted(found) == sorted(made)
    if objective == "nsp":
        pairs = sorted(zip(made, examples[:, 4].tolist(), strict=True))
        assert sorted(zip(found, labels, strict=True)) == pairs


def test_packing_is_no_worse_than_first_fit_decreasing():
    random = np.random.default_rng(0)
    for size in (16, 128):
        lengths = random.integers(3, size + 1, 2000)
        layout = pack(lengths, size, seed=0)
        filled = np.bincount(layout.rows, lengths, layout.count)
        assert filled.max() <= size
        assert len(filled) == layout.count
        assert filled.min() > 0
        free: list[int] = []
        for length in sorted(lengths.tolist(), reverse=True):
            place = next((row for row, room in enumerate(free) if room >= length), None)
            if place is None:
                free.append(size)
                place = len(free) - 1
            free[place] -= length
        assert layout.count <= len(free) * 1.01
    assert pack(np.zeros(0, np.int64), 16, 0).count == 0


def test_rows_are_shuffled_and_none_is_lost():
    layout = one_a_row(np.zeros((100, 5), np.int64), seed=1)
    assert sorted(layout.rows) == list(range(100))
    assert layout.rows.tolist() != list(range(100))
    assert one_a_row(np.zeros((100, 5), np.int64), seed=2).rows.tolist() != layout.rows.tolist()


def test_word_starts_follow_the_tokens():
    _, documents = make_documents(6)
    starts = (documents.tokens % 3 == 0).astype(np.uint8)
    documents = Documents(documents.tokens, documents.sentence_ends, documents.document_ends, documents.numbers, starts)
    examples = make_examples(documents, "nsp", 32, seed=1)
    for block in rows_of(documents, examples, one_a_row(examples, 0), "nsp", 32):
        ids, words = block["input_ids"], block["word_starts"]
        after_special = np.roll((ids == CLS) | (ids == SEP), 1, axis=1)
        expected = (ids % 3 == 0) | after_special | (ids == CLS) | (ids == SEP)
        np.testing.assert_array_equal(words[ids != PAD], expected[ids != PAD])
        assert not words[ids == PAD].any()


# Draws.


def test_draws_are_uniform_and_splitmix64():
    # The first outputs of the published generator for the seed 1234567 (Vigna's splitmix64.c).
    draw = Draw()
    draw._state = 1234567
    assert [draw.bits() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    np.testing.assert_array_equal(mix_array(np.arange(5)), [mix(value) for value in range(5)])
    draw = Draw(1, 2, 3)
    counts = np.bincount([draw.below(10) for _ in range(10_000)])
    assert len(counts) == 10
    assert counts.min() > 850
    assert abs(np.mean([draw.heads(100) for _ in range(500)]) - 50) < 1
    assert abs(np.std([draw.heads(100) for _ in range(500)]) - 5) < 0.6
    assert Draw(1, 2).bits() != Draw(2, 1).bits()
    assert {draw.between(3, 5) for _ in range(100)} == {3, 4, 5}


def test_special_places():
    assert SPECIAL_PLACES == {"nsp": 3, "sop": 3, "mlm": 2}


def test_records_are_those_of_protobuf():
    random = np.random.default_rng(0)
    for rows, width, most in ((5, 7, 100), (3, 300, 1 << 30), (1, 1, 1 << 15), (4, 128, 30522)):
        fields = {
            "input_ids": random.integers(0, most, (rows, width)).astype(np.int32),
            "input_mask": random.integers(0, 2, (rows, width)).astype(np.int32),
            "masked_lm_weights": random.random((rows, 3), np.float32),
            "next_sentence_labels": random.integers(0, 2, 2 * rows).astype(np.int32),
            "label_ends": np.sort(random.integers(0, 2 * rows + 1, rows)),
        }
        begins = [0, *fields["label_ends"].tolist()]
        for row, record in enumerate(serialize(fields)):
            example = tf.train.Example()
            feature = example.features.feature
            for name in ("input_ids", "input_mask"):
                feature[name].int64_list.value.extend(fields[name][row].tolist())
            feature["masked_lm_weights"].float_list.value.extend(fields["masked_lm_weights"][row].tolist())
            labels = fields["next_sentence_labels"][begins[row] : begins[row + 1]]
            feature["next_sentence_labels"].int64_list.value.extend(labels.tolist())
            feature["next_sentence_labels"].int64_list.SetInParent()
            assert record == example.SerializeToString(deterministic=True)
