"""Answers computed in the graph beside those of `keras-bert predict`, which the training package computes in Python."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_classifier import with_random_weights

import keras_bert as kb
from keras_bert.export.served import served_of
from keras_bert.text import Tokenizer
from keras_bert.training.finetune import predict
from keras_bert.training.tasks import task_of

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".,!?，。", *"我爱北京天安门很好坏", *LETTERS]
VOCABULARY += [f"##{letter}" for letter in LETTERS] + ["the", "cat", "##s", "sat", "on", "mat", "good", "new", "york"]
VOCABULARY = list(dict.fromkeys(VOCABULARY))
TEXTS = [
    "The cat sat on the mat.",
    "我爱北京，天安门很好。",
    "",
    "a very good cats, not bad! New York " * 9,
    "é ü \U0001f600 unknown 坏 " * 5,
    "supercalifragilisticexpialidocious" * 2 + " on",
]


def make_model(build, seed=0, **config):
    """A model whose random weights make answers depend on every token."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 40, **sizes, **config}
    model = build(kb.build_encoder(kb.BertConfig(**config)))
    return with_random_weights(model, seed)


def folder_of(build, task, **fields):
    return kb.ModelFolder(make_model(build), Tokenizer(VOCABULARY), task, **{"max_length": 24, **fields})


def served(folder):
    """What a graph says of columns of strings, as NumPy arrays."""
    task = served_of(folder)
    specs = task.text_specs()
    function = tf.function(task.answers, input_signature=[specs], autograph=False)

    def answers(**columns):
        columns = {
            name: tf.constant(value, tf.string, shape=_shape(value, specs[name])) for name, value in columns.items()
        }
        return {name: value.numpy() for name, value in function(columns).items()}

    return answers


def _shape(value, spec):
    return [len(value)] if spec.shape.rank == 1 else [len(value), len(value[0]) if len(value) else 2]


def predicted(folder, lines):
    task = task_of(folder)
    return predict(task, folder.model, task.parse(lines, folder.segments))


@pytest.mark.parametrize("segments", [1, 2])
def test_classes_are_those_of_predict(segments):
    labels = ["bad", "so so", "好"]
    folder = folder_of(lambda encoder: kb.build_classifier(encoder, 3), "classifier", labels=labels, segments=segments)
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    expected = predicted(folder, ["\t".join(pair[:segments]) for pair in pairs])
    columns = dict(zip(("text", "text_pair"), map(list, zip(*pairs, strict=True)), strict=True))
    answers = served(folder)(**{name: columns[name] for name in ("text", "text_pair")[:segments]})
    assert [label.decode() for label in answers["label"]] == [row["label"] for row in expected]
    for row, found in enumerate(expected):
        assert [label.decode() for label in answers["labels"][row]] == list(found["probabilities"])
        np.testing.assert_allclose(answers["scores"][row], list(found["probabilities"].values()), atol=1e-5)
        by_label = [found["probabilities"][label] for label in labels]
        np.testing.assert_allclose(answers["probabilities"][row], by_label, atol=1e-5)
    assert len(set(answers["label"])) > 1


def test_sets_of_labels_are_those_of_predict():
    folder = folder_of(
        lambda encoder: kb.build_classifier(encoder, 4),
        "classifier",
        labels=list("wxyz"),
        problem_type="multi_label_classification",
        options={"threshold": 0.4},
    )
    expected = predicted(folder, TEXTS)
    answers = served(folder)(text=TEXTS)
    assert "label" not in answers
    for row, found in enumerate(expected):
        labels = [label.decode() for label in answers["labels"][row]]
        assert [label for label, chosen in zip(labels, answers["chosen"][row], strict=True) if chosen] == found[
            "labels"
        ]
        np.testing.assert_allclose(answers["scores"][row], list(found["probabilities"].values()), atol=1e-5)


def test_numbers_are_those_of_predict():
    folder = folder_of(lambda encoder: kb.build_classifier(encoder, 1), "classifier", problem_type="regression")
    expected = [row["value"] for row in predicted(folder, TEXTS)]
    np.testing.assert_allclose(served(folder)(text=TEXTS)["value"], expected, atol=1e-5)


TAGS = {
    "IOB2": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    "IOBES": ["O", "B-PER", "I-PER", "E-PER", "S-PER", "S-LOC"],
    "BMES": ["O", "B", "M", "E", "S"],
    "plain": ["NOUN", "VERB", "X"],
}


@pytest.mark.parametrize("scheme", TAGS)
@pytest.mark.parametrize("max_length", [8, 24])
def test_entities_are_those_of_predict(scheme, max_length):
    labels = TAGS[scheme]
    options = {"scheme": "IOBES" if scheme == "BMES" else scheme, "stride": 3}
    build = functools.partial(kb.build_token_classifier, num_classes=len(labels))
    folder = folder_of(build, "token_classifier", labels=labels, options=options, max_length=max_length)
    expected = predicted(folder, TEXTS)
    answers = served(folder)(text=TEXTS)
    counts = []
    for row, found in enumerate(expected):
        entities = found["tags" if scheme == "plain" else "entities"]
        counts.append(len(entities))
        there = answers["entity_start"][row] >= 0
        names = {"text": "text", "type": "tag" if scheme == "plain" else "type", "start": "start", "end": "end"}
        for name, key in names.items():
            values = answers[f"entity_{name}"][row][there].tolist()
            values = [value.decode() for value in values] if name in ("text", "type") else values
            assert values == [entity[key] for entity in entities]
        scores = answers["entity_score"][row]
        np.testing.assert_allclose(scores[there], [entity["score"] for entity in entities], atol=1e-5)
        assert not scores[~there].any()
        assert set(answers["entity_text"][row][~there]) <= {b""}
    assert max(counts) > 3
    assert len(answers["entity_start"][0]) == max(counts)


QUESTIONS = ["the cat?", "a b c d e f g h i j k l m n o p q r s t u v w x y z?", "好？"]
CONTEXTS = [
    "The cat sat on the mat.",
    " ".join(f"{first}é {second}\U0001f600 {first}{second}坏" for first in "abcd" for second in LETTERS[::3]),
    "我爱北京，天安门很好。",
]


@pytest.mark.parametrize("options", [{}, {"version_2": True, "no_answer_threshold": -0.5}])
@pytest.mark.parametrize("seed", [0, 1])
def test_answers_are_those_of_predict(options, seed):
    folder = folder_of(
        kb.build_question_answerer, "question_answerer", segments=2, options={"stride": 6, **options}, max_length=30
    )
    folder.model = make_model(kb.build_question_answerer, seed)
    expected = predicted(folder, [f"{pair[0]}\t{pair[1]}" for pair in zip(QUESTIONS, CONTEXTS, strict=True)])
    answers = served(folder)(question=QUESTIONS, context=CONTEXTS)
    assert ("no_answer_score" in answers) == bool(options)
    for row, found in enumerate(expected):
        candidates = [(entry["answer"], entry["start"], entry["end"], entry["score"]) for entry in found["candidates"]]
        if found["start"] is None:
            candidates = [("", -1, -1, found["score"]), *candidates][:5]
        texts = [text.decode() for text in answers["text"][row]]
        assert list(zip(texts, answers["start"][row], answers["end"][row], strict=True)) == [c[:3] for c in candidates]
        np.testing.assert_allclose(answers["score"][row], [c[3] for c in candidates], atol=1e-5)
        if options:
            np.testing.assert_allclose(answers["no_answer_score"][row], found["no_answer_score"], atol=2e-5)


def test_a_context_without_a_token_has_no_answer():
    folder = folder_of(kb.build_question_answerer, "question_answerer", segments=2, max_length=30)
    answers = served(folder)(question=["the cat?", ""], context=["", " cat "])
    assert answers["text"][:, 0].tolist() == [b"", b"cat"]
    assert answers["start"][:, 0].tolist() == [-1, 1]
    assert answers["score"][:, 0].tolist() == [1.0, 1.0]


def test_choices_are_those_of_predict():
    folder = folder_of(kb.build_multiple_choice, "multiple_choice", segments=2)
    choices = [["the cat", "a mat", "坏"], ["on", "new york"], ["sat", "a", "b"]]
    expected = predicted(folder, ["\t".join(["what?", *row]) for row in choices])
    answers = served(folder)(question=["what?"] * 3, choices=[[*row, ""][:3] for row in choices])
    assert answers["choice"].tolist() == [row["label"] for row in expected]
    for row, found in enumerate(expected):
        count = len(found["probabilities"])
        np.testing.assert_allclose(answers["probabilities"][row][:count], found["probabilities"], atol=1e-5)
        assert not answers["probabilities"][row][count:].any()


@pytest.mark.parametrize("pooling", ["mean", "cls", "last_4_concat", ("max", "last_token")])
def test_vectors_are_those_of_predict(pooling):
    build = functools.partial(kb.build_embedder, pooling=pooling, projection_size=5, projection_act="tanh")
    folder = kb.ModelFolder(make_model(build, num_hidden_layers=4), Tokenizer(VOCABULARY), "embedder", 24)
    expected = [row["embedding"] for row in predicted(folder, TEXTS)]
    np.testing.assert_allclose(served(folder)(text=TEXTS)["embedding"], expected, atol=1e-5)


def test_fillings_are_those_of_predict():
    folder = folder_of(kb.build_masked_lm, "masked_lm")
    texts = ["the [MASK] sat on the [MASK].", "é [MASK]", "[MASK]我爱[MASK]京[MASK]"]
    expected = predicted(folder, texts)
    answers = served(folder)(text=[*texts, "no mask", "a " * 30 + "[MASK]"])
    assert (answers["position"][3:] == -1).all()
    assert served(folder)(text=["no mask"])["tokens"].shape == (1, 0, 5)
    for row, found in enumerate(expected):
        text = texts[row]
        places = [place for place in range(len(text)) if text.startswith("[MASK]", place)]
        assert answers["position"][row].tolist() == places + [-1] * (3 - len(places))
        for mask, fillings in enumerate(found["fillings"]):
            assert [token.decode() for token in answers["tokens"][row][mask]] == [f["piece"] for f in fillings]
            np.testing.assert_allclose(answers["scores"][row][mask], [f["score"] for f in fillings], atol=1e-5)


HEADS = {
    "classifier": (lambda encoder: kb.build_classifier(encoder, 3), {"labels": ["a", "b", "c"]}),
    "token_classifier": (lambda encoder: kb.build_token_classifier(encoder, 3), {"labels": ["O", "B-X", "I-X"]}),
    "question_answerer": (kb.build_question_answerer, {"segments": 2}),
    "multiple_choice": (kb.build_multiple_choice, {"segments": 2}),
    "embedder": (kb.build_embedder, {}),
    "masked_lm": (kb.build_masked_lm, {}),
}


@pytest.mark.parametrize("task", HEADS)
def test_no_rows_get_no_answers(task):
    build, fields = HEADS[task]
    folder = folder_of(build, task, **fields)
    answers = served(folder)(**{name: [] for name in served_of(folder).columns})
    assert {value.shape[0] for value in answers.values()} == {0}


@pytest.mark.parametrize("task", HEADS)
def test_outputs_for_ids_are_those_of_keras_whatever_the_padding(task):
    build, fields = HEADS[task]
    folder = folder_of(build, task, **fields)
    random = np.random.default_rng(0)
    rows = (5, 3) if task == "multiple_choice" else (5,)
    lengths = random.integers(2, 20, rows)
    mask = (np.arange(23) < lengths[..., None]).astype(np.int32)
    ids = {
        "input_ids": random.integers(0, len(VOCABULARY), mask.shape).astype(np.int32),
        "token_type_ids": random.integers(0, 2, mask.shape).astype(np.int32),
        "attention_mask": mask,
    }
    if task == "masked_lm":
        ids["masked_lm_positions"] = np.array([[0, 1]] * 5, np.int32)
        table = folder.model.get_layer("embeddings").word_table
        table.assign(0.25 * table)  # logits up to 3, not 12, of which float32 holds no five decimals
    expected = folder.model(ids, training=False)
    task_served = served_of(folder)
    found = tf.function(task_served.outputs, input_signature=[task_served.ids_specs()], autograph=False)(ids)
    expected = expected if isinstance(expected, dict) else {next(iter(found)): expected}
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        value = value.numpy()
        if task in ("token_classifier", "question_answerer"):
            value[mask == 0] = 0
        np.testing.assert_allclose(found[name], value, atol=1e-5)


class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x


@pytest.mark.parametrize("task", ["classifier", "token_classifier", "embedder"])
def test_a_model_with_layers_of_its_own_runs_as_keras_has_it(task):
    build, fields = HEADS[task]
    folder = folder_of(build, task, **fields)
    plain = served(folder)(text=TEXTS)
    folder.model = keras.Model(folder.model.input, Doubled(name="doubled")(folder.model.output))
    assert not served_of(folder).is_plain
    answers = served(folder)(text=TEXTS)
    if task == "classifier":
        np.testing.assert_allclose(answers["logits"], 2 * plain["logits"], atol=1e-5)
    elif task == "embedder":
        np.testing.assert_allclose(answers["embedding"], 2 * plain["embedding"], atol=1e-5)
    else:
        assert (answers["entity_start"] == plain["entity_start"]).all()


def test_a_task_without_answers_is_refused():
    folder = folder_of(kb.build_next_sentence, "next_sentence")
    with pytest.raises(ValueError, match="Expected a model for one of the tasks classifier"):
        served_of(folder)
