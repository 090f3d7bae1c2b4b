"""Rows that hold several documents: each document gets the numbers that it gets alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from bert_numpy import dense, encode, randomize, weights_of

import keras_bert as kb
from keras_bert import layers

CONFIG = kb.BertConfig(
    vocab_size=23,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=10,
)
ROWS = [[4, 1, 6, 3], [9], [10, 2, 5]]  # tokens of each document
LENGTH = 20  # longer than any document may be
KEYS = ("input_ids", "token_type_ids")


@pytest.fixture(scope="module")
def documents():
    """The documents of each row, `{"input_ids", "token_type_ids"}` of their own length."""
    draw = np.random.default_rng(0)
    return [
        [{"input_ids": draw.integers(0, 23, n), "token_type_ids": draw.integers(0, 2, n)} for n in row] for row in ROWS
    ]


def packed_rows(documents, length=LENGTH):
    """One batch of rows, [PAD] under 0, and the places where documents begin, `(B, 4)`."""
    inputs = {key: np.zeros((len(documents), length), "int32") for key in (*KEYS, "attention_mask")}
    starts = np.zeros((len(documents), 4), "int32")
    for row, several in enumerate(documents):
        place = 0
        for number, one in enumerate(several, start=1):
            end = place + len(one["input_ids"])
            starts[row, number - 1] = place
            for key in KEYS:
                inputs[key][row, place:end] = one[key]
            inputs["attention_mask"][row, place:end] = number
            place = end
    return inputs, starts


def alone(one):
    inputs = {key: one[key][None].astype("int32") for key in KEYS}
    return {**inputs, "attention_mask": np.ones_like(inputs["input_ids"])}


def each(documents, starts):
    for row, several in enumerate(documents):
        for place, one in zip(starts[row], several, strict=False):
            yield row, slice(place, place + len(one["input_ids"])), one


def pair_of_encoders(config=CONFIG, **kwargs):
    packed = randomize(kb.build_encoder(config, packed=True, **kwargs))
    plain = kb.build_encoder(config, **kwargs)
    plain.set_weights(packed.get_weights())
    return packed, plain


@pytest.mark.parametrize(
    "fields", [{}, {"position_embedding_type": "sinusoidal", "type_vocab_size": 2}, {"num_hidden_layers": 1}]
)
def test_a_document_gets_what_it_gets_alone(documents, fields):
    packed, plain = pair_of_encoders(kb.BertConfig(**{**CONFIG.to_dict(), **fields}))
    assert [weight.path for weight in packed.weights] == [weight.path for weight in plain.weights]
    inputs, starts = packed_rows(documents)
    together = packed(inputs)
    for row, places, one in each(documents, starts):
        by_itself = plain(alone(one))
        np.testing.assert_allclose(
            together["sequence_output"][row, places], by_itself["sequence_output"][0], atol=2e-6, rtol=0
        )
        if places.start == 0:
            np.testing.assert_allclose(together["pooled_output"][row], by_itself["pooled_output"][0], atol=2e-6)


def test_documents_are_those_of_the_papers(documents):
    """Against BERT in NumPy, one document at a time."""
    packed = randomize(kb.build_encoder(CONFIG, packed=True))
    inputs, starts = packed_rows(documents)
    together = packed(inputs)["sequence_output"].numpy()
    for row, places, one in each(documents, starts):
        expected = encode(CONFIG, weights_of(packed), alone(one))["sequence_output"][0]
        np.testing.assert_allclose(together[row, places], expected, atol=1e-5)


def test_neither_padding_nor_what_stands_beside_it_counts(documents):
    packed, _ = pair_of_encoders()
    (short, starts), (long, _) = packed_rows(documents), packed_rows(documents, LENGTH + 7)
    long["input_ids"][:, LENGTH:] = 17
    one, other = (packed(inputs)["sequence_output"].numpy() for inputs in (short, long))
    for row, places, _ in each(documents, starts):
        np.testing.assert_allclose(one[row, places], other[row, places], atol=1e-6)
    # Another second document changes nothing but itself.
    changed = {key: value.copy() for key, value in short.items()}
    second = changed["attention_mask"] == 2
    changed["input_ids"][second] = (changed["input_ids"][second] + 1) % 23
    difference = np.abs(packed(changed)["sequence_output"].numpy() - one).max(axis=-1)
    real = short["attention_mask"] > 0
    assert difference[real & ~second].max() < 1e-6
    assert difference[second].min() > 1e-3


def test_with_one_document_a_row_it_is_the_plain_encoder(documents):
    packed, plain = pair_of_encoders()
    inputs, _ = packed_rows([[row[0]] for row in documents], 10)
    real, one, other = inputs["attention_mask"] == 1, packed(inputs), plain(inputs)
    np.testing.assert_allclose(one["sequence_output"][real], other["sequence_output"][real], atol=1e-6)
    np.testing.assert_allclose(one["pooled_output"], other["pooled_output"], atol=1e-6)


def test_all_padding_is_finite():
    packed, _ = pair_of_encoders()
    zeros = {key: np.zeros((2, 15), "int32") for key in (*KEYS, "attention_mask")}
    assert all(np.isfinite(value).all() for value in packed(zeros).values())


def test_positions_and_bias():
    numbers = np.array([[1, 1, 1, 2, 3, 3, 0, 0], [5, 5, 2, 2, 2, 2, 2, 2]], "int32")
    positions = layers.DocumentPositions()(numbers)
    assert keras.backend.standardize_dtype(positions.dtype) == "int32"
    np.testing.assert_array_equal(positions, [[0, 1, 2, 0, 0, 1, 0, 0], [0, 1, 0, 1, 2, 3, 4, 5]])
    bias = layers.DocumentBias()(numbers)
    assert bias.shape == (2, 1, 8, 8)
    for row in range(2):
        for one in range(8):
            for other in range(8):
                seen = numbers[row, one] == numbers[row, other] > 0
                assert bias[row, 0, one, other] == (0 if seen else layers.ATTENTION_MASK_BIAS)


@pytest.mark.parametrize(("dtype", "tolerance"), [("mixed_bfloat16", 0.15), ("mixed_float16", 0.02)])
def test_mixed_precision(documents, dtype, tolerance):
    packed, plain = pair_of_encoders(dtype=dtype)
    inputs, starts = packed_rows(documents)
    together = keras.ops.cast(packed(inputs)["sequence_output"], "float32").numpy()
    for row, places, one in each(documents, starts):
        by_itself = keras.ops.cast(plain(alone(one))["sequence_output"], "float32").numpy()[0]
        np.testing.assert_allclose(together[row, places], by_itself, atol=tolerance)


def test_the_pretrainer_answers_for_each_document(documents):
    packed, plain = pair_of_encoders()
    model, reference = kb.build_pretrainer(packed), kb.build_pretrainer(plain)
    randomize(model)
    reference.set_weights(model.get_weights())
    inputs, starts = packed_rows(documents)
    # The second token of each document; a document of one token has its first asked for.
    asked = np.where(np.array([[n > 1 for n in [*row, 0, 0, 0][:4]] for row in ROWS]), starts + 1, starts)
    outputs = model({**inputs, "masked_lm_positions": asked.astype("int32"), "cls_positions": starts})
    assert outputs["next_sentence"].shape == (3, 4, 2)
    assert model.output["next_sentence"].shape == (None, None, 2)
    for row, several in enumerate(documents):
        for number, one in enumerate(several):
            place = np.array([[asked[row, number] - starts[row, number]]], "int32")
            expected = reference({**alone(one), "masked_lm_positions": place})
            np.testing.assert_allclose(outputs["masked_lm"][row, number], expected["masked_lm"][0, 0], atol=1e-5)
            np.testing.assert_allclose(outputs["next_sentence"][row, number], expected["next_sentence"][0], atol=1e-5)
    first = encode(CONFIG, weights_of(model), alone(documents[0][0]))["pooled_output"]
    expected = dense(first, weights_of(model), "next_sentence")[0]
    np.testing.assert_allclose(outputs["next_sentence"][0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_trains_and_learns_from_packed_rows_what_it_learns_from_single_ones(documents, jit_compile):
    """One step on a packed row changes the weights as one on a batch of its documents does."""
    config = kb.BertConfig(**{**CONFIG.to_dict(), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    packed, plain = pair_of_encoders(config)
    models = [kb.build_pretrainer(packed), kb.build_pretrainer(plain)]
    randomize(models[0])
    models[1].set_weights(models[0].get_weights())
    inputs, starts = packed_rows(documents[:1])
    batch = {key: np.zeros((4, 6), "int32") for key in (*KEYS, "attention_mask")}
    for index, one in enumerate(documents[0]):
        for key, value in alone(one).items():
            batch[key][index, : value.shape[1]] = value[0]
    data = [
        ({**inputs, "masked_lm_positions": starts[:1], "cls_positions": starts[:1]}, (1, 4)),
        ({**batch, "masked_lm_positions": np.zeros((4, 1), "int32")}, (4, 1)),
    ]
    for model, (x, shape) in zip(models, data, strict=True):
        labels = np.array([3, 1, 4, 1]).reshape(shape)
        targets = {"masked_lm": labels, "next_sentence": labels % 2 if shape == (1, 4) else labels[:, 0] % 2}
        loss = {name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in targets}
        model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=jit_compile)
        model.fit(x, targets, batch_size=4, verbose=0)
    for one, other in zip(*(model.weights for model in models), strict=True):
        if "seed" not in one.path:
            np.testing.assert_allclose(one, other, atol=2e-6, err_msg=one.path)


def test_saved_and_loaded_it_is_the_same(documents, tmp_path):
    packed, _ = pair_of_encoders()
    inputs, starts = packed_rows(documents)
    model = kb.build_pretrainer(packed)
    model.save(tmp_path / "packed.keras")
    again = keras.saving.load_model(tmp_path / "packed.keras")
    asked = {**inputs, "masked_lm_positions": starts, "cls_positions": starts}
    for key, value in model(asked).items():
        np.testing.assert_array_equal(again(asked)[key], value)
    assert kb.config_of(again) == CONFIG
    inside = kb.encoder_of(again)
    np.testing.assert_array_equal(inside(inputs)["sequence_output"], packed(inputs)["sequence_output"])


def test_encoder_of_takes_documents_as_its_model_does(documents):
    packed, plain = pair_of_encoders()
    inputs, _ = packed_rows([[row[0]] for row in documents], 10)
    for encoder in (kb.encoder_of(packed, packed=False), kb.encoder_of(kb.build_masked_lm(plain))):
        assert encoder.get_layer("attention_bias").output.shape == (None, 1, 1, None)
        ours, theirs = (one(inputs)["sequence_output"][:, 0] for one in (encoder, plain))
        np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg="one document a row")
    assert kb.encoder_of(plain, packed=True).get_layer("document_bias")
    shared = kb.encoder_of(packed, packed=False)
    assert {id(weight) for weight in shared.weights} == {id(weight) for weight in packed.weights}
    assert kb.build_classifier(shared, 2)(inputs).shape == (3, 2)


@pytest.mark.parametrize(
    "build",
    [
        lambda encoder: kb.build_classifier(encoder, 2),
        kb.build_next_sentence,
        kb.build_multiple_choice,
        kb.build_question_answerer,
        kb.build_embedder,
    ],
    ids=["classifier", "next_sentence", "multiple_choice", "question_answerer", "embedder"],
)
def test_heads_that_answer_for_a_row_refuse_several_documents(build):
    encoder = kb.build_encoder(CONFIG, packed=True)
    with pytest.raises(ValueError, match=r"one text each.*encoder_of\(encoder, packed=False\)"):
        build(encoder)


def test_in_a_graph_of_any_length(documents):
    packed, plain = pair_of_encoders()
    inputs, _ = packed_rows(documents)
    call = tf.function(packed, input_signature=[{key: tf.TensorSpec((None, None), tf.int32, key) for key in inputs}])
    np.testing.assert_allclose(call(inputs)["sequence_output"], packed(inputs)["sequence_output"], atol=1e-6)
    assert call({key: value[:, :3] for key, value in inputs.items()})["sequence_output"].shape == (3, 3, 12)
