"""Pretraining gone on with: rows, masks, the loss beside PyTorch's, and fillings beside transformers' pipeline."""

import dataclasses
import gzip
import json

import numpy as np
import pytest
from bert_numpy import randomize
from tiny_config import tiny_config

import keras_bert as kb
from keras_bert.training.encoding import make_dataset, plan_batches
from keras_bert.training.fill_mask import Documents, MaskedLM, pack_documents
from keras_bert.training.finetune import evaluate, finetune, load_start, predict
from keras_bert.training.settings import FinetuneSettings

SETTINGS = FinetuneSettings(epochs=3, batch_size=8, max_length=16, learning_rate=5e-3)
TEXTS = ["the cat [MASK] on the mat.", "[MASK][MASK]北京", "a very good dog[MASK]"]


@pytest.fixture(scope="module")
def checkpoint(tokenizer):
    config = tiny_config(tokenizer, max_position_embeddings=32)
    return kb.ModelFolder(randomize(kb.build_pretrainer(kb.build_encoder(config))), tokenizer, "pretraining", 16)


@pytest.fixture(scope="module")
def model(checkpoint):
    model = kb.build_masked_lm(kb.encoder_of(checkpoint.model))
    model.get_layer("masked_lm").set_weights(checkpoint.model.get_layer("masked_lm").get_weights())
    return model


@pytest.fixture(scope="module")
def domain(documents):
    return Documents("domain.txt", documents)


@pytest.mark.parametrize("max_length", [3, 7, 16, 512])
def test_rows_are_the_documents_in_pieces(tokenizer, documents, max_length):
    given = [[], *documents, ["", " "], ["我爱北京"]]
    encoding = pack_documents(given, tokenizer, max_length)
    expected = []
    for document in given:
        ids = [number for sentence in document for number in tokenizer.tokenize([sentence]).to_list()[0]]
        expected += [ids[start : start + max_length - 2] for start in range(0, len(ids), max_length - 2)]
    rows = [encoding.row(row, "input_ids").tolist() for row in range(len(encoding))]
    assert rows == [[tokenizer.cls_id, *ids, tokenizer.sep_id] for ids in expected]
    assert not encoding.values["token_type_ids"].any()


def test_no_documents(tokenizer):
    assert len(pack_documents([], tokenizer, 16)) == 0


def batches_of(task, features, seed=0, epochs=2, first_step=0, skip=0):
    plan = [batch for epoch in range(epochs) for batch in plan_batches(features.lengths, 8, seed=seed, epoch=epoch)]
    return list(make_dataset(features, plan[skip:], task.to_example, first_step).as_numpy_iterator())


def test_masks_are_drawn_anew_and_a_restart_sees_the_same(tokenizer, domain):
    task = MaskedLM(tokenizer, 16)
    task.learn(domain, domain, SETTINGS)
    features = task.encode(domain)
    whole = batches_of(task, features)
    part = batches_of(task, features, first_step=5, skip=5)
    assert len(part) == len(whole) - 5
    for (inputs, ids, weights), (other, other_ids, other_weights) in zip(whole[5:], part, strict=True):
        assert all(np.array_equal(inputs[name], other[name]) for name in inputs)
        np.testing.assert_array_equal(ids, other_ids)
        np.testing.assert_array_equal(weights, other_weights)
    # The same plan of one epoch, twice: other masks.
    plan = plan_batches(features.lengths, 8, seed=0, epoch=0)
    again = list(make_dataset(features, plan, task.to_example, len(plan)).as_numpy_iterator())
    same = [np.array_equal(one[0]["input_ids"], two[0]["input_ids"]) for one, two in zip(whole, again, strict=False)]
    assert not any(same)


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_what_is_hidden(tokenizer, documents, rate):
    """Near `rate` of the ordinary tokens; of these near 80 % are [MASK]; what is hidden are the tokens of the row."""
    task, domain = MaskedLM(tokenizer, 32), Documents("domain.txt", documents * 4)
    task.learn(domain, domain, dataclasses.replace(SETTINGS, mask_rate=rate))
    features = task.encode(domain)
    tokens = chosen = hidden = 0
    plan = plan_batches(features.lengths, 8, seed=0, epoch=0)
    for rows, (inputs, ids, weights) in zip(plan, make_dataset(features, plan, task.to_example), strict=True):
        given = [features.encoding.row(row, "input_ids") for row in rows]
        assert inputs["input_ids"].shape[1] == max(map(len, given))
        for index, row in enumerate(given):
            used = weights[index].numpy() > 0
            positions = inputs["masked_lm_positions"][index].numpy()[used]
            shown = inputs["input_ids"][index].numpy()[: len(row)]
            np.testing.assert_array_equal(row[positions], ids[index].numpy()[used])
            np.testing.assert_array_equal(np.delete(shown, positions), np.delete(row, positions))
            assert not np.isin(row[positions], tokenizer.special_ids).any()
            tokens += np.isin(row, tokenizer.special_ids, invert=True).sum()
            chosen += used.sum()
            hidden += (shown[positions] == tokenizer.mask_id).sum()
    assert chosen / tokens == pytest.approx(rate, abs=0.02)
    assert hidden / chosen == pytest.approx(0.8, abs=0.06)


def test_the_loss_is_pytorchs(tokenizer, domain, model):
    """The mean over the hidden tokens, as CrossEntropyLoss has it with ignore_index."""
    torch = pytest.importorskip("torch")
    task = MaskedLM(tokenizer, 16)
    task.learn(domain, domain, SETTINGS)
    for inputs, ids, weights in make_dataset(task.encode(domain), [np.arange(8)], task.to_example):
        logits = model(inputs)
        labels = np.where(weights > 0, ids, -100)
        theirs = torch.nn.CrossEntropyLoss()(
            torch.tensor(logits.numpy()).flatten(0, 1), torch.tensor(labels).flatten().long()
        )
        np.testing.assert_allclose(task.loss(SETTINGS)(ids, logits, weights), float(theirs), rtol=1e-5)


def test_dev_figures(tokenizer, domain, model):
    task = MaskedLM(tokenizer, 16)
    task.learn(domain, domain, SETTINGS)
    features = task.encode(domain)
    found = evaluate(task, model, domain, batch_size=5)
    losses, right = [], []
    for start in range(0, len(features), 7):  # masks do not depend on the batch
        rows = np.arange(start, min(start + 7, len(features)))
        inputs = next(iter(make_dataset(features, [rows], lambda *parts: task.to_inputs(*parts))))
        labels = inputs.pop("masked_lm_ids").numpy()
        logits = model(inputs).numpy().astype("float64")
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses += (-np.take_along_axis(logs, np.maximum(labels, 0)[..., None], -1)[..., 0])[labels >= 0].tolist()
        right += (logits.argmax(-1) == labels)[labels >= 0].tolist()
    np.testing.assert_allclose(found.metrics["loss"], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(found.metrics["perplexity"], np.exp(np.mean(losses)), rtol=1e-4)
    np.testing.assert_allclose(found.metrics["accuracy"], np.mean(right))
    assert found.metrics["masked_tokens"] == len(losses)
    assert all(error["label"] != error["predicted"] and "[MASK]" in error["text"] for error in found.errors)
    assert evaluate(task, model, domain).metrics == pytest.approx(found.metrics)


def test_fillings_are_those_of_transformers(checkpoint, tokenizer, model, tmp_path):
    transformers = pytest.importorskip("transformers")
    kb.save_model_folder(kb.ModelFolder(model, tokenizer, "masked_lm", 16), tmp_path / "model")
    kb.convert_checkpoint(tmp_path / "model", tmp_path / "hf", "hf")
    theirs = transformers.FillMaskPipeline(
        model=transformers.BertForMaskedLM.from_pretrained(tmp_path / "hf").eval(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(tmp_path / "hf"),
    )
    found = predict(MaskedLM(tokenizer, 16), model, MaskedLM.parse(TEXTS), batch_size=2)
    json.dumps(found)
    for text, entry in zip(TEXTS, found, strict=True):
        expected = theirs(text)
        expected = expected if isinstance(expected[0], list) else [expected]
        assert entry["text"] == text
        assert len(entry["fillings"]) == len(expected) == text.count("[MASK]")
        for ours, pipeline in zip(entry["fillings"], expected, strict=True):
            np.testing.assert_allclose([one["score"] for one in ours], [one["score"] for one in pipeline], rtol=1e-3)
            assert [tokenizer.vocabulary.index(one["piece"]) for one in ours] == [one["token"] for one in pipeline]


def test_the_texts_of_fillings(tokenizer, model):
    (entry,) = predict(MaskedLM(tokenizer, 16), model, MaskedLM.parse(["The Dog [MASK], a [MASK]!"]))
    for one, other in zip(*entry["fillings"], strict=True):
        first, second = one["piece"], other["piece"]
        assert one["text"] == (f"The Dog{first[2:]}" if first.startswith("##") else f"The Dog {first}") + ", a [MASK]!"
        assert other["text"] == "The Dog [MASK], a" + (second[2:] if second.startswith("##") else f" {second}") + "!"
    assert predict(MaskedLM(tokenizer, 16), model, MaskedLM.parse([])) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no mask here", r"texts, line 2: expected a text with \[MASK\] where.*'no mask here'"),
        ("", r"texts, line 2: expected a text with \[MASK\]"),
        ("cat " * 20 + "[MASK]", r"texts, line 2: expected a text with \[MASK\] within its first 14 tokens"),
    ],
)
def test_texts_without_a_mask(tokenizer, model, text, message):
    with pytest.raises(ValueError, match=message):
        predict(MaskedLM(tokenizer, 16), model, MaskedLM.parse([TEXTS[0], text]))


@pytest.mark.parametrize("strategy", ["default", "mirrored"])
def test_it_learns_from_a_pretraining_checkpoint(checkpoint, tokenizer, tmp_path, strategy):
    kb.save_model_folder(checkpoint, tmp_path / "start")
    train, dev = (Documents("d.txt", [["the cat sat on the mat.", "我爱北京天安门。"]] * size) for size in (100, 10))
    settings = dataclasses.replace(SETTINGS, strategy=strategy)
    task = MaskedLM(tokenizer, SETTINGS.max_length)
    start = load_start(tmp_path / "start", task, settings)
    head, given = (one.model.get_layer("masked_lm").get_weights() for one in (start, checkpoint))
    assert all(np.array_equal(one, other) for one, other in zip(head, given, strict=True))
    task.learn(train, dev, settings)
    before = evaluate(task, start.model, dev).metrics["loss"]
    folder, report = finetune(task, start, train, dev, settings)
    after = report["evaluation"]["metrics"]["loss"]
    assert after < 0.7 * before
    assert report["curve"][-1]["loss"] < before
    kb.save_model_folder(folder, tmp_path / "model")
    again = kb.load_model_folder(tmp_path / "model")
    assert evaluate(MaskedLM.of_folder(again), again.model, dev).metrics["loss"] == pytest.approx(after, rel=1e-5)


def test_a_head_with_an_activation_of_its_own_stays(checkpoint, tokenizer, domain):
    encoder = kb.encoder_of(checkpoint.model)
    start = kb.ModelFolder(kb.build_masked_lm(encoder, hidden_act="relu"), tokenizer, "masked_lm", 16)
    folder, _ = finetune(MaskedLM(tokenizer, 16), start, domain, domain, dataclasses.replace(SETTINGS, epochs=1))
    assert folder.model.get_layer("masked_lm").hidden_act == "relu"


def test_reading(tmp_path):
    (tmp_path / "a.txt").write_text("The cat sat. A dog ran.\n\n我爱北京。很好。\n", encoding="utf-8")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"the mat\n"))
    read = MaskedLM.read(str(tmp_path / "*.txt*"))
    assert read.documents == [["The cat sat.", "A dog ran."], ["我爱北京。", "很好。"], ["the mat"]]
    assert len(read) == 3
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"body": "a cat [MASK]"}\n')
    assert MaskedLM.read(rows, {"text": "body"}).documents == [["a cat [MASK]"]]
    assert MaskedLM.read(rows, {"text": "body"}, labelled=False)["text"] == ["a cat [MASK]"]
    lines = MaskedLM.read(tmp_path / "a.txt", labelled=False)
    assert (lines["text"], lines.lines) == (["The cat sat. A dog ran.", "我爱北京。很好。"], [1, 3])
    with pytest.raises(
        ValueError, match="a.txt: expected no columns, since masked_lm reads plain text.*Received: text"
    ):
        MaskedLM.read(tmp_path / "a.txt", {"text": "body"})
    with pytest.raises(FileNotFoundError, match="c.txt: file does not exist"):
        MaskedLM.read(tmp_path / "c.txt")


def test_nothing_to_hide(tokenizer, domain):
    with pytest.raises(ValueError, match="empty.txt: expected text, but it has no token that could be hidden"):
        MaskedLM(tokenizer, 16).encode(Documents("empty.txt", [["☃☃"], [""]]))
