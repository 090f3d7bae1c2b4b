"""The heads: shapes, tied weights, and training with nothing but Keras."""

import json

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


@pytest.mark.parametrize("number", [0, -3, 2.0, True])
def test_fewer_than_one_class(encoder, number):
    for build in (kb.build_classifier, kb.build_token_classifier):
        with pytest.raises(ValueError, match=f"at least 1 class.*num_classes={number}"):
            build(encoder, number)


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


@pytest.fixture
def pooled(encoder):
    """Inputs whose second row is padded."""
    inputs = random_inputs(CONFIG)
    inputs["attention_mask"][1, 4:] = 0
    return inputs


def test_token_classifier_and_question_answerer_are_dense_layers_on_every_token(encoder, pooled):
    for build, split in (
        (lambda: kb.build_token_classifier(encoder, 4), lambda y: y),
        (lambda: kb.build_question_answerer(encoder), lambda y: np.stack([y["start_logits"], y["end_logits"]], -1)),
    ):
        model = randomize(build())
        weights = weights_of(model)
        assert not any(name.startswith("pooler") for name in weights)
        states = encode(CONFIG, {**weights_of(encoder), **weights}, pooled)["sequence_output"]
        np.testing.assert_allclose(split(model(pooled)), dense(states, weights, "logits"), atol=1e-5)


def test_multiple_choice_scores_each_choice_by_itself(encoder):
    model = randomize(kb.build_multiple_choice(encoder))
    classifier = kb.build_classifier(encoder, 1)
    classifier.get_layer("logits").set_weights(model.get_layer("logits").get_weights())
    choices = [random_inputs(CONFIG, seed=seed) for seed in range(3)]
    stacked = {name: np.stack([choice[name] for choice in choices], axis=1) for name in choices[0]}
    scores = np.concatenate([classifier(choice) for choice in choices], axis=1)
    np.testing.assert_allclose(model(stacked), scores, atol=1e-6)
    assert kb.config_of(model) == CONFIG
    again = kb.encoder_of(model)
    np.testing.assert_allclose(again(choices[0])["pooled_output"], encoder(choices[0])["pooled_output"], atol=1e-6)


def test_pretraining_goes_on_from_a_multiple_choice_model(encoder):
    """The word table that the masked LM reads is that of the encoder it was built on."""
    inputs = {**random_inputs(CONFIG), "masked_lm_positions": POSITIONS}
    keras.utils.set_random_seed(1)
    direct = kb.build_masked_lm(encoder)
    indirect = kb.build_masked_lm(kb.encoder_of(kb.build_multiple_choice(encoder)))
    indirect.set_weights(direct.get_weights())
    np.testing.assert_allclose(indirect(inputs), direct(inputs), atol=1e-6)


def test_the_halves_of_the_pretrainer(encoder):
    both, inputs = randomize(kb.build_pretrainer(encoder)), {**random_inputs(CONFIG), "masked_lm_positions": POSITIONS}
    expected = both(inputs)
    masked_lm, next_sentence = kb.build_masked_lm(encoder), kb.build_next_sentence(encoder)
    masked_lm.get_layer("masked_lm").set_weights(both.get_layer("masked_lm").get_weights())
    next_sentence.get_layer("next_sentence").set_weights(both.get_layer("next_sentence").get_weights())
    np.testing.assert_array_equal(masked_lm(inputs), expected["masked_lm"])
    del inputs["masked_lm_positions"]
    np.testing.assert_allclose(next_sentence(inputs), expected["next_sentence"], atol=1e-5)


def numpy_pooling(pooling, states, mask):
    rows = [row[keep == 1] for row, keep in zip(states, mask, strict=True)]
    ranks = [np.arange(1, len(row) + 1)[:, None] for row in rows]
    return np.stack(
        {
            "cls": [row[0] for row in rows],
            "mean": [row.mean(0) for row in rows],
            "max": [row.max(0) for row in rows],
            "mean_sqrt_len": [row.sum(0) / len(row) ** 0.5 for row in rows],
            "weighted_mean": [(row * rank).sum(0) / rank.sum() for row, rank in zip(rows, ranks, strict=True)],
            "last_token": [row[-1] for row in rows],
        }[pooling]
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    "pooling", ["cls", "mean", "max", "mean_sqrt_len", "weighted_mean", "last_token", ("mean", "max")]
)
def test_embedder(encoder, pooled, pooling, normalize):
    model = kb.build_embedder(encoder, pooling, normalize=normalize)
    states = encoder(pooled)["sequence_output"].numpy()
    names = [pooling] if isinstance(pooling, str) else pooling
    expected = np.concatenate([numpy_pooling(name, states, pooled["attention_mask"]) for name in names], axis=-1)
    if normalize:
        expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(model(pooled), expected, atol=1e-5)


def test_embedder_with_a_projection(encoder, pooled):
    model = randomize(kb.build_embedder(encoder, "cls", projection_size=5, projection_act="tanh", normalize=False))
    states = encoder(pooled)["sequence_output"].numpy()
    expected = np.tanh(dense(states[:, 0], weights_of(model), "projection"))
    np.testing.assert_allclose(model(pooled), expected, atol=1e-5)


@pytest.fixture(scope="module")
def deep():
    """An encoder with five blocks and padded inputs."""
    config = kb.BertConfig(**{**CONFIG.to_dict(), "num_hidden_layers": 5})
    inputs = random_inputs(config)
    inputs["attention_mask"] = (np.arange(inputs["input_ids"].shape[1]) < [[4], [9], [1]]).astype("int32")
    return randomize(kb.build_encoder(config, output_hidden_states=True)), inputs


@pytest.mark.parametrize("pooling", ["last_4_concat", ["last_4_concat"]])
def test_last_4_concat_is_the_mean_of_the_last_four_blocks(deep, pooling):
    encoder, inputs = deep
    model = kb.build_embedder(encoder, pooling, normalize=False)
    states = [state.numpy() for state in encoder(inputs)["hidden_states"]]
    assert len(states) == 6
    expected = np.concatenate([numpy_pooling("mean", one, inputs["attention_mask"]) for one in states[2:]], axis=-1)
    np.testing.assert_allclose(model(inputs), expected, atol=1e-5)


def test_last_4_concat_on_disk(deep, tokenizer, tmp_path):
    config = kb.BertConfig(**{**CONFIG.to_dict(), "num_hidden_layers": 4, "vocab_size": tokenizer.vocab_size})
    model = randomize(kb.build_embedder(kb.build_encoder(config), "last_4_concat", projection_size=5))
    kb.save_model_folder(kb.ModelFolder(model, tokenizer, "embedder", 16), tmp_path / "folder")
    again, inputs = kb.load_model_folder(tmp_path / "folder"), random_inputs(config)
    np.testing.assert_array_equal(again.model(inputs), model(inputs))
    ours, theirs = (kb.encoder_of(one)(inputs)["sequence_output"] for one in (again.model, model))
    np.testing.assert_array_equal(ours, theirs)
    head = json.loads((tmp_path / "folder" / "keras_bert.json").read_text())["head"]
    assert (head["pooling"], head["projection_size"]) == (["last_4_concat"], 5)
    with pytest.raises(ValueError, match="poolings that sentence-transformers has.*last_4_concat; write the model as"):
        kb.convert_checkpoint(tmp_path / "folder", tmp_path / "hf", "hf")
    kb.convert_checkpoint(tmp_path / "folder", tmp_path / "google", "google", task="encoder")


def test_last_4_concat_needs_four_blocks(encoder):
    with pytest.raises(ValueError, match="4 blocks or more.*Received: one with 1"):
        kb.build_embedder(encoder, "last_4_concat")


def test_an_unknown_pooling(encoder):
    with pytest.raises(ValueError, match="pooling must be one or several of.*'median'"):
        kb.build_embedder(encoder, "median")


@pytest.mark.parametrize(
    "build",
    [
        lambda encoder: kb.build_classifier(encoder, 2),
        kb.build_next_sentence,
        kb.build_pretrainer,
        kb.build_multiple_choice,
    ],
)
def test_an_encoder_without_pooler(build):
    encoder = kb.build_encoder(kb.BertConfig(**{**CONFIG.to_dict(), "pooler_act": None}))
    with pytest.raises(ValueError, match="Expected an encoder with a pooler.*pooler_act='tanh'"):
        build(encoder)


@pytest.mark.parametrize(
    "build",
    [
        lambda encoder: kb.build_token_classifier(encoder, 3),
        kb.build_question_answerer,
        kb.build_masked_lm,
        kb.build_next_sentence,
        kb.build_multiple_choice,
        lambda encoder: kb.build_embedder(encoder, ("mean", "max"), projection_size=4),
    ],
)
def test_heads_come_back_from_disk(tmp_path, encoder, build):
    model = randomize(build(encoder))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    inputs = random_inputs(CONFIG)
    if "masked_lm_positions" in model.input:
        inputs["masked_lm_positions"] = POSITIONS
    if len(model.input["input_ids"].shape) == 3:
        inputs = {name: np.stack([value, value], axis=1) for name, value in inputs.items()}
    for ours, theirs in zip(keras.tree.flatten(again(inputs)), keras.tree.flatten(model(inputs)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
