"""The heads: shapes, tied weights, and training with nothing but Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from bert_numpy import dense, encode, predict_masked, random_inputs, randomize, weights_of

import keras_bert as kb

CONFIG = kb.BertConfig(
    vocab_size=23,
    hidden_size=12,
    num_hidden_layers=1,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=16,
)
POSITIONS = np.array([[0, 3, 5], [1, 1, 0], [8, 2, 0]], "int32")


@pytest.fixture
def encoder():
    return randomize(kb.build_encoder(CONFIG))


def test_classifier_is_a_dense_layer_on_the_pooled_output(encoder):
    model = randomize(kb.build_classifier(encoder, 4))
    inputs, weights = random_inputs(CONFIG), weights_of(model)
    logits = model(inputs)
    assert logits.shape == (3, 4)
    expected = dense(encode(CONFIG, weights, inputs)["pooled_output"], weights, "logits")
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu"])
def test_pretrainer_is_that_of_the_paper(act):
    config = kb.BertConfig(**{**CONFIG.to_dict(), "hidden_act": act, "layer_norm_eps": 1e-5})
    model = randomize(kb.build_pretrainer(kb.build_encoder(config)))
    inputs, weights = random_inputs(config), weights_of(model)
    outputs, encoded = model({**inputs, "masked_lm_positions": POSITIONS}), encode(config, weights, inputs)
    masked_lm = predict_masked(config, weights, encoded["sequence_output"], POSITIONS)
    np.testing.assert_allclose(outputs["masked_lm"], masked_lm, atol=1e-5)
    np.testing.assert_allclose(
        outputs["next_sentence"], dense(encoded["pooled_output"], weights, "next_sentence"), atol=1e-5
    )


def test_pretrainer_adds_the_published_number_of_weights():
    """BERT-base with both heads has 110,106,428 parameters: google-research/bert's checkpoint, tied."""
    model = kb.build_pretrainer(kb.build_encoder(CONFIG))
    width, vocabulary = CONFIG.hidden_size, CONFIG.vocab_size
    heads = width * width + width + 2 * width + vocabulary + 2 * width + 2
    assert model.count_params() == kb.build_encoder(CONFIG).count_params() + heads
    assert 110_106_428 == 109_482_240 + 768 * 768 + 768 + 2 * 768 + 30522 + 2 * 768 + 2


def test_the_masked_lm_reads_the_word_table_itself(encoder):
    model = kb.build_pretrainer(encoder)
    inputs = random_inputs(CONFIG)
    inputs["input_ids"][:] = 5
    before = model({**inputs, "masked_lm_positions": POSITIONS})["masked_lm"]
    table = encoder.get_layer("embeddings").word_table
    changed = table.numpy()
    changed[7, ::2] += 1.0
    table.assign(changed)
    after = model({**inputs, "masked_lm_positions": POSITIONS})["masked_lm"]
    difference = np.abs(after - before).max(axis=(0, 1))
    assert difference[7] > 1e-3
    assert np.delete(difference, 7).max() < 1e-6


def test_the_word_table_learns_from_both_ends(encoder):
    """Along a random direction the loss changes as the gradient says, for rows that are read, predicted, and both."""
    model = kb.build_pretrainer(encoder)
    inputs = random_inputs(CONFIG)
    inputs["input_ids"] = inputs["input_ids"] % 10  # ids 10 to 22 are only predicted
    inputs["masked_lm_positions"] = POSITIONS
    labels = np.array([[1, 2, 12], [13, 4, 5], [6, 14, 8]])
    table = encoder.get_layer("embeddings").word_table

    def loss():
        logits = model(inputs)["masked_lm"]
        return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    with tf.GradientTape() as tape:
        value = loss()
    gradient = tf.convert_to_tensor(tape.gradient(value, table.value)).numpy()
    start, random = table.numpy(), np.random.default_rng(0)
    for rows in (slice(0, 10), slice(10, 23), slice(0, 23)):
        direction = np.zeros_like(start)
        direction[rows] = random.normal(size=start[rows].shape)
        values = []
        for sign in (1, -1):
            table.assign(start + sign * 1e-2 * direction)
            values.append(float(loss()))
        np.testing.assert_allclose((values[0] - values[1]) / 2e-2, (gradient * direction).sum(), rtol=0.02, atol=0.02)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model(inputs)["next_sentence"][:, 0])
    only_read = tf.convert_to_tensor(tape.gradient(value, table.value)).numpy()
    assert np.abs(only_read[:10]).max() > 0
    assert not only_read[10:].any()
    assert np.abs(gradient[10:]).max() > 0


@pytest.mark.parametrize(("given", "rate"), [(None, 0.3), (0.0, 0.0), (0.7, 0.7)])
def test_the_classifiers_dropout(given, rate):
    config = kb.BertConfig(**{**CONFIG.to_dict(), "hidden_dropout_prob": 0.3})
    model = kb.build_classifier(kb.build_encoder(config), 2, dropout=given)
    assert model.get_layer("classifier_dropout").rate == rate


@pytest.mark.parametrize("number", [1, 0, -3])
def test_fewer_than_two_classes(encoder, number):
    with pytest.raises(ValueError, match=f"at least 2 classes.*num_classes={number}"):
        kb.build_classifier(encoder, number)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_class_logits_are_float32_under_mixed_precision(dtype):
    encoder = kb.build_encoder(CONFIG, dtype=dtype)
    assert kb.build_classifier(encoder, 2)(random_inputs(CONFIG)).dtype == "float32"
    outputs = kb.build_pretrainer(encoder)({**random_inputs(CONFIG), "masked_lm_positions": POSITIONS})
    assert outputs["next_sentence"].dtype == "float32"
    assert np.isfinite(keras.ops.cast(outputs["masked_lm"], "float32")).all()


def learnable(batches=12):
    """Whether id 5 is in the text: a tf.data.Dataset of (inputs, labels), batches of several lengths."""
    random = np.random.default_rng(0)

    def generate():
        for _ in range(batches):
            ids = random.integers(6, 23, (16, random.integers(4, 8)))
            labels = random.integers(0, 2, 16)
            ids[labels == 1, 2] = 5
            mask, types = np.ones_like(ids), np.zeros_like(ids)
            yield {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}, labels

    spec = tf.TensorSpec((16, None), tf.int32)
    names = ("input_ids", "token_type_ids", "attention_mask")
    signature = ({name: spec for name in names}, tf.TensorSpec((16,), tf.int32))
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(batches))


def test_a_classifier_learns_in_plain_keras():
    config = kb.BertConfig.from_preset(
        "tiny", vocab_size=23, hidden_size=16, intermediate_size=32, max_position_embeddings=8, hidden_dropout_prob=0.0
    )
    encoder = kb.build_encoder(config)
    clf = kb.build_classifier(encoder, num_classes=2)
    clf.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    assert clf.optimizer.built
    assert clf.jit_compile is False, "XLA is left to accelerators"
    dataset = learnable().cache()
    history = clf.fit(dataset, epochs=12, validation_data=dataset.take(2), verbose=0).history
    assert history["accuracy"][-1] > 0.9
    assert history["loss"][-1] < history["loss"][0] / 2
    assert history["val_accuracy"][-1] > 0.9


def test_float16_trains_with_a_scaled_loss(tmp_path):
    model = kb.build_classifier(kb.build_encoder(CONFIG, dtype="mixed_float16"), 2)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    before = model.get_weights()
    model.fit(learnable(3), verbose=0)
    after = model.get_weights()
    assert all(np.isfinite(value).all() for value in after)
    assert all(np.abs(x - y).max() > 0 for x, y in zip(before, after, strict=True))
    model.save(tmp_path / "half.keras")
    again = keras.saving.load_model(tmp_path / "half.keras")
    assert isinstance(again.optimizer, keras.optimizers.LossScaleOptimizer)
    for ours, theirs in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    plain = kb.build_classifier(kb.build_encoder(CONFIG, dtype="mixed_bfloat16"), 2)
    plain.compile("adam", "mse")
    assert not isinstance(plain.optimizer, keras.optimizers.LossScaleOptimizer)
