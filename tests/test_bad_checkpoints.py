"""Damaged and foreign checkpoints: each is refused by what was expected, what came and what to do; nothing loads."""

import json
import random
import re
import shutil
import struct

import numpy as np
import pytest
import safetensors.numpy
from hugging_face_cases import load_golden, tensors_of, write_case

import keras_bert as kb
from keras_bert.checkpoints.convert import WRITTEN_FORMATS

CASE = load_golden()["pretraining"]
TABLE = "bert.embeddings.word_embeddings.weight"
KERNEL = "bert.encoder.layer.1.output.dense.weight"


@pytest.fixture
def folder(tmp_path):
    return write_case(CASE, tmp_path / "m")


def rewrite(folder, change):
    tensors = tensors_of(CASE)
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def with_config(**fields):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def with_header(header, size=None, data=b""):
    def change(folder):
        text = json.dumps(header).encode()
        content = struct.pack("<Q", len(text) if size is None else size) + text + data
        (folder / "model.safetensors").write_bytes(content)

    return change


def truncated(name, keep=0.5):
    def change(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return change


def lengthened(folder):
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b"more")


def without(*names):
    return lambda folder: rewrite(folder, lambda tensors: [tensors.pop(name) for name in names])


def with_tensors(**tensors):
    return lambda folder: rewrite(folder, lambda old: old.update({k.replace("__", "."): v for k, v in tensors.items()}))


def poisoned(*names, value=np.nan):
    def change(tensors):
        for name in names:
            tensors[name].flat[3] = value

    return lambda folder: rewrite(folder, change)


def vocabulary(change):
    def rewrite_vocabulary(folder):
        pieces = (folder / "vocab.txt").read_text().splitlines()
        (folder / "vocab.txt").write_text("\n".join(change(pieces)) + "\n")

    return rewrite_vocabulary


def index(places):
    def change(folder):
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(places))

    return change


F32 = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
SOMETHING = np.zeros(3, "float32")

BAD = {
    "truncated weights": (truncated("model.safetensors"), "complete safetensors file.*model.safetensors.*download"),
    "empty weights": (truncated("model.safetensors", 0), "complete safetensors file.*model.safetensors"),
    "oversized weights": (lengthened, "complete safetensors file.*model.safetensors"),
    "header longer than the file": (with_header({}, size=2**40), "complete safetensors file"),
    "header that is no JSON": (with_header("x" * 10), "complete safetensors file"),
    "offsets that lie": (with_header({TABLE: {**F32, "data_offsets": [0, 10**9]}}, data=bytes(16)), "complete safet"),
    "offsets that overlap": (with_header({"a": F32, "b": F32}, data=bytes(16)), "complete safetensors file"),
    "shape and size disagree": (with_header({TABLE: {**F32, "shape": [9, 9]}}, data=bytes(16)), "complete safetensors"),
    "no tensors": (with_header({}), "Expected tensors for num_hidden_layers=2"),
    "quantized": (
        lambda folder: rewrite(folder, lambda old: old.update({KERNEL: old[KERNEL].astype("int8")})),
        "float type.*output.dense.weight of type I8",
    ),
    "one shape that does not fit": (
        with_tensors(bert__pooler__dense__weight=np.zeros((12, 5), "float32")),
        r"of another shape: bert.pooler.dense.weight \(12, 5\) instead of \(12, 12\)",
    ),
    "another size than the config's": (with_config(hidden_size=24), r"word_embeddings.weight of shape \(29, 24\)"),
    "another feed-forward than the config's": (with_config(intermediate_size=24), "intermediate.dense.weight of shape"),
    "a vocabulary that would fill the memory": (with_config(vocab_size=10**12), r"a vocabulary of vocab_size=10{12}"),
    "positions that would fill the memory": (with_config(max_position_embeddings=10**12), r"shape \(10{12}, 12\)"),
    "blocks that would fill the memory": (with_config(num_hidden_layers=10**9), "tensors for num_hidden_layers=10{9}"),
    "fewer blocks than tensors": (
        with_config(num_hidden_layers=1),
        r"nothing reads: bert.encoder.layer.1.attention(.*layer\.1\.){15}",
    ),
    "more blocks than tensors": (with_config(num_hidden_layers=3), r"missing: bert.encoder.layer.2.(.*layer\.2\.){15}"),
    "missing tensors, all listed": (
        without(KERNEL, "bert.encoder.layer.0.attention.self.key.bias"),
        "missing: bert.encoder.layer.0.attention.self.key.bias, bert.encoder.layer.1.output.dense.weight",
    ),
    "unexpected tensors, all listed": (
        with_tensors(foo__bar=SOMETHING, bert__extra=SOMETHING),
        "that nothing reads: bert.extra, foo.bar",
    ),
    "NaN, all named": (
        poisoned(KERNEL, TABLE),
        f"finite numbers.*NaN or infinity in: {re.escape(TABLE)}, {re.escape(KERNEL)}",
    ),
    "infinity": (poisoned(KERNEL, value=-np.inf), f"finite numbers.*{re.escape(KERNEL)}"),
    "truncated config": (truncated("config.json"), "JSON object in .*config.json"),
    "empty config": (truncated("config.json", 0), "JSON object in .*config.json"),
    "a config that is a list": (
        lambda folder: (folder / "config.json").write_text("[1]"),
        "JSON object in .*config.json. Received: a list",
    ),
    "a config nested without end": (
        lambda folder: (folder / "config.json").write_text('{"a":' * 100_000),
        "JSON object in .*config.json",
    ),
    "another model type": (with_config(model_type="roberta"), "model_type of bert or distilbert.*'roberta'"),
    "no model type": (with_config(model_type=None), "model_type of bert or distilbert.*None"),
    "a decoder": (with_config(is_decoder=True), "config.json: Expected is_decoder=False.*would change the numbers"),
    "relative positions": (
        with_config(position_embedding_type="relative_key"),
        "position_embedding_type must be one of.*relative_key",
    ),
    "pruned heads": (with_config(pruned_heads={"0": [1]}), "Expected pruned_heads=.*would change the numbers"),
    "a quantized model": (with_config(quantization_config={"bits": 8}), "Expected quantization_config=None"),
    "an unknown activation": (with_config(hidden_act="mish"), "hidden_act must be one of.*'mish'"),
    "heads that do not divide": (with_config(num_attention_heads=5), "num_attention_heads must divide hidden_size"),
    "a size that is no number": (with_config(hidden_size="12"), "hidden_size must be an integer.*'12'"),
    "label ids with gaps": (with_config(id2label={"0": "a", "2": "b"}), "id2label in .*config.json to map 0, 1, 2"),
    "labels that are no map": (with_config(id2label=["a"]), "id2label in .*config.json to map 0, 1, 2"),
    "an output table of its own": (
        lambda folder: [
            with_config(tie_word_embeddings=False)(folder),
            with_tensors(cls__predictions__decoder__weight=np.ones((29, 12), "float32"))(folder),
        ],
        "output table is the word embeddings.*tie_word_embeddings=false.*would change the numbers",
    ),
    "a short vocabulary": (vocabulary(lambda pieces: pieces[:-2]), "vocabulary of vocab_size=29.*Received: 27 pieces"),
    "a long vocabulary": (
        vocabulary(lambda pieces: [*pieces, "x"]),
        "vocabulary of vocab_size=29.*Received: 30 pieces",
    ),
    "duplicate pieces": (vocabulary(lambda pieces: [*pieces[:-1], "w0"]), "each piece once.*'w0'"),
    "no special pieces": (vocabulary(lambda pieces: [f"x{i}" for i in range(29)]), r"special pieces.*\[PAD\]"),
    "a shard outside": (
        index({"weight_map": {TABLE: "../elsewhere.safetensors"}}),
        "path inside .*'../elsewhere.safetensors', which leads out of it",
    ),
    "an absolute shard": (index({"weight_map": {TABLE: "/etc/passwd"}}), "path inside .*'/etc/passwd'"),
    "a shard that is not there": (index({"weight_map": {TABLE: "b.safetensors"}}), "Missing: b.safetensors"),
    "an index without a map": (index({"weights": {}}), "weight_map of tensor names to file names"),
    "an index of numbers": (index({"weight_map": {TABLE: 3}}), "weight_map of tensor names to file names"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(folder, name):
    damage, message = BAD[name]
    damage(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises((ValueError, FileNotFoundError), match=f"(?s){message}") as caught:
        kb.load_checkpoint(folder, "pretraining")
    assert str(folder) in str(caught.value)
    with pytest.raises((ValueError, FileNotFoundError)):
        kb.convert_checkpoint(folder, folder.parent / "out", "keras")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["m"]


def test_another_head_is_left_out_when_the_encoder_is_asked_for(folder, caplog):
    with_tensors(my_head__weight=SOMETHING, crf__transitions=SOMETHING)(folder)
    with pytest.raises(ValueError, match="nothing reads: crf.transitions, my_head.weight.*task='encoder' leaves"):
        kb.load_checkpoint(folder)
    model, _ = kb.load_checkpoint(folder, "encoder")
    assert "not read: crf.transitions, my_head.weight" in caplog.text
    assert "pooled_output" in model.output


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: kb.load_checkpoint(folder, "translation"), "task must be one of.*'translation'"),
        (lambda folder: kb.load_checkpoint(folder, format="onnx"), "format must be one of.*'onnx'"),
        (lambda folder: kb.load_checkpoint(folder, revision="main"), "revision and token belong to a hub id"),
        (lambda folder: kb.convert_checkpoint(folder, folder.parent / "o", "onnx"), "format must be one of.*'onnx'"),
    ],
)
def test_wrong_arguments(folder, call, message):
    with pytest.raises(ValueError, match=message):
        call(folder)


def test_nothing_is_written_over(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for destination in ("out", "out/notes.txt", "m"):
        with pytest.raises(FileExistsError, match="new or an empty folder.*which holds something"):
            kb.convert_checkpoint(folder, tmp_path / destination, "hf")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_failed_write_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_bert.checkpoints.hugging_face.safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space"):
        kb.convert_checkpoint(folder, tmp_path / "out", "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.fixture(scope="module")
def every_format(tmp_path_factory):
    """One masked LM in every format, and an embedder."""
    root = tmp_path_factory.mktemp("every_format")
    source = write_case(CASE, root / "source", hidden_act="gelu_new")
    for format in WRITTEN_FORMATS:
        kb.convert_checkpoint(source, root / format, format, task="masked_lm")
    kb.convert_checkpoint(source, root / "embedder", "hf", task="embedder")
    return [root / name for name in (*WRITTEN_FORMATS, "embedder")]


STRANGE = [None, True, 0, -1, 10**12, 1.5, 1e30, "x", "", "../x", [], {}, [1], {"a": 1}]


def damage_json(text, draw):
    """Puts something strange into one place of a JSON file, or takes something out."""
    values = json.loads(text)
    inner = values
    while isinstance(inner, dict) and inner or isinstance(inner, list) and inner:
        key = draw.choice(list(inner)) if isinstance(inner, dict) else draw.randrange(len(inner))
        if draw.random() < 0.4 or not isinstance(inner[key], (dict, list)) or not inner[key]:
            if draw.random() < 0.2:
                del inner[key]
            else:
                inner[key] = draw.choice(STRANGE)
            break
        inner = inner[key]
    return json.dumps(values)


def damage_bytes(content, draw):
    content, kind = bytearray(content), draw.random()
    if kind < 0.3:
        return content[: draw.randrange(len(content) + 1)]
    for _ in range(draw.choice([1, 3, 20])):
        content[draw.randrange(min(len(content), draw.choice([64, 2000, 10**9])))] = draw.randrange(256)
    return content if kind < 0.9 else content + b"more"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore")
def test_random_damage_is_harmless_or_an_error_that_says_what_was_expected(every_format, tmp_path, seed):
    draw, errors = random.Random(seed), []
    for number in range(20):
        folder = tmp_path / str(number)
        shutil.copytree(draw.choice(every_format), folder)
        file = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        if file.suffix == ".json":
            file.write_text(damage_json(file.read_text(encoding="utf-8"), draw), encoding="utf-8")
        else:
            file.write_bytes(damage_bytes(file.read_bytes(), draw))
        try:
            kb.load_checkpoint(folder, draw.choice([None, "masked_lm", "classifier", "embedder", "encoder"]))
        except (ValueError, FileNotFoundError) as error:
            errors.append(f"{file}: {error}")
        shutil.rmtree(folder)
    assert [error for error in errors if not re.search("Expected|must (be|divide)", error)] == []
