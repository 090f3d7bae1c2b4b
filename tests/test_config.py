"""BertConfig: presets, JSON, and what it refuses."""

import json

import pytest

from keras_bert import PRESETS, BertConfig

# google-research/bert's bert_config.json of BERT-base, uncased, as published.
PUBLISHED_BASE = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


def test_the_published_base_is_the_default_and_the_preset():
    assert BertConfig.from_dict(PUBLISHED_BASE) == BertConfig() == BertConfig.from_preset("base")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_follow_the_papers_proportions(name):
    config = BertConfig.from_preset(name)
    assert config.intermediate_size == 4 * config.hidden_size
    assert config.hidden_size == 64 * config.num_attention_heads
    assert config.max_position_embeddings == 512


def test_a_preset_takes_overrides():
    config = BertConfig.from_preset("tiny", vocab_size=21128, hidden_act="relu")
    assert (config.vocab_size, config.hidden_act, config.hidden_size) == (21128, "relu", 128)


def test_json_round_trip(tmp_path):
    config = BertConfig.from_preset("mini", layer_norm_eps=1e-5, position_embedding_type="sinusoidal")
    (tmp_path / "bert_config.json").write_text(json.dumps(config.to_dict()))
    assert BertConfig.from_json_file(tmp_path / "bert_config.json") == config


def test_keys_that_change_nothing_are_ignored():
    extra = {"architectures": ["BertModel"], "pooler_type": "x", "model_type": "bert", "is_decoder": False}
    assert BertConfig.from_dict({**PUBLISHED_BASE, **extra}) == BertConfig()


@pytest.mark.parametrize(("name", "meaning"), [("swish", "silu"), ("gelu_pytorch_tanh", "gelu_new")])
def test_other_spellings_of_an_activation(name, meaning):
    assert BertConfig(hidden_act=name).hidden_act == meaning


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 770}, "num_attention_heads must divide hidden_size.*hidden_size=770, num_attention_heads=12"),
        ({"vocab_size": 0}, "vocab_size must be an integer of at least 1.*vocab_size=0"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers must be an integer of at least 1.*2.0"),
        ({"type_vocab_size": True}, "type_vocab_size must be an integer of at least 0.*True"),
        ({"type_vocab_size": -1}, "type_vocab_size must be an integer of at least 0.*-1"),
        ({"pooler_act": "gelu"}, "pooler_act must be one of .*'tanh'.*'gelu'"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps must be greater than 0.*'1e-12'"),
        ({"hidden_dropout_prob": None}, "hidden_dropout_prob is a probability.*None"),
        ({"hidden_act": ["gelu"]}, "hidden_act must be one of .*gelu_new.*"),
        ({"hidden_act": "tanh"}, "hidden_act must be one of .*'gelu_new'.*'tanh'"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is a probability"),
        ({"attention_probs_dropout_prob": -0.1}, "attention_probs_dropout_prob is a probability"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps must be greater than 0"),
        ({"initializer_range": 0}, "initializer_range must be greater than 0"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type must be one of.*'relative_key'"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"model_type": "roberta"}, "model_type='roberta'"),
        ({"hidden_size": 768, "embedding_size": 128}, "embedding_size=128"),
    ],
)
def test_refused_values(values, message):
    with pytest.raises(ValueError, match=message):
        BertConfig.from_dict(values)


def test_an_unknown_preset():
    with pytest.raises(ValueError, match="one of .*'tiny'.*'huge'"):
        BertConfig.from_preset("huge")


@pytest.mark.parametrize(
    ("content", "message"), [(b"{", "JSON object"), (b"[1]", "a list"), (b'{"vocab_size": "\xff"}', "JSON object")]
)
def test_unreadable_files_are_named(tmp_path, content, message):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"{message}.*c.json|c.json.*{message}|{message}"):
        BertConfig.from_json_file(tmp_path / "c.json")


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        BertConfig().hidden_size = 5
