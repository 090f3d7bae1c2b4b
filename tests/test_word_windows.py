"""Windows of words, held against their definition, a plain search and `tokenizers`."""

import numpy as np
from tokenizer_reference import reference

from keras_bert.training.word_windows import encode_words, pieces_of_words, windows, words_of_texts

WORDS = ["the", "mats", "sat", "我", "good,bad", "\u200b", "E\u0301", "😀", "", "U.S."]


def test_windows_hold_whole_words_and_share_as_many_as_they_may():
    random = np.random.default_rng(0)
    for _ in range(300):
        room = int(random.integers(1, 12))
        stride = int(random.integers(0, room))
        counts = random.integers(0, room + 1, random.integers(0, 25))
        bounds = np.concatenate([[0], np.cumsum(counts)]) + 7
        found = windows(bounds, room, stride)
        assert found[0][0] == 0
        assert found[-1][1] == len(counts)
        assert all(counts[first:last].sum() <= room for first, last in found)
        for (first, last), (following, end) in zip(found, found[1:], strict=False):
            assert first < following <= last < end
            assert counts[first : last + 1].sum() > room, "it ended where the next word did not fit"
            allowed = min(stride, room - counts[last])
            assert counts[following:last].sum() <= allowed
            assert counts[following - 1 : last].sum() > allowed, "one word more would have been too many"


def test_each_word_is_judged_where_it_has_most_context(tokenizer):
    random = np.random.default_rng(4)
    sentences = [random.choice(WORDS, random.integers(0, 40)).tolist() for _ in range(12)]
    words = pieces_of_words(tokenizer, sentences)
    features = encode_words(words, tokenizer, 12, 6, np.arange(1, len(words.bounds)))
    splits, tags = features.encoding.row_splits, features.encoding.values["tag_ids"]
    assert features.encoding.lengths.max() <= 12
    for word, chosen in enumerate(features.mapping["word_tokens"]):
        candidates = []
        for token in np.flatnonzero(tags == word + 1):
            row = np.searchsorted(splits, token, side="right") - 1
            size = words.bounds[word + 1] - words.bounds[word]
            candidates.append((min(token - splits[row] - 1, splits[row + 1] - 1 - token - size), -token))
        assert bool(candidates) == (words.bounds[word] < words.bounds[word + 1])
        assert chosen == (-max(candidates)[1] if candidates else -1)
    assert (np.bincount(tags)[1:] > 1).any(), "windows share words"
    of_word = np.repeat(np.arange(12), np.diff(words.sentences))
    given = features.mapping["word_tokens"] >= 0
    rows = np.searchsorted(splits, features.mapping["word_tokens"][given], side="right") - 1
    np.testing.assert_array_equal(features.mapping["row_sentences"][rows], of_word[given])


def test_words_of_texts_are_those_of_berts_basic_tokenizer(tokenizer):
    texts = ["The cats sat, 我爱北京。", "", " \u200b ", "a" * 300, "dogs😀 E\u0301s!!", "cat\x00s ran", "好" * 30]
    found, other = words_of_texts(tokenizer, texts), reference(tokenizer)
    assert len(found.sentences) == len(texts) + 1
    for row, text in enumerate(texts):
        expected = other.pre_tokenizer.pre_tokenize_str(other.normalizer.normalize_str(text))
        words = range(found.sentences[row], found.sentences[row + 1])
        pieces = [tokenizer.vocabulary[i] for i in found.pieces[found.bounds[words.start] : found.bounds[words.stop]]]
        assert pieces == other.encode(text, add_special_tokens=False).tokens
        spelt = [text[slice(*found.places[word])] for word in words]
        assert [other.normalizer.normalize_str(word).strip() for word in spelt] == [word for word, _ in expected]
