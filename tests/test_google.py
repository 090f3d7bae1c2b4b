"""Google's TF1 checkpoints: names and numbers of google-research/bert, every head in and out, and to the bit around."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from bert_numpy import encode, predict_masked, random_inputs, randomize, weights_of
from tiny_classifier import VOCABULARY

import keras_bert as kb

TOY = pathlib.Path(__file__).parents[2] / "shared" / "data" / "ckpt_tf1_toy"

SMALL = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
}
# What google-research/bert writes into bert_config.json beside them.
DEFAULTS = {
    "attention_probs_dropout_prob": 0.1,
    "directionality": "bidi",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
}


def variables(values, heads=(), pooler=True):
    """Names and shapes of the variables of modeling.py, run_pretraining.py, run_classifier.py and run_squad.py."""
    width, inner = values["hidden_size"], values["intermediate_size"]

    def dense_shapes(name, inputs, outputs):
        return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}

    def norm_shapes(name):
        return {f"{name}/beta": (width,), f"{name}/gamma": (width,)}

    def output_shapes(name, outputs):
        return {f"{name}output_weights": (outputs, width), f"{name}output_bias": (outputs,)}

    shapes = {
        "bert/embeddings/word_embeddings": (values["vocab_size"], width),
        "bert/embeddings/token_type_embeddings": (values["type_vocab_size"], width),
        "bert/embeddings/position_embeddings": (values["max_position_embeddings"], width),
        **norm_shapes("bert/embeddings/LayerNorm"),
    }
    for index in range(values["num_hidden_layers"]):
        layer = f"bert/encoder/layer_{index}"
        for name in ("query", "key", "value"):
            shapes |= dense_shapes(f"{layer}/attention/self/{name}", width, width)
        shapes |= dense_shapes(f"{layer}/attention/output/dense", width, width)
        shapes |= norm_shapes(f"{layer}/attention/output/LayerNorm")
        shapes |= dense_shapes(f"{layer}/intermediate/dense", width, inner)
        shapes |= dense_shapes(f"{layer}/output/dense", inner, width)
        shapes |= norm_shapes(f"{layer}/output/LayerNorm")
    if pooler:
        shapes |= dense_shapes("bert/pooler/dense", width, width)
    for head in heads:
        if head == "predictions":
            shapes |= {
                **dense_shapes("cls/predictions/transform/dense", width, width),
                **norm_shapes("cls/predictions/transform/LayerNorm"),
                "cls/predictions/output_bias": (values["vocab_size"],),
            }
        else:
            name, outputs = {
                "seq_relationship": ("cls/seq_relationship/", 2),
                "squad": ("cls/squad/", 2),
                "classes": ("", 3),
                "choice": ("", 1),
            }[head]
            shapes |= output_shapes(name, outputs)
    return shapes


def fill(shapes, seed=0):
    random = np.random.default_rng(seed)
    return {
        name: (name.endswith("gamma") + 0.4 * random.normal(size=shape)).astype("float32")
        for name, shape in shapes.items()
    }


def write_variables(prefix, arrays):
    """As TF1's programs do."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, array in arrays.items():
            tf.compat.v1.get_variable(name, initializer=tf.constant(array))
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver()
        saver.save(session, str(prefix), write_state=False, write_meta_graph=False)


def write(folder, pieces, values=SMALL, heads=(), pooler=True, prefix="bert_model.ckpt", arrays=None, further=None):
    """A folder as Google's; returns its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = fill(variables(values, heads, pooler)) if arrays is None else arrays
    write_variables(folder / prefix, {**arrays, **(further or {})})
    (folder / "bert_config.json").write_text(json.dumps({**DEFAULTS, **values}))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    return arrays


def as_ours(arrays):
    """The weights under the names that bert_numpy.py computes with."""
    names = {
        r"bert/embeddings/(\w+_embeddings)": r"embeddings/\1",
        r"bert/embeddings/LayerNorm/(.*)": r"embeddings/layer_norm/\1",
        r"bert/encoder/layer_(\d+)/attention/output/dense/(.*)": r"block_\1/attention/output/\2",
        r"bert/encoder/layer_(\d+)/attention/output/LayerNorm/(.*)": r"block_\1/attention_norm/\2",
        r"bert/encoder/layer_(\d+)/intermediate/dense/(.*)": r"block_\1/feed_forward/intermediate/\2",
        r"bert/encoder/layer_(\d+)/output/dense/(.*)": r"block_\1/feed_forward/output/\2",
        r"bert/encoder/layer_(\d+)/output/LayerNorm/(.*)": r"block_\1/feed_forward_norm/\2",
        r"bert/pooler/dense/(.*)": r"pooler/\1",
        r"cls/predictions/transform/dense/(.*)": r"masked_lm/transform/\1",
        r"cls/predictions/transform/LayerNorm/(.*)": r"masked_lm/layer_norm/\1",
        r"cls/predictions/output_bias": "masked_lm/bias",
    }
    found = {}
    for name, array in arrays.items():
        for pattern, ours in names.items():
            if re.fullmatch(pattern, name):
                found[re.sub(pattern, ours, name)] = array.astype("float64")
    for name in arrays:
        match = re.fullmatch(r"bert/encoder/layer_(\d+)/attention/self/query/(\w+)", name)
        if match:
            parts = [arrays[name.replace("query", part)] for part in ("query", "key", "value")]
            found[f"block_{match[1]}/attention/qkv/{match[2]}"] = np.concatenate(parts, -1).astype("float64")
    return found


def expected(config, arrays, inputs, task):
    """What the model of a task answers, computed from Google's tensors in NumPy."""
    weights = as_ours(arrays)
    if "pooler/kernel" not in weights:
        width = config.hidden_size
        weights |= {"pooler/kernel": np.zeros((width, width)), "pooler/bias": np.zeros(width)}
    outputs = encode(config, weights, inputs)
    sequence, pooled = outputs["sequence_output"], outputs["pooled_output"]

    def logits(name, x):
        return x @ arrays[f"{name}output_weights"].T.astype("float64") + arrays[f"{name}output_bias"]

    if task == "encoder":
        return {"sequence_output": sequence, "pooled_output": pooled}
    if task == "pretraining":
        masked = predict_masked(config, weights, sequence, inputs["masked_lm_positions"])
        return {"masked_lm": masked, "next_sentence": logits("cls/seq_relationship/", pooled)}
    if task == "masked_lm":
        return predict_masked(config, weights, sequence, inputs["masked_lm_positions"])
    if task == "next_sentence":
        return logits("cls/seq_relationship/", pooled)
    if task == "question_answerer":
        both = logits("cls/squad/", sequence)
        return {"start_logits": both[..., 0], "end_logits": both[..., 1]}
    return logits("", pooled if task == "classifier" else sequence)


def make_inputs(config, model):
    inputs = random_inputs(config)
    if "masked_lm_positions" in model.input:
        inputs["masked_lm_positions"] = np.array([[0, 2, 5]] * 3, "int32")
    return inputs


def compare(ours, theirs):
    ours, theirs = (x if isinstance(x, dict) else {"logits": x} for x in (ours, theirs))
    for name, value in ours.items():
        atol = 1e-5 if name.endswith("_output") else 1e-4
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=atol, err_msg=name)


CASES = [
    ("encoder", (), True),
    ("encoder", (), False),
    ("pretraining", ("predictions", "seq_relationship"), True),
    ("masked_lm", ("predictions",), True),
    ("masked_lm", ("predictions",), False),
    ("next_sentence", ("seq_relationship",), True),
    ("classifier", ("classes",), True),
    ("token_classifier", ("classes",), False),
    ("question_answerer", ("squad",), True),
    ("question_answerer", ("squad",), False),
]


@pytest.mark.parametrize(("task", "heads", "pooler"), CASES)
def test_the_numbers(tmp_path, tokenizer, caplog, task, heads, pooler):
    arrays = write(tmp_path / "uncased", tokenizer.vocabulary, heads=heads, pooler=pooler)
    folder = kb.load_model_folder(tmp_path / "uncased")
    assert folder.task == task
    assert (folder.max_length, folder.labels, folder.segments) == (16, None, 1)
    assert folder.tokenizer.vocabulary == tokenizer.vocabulary
    config = kb.config_of(folder.model)
    assert config.hidden_act == "gelu"
    assert config.layer_norm_eps == 1e-12
    inputs = make_inputs(config, folder.model)
    compare(folder.model(inputs), expected(config, arrays, inputs, task))
    encoder, _ = kb.load_checkpoint(tmp_path / "uncased")
    inputs.pop("masked_lm_positions", None)
    compare(encoder(inputs), expected(config, arrays, inputs, "encoder"))
    assert ("pooled_output" in encoder.output) == pooler
    assert caplog.records == []


@pytest.mark.parametrize("act", ["relu", "gelu_new", "silu"])
def test_the_activation_is_the_configs(tmp_path, tokenizer, act):
    values = {**SMALL, "hidden_act": act, "num_attention_heads": 2, "type_vocab_size": 4, "num_hidden_layers": 1}
    arrays = write(tmp_path / "uncased", tokenizer.vocabulary, values)
    encoder, _ = kb.load_checkpoint(tmp_path / "uncased")
    config = kb.config_of(encoder)
    assert config.hidden_act == act
    inputs = random_inputs(config)
    compare(encoder(inputs), expected(config, arrays, inputs, "encoder"))


OPTIMIZERS = {
    # optimization.py's AdamWeightDecayOptimizer; LAMB as in other trainings; TensorFlow's own
    "adam_weight_decay": ["{}/adam_m", "{}/adam_v", "global_step"],
    "lamb": ["{}/lamb_m", "{}/lamb_v", "global_step"],
    "adam": ["{}/Adam", "{}/Adam_1", "beta1_power", "beta2_power", "global_step", "loss_scale", "good_steps"],
    "named": ["{}/AdamWeightDecayOptimizer", "{}/AdamWeightDecayOptimizer_1", "{}/LAMBOptimizer_1"],
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_an_optimizer_left_is_skipped(tmp_path, tokenizer, optimizer, caplog):
    arrays = fill(variables(SMALL, ("predictions", "seq_relationship")))
    slots = {}
    for name in OPTIMIZERS[optimizer]:
        if "{}" in name:
            slots |= {name.format(variable): np.full_like(array, np.nan) for variable, array in arrays.items()}
        else:
            slots[name] = np.array(20, "int64" if "step" in name else "float32")
    write(tmp_path / "uncased", tokenizer.vocabulary, arrays=arrays, further=slots)
    model, _ = kb.load_checkpoint(tmp_path / "uncased", "pretraining")
    plain = kb.convert_checkpoint(tmp_path / "uncased", tmp_path / "plain", "google")
    for ours, theirs in zip(model.weights, plain.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert {name for name, _ in tf.train.list_variables(str(tmp_path / "plain" / "bert_model.ckpt"))} == set(arrays)
    assert caplog.records == []


def test_the_checkpoint_with_another_name(tmp_path, tokenizer):
    write(tmp_path / "uncased", tokenizer.vocabulary, prefix="model.ckpt-1000")
    assert kb.load_checkpoint(tmp_path / "uncased")[0].count_params() > 0


def test_several_checkpoints(tmp_path, tokenizer):
    folder = tmp_path / "uncased"
    first, second = (fill(variables(SMALL), seed) for seed in (1, 2))
    write(folder, tokenizer.vocabulary, arrays=first, prefix="model.ckpt-500")
    write(folder, tokenizer.vocabulary, arrays=second, prefix="model.ckpt-1000")
    with pytest.raises(ValueError, match=r"Expected one checkpoint in .* Received: model.ckpt-1000, model.ckpt-500"):
        kb.load_checkpoint(folder)
    for number, arrays in ((500, first), (1000, second)):
        state = f'model_checkpoint_path: "model.ckpt-{number}"\nall_model_checkpoint_paths: "model.ckpt-500"\n'
        (folder / "checkpoint").write_text(state)
        encoder, _ = kb.load_checkpoint(folder)
        weights = weights_of(encoder)
        np.testing.assert_array_equal(weights["pooler/kernel"], arrays["bert/pooler/dense/kernel"])
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{folder / "model.ckpt-500"}"')
    assert kb.load_checkpoint(folder)[0].count_params() > 0


@pytest.mark.parametrize(
    ("name", "lowercase"),
    [
        ("uncased_L-12_H-768_A-12", True),
        ("multilingual_L-12_H-768_A-12", True),
        ("chinese_L-12_H-768_A-12", True),
        ("wwm_uncased_L-24_H-1024_A-16", True),
        ("cased_L-12_H-768_A-12", False),
        ("multi_cased_L-12_H-768_A-12", False),
    ],
)
def test_lower_case_by_the_name_of_the_folder(tmp_path, tokenizer, name, lowercase):
    write(tmp_path / name, tokenizer.vocabulary)
    assert kb.load_checkpoint(tmp_path / name)[1].lowercase is lowercase


@pytest.mark.parametrize(("further", "lowercase"), [(["the", "##s"], True), (["The", "Paris"], False)])
def test_lower_case_by_the_vocabulary(tmp_path, tokenizer, further, lowercase):
    pieces = [*tokenizer.vocabulary, *(piece for piece in further if piece not in tokenizer.vocabulary)]
    write(tmp_path / "model", pieces, {**SMALL, "vocab_size": len(pieces)})
    assert kb.load_checkpoint(tmp_path / "model")[1].lowercase is lowercase


def toy():
    if not TOY.is_dir():
        pytest.skip(f"there is no {TOY.parent.name}/{TOY.name} beside the checkout")
    return TOY


def test_a_checkpoint_of_googles_own_program(caplog):
    reader = tf.train.load_checkpoint(str(toy() / "bert_model.ckpt"))
    arrays = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    folder = kb.load_model_folder(toy())
    assert folder.task == "pretraining"
    config = kb.config_of(folder.model)
    inputs = make_inputs(config, folder.model)
    compare(folder.model(inputs), expected(config, arrays, inputs, "pretraining"))
    for task in ("encoder", "masked_lm", "next_sentence"):
        model, _ = kb.load_checkpoint(toy(), task)
        inputs = make_inputs(config, model)
        compare(model(inputs), expected(config, arrays, inputs, task))
    assert caplog.records == []


def test_a_checkpoint_of_googles_own_program_in_transformers(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra test-parity)")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra test-parity)")
    folder = kb.convert_checkpoint(toy(), tmp_path / "hf", "hf")
    reference = transformers.BertForPreTraining.from_pretrained(tmp_path / "hf").eval()
    inputs = random_inputs(kb.config_of(folder.model))
    with torch.no_grad():
        theirs = reference(**{name: torch.tensor(value).long() for name, value in inputs.items()})
    inputs["masked_lm_positions"] = np.tile(np.arange(9, dtype="int32"), (3, 1))
    ours = folder.model(inputs)
    np.testing.assert_allclose(ours["masked_lm"], theirs.prediction_logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours["next_sentence"], theirs.seq_relationship_logits, rtol=0, atol=1e-4)


def test_a_checkpoint_of_googles_own_program_to_the_bit(tmp_path):
    kb.convert_checkpoint(toy(), tmp_path / "google", "google")
    before = tf.train.load_checkpoint(str(toy() / "bert_model.ckpt"))
    after = tf.train.load_checkpoint(str(tmp_path / "google" / "bert_model.ckpt"))
    slots = {name for name in before.get_variable_to_shape_map() if name.endswith(("adam_m", "adam_v", "global_step"))}
    assert set(after.get_variable_to_shape_map()) == set(before.get_variable_to_shape_map()) - slots
    for name in after.get_variable_to_shape_map():
        np.testing.assert_array_equal(after.get_tensor(name), before.get_tensor(name), err_msg=name)
    assert (tmp_path / "google" / "vocab.txt").read_text().split() == (toy() / "vocab.txt").read_text().split()


BUILDERS = {
    "encoder": lambda encoder: encoder,
    "pretraining": kb.build_pretrainer,
    "masked_lm": kb.build_masked_lm,
    "next_sentence": kb.build_next_sentence,
    "classifier": lambda encoder: kb.build_classifier(encoder, 3, dropout=0.3),
    "token_classifier": lambda encoder: kb.build_token_classifier(encoder, 4),
    "question_answerer": kb.build_question_answerer,
    "multiple_choice": kb.build_multiple_choice,
    "embedder": lambda encoder: kb.build_embedder(encoder, ["max", "cls"], normalize=False),
}
CONFIGS = [
    {},
    {"hidden_act": "relu", "hidden_dropout_prob": 0.2, "type_vocab_size": 1},
    {"hidden_act": "gelu_new", "attention_probs_dropout_prob": 0.0, "initializer_range": 0.5, "hidden_size": 15},
    {"hidden_act": "silu", "position_embedding_type": "sinusoidal", "num_attention_heads": 1, "type_vocab_size": 5},
    {"pooler_act": None, "num_hidden_layers": 1, "intermediate_size": 7, "max_position_embeddings": 11},
]


PAIRS = [("encoder", fields) for fields in CONFIGS]
PAIRS += [(task, CONFIGS[place % 4]) for place, task in enumerate(BUILDERS) if task != "encoder"]
PAIRS += [("token_classifier", CONFIGS[4])]


@pytest.mark.parametrize(("task", "fields"), PAIRS)
def test_round_trip_to_the_bit(tmp_path, tokenizer, task, fields):
    config = kb.BertConfig(**{**SMALL, **fields})
    model = randomize(BUILDERS[task](kb.build_encoder(config)))
    cased = kb.Tokenizer(tokenizer.vocabulary, lowercase=False, strip_accents=True)
    labels = {"classifier": ["no", "是", "maybe"], "token_classifier": list("OBIE")}.get(task)
    kb.save_checkpoint(kb.ModelFolder(model, cased, task, 10, labels, segments=2), tmp_path / "uncased", "google")
    again = kb.load_model_folder(tmp_path / "uncased")
    assert (again.task, again.labels, again.max_length, again.segments) == (task, labels, 10, 2)
    assert again.tokenizer.hash == cased.hash
    assert kb.config_of(again.model) == kb.config_of(model)
    for ours, theirs in zip(again.model.weights, model.weights, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)
    rates = [{layer.name: getattr(layer, "rate", None) for layer in one.layers} for one in (again.model, model)]
    assert rates[0] == rates[1]
    kb.save_checkpoint(again, tmp_path / "again", "google")
    for file in (tmp_path / "again").iterdir():
        assert file.read_bytes() == (tmp_path / "uncased" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(("task", "heads", "pooler"), CASES)
def test_googles_programs_find_every_variable(tmp_path, tokenizer, task, heads, pooler):
    """By their names and shapes, with TF1's own reader of checkpoints."""
    # What needs no pooler has none, also where its encoder has one.
    pooler = pooler and task not in ("masked_lm", "question_answerer")
    config = kb.BertConfig(**SMALL, pooler_act="tanh" if pooler else None)
    model = randomize(BUILDERS[task](kb.build_encoder(config)))
    if task == "token_classifier":
        model = randomize(kb.build_token_classifier(kb.build_encoder(config), 3))
    kb.save_checkpoint(kb.ModelFolder(model, tokenizer, task, 16), tmp_path / "m", "google")
    shapes = variables(SMALL, heads, pooler)
    found = dict(tf.train.list_variables(str(tmp_path / "m" / "bert_model.ckpt")))
    assert {name: tuple(shape) for name, shape in found.items()} == shapes
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        theirs = {name: tf.compat.v1.get_variable(name, shape) for name, shape in shapes.items()}
        tf.compat.v1.train.Saver().restore(session, str(tmp_path / "m" / "bert_model.ckpt"))
        values = session.run(theirs)
    inputs = make_inputs(config, model)
    compare(model(inputs), expected(config, values, inputs, task))
    written = json.loads((tmp_path / "m" / "bert_config.json").read_text())
    assert set(written) == {*SMALL, *DEFAULTS} - {name for name in DEFAULTS if name.startswith(("pooler", "direct"))}


DATA, INDEX = "bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index"


def cut(name, size):
    """Leaves the first bytes of a file, or, with a size beyond its end, makes it longer."""

    def damage(folder):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content[:size] if size < len(content) else content + bytes(size - len(content)))

    return damage


def flip(folder):
    content = bytearray((folder / DATA).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / DATA).write_bytes(content)


def huge(name):
    def damage(folder):
        with open(folder / name, "r+b") as file:
            file.truncate(2**30)

    return damage


def remove(name):
    return lambda folder: (folder / name).unlink()


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def objects(folder):
    tf.train.Checkpoint(table=tf.Variable(tf.zeros([4, 4]))).write(str(folder / "bert_model.ckpt"))


def config(**fields):
    def damage(folder):
        values = json.loads((folder / "bert_config.json").read_text())
        (folder / "bert_config.json").write_text(json.dumps({**values, **fields}))

    return damage


def tensors(change):
    """Writes the checkpoint again with other tensors."""

    def damage(folder):
        arrays = fill(variables(SMALL, ("predictions", "seq_relationship")))
        change(arrays)
        write_variables(folder / "bert_model.ckpt", arrays)

    return damage


def drop(*names):
    return tensors(lambda arrays: [arrays.pop(name) for name in names])


def put(name, array):
    return tensors(lambda arrays: arrays.update({name: array}))


def spoil(*names):
    def change(arrays):
        for name in names:
            arrays[name].flat[-1] = np.nan if "key" in name else np.inf

    return tensors(change)


def vocabulary(change):
    def damage(folder):
        pieces = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        (folder / "vocab.txt").write_text("\n".join(change(pieces)), encoding="utf-8")

    return damage


KEY = "bert/encoder/layer_1/attention/self/key/kernel"
POOLER = ("bert/pooler/dense/bias", "bert/pooler/dense/kernel")
BAD = {
    "index truncated": (cut(INDEX, 700), "complete TensorFlow checkpoint.*index, which TensorFlow cannot read"),
    "index empty": (cut(INDEX, 0), "complete TensorFlow checkpoint.*index, which TensorFlow cannot read"),
    "data truncated": (cut(DATA, 5000), r"Expected \d+ bytes of tensors.*Received: 5000 bytes in 1 files"),
    "data empty": (cut(DATA, 0), r"Expected \d+ bytes of tensors.*Received: 0 bytes in 1 files"),
    "data oversized": (cut(DATA, 10**6), r"Expected \d+ bytes of tensors.*Received: 1000000 bytes"),
    "data missing": (remove(DATA), r"Expected \d+ bytes of tensors.*Received: 0 bytes in 0 files"),
    "data changed": (flip, r"whose tensor (bert|cls)/\S+ cannot be read"),
    "TensorFlow 2's": (objects, "by the names of google-research/bert.*Received: a checkpoint of TensorFlow 2"),
    "config truncated": (cut("bert_config.json", 100), "JSON object in .*bert_config.json.*interrupted"),
    "config empty": (cut("bert_config.json", 0), "JSON object in .*bert_config.json.*interrupted"),
    "config oversized": (huge("bert_config.json"), "JSON file of at most"),
    "config a list": (text("bert_config.json", "[1]"), "Received: a list"),
    "another model": (config(model_type="albert"), "model_type='bert'.*Received: model_type='albert'"),
    "a factorised table": (config(embedding_size=4), "embedding_size equal to hidden_size"),
    "one direction": (config(directionality="left"), "directionality='bidi'.*Received: 'left'"),
    "an unknown activation": (config(hidden_act="mish"), "bert_config.json: hidden_act must be one of"),
    "no activation": (config(hidden_act=None), "bert_config.json: hidden_act must be one of"),
    "a decoder": (config(is_decoder=True), "is_decoder=False.*would change the numbers"),
    "heads that do not divide": (config(num_attention_heads=5), "num_attention_heads must divide hidden_size"),
    "another width": (config(hidden_size=24), r"word_embeddings of shape \(\d+, 24\).*Received: shape \(\d+, 12\)"),
    "another length": (config(max_position_embeddings=32), r"position_embeddings of shape \(32, 12\)"),
    "a block too many": (
        config(num_hidden_layers=3),
        "missing: .*layer_2/attention/self/query/kernel.*layer_2/output/LayerNorm/beta",
    ),
    "blocks without end": (config(num_hidden_layers=10**9), "num_hidden_layers=1000000000 blocks"),
    "a block too few": (
        config(num_hidden_layers=1),
        "that nothing reads: .*layer_1/attention/output.*layer_1/output/dense/kernel.*Does the config belong",
    ),
    "tensors missing": (
        drop(KEY, "bert/embeddings/LayerNorm/beta", "cls/predictions/output_bias"),
        "missing: bert/embeddings/LayerNorm/beta, .*self/key/kernel, cls/predictions/output_bias",
    ),
    "half a pooler": (drop(POOLER[0]), "missing: bert/pooler/dense/bias"),
    "half a head": (drop("cls/seq_relationship/output_bias"), "missing: cls/seq_relationship/output_bias"),
    "unexpected tensors": (
        tensors(lambda arrays: arrays.update({"bert/extra/kernel": arrays[KEY], "adapter/bias": arrays[KEY][0]})),
        "that nothing reads: adapter/bias, bert/extra/kernel",
    ),
    "a shape that does not fit": (
        put(KEY, np.zeros((12, 11), "float32")),
        r"of another shape: \S+key/kernel \(12, 11\) instead of \(12, 12\)",
    ),
    "integers": (put(KEY, np.zeros((12, 12), "int8")), "weights of a float type.*key/kernel of type int8"),
    "not finite": (spoil(KEY, POOLER[1]), f"Received NaN or infinity in: {KEY}, {POOLER[1]}"),
    "vocabulary missing": (remove("vocab.txt"), "Expected a vocabulary file"),
    "vocabulary empty": (cut("vocab.txt", 0), "but the file is empty"),
    "vocabulary oversized": (huge("vocab.txt"), "Expected a vocabulary of at most"),
    "vocabulary shorter": (
        vocabulary(lambda pieces: pieces[:-3]),
        r"vocabulary of vocab_size=\d+.*Received: \d+ pieces",
    ),
    "duplicate pieces": (vocabulary(lambda pieces: [*pieces[:-1], "cat"]), "each piece once.*'cat' in lines"),
    "no special pieces": (vocabulary(lambda pieces: ["x", *pieces[1:]]), r"Missing: \[PAD\]"),
    "index missing": (remove(INDEX), "Expected a TensorFlow checkpoint in"),
    "config missing": (remove("bert_config.json"), "Expected bert_config.json beside.*Received: no .json file"),
    "config renamed": (
        lambda folder: (folder / "bert_config.json").rename(folder / "bert_config_small.json"),
        "Expected bert_config.json beside.*Received: bert_config_small.json; rename",
    ),
    "a checkpoint beside": (text("checkpoint", 'model_checkpoint_path: "../other/model.ckpt"'), "leads out of it"),
    "a checkpoint elsewhere": (text("checkpoint", 'model_checkpoint_path: "/tmp/model.ckpt"'), "leads out of it"),
    "a checkpoint that is gone": (
        text("checkpoint", 'model_checkpoint_path: "model.ckpt-7"'),
        "Expected the checkpoint",
    ),
    "no name of a checkpoint": (text("checkpoint", "{}"), "Expected model_checkpoint_path"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory, tokenizer):
    path = tmp_path_factory.mktemp("google") / "uncased"
    write(path, tokenizer.vocabulary, heads=("predictions", "seq_relationship"))
    return path


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_said_and_nothing_is_written(tmp_path, sound, case):
    damage, message = BAD[case]
    shutil.copytree(sound, tmp_path / "uncased")
    damage(tmp_path / "uncased")
    with pytest.raises((ValueError, FileNotFoundError), match=f"(?s){message}"):
        kb.convert_checkpoint(tmp_path / "uncased", tmp_path / "out", "keras", task="pretraining")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["uncased"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["config"].update(hidden_act="relu"), "hidden_act='gelu' and 'relu'"),
        (lambda values: values["tokenizer"].update(lowercase=False), "hash"),
        (lambda values: values.update(task="token_classifier"), "missing: output_weights, output_bias"),
        (lambda values: values.update(head={"import": "os"}), "description of a model"),
        (lambda values: values.update(task="generation"), "description of a model"),
        (lambda values: values["config"].update(layer_norm_eps=-1), "keras_bert.json: layer_norm_eps must be"),
    ],
)
def test_a_description_that_does_not_fit(tmp_path, sound, change, message):
    kb.convert_checkpoint(sound, tmp_path / "m", "google")
    values = json.loads((tmp_path / "m" / "keras_bert.json").read_text())
    change(values)
    (tmp_path / "m" / "keras_bert.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        kb.load_model_folder(tmp_path / "m")


def small(**fields):
    return kb.build_encoder(kb.BertConfig(**{**SMALL, **fields}))


@pytest.mark.parametrize(
    ("task", "make", "message"),
    [
        ("encoder", lambda: small(type_vocab_size=0), "Received: type_vocab_size=0"),
        ("encoder", lambda: small(pooler_act="relu", type_vocab_size=0), "type_vocab_size=0, pooler_act='relu'"),
        ("embedder", lambda: kb.build_embedder(small(), projection_size=4), "projection/kernel, projection/bias"),
        ("masked_lm", lambda: kb.build_masked_lm(small(), layer_norm_eps=1e-5), "a head with layer_norm_eps=1e-05"),
    ],
)
def test_what_the_format_cannot_hold(tmp_path, tokenizer, task, make, message):
    with pytest.raises(ValueError, match=message):
        kb.save_checkpoint(kb.ModelFolder(make(), tokenizer, task, 16), tmp_path / "m", "google")
    assert list(tmp_path.iterdir()) == []


def test_an_epsilon_that_google_does_not_know_is_written_and_said(tmp_path, tokenizer, caplog):
    config = kb.BertConfig(**{**SMALL, "vocab_size": tokenizer.vocab_size, "layer_norm_eps": 1e-5})
    folder = kb.ModelFolder(kb.build_encoder(config), tokenizer, "encoder", 16)
    kb.save_checkpoint(folder, tmp_path / "google", "google")
    assert "layer_norm_eps=1e-12, a constant of its code: this model has 1e-05" in caplog.text
    (tmp_path / "google" / "keras_bert.json").unlink()
    again, _ = kb.load_checkpoint(tmp_path / "google")
    assert kb.config_of(again) == config
