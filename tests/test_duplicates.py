import random

import pytest

from keras_bert.training.duplicates import drop_near_duplicates, jaccard, shingles


def by_brute_force(texts, threshold):
    sets = [set(shingles(text)) for text in texts]
    kept = []
    for index, items in enumerate(sets):
        if all(len(items & sets[other]) / len(items | sets[other]) < threshold for other in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.6, 0.75, 1.0])
def test_equals_comparing_every_pair(threshold):
    generator = random.Random(0)
    texts = []
    for _ in range(400):
        if texts and generator.random() < 0.5:
            words = generator.choice(texts).split()
            words[generator.randrange(len(words))] = generator.choice("abcdefgh")
        else:
            words = generator.choices("abcdefgh", k=generator.randrange(1, 12))
        texts.append(" ".join(words))
    kept = drop_near_duplicates(texts, threshold)
    assert kept == by_brute_force(texts, threshold)
    assert 1 < len(kept) < len(texts)


PAIRS = [
    ("Return the   Width.", "return the width", True),
    ("New in version 2.7", "New in version 3.11", True),
    ("Added in 3.6 by A. Smith", "Added in 3.11 by A Smith", True),
    ("Returns the sum of all the values in x", "Returns the sum of all the values in y", True),
    ("Returns the sum of all the values", "Opens a file for writing", False),
    ("今天天气很好，我们去公园。", "今天天气很好我们去公园吧", True),
    ("今天天气很好", "明天我要上班", False),
    ("", "  ", True),
    ("", "word", False),
    ("!!!", "???", False),
    ("Hello", "hello!", True),
]


@pytest.mark.parametrize(("first", "second", "same"), PAIRS)
def test_what_counts_as_a_near_duplicate(first, second, same):
    assert drop_near_duplicates([first, second]) == ([0] if same else [0, 1])


def test_the_first_of_each_group_is_kept_and_order_is_kept():
    assert drop_near_duplicates(["a b c", "d e f", "A b, c", "d e f", "g h i"]) == [0, 1, 4]
    assert drop_near_duplicates([]) == []
    assert jaccard(frozenset(), frozenset()) == 1.0


def test_ten_thousand_texts_are_compared_without_comparing_all_pairs():
    generator = random.Random(0)
    words = [f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(400)]
    texts = [" ".join(generator.choices(words, k=generator.randrange(5, 40))) for _ in range(9_000)]
    kept = drop_near_duplicates(texts + [text.upper() for text in texts[:1_000]])
    assert kept == list(range(9_000))


def test_bad_threshold():
    with pytest.raises(ValueError, match="above 0 and up to 1. Received: threshold=0"):
        drop_near_duplicates(["a"], 0)
