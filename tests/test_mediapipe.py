"""LiteRT files that MediaPipe's text tasks load as they are."""

import contextlib
import types
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tiny_classifier import LABELS, MAX_LENGTH, TEXTS, VOCABULARY, preprocessor, probabilities, shared_classifier

import keras_bert as kb
from keras_bert.export import origin, save_litert
from keras_bert.export.mediapipe_metadata import add_mediapipe_metadata, prepare_for_mediapipe


@pytest.fixture(scope="module")
def text_tasks():
    return pytest.importorskip("mediapipe.tasks.python.text", reason="needs mediapipe: pip install mediapipe")


def folder_of(task="classifier", model=None, labels=LABELS, **fields):
    return kb.ModelFolder(
        model or shared_classifier(), preprocessor().tokenizer, task, MAX_LENGTH, labels=labels, **fields
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("mediapipe") / "model.tflite"
    save_litert(folder_of(), path, max_length=MAX_LENGTH)
    add_mediapipe_metadata(path, folder_of())
    return path


def tokens_of(text_tasks, tokenizer, length, path):
    """A function that gives the ids which MediaPipe makes of a text: a model that returns its inputs."""

    def ids(input_ids, token_type_ids, attention_mask):
        seen = (input_ids + 1000 * token_type_ids) * attention_mask
        return {"embedding": tf.cast(seen, tf.float32)}

    specs = [tf.TensorSpec([1, length], tf.int32, name=name) for name in preprocessor()(["cat"])]
    function = tf.function(ids, input_signature=specs).get_concrete_function()
    module = tf.Module()
    tf.saved_model.save(module, str(path / "echo"), signatures={"serving_default": function})
    (path / "echo.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(path / "echo")).convert())
    echo = types.SimpleNamespace(name="echo", output=tf.zeros([1, length]))
    add_mediapipe_metadata(path / "echo.tflite", kb.ModelFolder(echo, tokenizer, "embedder", length))
    return text_tasks.TextEmbedder.create_from_model_path(str(path / "echo.tflite"))


def test_text_classifier_agrees_with_keras(text_tasks, path):
    expected = probabilities(shared_classifier(), TEXTS)
    assert len(set(expected.argmax(axis=1))) > 1  # or a constant answer would pass
    with text_tasks.TextClassifier.create_from_model_path(str(path)) as classifier:
        for text, row in zip(TEXTS, expected, strict=True):
            first, second = classifier.classify(text).classifications
            assert (first.head_name, second.head_name) == ("probabilities", "logits")
            scores = {one.category_name: one.score for one in first.categories}
            np.testing.assert_allclose([scores[label] for label in LABELS], row, atol=1e-5)
            assert first.categories[0].category_name == LABELS[row.argmax()]


def test_text_embedder_agrees_with_keras(text_tasks, tmp_path):
    encoder = kb.build_encoder(
        kb.BertConfig(vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    model = kb.build_embedder(encoder)
    folder = folder_of("embedder", model, labels=None)
    save_litert(folder, tmp_path / "model.tflite", max_length=MAX_LENGTH)
    add_mediapipe_metadata(tmp_path / "model.tflite", folder)
    expected = model(preprocessor()(TEXTS), training=False).numpy()
    assert np.abs(expected[0] - expected[1]).max() > 0.01  # or a constant answer would pass
    with text_tasks.TextEmbedder.create_from_model_path(str(tmp_path / "model.tflite")) as embedder:
        found = [embedder.embed(text).embeddings[0].embedding for text in TEXTS]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_mediapipe_gets_berts_ids_of_prepared_texts(text_tasks, tmp_path):
    pieces = [*VOCABULARY, "cafe", "garcon", "strasse", "ß", "##ß", "stra", "##e", "caf"]
    tokenizer = kb.Tokenizer(pieces)
    texts = [*TEXTS, "Café, GARÇON!", "CAFE\u0301", "很　好", "Straße", "the\u00a0cat\u2003sat", "ÇA"]
    prepare = kb.Preprocessor(tokenizer, MAX_LENGTH, padding="max_length")
    expected = prepare(texts)["input_ids"].numpy().tolist()
    with contextlib.closing(tokens_of(text_tasks, tokenizer, MAX_LENGTH, tmp_path)) as embedder:

        def ids(texts):
            return [[int(value) for value in embedder.embed(text).embeddings[0].embedding] for text in texts]

        assert ids(map(prepare_for_mediapipe, texts)) == expected
        # Without, not all of them: what the module's documentation says of MediaPipe still holds.
        differ = [text for text, ours, theirs in zip(texts, expected, ids(texts), strict=True) if ours != theirs]
        assert set(differ) == {"Café, GARÇON!", "CAFE\u0301", "很　好", "the\u00a0cat\u2003sat"}


def test_the_file_stays_what_it_was_for_other_readers(path, tmp_path):
    save_litert(folder_of(), tmp_path / "plain.tflite", max_length=MAX_LENGTH)
    prepare = kb.Preprocessor(preprocessor().tokenizer, MAX_LENGTH, padding="max_length")
    ids = {name: value.numpy() for name, value in prepare(TEXTS[:1]).items()}
    plain, described = (
        Interpreter(str(file)).get_signature_runner()(**ids) for file in (tmp_path / "plain.tflite", path)
    )
    assert sorted(plain) == sorted(described) == ["logits", "probabilities"]
    for name in plain:
        np.testing.assert_array_equal(plain[name], described[name])
    assert origin.tokenizer_hash(path) == preprocessor().tokenizer.hash
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("vocab.txt").decode().splitlines() == VOCABULARY
        assert archive.read("labels.txt").decode().splitlines() == LABELS


def test_weights_stay_aligned_and_a_second_time_changes_nothing_but_the_metadata(path, tmp_path):
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(path.read_bytes())
    add_mediapipe_metadata(copy, folder_of(labels=["x", "y", "z"]))
    content = copy.read_bytes()
    model = schema.Model.GetRootAs(content)
    assert [model.Metadata(i).Name() for i in range(model.MetadataLength())].count(b"TFLITE_METADATA") == 1
    with zipfile.ZipFile(copy) as archive:
        assert sorted(archive.namelist()) == ["keras_bert.json", "labels.txt", "vocab.txt"]
        assert archive.read("labels.txt") == b"x\ny\nz\n"
    large = [model.Buffers(i) for i in range(model.BuffersLength()) if model.Buffers(i).DataLength() > 4096]
    assert large
    assert {buffer._tab.Vector(buffer._tab.Offset(4)) % 16 for buffer in large} == {0}


def test_the_metadata_is_of_tensorflow_lites_schema(path):
    generated = pytest.importorskip(
        "mediapipe.tasks.metadata.metadata_schema_py_generated", reason="needs mediapipe: pip install mediapipe"
    )
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    (entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    data = bytes(model.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"
    (graph,) = generated.ModelMetadataT.InitFromPackedBuf(data).subgraphMetadata
    names = {b"input_ids": b"ids", b"token_type_ids": b"segment_ids", b"attention_mask": b"mask"}
    (signature,) = model.signatureDefs
    by_tensor = {one.tensorIndex: names[one.name] for one in signature.inputs}
    assert [one.name for one in graph.inputTensorMetadata] == [by_tensor[i] for i in model.subgraphs[0].inputs]
    (unit,) = graph.inputProcessUnits
    assert isinstance(unit.options, generated.BertTokenizerOptionsT)
    (vocabulary,) = unit.options.vocabFile
    assert (vocabulary.name, vocabulary.type) == (b"vocab.txt", generated.AssociatedFileType.VOCABULARY)
    (labels,) = graph.outputTensorMetadata[0].associatedFiles
    assert (labels.name, labels.type) == (b"labels.txt", generated.AssociatedFileType.TENSOR_AXIS_LABELS)


def test_what_mediapipe_cannot_run_is_refused(tmp_path):
    for name, length in (("any", None), ("two", (8, 16)), ("fixed", 8)):
        save_litert(folder_of(), tmp_path / f"{name}.tflite", max_length=length)
    (tmp_path / "text.tflite").write_text("not a model")
    cased = folder_of()
    cased.tokenizer = kb.Tokenizer(VOCABULARY, lowercase=False)
    renamed = folder_of()
    renamed.tokenizer = kb.Tokenizer(
        [piece.replace("[CLS]", "<s>") for piece in VOCABULARY], special_tokens={"cls_token": "<s>"}
    )
    cases = [
        ("any", folder_of(), "fixed length"),
        ("two", folder_of(), "one signature"),
        ("text", folder_of(), "Expected a LiteRT file"),
        ("fixed", folder_of("token_classifier"), "Received: token_classifier"),
        ("fixed", folder_of(problem_type="regression"), "Received: regression"),
        ("fixed", folder_of(segments=2), "one of pairs"),
        ("fixed", cased, "lowercase=True"),
        ("fixed", renamed, "BERT's names"),
    ]
    for name, folder, message in cases:
        before = (tmp_path / f"{name}.tflite").read_bytes()
        with pytest.raises(ValueError, match=message):
            add_mediapipe_metadata(tmp_path / f"{name}.tflite", folder)
        assert (tmp_path / f"{name}.tflite").read_bytes() == before
