import numpy as np
import pytest
import tensorflow as tf

import keras_bert as kb
from keras_bert.export import unpadded
from keras_bert.export.unpadded import UnpaddedEncoder, in_chunks, padded


def ids_of(lengths, length=None, seed=0):
    """Random rows of these lengths."""
    random = np.random.default_rng(seed)
    mask = (np.arange(length or max(lengths)) < np.array(lengths)[:, None]).astype(np.int32)
    ids = {
        "input_ids": random.integers(0, 50, mask.shape).astype(np.int32),
        "token_type_ids": random.integers(0, 2, mask.shape).astype(np.int32),
        "attention_mask": mask,
    }
    return {name: tf.constant(value) for name, value in ids.items()}


@pytest.fixture(params=[{}, {"hidden_act": "gelu_new"}, {"hidden_act": "relu", "type_vocab_size": 0}])
def encoder(request):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    model = kb.build_encoder(kb.BertConfig(vocab_size=50, max_position_embeddings=64, **{**sizes, **request.param}))
    random = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign((weight.name == "gamma") + random.normal(scale=0.3, size=weight.shape))
    return model


def test_hidden_states_are_those_of_keras(encoder):
    ids = ids_of([3, 17, 1, 9, 9, 30], 33)
    ours = UnpaddedEncoder(encoder)
    found = in_chunks(ids, lambda chunk: {"x": ours.hidden_states(chunk)[-1]}, {}, {"x": [16]})["x"].numpy()
    mask = ids["attention_mask"].numpy()[..., None]
    expected = encoder(ids, training=False)["sequence_output"].numpy() * mask
    np.testing.assert_allclose(found, expected, atol=1e-5)
    first = in_chunks(ids, lambda chunk: {"x": ours.first_token(chunk)}, {"x": [16]}, {})["x"]
    np.testing.assert_allclose(first, expected[:, 0], atol=1e-5)


def test_a_hole_in_the_mask_and_a_row_without_a_token_harm_nobody(encoder):
    ids = ids_of([20, 20, 20])
    mask = ids["attention_mask"].numpy()
    mask[0, 5:9] = 0
    mask[1] = 0
    ids["attention_mask"] = tf.constant(mask)
    ours = UnpaddedEncoder(encoder)
    found = in_chunks(ids, lambda chunk: {"x": ours.first_token(chunk)}, {"x": [16]}, {})["x"].numpy()
    expected = encoder(ids, training=False)["sequence_output"].numpy()[:, 0]
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], atol=1e-5)
    assert np.isfinite(found).all()


def test_no_product_sees_padding(encoder):
    shapes = []

    def head(chunk):
        x = UnpaddedEncoder(encoder).hidden_states(chunk)[-1]
        shapes.append((x.shape[0], padded(chunk, x).shape[:2]))
        return {"x": x}

    unpadded_lengths = [3, 4, 4, 30]
    for chunk_ids in (ids_of(unpadded_lengths),):
        head(unpadded.make_chunk(chunk_ids))
    assert shapes == [(sum(unpadded_lengths), (4, 30))]


def test_rows_of_like_length_are_together_and_chunks_are_small(monkeypatch):
    monkeypatch.setattr(unpadded, "CHUNK_TOKENS", 256)
    lengths = np.random.default_rng(0).integers(1, 65, 300)
    ids = ids_of(lengths)
    ids["number"] = tf.range(300)

    def head(chunk):
        rows, longest = tf.unstack(tf.shape(chunk.real))
        size = tf.fill([rows, 2], 0) + tf.stack([rows, longest])
        values = tf.cast(tf.concat([size, chunk.ids["number"][:, None]], axis=1), tf.float32)
        return {
            "row": values,
            "token": tf.cast(tf.gather(tf.reshape(chunk.ids["input_ids"], [-1]), chunk.places), tf.float32),
        }

    found = tf.function(lambda ids: in_chunks(ids, head, {"row": [3]}, {"token": []}), autograph=False)(ids)
    rows, longest, number = found["row"].numpy().astype(int).T
    assert number.tolist() == list(range(300))
    assert (rows * longest <= 256).all()
    assert (longest >= lengths).all()
    assert lengths.sum() > 0.9 * longest.sum()  # of all places hardly any is padding
    assert rows.mean() > 4
    np.testing.assert_array_equal(found["token"], (ids["input_ids"] * ids["attention_mask"]).numpy())
