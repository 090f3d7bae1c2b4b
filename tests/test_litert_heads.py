"""Every head as a LiteRT file, beside Keras."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tiny_classifier import TEXTS, VOCABULARY, preprocessor

import keras_bert as kb
from keras_bert.export import save_litert

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def encoder(**config):
    return kb.build_encoder(
        kb.BertConfig(**{"vocab_size": len(VOCABULARY), "max_position_embeddings": 40, **SIZES, **config})
    )


HEADS = {
    "classifier": lambda: kb.build_classifier(encoder(), 3),
    "regression": lambda: kb.build_classifier(encoder(), 1),
    "token_classifier": lambda: kb.build_token_classifier(encoder(), 5),
    "question_answerer": lambda: kb.build_question_answerer(encoder()),
    "multiple_choice": lambda: kb.build_multiple_choice(encoder()),
    "masked_lm": lambda: kb.build_masked_lm(encoder()),
    "embedder": lambda: kb.build_embedder(encoder(), ["mean", "max", "cls"], projection_size=8, projection_act="tanh"),
    "embedder of weighted means": lambda: kb.build_embedder(encoder(), ["weighted_mean", "last_token"]),
    "encoder": encoder,
    "encoder without token types": lambda: encoder(type_vocab_size=0, pooler_act=None),
    "next_sentence": lambda: kb.build_next_sentence(encoder()),
    "pretraining": lambda: kb.build_pretrainer(encoder()),
}


def filled(model, seed=22):
    """Weights, biases and LayerNorms included, that make the answer depend on every part of the model."""
    random = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        gain = 0.5 if "embeddings" in weight.path else weight.shape[0] ** -0.5 if len(weight.shape) == 2 else 0.1
        weight.assign((weight.name == "gamma") + gain * random.normal(size=weight.shape))
    return model


def inputs_of(model):
    ids = {name: value.numpy() for name, value in preprocessor()(TEXTS).items()}
    if len(model.input["input_ids"].shape) == 3:
        ids = {name: value.reshape(2, 3, -1) for name, value in ids.items()}
    if "masked_lm_positions" in model.input:
        ids["masked_lm_positions"] = np.array([[1, 0], [2, 3], [1, 1], [5, 20], [1, 0], [0, 1]], "int32")
    return ids


def expected_of(model, ids):
    output = model(ids)
    if isinstance(output, dict):
        return {name: keras.ops.convert_to_numpy(value) for name, value in output.items()}
    return {"logits": keras.ops.convert_to_numpy(output)}


@pytest.mark.parametrize("head", HEADS)
def test_answers_are_those_of_keras(head, tmp_path):
    model = filled(HEADS[head]())
    save_litert(model, tmp_path / "model.tflite")
    run = Interpreter(str(tmp_path / "model.tflite")).get_signature_runner("serving_default")
    ids = inputs_of(model)
    assert sorted(run.get_input_details()) == sorted(ids)
    expected = expected_of(model, ids)
    if head.startswith("embedder"):
        expected = {"embedding": expected["logits"]}
    # All texts at once, and one text alone, which is shorter.
    first = {
        name: value[:1, ..., : 10 if name in ("input_ids", "token_type_ids", "attention_mask") else 9]
        for name, value in ids.items()
    }
    for rows in (ids, first):
        answers = run(**rows)
        for name, value in expected_of(model, rows).items():
            name = name if name in expected else "embedding"
            np.testing.assert_allclose(answers[name], value, atol=1e-5, rtol=1e-5)
    assert set(answers) - set(expected) <= {"probabilities"}
    assert ("probabilities" in answers) == (head in ("classifier", "regression", "next_sentence"))


@pytest.mark.parametrize("head", ["token_classifier", "question_answerer", "multiple_choice", "masked_lm", "embedder"])
def test_a_fixed_length_and_int8(head, tmp_path):
    model = filled(HEADS[head]())
    save_litert(model, tmp_path / "model.tflite", quantize="dynamic", max_length=24)
    run = Interpreter(str(tmp_path / "model.tflite")).get_signature_runner("serving_default")
    ids = {name: value[:1] for name, value in inputs_of(model).items()}
    assert tuple(run.get_input_details()["input_ids"]["shape_signature"]) in {(1, 24), (1, -1, 24)}
    answers = run(**ids)
    for name, value in expected_of(model, ids).items():
        answer = answers[name if name in answers else "embedding"]
        # As far as int8 weights go: a tenth of how far the values are apart.
        assert np.abs(answer - value).max() < 0.1 * np.ptp(value)


def test_the_word_table_is_there_once(tmp_path):
    # A masked LM looks words up in it, and multiplies with it.
    model = kb.build_masked_lm(encoder(vocab_size=4000))
    for quantize, bytes_each in (("none", 4), ("dynamic", 1)):
        save_litert(model, tmp_path / "model.tflite", quantize=quantize)
        table = model.get_layer("embeddings").word_table
        assert (tmp_path / "model.tflite").stat().st_size < 1.9 * bytes_each * np.prod(table.shape) + 100_000


@pytest.mark.parametrize(
    ("problem_type", "head", "names"),
    [
        ("single_label_classification", "classifier", {"logits", "probabilities"}),
        ("multi_label_classification", "classifier", {"logits", "probabilities"}),
        ("regression", "regression", {"logits"}),
    ],
)
def test_a_model_folder_says_what_logits_mean(problem_type, head, names, tmp_path):
    model = filled(HEADS[head]())
    tokenizer = preprocessor().tokenizer
    folder = kb.ModelFolder(model, tokenizer, "classifier", max_length=24, problem_type=problem_type)
    save_litert(folder, tmp_path / "model.tflite")
    answers = Interpreter(str(tmp_path / "model.tflite")).get_signature_runner("serving_default")(**inputs_of(model))
    assert set(answers) == names
    if problem_type == "multi_label_classification":
        np.testing.assert_allclose(answers["probabilities"], 1 / (1 + np.exp(-answers["logits"])), rtol=1e-5)


def test_mixed_precision_becomes_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = filled(HEADS["token_classifier"]())
    finally:
        keras.config.set_dtype_policy("float32")
    save_litert(model, tmp_path / "model.tflite")
    run = Interpreter(str(tmp_path / "model.tflite")).get_signature_runner("serving_default")
    exact = filled(HEADS["token_classifier"]())
    np.testing.assert_allclose(run(**inputs_of(model))["logits"], exact(inputs_of(exact)), atol=1e-5)


def test_outputs_without_names_are_refused(tmp_path):
    states = kb.build_encoder(kb.BertConfig(vocab_size=40, **SIZES), output_hidden_states=True)
    with pytest.raises(ValueError, match="each with a name.* without output_hidden_states"):
        save_litert(states, tmp_path / "model.tflite")
    with pytest.raises(ValueError, match="with inputs input_ids, .*Received: model 'other'"):
        save_litert(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)], name="other"), tmp_path / "m.tflite")
