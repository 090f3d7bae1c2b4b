"""Hugging Face checkpoints: the numbers of transformers, every head in and out, and to the bit around."""

import json
import logging
import random
import re
import shutil

import numpy as np
import pytest
import safetensors.numpy
from hugging_face_cases import CASES, fill, load_golden, make_inputs, make_vocabulary, tensors_of, write_case

import keras_bert as kb
from keras_bert.checkpoints.hugging_face_names import DISTILBERT

GOLDEN = load_golden()


def run(model, inputs: dict) -> dict:
    """The model's answers by transformers' names; a masked LM is asked at every position."""
    inputs = dict(inputs)
    if "masked_lm_positions" in model.input:
        inputs["masked_lm_positions"] = np.tile(np.arange(inputs["input_ids"].shape[1], dtype="int32"), (2, 1))
    outputs = model(inputs)
    if not isinstance(outputs, dict):
        return {"logits": outputs.numpy()}
    names = {
        "sequence_output": "last_hidden_state",
        "pooled_output": "pooler_output",
        "masked_lm": "prediction_logits",
        "next_sentence": "seq_relationship_logits",
    }
    return {names.get(name, name): value.numpy() for name, value in outputs.items()}


def compare(ours: dict, theirs: dict) -> None:
    """Hidden states within 1e-5, logits within 1e-4."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-4 if "logits" in name else 1e-5, err_msg=name)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Writes each case once."""
    root, written = tmp_path_factory.mktemp("hugging_face"), {}

    def get(name):
        if name not in written:
            written[name] = write_case(GOLDEN[name], root / name)
        return written[name]

    return get


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_of_transformers(folders, name, caplog):
    case, task = GOLDEN[name], CASES[name][2]
    model, tokenizer = kb.load_checkpoint(folders(name), task)
    assert tokenizer.vocabulary == make_vocabulary(29)
    compare(run(model, make_inputs(case["config"], task)), case["outputs"])
    assert caplog.records == []


@pytest.mark.parametrize("name", CASES)
def test_transformers_itself(tmp_path, name):
    """Live: another seed of weights, saved by transformers; and what we write, loaded by transformers."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra test-parity)")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra test-parity)")
    from golden.hugging_face_make_golden import answers, reference_model

    class_name, fields, task = CASES[name]
    torch.manual_seed(7)
    reference = reference_model(class_name, {**fields, "initializer_range": 0.3})
    reference.save_pretrained(tmp_path / "theirs")
    vocabulary = "\n".join(make_vocabulary(29)) + "\n"
    (tmp_path / "theirs" / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    inputs = make_inputs(reference.config.to_dict(), task)
    model, _ = kb.load_checkpoint(tmp_path / "theirs", task)
    compare(run(model, inputs), answers(reference, inputs, class_name))

    kb.convert_checkpoint(tmp_path / "theirs", tmp_path / "ours", "hf")
    again = type(reference).from_pretrained(tmp_path / "ours", output_loading_info=True)
    again, info = again
    assert not any(info.values()), info
    assert again.config.architectures == ["BertForMaskedLM" if class_name == "BertLMHeadModel" else class_name]
    theirs = reference.state_dict()
    for key, value in again.eval().state_dict().items():
        assert torch.equal(value, theirs[key]), key
    compare(answers(again, inputs, class_name), answers(reference, inputs, class_name))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert tokenizer("w1 w2", "w3")["input_ids"] == [2, 6, 7, 3, 8, 3]
    if task == "encoder":
        again(**tokenizer("w1 w2", return_tensors="pt"))  # with the inputs that the model takes, and no others


def random_fields(draw, class_name):
    """A config of random sizes that fit each other."""
    heads, size = draw.randint(1, 5), draw.randint(1, 7)
    fields = {
        "vocab_size": 29,
        "hidden_size": heads * size,
        "num_hidden_layers": draw.randint(1, 3),
        "num_attention_heads": heads,
        "intermediate_size": draw.randint(1, 40),
        "max_position_embeddings": draw.randint(7, 40),
        "hidden_act": draw.choice(["gelu", "gelu_new", "relu", "silu", "gelu_pytorch_tanh", "swish"]),
        "hidden_dropout_prob": draw.choice([0.0, 0.1, 0.5]),
        "attention_probs_dropout_prob": draw.choice([0.0, 0.1, 0.5]),
        "initializer_range": draw.choice([0.02, 0.3]),
    }
    if class_name.startswith("Distil"):
        names = DISTILBERT.fields
        fields = {names.get(name, name): value for name, value in fields.items()}
    else:
        fields |= {"type_vocab_size": draw.randint(1, 4), "layer_norm_eps": draw.choice([1e-12, 1e-5, 1e-3])}
    return {**fields, "num_labels": draw.choice([1, 2, 3, 7])}


@pytest.mark.parametrize("seed", range(16))
def test_random_configurations_live(tmp_path, seed):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra test-parity)")
    pytest.importorskip("transformers", reason="transformers is not installed (extra test-parity)")
    from golden.hugging_face_make_golden import answers, reference_model

    draw = random.Random(seed)
    class_name, _, task = draw.choice(list(CASES.values()))
    fields = random_fields(draw, class_name)
    if task not in ("classifier", "token_classifier"):
        del fields["num_labels"]
    torch.manual_seed(seed)
    reference = reference_model(class_name, fields)
    reference.save_pretrained(tmp_path / "m", max_shard_size=draw.choice(["2KB", "1GB"]))
    (tmp_path / "m" / "vocab.txt").write_text("\n".join(make_vocabulary(29)) + "\n", encoding="utf-8")
    inputs = make_inputs({"type_vocab_size": 2, **reference.config.to_dict()}, task)
    model, _ = kb.load_checkpoint(tmp_path / "m", task)
    compare(run(model, inputs), answers(reference, inputs, class_name))


@pytest.mark.parametrize("name", CASES)
def test_round_trip_to_the_bit(folders, tmp_path, name):
    written = kb.convert_checkpoint(folders(name), tmp_path / "hf", "hf")
    assert written.task == CASES[name][2]
    after = safetensors.numpy.load_file(tmp_path / "hf" / "model.safetensors")
    before = tensors_of(GOLDEN[name])
    assert after.keys() == before.keys()
    for tensor, value in before.items():
        np.testing.assert_array_equal(after[tensor], value, err_msg=tensor)
    config, original = json.loads((tmp_path / "hf" / "config.json").read_text()), GOLDEN[name]["config"]
    ignored = {"architectures", "problem_type", "dtype", "sinusoidal_pos_embds"}
    for field, value in config.items():
        if field in original and field not in ignored:
            assert value == original[field], field
    kb.convert_checkpoint(tmp_path / "hf", tmp_path / "keras", "keras")
    kb.convert_checkpoint(tmp_path / "keras", tmp_path / "again", "hf")
    for file in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "hf" / file).read_bytes(), file


def old_names(tensors):
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }


def without_prefix(tensors):
    return {name.removeprefix("bert."): value for name, value in tensors.items()}


def with_buffers(tensors):
    return {
        **tensors,
        "bert.embeddings.position_ids": np.arange(16)[None],
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"],
    }


def decoder_bias(tensors):
    tensors = dict(tensors)
    tensors["cls.predictions.decoder.bias"] = tensors.pop("cls.predictions.bias")
    return tensors


@pytest.mark.parametrize("change", [old_names, without_prefix, with_buffers, decoder_bias])
def test_names_of_other_versions(tmp_path, change):
    case = GOLDEN["pretraining"]
    folder = write_case(case, tmp_path / "m", change(tensors_of(case)))
    model, _ = kb.load_checkpoint(folder, "pretraining")
    compare(run(model, make_inputs(case["config"], "pretraining")), case["outputs"])


@pytest.mark.parametrize("task", ["masked_lm", "next_sentence", "encoder", None])
def test_a_part_of_a_pretraining_checkpoint(folders, task, caplog):
    case = GOLDEN["pretraining"]
    model, _ = kb.load_checkpoint(folders("pretraining"), task)
    ours = run(model, make_inputs(case["config"], "pretraining"))
    if task in ("masked_lm", "next_sentence"):
        name = {"masked_lm": "prediction_logits", "next_sentence": "seq_relationship_logits"}[task]
        np.testing.assert_allclose(ours["logits"], case["outputs"][name], atol=1e-4)
    else:
        assert ours.keys() == {"last_hidden_state", "pooler_output"}
    assert caplog.records == []


def shard(folder, parts=3):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    places = {}
    for index in range(parts):
        file = f"model-{index + 1:05d}-of-{parts:05d}.safetensors"
        names = list(tensors)[index::parts]
        safetensors.numpy.save_file({name: tensors[name] for name in names}, folder / file)
        places |= dict.fromkeys(names, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_shards(tmp_path):
    case = GOLDEN["classifier"]
    folder = write_case(case, tmp_path / "m")
    shard(folder)
    model, _ = kb.load_checkpoint(folder, "classifier")
    compare(run(model, make_inputs(case["config"], "classifier")), case["outputs"])


@pytest.mark.parametrize(("kind", "atol"), [("float16", 3e-3), ("bfloat16", 3e-2), ("float64", 1e-5)])
def test_other_float_types(tmp_path, kind, atol):
    import ml_dtypes

    case = GOLDEN["encoder"]
    dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else kind
    tensors = {name: value.astype(dtype) for name, value in tensors_of(case).items()}
    model, _ = kb.load_checkpoint(write_case(case, tmp_path / "m", tensors))
    table = model.get_layer("embeddings").word_table.numpy()
    assert table.dtype == "float32"
    np.testing.assert_array_equal(table, tensors["embeddings.word_embeddings.weight"].astype("float32"))
    ours = run(model, make_inputs(case["config"], "encoder"))["last_hidden_state"]
    np.testing.assert_allclose(ours, case["outputs"]["last_hidden_state"], atol=10 * atol)


def test_pytorch_files(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra test-parity)")
    case = GOLDEN["token_classifier"]
    folder = write_case(case, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    tensors = {name: torch.tensor(value) for name, value in tensors_of(case).items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    model, _ = kb.load_checkpoint(folder, "token_classifier")
    compare(run(model, make_inputs(case["config"], "token_classifier")), case["outputs"])

    names = list(tensors)
    half = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in half.items():
        torch.save({name: tensors[name] for name in part}, folder / file)
    (folder / "pytorch_model.bin").unlink()
    places = {name: file for file, part in half.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    model, _ = kb.load_checkpoint(folder, "token_classifier")
    compare(run(model, make_inputs(case["config"], "token_classifier")), case["outputs"])


class Trap:
    def __reduce__(self):
        return (open, ("trap", "w"))


def test_a_pickle_with_code_is_not_run(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra test-parity)")
    monkeypatch.chdir(tmp_path)
    folder = write_case(GOLDEN["encoder"], tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"tensors alone.*pytorch_model.bin.*weights-only loader refuses"):
        kb.load_checkpoint(folder)
    assert not (tmp_path / "trap").exists()


FRESH = [
    # (case, task, layers that are new)
    ("encoder", "classifier", "logits"),
    ("encoder", "token_classifier", "logits"),
    ("encoder", "question_answerer", "logits"),
    ("encoder", "pretraining", "masked_lm, next_sentence"),
    ("masked_lm", "classifier", "logits, pooler"),
    ("masked_lm", "pretraining", "next_sentence, pooler"),
    ("token_classifier", "classifier", "logits, pooler"),
    ("classifier", "token_classifier", "logits"),
    ("classifier", "multiple_choice", "logits"),
    ("distilbert", "classifier", "logits, pooler"),
]


@pytest.mark.parametrize(("name", "task", "layers"), FRESH)
def test_a_new_head_is_said_so(folders, caplog, name, task, layers):
    model, _ = kb.load_checkpoint(folders(name), task)
    (record,) = caplog.records
    assert record.name == "keras_bert"
    assert record.levelno == logging.WARNING
    assert f"the weights of {layers} are new and random" in record.getMessage()
    assert "\n" not in record.getMessage()
    for layer in layers.split(", "):
        kernels = [weight for weight in model.get_layer(layer).weights if weight.path.endswith("kernel")]
        assert kernels
        for kernel in kernels:
            assert 0.005 < np.std(kernel) < 0.04, "not BERT's initializer_range of 0.02"
    table = next(tensor for tensor in GOLDEN[name]["tensors"] if tensor.endswith("word_embeddings.weight"))
    np.testing.assert_array_equal(model.get_layer("embeddings").word_table, fill(table, (29, 12)))


def test_another_number_of_classes(folders, caplog):
    model, _ = kb.load_checkpoint(folders("classifier"), "classifier", num_classes=7)
    assert model.output.shape == (None, 7)
    assert "the weights of logits are new" in caplog.text
    assert kb.load_model_folder(folders("classifier"), num_classes=7).labels is None
    with pytest.raises(ValueError, match="num_classes goes with the tasks"):
        kb.load_checkpoint(folders("classifier"), num_classes=7)


def test_labels_and_dropout_go_along(tmp_path):
    labels = {"0": "negativ", "1": "中性", "2": "positive"}
    folder = write_case(GOLDEN["classifier"], tmp_path / "m", id2label=labels, classifier_dropout=0.35)
    kb.convert_checkpoint(folder, tmp_path / "hf", "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == labels
    assert config["label2id"] == {"negativ": 0, "中性": 1, "positive": 2}
    assert config["classifier_dropout"] == 0.35
    again = kb.load_model_folder(tmp_path / "hf")
    assert again.labels == list(labels.values())
    assert again.model.get_layer("classifier_dropout").rate == 0.35


def test_the_length_of_texts(tmp_path):
    folder = write_case(GOLDEN["encoder"], tmp_path / "m")
    assert kb.load_model_folder(folder).max_length == 16
    for length, expected in ((9, 9), (int(1e30), 16), (512, 16)):
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": length}))
        assert kb.load_model_folder(folder).max_length == expected


def test_another_tokenizer_is_refused_with_both_hashes(folders, tmp_path):
    written = kb.convert_checkpoint(folders("encoder"), tmp_path / "hf", "hf")
    (tmp_path / "hf" / "tokenizer.json").unlink()
    vocabulary = tmp_path / "hf" / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text().replace("w3\n", "else\n"))
    with pytest.raises(ValueError, match="Expected the tokenizer that the model .* was trained with") as caught:
        kb.load_checkpoint(tmp_path / "hf")
    hashes = re.findall(r"hash (\w{64})", str(caught.value))
    assert hashes[0] == written.tokenizer.hash
    assert len(set(hashes)) == 2


@pytest.mark.parametrize(
    ("file", "missing"),
    [("config.json", "Expected a BERT checkpoint"), ("model.safetensors", "Expected model.safetensors")],
)
def test_a_missing_file(folders, tmp_path, file, missing):
    shutil.copytree(folders("encoder"), tmp_path / "m")
    (tmp_path / "m" / file).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        kb.load_checkpoint(tmp_path / "m")


def test_a_masked_lm_whose_bias_is_its_own(tmp_path):
    """Untied, transformers adds the decoder's bias, and nothing reads the other."""
    case = GOLDEN["masked_lm"]
    tensors = tensors_of(case)
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.bias"] = np.full_like(tensors["cls.predictions.bias"], 9)
    folder = write_case(case, tmp_path / "m", tensors, tie_word_embeddings=False)
    for task in ("masked_lm", None):
        kb.load_checkpoint(folder, task)
    model, _ = kb.load_checkpoint(folder, "masked_lm")
    compare(run(model, make_inputs(case["config"], "masked_lm")), case["outputs"])


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification", "regression"])
def test_what_the_logits_mean_goes_along(tmp_path, problem_type):
    folder = write_case(GOLDEN["classifier"], tmp_path / "m", problem_type=problem_type)
    for index, format in enumerate(("keras", "google", "hf")):
        kb.convert_checkpoint(folder, tmp_path / str(index), format)
        folder = tmp_path / str(index)
    assert kb.load_model_folder(folder).problem_type == problem_type
    assert json.loads((folder / "config.json").read_text()).get("problem_type") == problem_type


def test_distilberts_own_dropout_goes_along(tmp_path):
    """transformers' default for it is another than that of the encoder."""
    folder = write_case(GOLDEN["distilbert_classifier"], tmp_path / "m", seq_classif_dropout=0.1)
    kb.convert_checkpoint(folder, tmp_path / "hf", "hf")
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["seq_classif_dropout"] == 0.1
