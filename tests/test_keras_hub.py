"""KerasHub's presets: KerasHub's own numbers in both directions, and to the bit around."""

import json
import logging
import re
import shutil
import sys

import h5py
import numpy as np
import pytest
from bert_numpy import encode, random_inputs, randomize, weights_of
from tiny_classifier import TEXTS, VOCABULARY

import keras_bert as kb

keras_hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")

SMALL = {
    "vocabulary_size": len(VOCABULARY),
    "num_layers": 2,
    "num_heads": 3,
    "hidden_dim": 12,
    "intermediate_dim": 20,
    "max_sequence_length": 16,
}
# KerasHub turns a fullwidth comma into a comma where it lower-cases; BERT, and this package, leave it.
PLAIN_TEXTS = [text.replace("，", "") for text in TEXTS]
CLASSES = {
    "encoder": "BertBackbone",
    "classifier": "BertTextClassifier",
    "masked_lm": "BertMaskedLM",
    "embedder": "BertTextEmbedder",
}


def class_of(task):
    """KerasHub's class; the versions for Python 3.10 have no embedder."""
    if not hasattr(keras_hub.models, CLASSES[task]):
        pytest.skip(f"KerasHub {keras_hub.__version__} has no {CLASSES[task]}")
    return getattr(keras_hub.models, CLASSES[task])


def write(path, task="encoder", sizes=SMALL, tokenizer=None, length=14, **arguments):
    """A preset as KerasHub's users make it; returns its model."""
    model = keras_hub.models.BertBackbone(**{**SMALL, **sizes})
    rules = {"lowercase": True, "strip_accents": True} if tokenizer is None else tokenizer
    tokenizer = keras_hub.models.BertTokenizer(VOCABULARY, **rules)
    if task == "encoder":
        tokenizer.save_to_preset(str(path))
    else:
        preprocessor = getattr(keras_hub.models, class_of(task).__name__ + "Preprocessor")
        model = class_of(task)(model, preprocessor=preprocessor(tokenizer, sequence_length=length), **arguments)
    randomize(model, seed=4)
    model.save_to_preset(str(path))
    return model


def run(ours, theirs, config):
    """Both models' outputs for the same ids."""
    inputs = random_inputs(config)
    names = {"input_ids": "token_ids", "token_type_ids": "segment_ids", "attention_mask": "padding_mask"}
    their_inputs = {names[name]: value for name, value in inputs.items()}
    if "masked_lm_positions" in ours.input:
        inputs["masked_lm_positions"] = their_inputs["mask_positions"] = np.array([[0, 3, 5]] * 3, "int32")
    outputs = ours(inputs), theirs(their_inputs)
    return [{k: np.asarray(v) for k, v in (x.items() if isinstance(x, dict) else [("logits", x)])} for x in outputs]


def compare(ours, theirs, config):
    ours, theirs = run(ours, theirs, config)
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=1e-4 if name == "logits" else 1e-5, err_msg=name)


CASES = {
    "encoder": ("encoder", {}, {}),
    "odd widths": ("encoder", {"num_segments": 5, "hidden_dim": 15, "num_heads": 5, "intermediate_dim": 7}, {}),
    "one block": ("encoder", {"num_segments": 1, "num_layers": 1, "num_heads": 1, "max_sequence_length": 9}, {}),
    "many blocks": ("encoder", {"num_layers": 11}, {}),
    "classifier": ("classifier", {"dropout": 0.3}, {"num_classes": 3, "dropout": 0.2}),
    "regressor": ("classifier", {}, {"num_classes": 1}),
    "masked_lm": ("masked_lm", {}, {}),
    "mean": ("embedder", {}, {}),
    "cls": ("embedder", {}, {"pooling_mode": "cls", "normalize": False}),
    "max": ("embedder", {}, {"pooling_mode": "max"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_of_kerashub(tmp_path, name, caplog):
    task, sizes, arguments = CASES[name]
    theirs = write(tmp_path / "m", task, sizes, **arguments)
    folder = kb.load_model_folder(tmp_path / "m")
    assert (folder.task, folder.labels, folder.segments) == (task, None, 1)
    assert folder.max_length == (14 if task != "encoder" else {**SMALL, **sizes}["max_sequence_length"])
    assert folder.tokenizer.vocabulary == VOCABULARY
    config = kb.config_of(folder.model)
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == sizes.get("dropout", 0.1)
    compare(folder.model, theirs, config)
    if task == "classifier":
        assert folder.model.get_layer("classifier_dropout").rate == arguments.get("dropout", 0.1)
    encoder, _ = kb.load_checkpoint(tmp_path / "m")
    compare(encoder, getattr(theirs, "backbone", theirs), config)
    assert caplog.records == []


def test_the_numbers_of_numpy(tmp_path):
    write(tmp_path / "m")
    encoder, _ = kb.load_checkpoint(tmp_path / "m")
    config = kb.config_of(encoder)
    assert (config.hidden_act, config.layer_norm_eps) == ("gelu_new", 1e-12)
    inputs = random_inputs(config)
    theirs = encode(config, weights_of(encoder), inputs)
    for name, value in encoder(inputs).items():
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "rules",
    [
        {"lowercase": True, "strip_accents": True},
        {"lowercase": True},
        {},
        {"strip_accents": True},
        {"lowercase": True, "special_tokens_in_strings": True},
        {"oov_token": "dog"},
        {"special_tokens_in_strings": True, "special_tokens": ["very"]},
    ],
)
def test_the_ids_of_kerashub(tmp_path, rules):
    write(tmp_path / "m", tokenizer=rules)
    _, tokenizer = kb.load_checkpoint(tmp_path / "m")
    theirs = keras_hub.models.BertTokenizer.from_preset(str(tmp_path / "m"))
    texts = [*PLAIN_TEXTS, "the [MASK] sat", "The cät Cat", "averybad"]
    assert tokenizer(texts).to_list() == [list(map(int, ids)) for ids in theirs(texts)]


def test_reading_needs_no_kerashub(tmp_path, monkeypatch):
    write(tmp_path / "m", "masked_lm")
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    assert kb.load_model_folder(tmp_path / "m").task == "masked_lm"


def each_dataset(path, change):
    """Rewrites an HDF5 file with what `change(name, array)` makes of each dataset: (name, array), or None."""
    with h5py.File(path, "r") as file:
        arrays = {}
        file.visititems(lambda name, item: arrays.update({name: item[()]} if hasattr(item, "shape") else {}))
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            for new_name, new_array in change(name, array):
                file[new_name] = new_array


def private_names(name, array):
    return [(re.sub(r"/(key|query|value|output)_dense", r"/_\1_dense", name), array)]


def keras_2_names(name, array):
    return [(name.replace("layers/", "_layer_checkpoint_dependencies/"), array)]


@pytest.mark.parametrize("change", [private_names, keras_2_names])
def test_names_of_older_versions(tmp_path, change):
    theirs = write(tmp_path / "m", "classifier", num_classes=3)
    each_dataset(tmp_path / "m" / "model.weights.h5", change)
    folder = kb.load_model_folder(tmp_path / "m")
    compare(folder.model, theirs, kb.config_of(folder.model))


def test_the_preset_of_an_older_version(tmp_path):
    """KerasNLP 0.12: other classes, and the encoder in task.weights.h5 too, where nobody reads it."""
    theirs = write(tmp_path / "m", "classifier", num_classes=3)
    for name in ("config", "task", "tokenizer", "preprocessor"):
        text = (tmp_path / "m" / f"{name}.json").read_text()
        text = text.replace("keras_hub", "keras_nlp").replace("BertTextClassifier", "BertClassifier")
        (tmp_path / "m" / f"{name}.json").write_text(text.replace('"BertClassifierPreprocessor', '"BertPreprocessor'))
    with (
        h5py.File(tmp_path / "m" / "task.weights.h5", "r+") as head,
        h5py.File(tmp_path / "m" / "model.weights.h5") as file,
    ):
        head.pop("layers/bert_backbone", None)
        file.copy("layers", head, "layers/bert_backbone")
        head["layers/bert_backbone/dense/vars/0"][...] = np.nan
    folder = kb.load_model_folder(tmp_path / "m")
    compare(folder.model, theirs, kb.config_of(folder.model))


def test_shards(tmp_path):
    theirs = write(tmp_path / "m", "classifier", num_classes=3)
    (tmp_path / "m" / "model.weights.h5").unlink()
    theirs.backbone.save_weights(str(tmp_path / "m" / "model.weights.json"), max_shard_size=4e-6)
    assert len(list((tmp_path / "m").glob("model_*.weights.h5"))) > 2
    folder = kb.load_model_folder(tmp_path / "m")
    compare(folder.model, theirs, kb.config_of(folder.model))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_float_types(tmp_path, dtype):
    theirs = write(tmp_path / "m", sizes={**SMALL, "dtype": dtype})
    encoder, _ = kb.load_checkpoint(tmp_path / "m")
    kernel = np.asarray(theirs.get_layer("pooled_dense").kernel.numpy(), "float32")
    np.testing.assert_array_equal(encoder.get_layer("pooler").kernel, kernel)
    assert encoder.get_layer("pooler").kernel.dtype == "float32"


BUILDERS = {
    "encoder": lambda encoder: encoder,
    "classifier": lambda encoder: kb.build_classifier(encoder, 3, dropout=0.3),
    "masked_lm": kb.build_masked_lm,
    "masked_lm like KerasHub's": lambda encoder: kb.build_masked_lm(encoder, hidden_act="gelu", layer_norm_eps=1e-5),
    "embedder": lambda encoder: kb.build_embedder(encoder, "max", normalize=False),
}
OURS = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "hidden_act": "gelu_new",
}


def small(**fields):
    return kb.build_encoder(kb.BertConfig(**{**OURS, **fields}))


@pytest.mark.parametrize("name", ["encoder", "classifier", "masked_lm like KerasHub's", "embedder"])
@pytest.mark.parametrize("fields", [{}, {"position_embedding_type": "sinusoidal", "type_vocab_size": 3}])
def test_kerashub_loads_what_is_written(tmp_path, tokenizer, caplog, name, fields):
    task = name.partition(" ")[0]
    their_class = class_of(task)
    model = randomize(BUILDERS[name](small(**fields)))
    kb.save_checkpoint(kb.ModelFolder(model, tokenizer, task, 11), tmp_path / "m", "keras-hub")
    assert caplog.records == []
    theirs = their_class.from_preset(str(tmp_path / "m"))
    compare(model, theirs, kb.config_of(model))
    if task == "encoder":
        their_tokenizer = keras_hub.models.BertTokenizer.from_preset(str(tmp_path / "m"))
    else:
        their_tokenizer = theirs.preprocessor.tokenizer
        assert theirs.preprocessor.sequence_length == 11
    assert [list(map(int, ids)) for ids in their_tokenizer(PLAIN_TEXTS)] == tokenizer(PLAIN_TEXTS).to_list()
    compare(kb.encoder_of(model), keras_hub.models.BertBackbone.from_preset(str(tmp_path / "m")), kb.config_of(model))


CONFIGS = [
    {},
    {"hidden_act": "gelu", "hidden_dropout_prob": 0.2, "type_vocab_size": 1},
    {"attention_probs_dropout_prob": 0.0, "initializer_range": 0.5, "hidden_size": 15},
    {"position_embedding_type": "sinusoidal", "num_attention_heads": 1, "type_vocab_size": 5},
    {"pooler_act": None, "num_hidden_layers": 1, "intermediate_size": 7, "max_position_embeddings": 11},
]
PAIRS = [(name, CONFIGS[place]) for place, name in enumerate(BUILDERS)]
PAIRS += [("encoder", fields) for fields in CONFIGS[1:]] + [("classifier", CONFIGS[3])]


@pytest.mark.parametrize(("name", "fields"), PAIRS)
def test_round_trip_to_the_bit(tmp_path, name, fields):
    task = name.partition(" ")[0]
    model = randomize(BUILDERS[name](small(**fields)))
    class_of(task)  # or skip
    cased = kb.Tokenizer(VOCABULARY, lowercase=False, strip_accents=True, additional_special_tokens=["very"])
    labels = ["no", "是", "maybe"] if task == "classifier" else None
    kb.save_checkpoint(kb.ModelFolder(model, cased, task, 10, labels, segments=2), tmp_path / "m", "keras-hub")
    again = kb.load_model_folder(tmp_path / "m")
    assert (again.task, again.labels, again.max_length, again.segments) == (task, labels, 10, 2)
    assert again.tokenizer.hash == cased.hash
    assert kb.config_of(again.model) == kb.config_of(model)
    for ours, theirs in zip(again.model.weights, model.weights, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)
    inputs = random_inputs(kb.config_of(model))
    if task == "masked_lm":
        inputs["masked_lm_positions"] = np.array([[0, 3, 5]] * 3, "int32")
    ours, theirs = again.model(inputs), model(inputs)
    for key in ours if isinstance(ours, dict) else [slice(None)]:
        np.testing.assert_array_equal(ours[key], theirs[key])
    rates = [{layer.name: getattr(layer, "rate", None) for layer in one.layers} for one in (again.model, model)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize("name", ["encoder", "classifier", "masked_lm"])
def test_the_other_gelu_is_said_with_its_effect(tmp_path, tokenizer, caplog, name):
    model = randomize(BUILDERS[name](small(hidden_act="gelu")))
    with caplog.at_level(logging.WARNING, "keras_bert"):
        kb.save_checkpoint(kb.ModelFolder(model, tokenizer, name, 11), tmp_path / "m", "keras-hub")
    (record,) = caplog.records
    said = float(re.search(r"GELU by tanh .* by up to (\S+) there", record.getMessage())[1])
    ours, theirs = run(model, class_of(name).from_preset(str(tmp_path / "m")), kb.config_of(model))
    key = "sequence_output" if name == "encoder" else "logits"
    difference = np.abs(ours[key] - theirs[key]).max()
    assert 0 < said < 0.1
    assert said / 10 < difference < 10 * said


def test_a_model_without_pooler_is_written_with_zeros(tmp_path, tokenizer, caplog):
    model = randomize(small(pooler_act=None))
    kb.save_checkpoint(kb.ModelFolder(model, tokenizer, "encoder", 11), tmp_path / "m", "keras-hub")
    assert [record.getMessage() for record in caplog.records] == [
        "KerasHub's encoder has a pooler, this model has none: the preset's is zeros"
    ]
    theirs = keras_hub.models.BertBackbone.from_preset(str(tmp_path / "m"))
    compare(model, theirs, kb.config_of(model))
    assert not np.asarray(theirs.get_layer("pooled_dense").kernel).any()


@pytest.mark.parametrize(
    ("task", "make", "message"),
    [
        (
            "token_classifier",
            lambda: kb.build_token_classifier(small(), 2),
            "encoder, classifier, masked_lm, embedder.*",
        ),
        (
            "pretraining",
            lambda: kb.build_pretrainer(small()),
            "Received: pretraining; task='encoder' writes the encoder",
        ),
        ("question_answerer", lambda: kb.build_question_answerer(small()), "Received: question_answerer"),
        ("encoder", lambda: small(hidden_act="relu"), "BertBackbone can compute. Received: hidden_act='relu'"),
        ("encoder", lambda: small(layer_norm_eps=1e-5, hidden_act="silu"), "hidden_act='silu', layer_norm_eps=1e-05"),
        ("encoder", lambda: small(type_vocab_size=0, pooler_act="relu"), "pooler_act='relu', type_vocab_size=0"),
        ("embedder", lambda: kb.build_embedder(small(), ["cls", "max"]), r"pooling=\('cls', 'max'\)"),
        ("embedder", lambda: kb.build_embedder(small(), "last_token"), r"pooling=\('last_token',\)"),
        ("embedder", lambda: kb.build_embedder(small(), projection_size=4), "projection_size=4"),
    ],
)
def test_what_kerashub_cannot_compute(tmp_path, tokenizer, task, make, message):
    with pytest.raises(ValueError, match=message):
        kb.save_checkpoint(kb.ModelFolder(make(), tokenizer, task, 11), tmp_path / "m", "keras-hub")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"split_chinese": False}, "split_chinese=False"),
        ({"special_tokens": {"cls_token": "cat"}}, "cls_token='cat'"),
    ],
)
def test_tokenizers_that_kerashub_does_not_have(tmp_path, rules, message):
    folder = kb.ModelFolder(small(), kb.Tokenizer(VOCABULARY, **rules), "encoder", 11)
    with pytest.raises(ValueError, match=message):
        kb.save_checkpoint(folder, tmp_path / "m", "keras-hub")
    assert list(tmp_path.iterdir()) == []


def test_a_head_of_kerashubs_own_arithmetic_is_refused_elsewhere(tmp_path):
    write(tmp_path / "m", "masked_lm")
    for format in ("hf", "google"):
        with pytest.raises(ValueError, match="a head with hidden_act='gelu', layer_norm_eps=1e-05"):
            kb.convert_checkpoint(tmp_path / "m", tmp_path / format, format)
        kb.convert_checkpoint(tmp_path / "m", tmp_path / format, format, task="encoder")
    assert kb.config_of(kb.load_checkpoint(tmp_path / "hf")[0]).hidden_act == "gelu_new"


def test_a_preset_of_the_encoder_alone_gets_a_new_head(tmp_path, caplog):
    write(tmp_path / "m")
    model, _ = kb.load_checkpoint(tmp_path / "m", "classifier", num_classes=5)
    assert model.output.shape == (None, 5)
    assert "the weights of logits are new and random" in caplog.text


def cut(name, size):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:size])

    return damage


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def arguments(file, **changes):
    def damage(folder):
        values = json.loads((folder / file).read_text())
        values["config"].update(changes)
        (folder / file).write_text(json.dumps(values))

    return damage


def top(file, **changes):
    def damage(folder):
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**values, **changes}))

    return damage


def datasets(change, file="model.weights.h5"):
    return lambda folder: each_dataset(folder / file, change)


def drop(*parts):
    return datasets(lambda name, array: [] if any(part in name for part in parts) else [(name, array)])


def replace(part, make):
    return datasets(lambda name, array: [(name, make(array) if part in name else array)])


def spoil(array):
    array.flat[-1] = np.nan
    return array


def h5(change):
    def damage(folder):
        with h5py.File(folder / "model.weights.h5", "r+") as file:
            change(file, folder)

    return damage


def external_link(file, folder):
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = h5py.ExternalLink(str(folder / "task.weights.h5"), "layers/dense/vars/0")


def external_dataset(file, folder):
    del file["layers/dense/vars/0"]
    place = [(str(folder / "secret"), 0, 4 * 12 * 12)]
    file.create_dataset("layers/dense/vars/0", (12, 12), "float32", external=place)


def bomb(file, folder):
    del file["layers/dense/vars/0"]
    file.create_dataset("layers/dense/vars/0", (10**7, 10**4), "float32", chunks=(1000, 1000))


def shards(places):
    def damage(folder):
        (folder / "model.weights.h5").rename(folder / "one.weights.h5")
        (folder / "model.weights.json").write_text(json.dumps({"weight_map": places}))

    return damage


def vocabulary(change):
    def damage(folder):
        path = folder / "assets" / "tokenizer" / "vocabulary.txt"
        path.write_text("\n".join(change(path.read_text(encoding="utf-8").splitlines())), encoding="utf-8")

    return damage


KEY = "transformer_encoder_1/_self_attention_layer/key_dense/vars/0"
QUANTIZED = {"class_name": "DTypePolicyMap", "config": {}}
BAD = {
    "weights truncated": (
        cut("model.weights.h5", 9000),
        "complete HDF5 file.*model.weights.h5, which h5py cannot read",
    ),
    "weights empty": (cut("model.weights.h5", 0), "complete HDF5 file.*model.weights.h5, which h5py cannot read"),
    "head truncated": (cut("task.weights.h5", 900), "complete HDF5 file.*task.weights.h5, which h5py cannot read"),
    "weights missing": (remove("model.weights.h5"), "Expected model.weights.h5, or model.weights.json with shards"),
    "head missing": (remove("task.weights.h5"), "tensors missing: logits/kernel, logits/bias"),
    "config missing": (remove("config.json"), "Expected config.json in the KerasHub preset"),
    "tokenizer missing": (remove("tokenizer.json"), "Expected tokenizer.json in the KerasHub preset"),
    "vocabulary missing": (remove("assets/tokenizer/vocabulary.txt"), "Expected a vocabulary file"),
    "task truncated": (cut("task.json", 300), "JSON object in .*task.json.*interrupted"),
    "config not arguments": (top("config.json", config=[1]), r"arguments of BertBackbone in .*Received: \[1\]"),
    "another model": (
        top("config.json", class_name="RobertaBackbone", registered_name="keras_hub>RobertaBackbone"),
        "KerasHub's BertBackbone in .*Received: 'RobertaBackbone', another architecture",
    ),
    "another tokenizer": (top("tokenizer.json", class_name="BytePairTokenizer"), "KerasHub's BertTokenizer in"),
    "code in the tokenizer": (
        top("tokenizer.json", module="os", class_name="system", registered_name=None, config={"command": "touch ran"}),
        "KerasHub's BertTokenizer in .*Received: 'system'",
    ),
    "an unsupported field": (arguments("config.json", num_experts=4), "Received also: num_experts, which may change"),
    "a field missing": (
        top("config.json", config={"num_layers": 2}),
        "Received none for: hidden_dim, intermediate_dim,",
    ),
    "a quantized config": (arguments("config.json", dtype=QUANTIZED), "a dtype of DTypePolicyMap; a quantized preset"),
    "heads that do not divide": (arguments("config.json", num_heads=5), "num_attention_heads must divide hidden_size"),
    "another number of heads": (
        arguments("config.json", num_heads=4),
        "num_heads=4, as config.json says. Received: .*key",
    ),
    "another width": (arguments("config.json", hidden_dim=24), r"token_embedding/embeddings of shape \(\d+, 24\)"),
    "another length": (
        arguments("config.json", max_sequence_length=32),
        r"position_embedding/embeddings of shape \(32, 12\)",
    ),
    "a block too many": (
        arguments("config.json", num_layers=3),
        "missing: .*transformer_layer_2/self_attention_layer/query/kernel.*transformer_layer_2/feedforward_layer_norm",
    ),
    "blocks without end": (arguments("config.json", num_layers=10**9), "num_hidden_layers=1000000000 blocks"),
    "a block too few": (
        arguments("config.json", num_layers=1),
        "that nothing reads: .*transformer_layer_1/feedforward_intermediate_dense/bias.*transformer_layer_1/self_att",
    ),
    "no number of classes": (arguments("task.json", num_classes=None), "at least 1 class. Received: num_classes=None"),
    "another number of classes": (
        arguments("task.json", num_classes=4),
        r"logits/kernel \(12, 3\) instead of \(12, 4\)",
    ),
    "probabilities": (
        arguments("task.json", activation="softmax"),
        "activation='softmax', which would change the numbers",
    ),
    "tensors missing": (
        drop(KEY, "layers/position_embedding"),
        "missing: position_embedding/embeddings, transformer_layer_1/self_attention_layer/key/kernel",
    ),
    "unexpected tensors": (
        datasets(lambda name, array: [(name, array)] + [(f"extra/{name}", array)] * ("layers/dense" in name)),
        "that nothing reads: extra/layers/dense/bias, extra/layers/dense/kernel",
    ),
    "a shape that does not fit": (
        replace("transformer_encoder_1/_feedforward_output_dense/vars/0", lambda array: array[:-1]),
        r"of another shape: transformer_layer_1/feedforward_output_dense/kernel \(19, 12\) instead of \(20, 12\)",
    ),
    "an axis that does not fit": (
        replace(KEY, lambda array: array[..., 0]),
        r"key/kernel \(12, 3\) instead of \(12, 12\)",
    ),
    "integers": (replace(KEY, lambda array: array.astype("int8")), "float type.*key/kernel of type int8; a quantized"),
    "not finite": (replace(KEY, spoil), "NaN or infinity in: transformer_layer_1/self_attention_layer/key/kernel"),
    "a link to another file": (h5(external_link), "missing: pooled_dense/kernel"),
    "a tensor in another file": (
        h5(external_dataset),
        "hold its tensors itself. Received: pooled_dense/kernel in another",
    ),
    "a tensor of nothing": (h5(bomb), "Expected 400000000000 bytes of pooled_dense/kernel"),
    "a shard outside": (shards({"/layers": "../one.weights.h5"}), "Expected a path inside .*which leads out of it"),
    "a shard at a root": (shards({"/layers": ["/etc/passwd"]}), "Expected a path inside .*which leads out of it"),
    "a shard missing": (shards({"/a": "one.weights.h5", "/b": "two.h5"}), "Missing: two.h5"),
    "no shards": (shards([]), "Expected a weight_map of layers to file names"),
    "vocabulary shorter": (
        vocabulary(lambda pieces: pieces[:-3]),
        r"vocabulary of vocab_size=\d+.*Received: \d+ pieces",
    ),
    "duplicate pieces": (vocabulary(lambda pieces: [*pieces[:-1], "cat"]), "each piece once.*'cat' in lines"),
    "words given split": (arguments("tokenizer.json", split=False), "split=True in .*Received: split=False"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("keras_hub") / "preset"
    write(path, "classifier", num_classes=3)
    return path


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_said_and_nothing_is_written(tmp_path, sound, case):
    damage, message = BAD[case]
    shutil.copytree(sound, tmp_path / "preset")
    damage(tmp_path / "preset")
    with pytest.raises((ValueError, FileNotFoundError), match=f"(?s){message}"):
        kb.convert_checkpoint(tmp_path / "preset", tmp_path / "out", "keras", task="classifier")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["preset"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["config"].update(vocab_size=7), "vocab_size=.* and 7"),
        (lambda values: values["tokenizer"].update(lowercase=False), "hash"),
        (lambda values: values.update(task="masked_lm", head={}), "Expected one task in task.json and keras_bert.json"),
        (lambda values: values.update(head={"num_classes": 2}), r"logits/kernel \(12, 3\) instead of \(12, 2\)"),
    ],
)
def test_a_description_that_does_not_fit(tmp_path, sound, change, message):
    kb.convert_checkpoint(sound, tmp_path / "m", "keras-hub")
    values = json.loads((tmp_path / "m" / "keras_bert.json").read_text())
    change(values)
    (tmp_path / "m" / "keras_bert.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        kb.load_model_folder(tmp_path / "m")


def test_probabilities_are_no_matter_to_the_encoder(tmp_path):
    theirs = write(tmp_path / "m", "classifier", num_classes=3, activation="softmax")
    encoder, _ = kb.load_checkpoint(tmp_path / "m", "encoder")
    compare(encoder, theirs.backbone, kb.config_of(encoder))
