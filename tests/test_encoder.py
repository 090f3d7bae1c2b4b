"""The encoder against plain NumPy, against Hugging Face, and against itself."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from bert_numpy import encode, random_inputs, randomize, weights_of

from keras_bert import BertConfig, build_classifier, build_encoder, build_pretrainer, config_of, encoder_of

GOLDEN = Path(__file__).with_name("golden") / "encoder_golden.npz"
TINY = {
    "vocab_size": 23,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}


@pytest.fixture(scope="module")
def tiny():
    """(config, encoder with all outputs) that the tests below share and do not change."""
    config = BertConfig(**TINY)
    return config, randomize(build_encoder(config, output_hidden_states=True, output_attentions=True))


def assert_same(outputs, expected, tolerance=1e-5):
    for key, value in outputs.items():
        pairs = zip(value, expected[key], strict=True) if isinstance(value, list) else [(value, expected[key])]
        for ours, theirs in pairs:
            assert tuple(ours.shape) == theirs.shape, key
            np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0, err_msg=key)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hidden_act": "gelu_new", "type_vocab_size": 1},
        {"hidden_act": "relu", "layer_norm_eps": 1e-5, "hidden_size": 15, "intermediate_size": 7},
        {"hidden_act": "silu", "layer_norm_eps": 1e-2, "num_attention_heads": 1, "type_vocab_size": 5},
        {"position_embedding_type": "sinusoidal", "num_attention_heads": 12, "num_hidden_layers": 1},
        {"position_embedding_type": "sinusoidal", "hidden_size": 9, "max_position_embeddings": 9, "vocab_size": 2},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())) or "base",
)
def test_every_field_counts_as_in_the_papers(fields):
    config = BertConfig(**{**TINY, **fields})
    encoder = randomize(build_encoder(config, output_hidden_states=True, output_attentions=True))
    inputs = random_inputs(config)
    assert_same(encoder(inputs), encode(config, weights_of(encoder), inputs))


@pytest.mark.parametrize(("act", "epsilon"), [("gelu", 1e-12), ("gelu_new", 1e-12), ("relu", 1e-5), ("silu", 1e-3)])
def test_hugging_face_says_the_same(act, epsilon):
    golden = np.load(GOLDEN)
    model = build_pretrainer(
        build_encoder(
            BertConfig(**TINY, hidden_act=act, layer_norm_eps=epsilon),
            output_hidden_states=True,
            output_attentions=True,
        )
    )
    for weight in model.weights:
        weight.assign(hugging_face_weight(golden, weight.path))
    inputs = {key: golden[key].astype("int32") for key in ("input_ids", "token_type_ids", "attention_mask")}
    everywhere = np.tile(np.arange(10, dtype="int32"), (3, 1))
    outputs = model({**inputs, "masked_lm_positions": everywhere})
    encoder = keras.Model(model.input, [model.get_layer(f"block_{i}").output for i in range(2)])
    states, attentions = zip(*encoder({**inputs, "masked_lm_positions": everywhere}), strict=True)
    outputs |= {"hidden_states": np.stack(states), "attentions": np.stack(attentions)}
    expected = {key: golden[f"{act}/{key}"] for key in outputs}
    expected["hidden_states"] = expected["hidden_states"][1:]
    assert_same(outputs, expected, tolerance=2e-5)


def hugging_face_weight(golden, path):
    """Our weight's value among TFBertForPreTraining's."""

    def read(name):
        return golden[f"weights/{name}"]

    layer, _, rest = path.partition("/")
    if layer.startswith("block_"):
        block = f"bert/encoder/layer_._{layer.removeprefix('block_')}"
        parent, _, kind = rest.rpartition("/")
        if parent == "attention/qkv":
            parts = [read(f"{block}/attention/self/{part}/{kind}") for part in ("query", "key", "value")]
            return np.concatenate([part.reshape(*part.shape[:-1], -1) for part in parts], axis=-1)
        places = {
            "attention/output": "attention/output/dense",
            "attention_norm": "attention/output/LayerNorm",
            "feed_forward/intermediate": "intermediate/dense",
            "feed_forward/output": "output/dense",
            "feed_forward_norm": "output/LayerNorm",
        }
        return read(f"{block}/{places[parent]}/{kind}")
    for ours, theirs in {
        "embeddings/word_embeddings": "bert/embeddings/word_embeddings/weight",
        "embeddings/position_embeddings": "bert/embeddings/position_embeddings/embeddings",
        "embeddings/token_type_embeddings": "bert/embeddings/token_type_embeddings/embeddings",
        "embeddings/layer_norm": "bert/embeddings/LayerNorm",
        "pooler": "bert/pooler/dense",
        "masked_lm/transform": "mlm___cls/predictions/transform/dense",
        "masked_lm/layer_norm": "mlm___cls/predictions/transform/LayerNorm",
        "masked_lm/bias": "mlm___cls/predictions/bias",
        "next_sentence": "nsp___cls/seq_relationship",
    }.items():
        if path.startswith(ours):
            return read(theirs + path.removeprefix(ours))
    raise AssertionError(f"no name for {path}")


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [("tiny", 4_385_920), ("mini", 11_170_560), ("base", 109_482_240), ("large", 335_141_888)],
)
def test_parameter_counts_are_the_published_ones(monkeypatch, preset, parameters):
    """Counted on one and two blocks: every further block is as large as the second."""
    # Zeros are made faster than random numbers.
    monkeypatch.setattr(keras.initializers.TruncatedNormal, "__call__", lambda self, *a, **k: tf.zeros(*a, **k))
    one, two = (build_encoder(BertConfig.from_preset(preset, num_hidden_layers=n)).count_params() for n in (1, 2))
    layers = BertConfig.from_preset(preset).num_hidden_layers
    assert one + (layers - 1) * (two - one) == parameters


@pytest.mark.slow
def test_base_whole():
    encoder = build_encoder(BertConfig.from_preset("base"))
    assert encoder.count_params() == 109_482_240
    inputs = random_inputs(BertConfig(), batch=1, length=5)
    assert np.isfinite(encoder(inputs)["sequence_output"]).all()


def test_padding_changes_no_real_token(tiny):
    config, encoder = tiny
    inputs = random_inputs(config, batch=4, length=8)
    plain = encoder(inputs)
    padded = {key: np.pad(value, [(0, 0), (0, 6)]) for key, value in inputs.items()}
    padded["input_ids"][:, 8:] = 17  # what stands under the padding does not matter either
    padded["token_type_ids"][:, 8:] = 1
    more = encoder(padded)
    real = inputs["attention_mask"] == 1
    np.testing.assert_allclose(
        plain["sequence_output"].numpy()[real], more["sequence_output"].numpy()[:, :8][real], atol=1e-6
    )
    np.testing.assert_allclose(plain["pooled_output"], more["pooled_output"], atol=1e-6)
    for attention in more["attentions"]:
        assert not attention.numpy()[:, :, :, 8:].any()


def test_rows_of_a_batch_do_not_meet(tiny):
    config, encoder = tiny
    inputs = random_inputs(config, batch=5)
    together = encoder(inputs)["sequence_output"]
    for row in range(5):
        alone = encoder({key: value[row : row + 1] for key, value in inputs.items()})["sequence_output"]
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 16), (3, 1), (0, 4)])
def test_edge_shapes(tiny, batch, length):
    config, encoder = tiny
    inputs = {key: value[:batch] for key, value in random_inputs(config, batch=max(batch, 1), length=length).items()}
    outputs = encoder(inputs)
    assert outputs["sequence_output"].shape == (batch, length, config.hidden_size)
    assert outputs["pooled_output"].shape == (batch, config.hidden_size)
    if batch:
        assert_same(outputs, encode(config, weights_of(encoder), inputs))


def test_all_padding_is_finite(tiny):
    config, encoder = tiny
    inputs = random_inputs(config)
    inputs["attention_mask"][:] = 0
    outputs = encoder(inputs)
    assert all(np.isfinite(outputs[key]).all() for key in ("sequence_output", "pooled_output"))


def test_hidden_states_and_attentions_on_request(tiny):
    config, encoder = tiny
    inputs = random_inputs(config)
    outputs = encoder(inputs)
    assert len(outputs["hidden_states"]) == config.num_hidden_layers + 1
    np.testing.assert_array_equal(outputs["hidden_states"][-1], outputs["sequence_output"])
    for attention in outputs["attentions"]:
        np.testing.assert_allclose(attention.numpy().sum(-1), 1.0, atol=1e-6)
    assert set(build_encoder(BertConfig(**TINY)).output) == {"sequence_output", "pooled_output"}


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(tiny, dtype):
    config, reference = tiny
    encoder = build_encoder(config, dtype=dtype)
    encoder.set_weights(reference.get_weights())
    inputs = random_inputs(config)
    inputs["attention_mask"][-1] = 0
    outputs, expected = encoder(inputs), reference(inputs)
    assert {weight.dtype for weight in encoder.weights} == {"float32"}
    for key in ("sequence_output", "pooled_output"):
        value = keras.ops.cast(outputs[key], "float32").numpy()
        assert np.isfinite(value).all()
        # The last row is padding alone, where the bias swallows the scores.
        tolerance = 0.3 if dtype == "mixed_bfloat16" else 0.03
        np.testing.assert_allclose(value[:-1], expected[key][:-1], atol=tolerance)


def test_initializer_range():
    encoder = build_encoder(BertConfig(**{**TINY, "vocab_size": 900, "initializer_range": 0.05}))
    # A normal cut at two standard deviations keeps 0.8796 of its deviation.
    for name, weight in weights_of(encoder).items():
        if weight.size > 1000:
            assert abs(weight.std() / (0.05 * 0.8796) - 1) < 0.05, name
            assert np.abs(weight).max() <= 0.1 + 1e-6, name
        if name.endswith(("bias", "beta")):
            assert not weight.any(), name
        if name.endswith("gamma"):
            assert (weight == 1).all(), name


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_dropout_takes_effect_in_training_only(field):
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = build_encoder(BertConfig(**TINY, **{**off, field: 0.3}))
    inputs = random_inputs(config_of(encoder))
    rest = encoder(inputs, training=False)["sequence_output"]
    first, second = (encoder(inputs, training=True)["sequence_output"] for _ in range(2))
    assert np.abs(first - rest).max() > 1e-4
    assert np.abs(first - second).max() > 1e-4
    quiet = build_encoder(BertConfig(**TINY, **off))
    quiet.set_weights(encoder.get_weights())
    np.testing.assert_allclose(quiet(inputs, training=True)["sequence_output"], rest, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "hidden_act": "silu",
            "hidden_dropout_prob": 0.3,
            "attention_probs_dropout_prob": 0.2,
            "type_vocab_size": 4,
            "initializer_range": 0.5,
            "layer_norm_eps": 1e-3,
            "position_embedding_type": "sinusoidal",
        },
    ],
)
def test_the_config_can_be_read_back(fields):
    config = BertConfig(**TINY, **fields)
    encoder = build_encoder(config)
    assert config_of(encoder) == config
    assert config_of(build_classifier(encoder, 3)) == config
    assert config_of(encoder_of(build_pretrainer(encoder))) == config


def test_encoder_of_shares_the_weights(tiny):
    config, encoder = tiny
    inside = encoder_of(build_pretrainer(encoder))
    assert {id(weight) for weight in inside.weights} == {id(weight) for weight in encoder.weights}
    inputs = random_inputs(config)
    assert_same(inside(inputs), encoder(inputs) | {})


def test_bad_arguments():
    with pytest.raises(TypeError, match="Expected a BertConfig.*'base'"):
        build_encoder("base")
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="plain")
    with pytest.raises(ValueError, match="no EncoderBlock"):
        encoder_of(plain)


def test_predict_compiles_for_any_length(tiny):
    config, encoder = tiny
    for length in (3, 7):
        inputs = random_inputs(config, length=length)
        assert encoder.predict(inputs, verbose=0)["sequence_output"].shape == (3, length, config.hidden_size)


RELOAD = """
import sys
import keras, numpy as np
import keras_bert
for name in sys.argv[1:]:
    model = keras.saving.load_model(name + ".keras")
    outputs = model(dict(np.load(name + ".inputs.npz")))
    np.savez(name + ".outputs.npz", *keras.tree.flatten(outputs), compiled=model.compiled)
"""


def test_a_saved_model_is_the_same_in_a_fresh_process(tmp_path, tiny):
    config, encoder = tiny
    pretrainer = build_pretrainer(encoder)
    pretrainer.compile("adam", loss={name: "sparse_categorical_crossentropy" for name in pretrainer.output})
    inputs = random_inputs(config)
    cases = {
        "encoder": (encoder, inputs),
        "pretrainer": (pretrainer, {**inputs, "masked_lm_positions": np.array([[0, 3]] * 3, "int32")}),
    }
    for name, (model, values) in cases.items():
        model.save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.inputs.npz", **values)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-W", "error", "-c", RELOAD, *cases], cwd=tmp_path, env=environment, check=True)
    for name, (model, values) in cases.items():
        saved = np.load(tmp_path / f"{name}.outputs.npz")
        assert bool(saved["compiled"]) == model.compiled
        for index, value in enumerate(keras.tree.flatten(model(values))):
            np.testing.assert_array_equal(saved[f"arr_{index}"], value)
