"""Question answering: targets, answers and figures, each held against a plain search or transformers' own model."""

import dataclasses
import json

import numpy as np
import pytest
from bert_numpy import randomize
from tiny_config import tiny_config
from tokenizer_reference import reference

import keras_bert as kb
from keras_bert.checkpoints import load_model_folder, save_checkpoint
from keras_bert.training.answers import best_spans
from keras_bert.training.encoding import make_dataset, plan_batches
from keras_bert.training.finetune import evaluate, finetune, outputs_of, predict
from keras_bert.training.question_answering import QuestionAnswerer
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.squad import Questions
from keras_bert.training.squad_metrics import answer_scores
from keras_bert.training.tasks import task_of

SETTINGS = FinetuneSettings(epochs=6, batch_size=8, max_length=16, stride=4, learning_rate=1e-2)
WORDS = ["the", "a", "mat", "sat", "ran", "very", "and", "was", "我", "爱", "😀", "E\u0301", "\u200b", "good, bad"]


def questions_of(rows):
    """Rows of (question, context, answers with their places)."""
    asked, contexts, answers = zip(*rows, strict=True)
    numbers = range(len(rows))
    return Questions(
        "rows", list(contexts), list(numbers), list(asked), [f"q{i}" for i in numbers], list(answers),
        [f"line {i + 1}" for i in numbers], [], 0,
    )  # fmt: skip


def learnable(size, seed=0, unanswered=0.4, longest=30):
    """The answer is the one animal in the text, and there is none where no animal is."""
    random, rows = np.random.default_rng(seed), []
    for _ in range(size):
        words = list(random.choice(WORDS, random.integers(1, longest)))
        place = int(random.integers(0, len(words)))
        before = "".join(f"{word} " for word in words[:place])
        animal = str(random.choice(["cat", "dog"]))
        if random.random() < unanswered:
            rows.append(("was a mat?", " ".join(words), []))
        else:
            rows.append(("was a mat?", f"{before}{animal} {' '.join(words[place:])}", [(animal, len(before))]))
    return questions_of(rows)


@pytest.fixture(scope="module")
def checkpoint(tokenizer):
    config = tiny_config(tokenizer, max_position_embeddings=32)
    return kb.ModelFolder(kb.build_pretrainer(kb.build_encoder(config)), tokenizer, "pretraining", 16)


@pytest.fixture(scope="module")
def tuned(checkpoint, tokenizer):
    task = QuestionAnswerer(tokenizer, SETTINGS.max_length)
    return finetune(task, checkpoint, learnable(96), learnable(40, seed=1), SETTINGS)


def test_it_learns_where_the_answer_is_and_that_there_may_be_none(tuned, tmp_path):
    folder, report = tuned
    scores = report["evaluation"]["metrics"]
    assert scores["f1"] > 90
    assert scores["has_answer_f1"] > 90
    assert scores["f1"] == pytest.approx(scores["best_f1"]), "the threshold is the best one for the dev set"
    assert scores["no_answer_total"] + scores["has_answer_total"] == scores["total"] == 40
    assert scores["windows_total"] > report["dev_examples"] == 40
    epochs = [row for row in report["curve"] if "epoch" in row]
    assert epochs[-1]["val_loss"] < epochs[0]["val_loss"]
    json.dumps(scores, allow_nan=False)

    save_checkpoint(folder, tmp_path / "model", "keras")
    again = load_model_folder(tmp_path / "model")
    task, dev = task_of(again), learnable(40, seed=1)
    assert task.options == {"stride": 4, "version_2": True, "no_answer_threshold": scores["no_answer_threshold"]}
    evaluation = evaluate(task, again.model, dev)
    assert evaluation.metrics["f1"] == scores["f1"]
    assert evaluation.metrics["loss"] == pytest.approx(scores["loss"], rel=1e-4)

    other = learnable(30, seed=2)
    found = predict(task, again.model, other)
    json.dumps(found, allow_nan=False)
    assert [one["id"] for one in found] == other.ids
    f1 = []
    for row, one in enumerate(found):
        f1.append(answer_scores([text for text, _ in other.answers[row]], one["answer"])[1])
        if one["answer"]:
            assert one["answer"] == other.contexts[row][one["start"] : one["end"]]
            assert one["no_answer_score"] <= scores["no_answer_threshold"]
        else:
            assert (one["start"], one["end"]) == (None, None)
            # None: nothing of the text is left but what BERT drops
            assert one["no_answer_score"] is None or one["no_answer_score"] > scores["no_answer_threshold"]
    assert np.mean(f1) > 0.8


def test_a_later_evaluation_keeps_the_threshold(tuned):
    folder, _ = tuned
    task = task_of(folder)
    before = dict(task.options)
    scores = evaluate(task, folder.model, learnable(20, seed=3, unanswered=1.0)).metrics
    assert task.options == before
    assert scores["no_answer_threshold"] == before["no_answer_threshold"]
    assert scores["has_answer_total" if "has_answer_total" in scores else "no_answer_total"] == 20


@pytest.mark.parametrize(("unanswered", "null"), [(0.4, 0.0), (0.4, 9.0), (1.0, -9.0), (0.0, 9.0)])
def test_the_threshold_is_the_best_even_where_it_is_best_never_to_answer(tokenizer, unanswered, null):
    train, dev = learnable(30, seed=8), learnable(50, seed=9, unanswered=unanswered)
    task = QuestionAnswerer(tokenizer, 16)
    task.learn(train, dev, SETTINGS)
    features = task.encode(dev)
    splits, random = features.encoding.row_splits, np.random.default_rng(1)
    outputs = {name: random.normal(size=splits[-1]).astype(np.float32) for name in ("start_logits", "end_logits")}
    outputs["start_logits"][splits[:-1]] += null
    for name in ("start", "end"):  # often right
        row = np.flatnonzero(features.targets[name])
        outputs[f"{name}_logits"][splits[row] + features.targets[name][row]] += 2
    before = dataclasses.replace(dev)  # equal, but not what it learned with: a threshold is not tuned on it
    assert task.evaluate(before, features, outputs).metrics["no_answer_threshold"] == 0.0
    scores = task.evaluate(dev, features, outputs).metrics
    noted = [one["no_answer_score"] for one in task.predictions(dev, features, outputs)]
    thresholds = [-1e9, *(score for score in noted if score is not None)]
    best = max(task_with(task, value).evaluate(before, features, outputs).metrics["f1"] for value in thresholds)
    assert scores["f1"] == pytest.approx(scores["best_f1"])
    assert scores["f1"] == pytest.approx(best)
    json.dumps(task.options, allow_nan=False)


def task_with(task, threshold):
    options = {**task.options, "no_answer_threshold": threshold}
    return QuestionAnswerer(task.tokenizer, task.max_length, options=options)


def test_targets_are_all_tokens_of_the_whole_answer(tokenizer):
    random, rows = np.random.default_rng(5), []
    for _ in range(150):
        context = " ".join(random.choice([*WORDS, "cat", "dogs"], random.integers(1, 30)))
        begin = int(random.integers(0, len(context)))
        end = int(random.integers(begin + 1, len(context) + 1))
        rows.append(("was a mat?", context, [(context[begin:end], begin), ("never read", 0)]))
    examples = questions_of(rows)
    features = QuestionAnswerer(tokenizer, 16, options={"stride": 4}).encode(examples)
    splits, other, complete = features.encoding.row_splits, reference(tokenizer), 0
    for window, row in enumerate(features.mapping["question"]):
        text, begin = examples.answers[row][0]
        end = begin + len(text.rstrip())
        begin += len(text) - len(text.lstrip())
        encoding = other.encode(examples.contexts[row], add_special_tokens=False)
        answer = [span for span in encoding.offsets if span[0] < end and span[1] > begin]
        first, last = (int(features.targets[name][window]) for name in ("start", "end"))
        spans = features.mapping["offsets"][splits[window] : splits[window + 1]].tolist()
        inside = features.mapping["in_context"][splits[window] : splits[window + 1]]
        here = [tuple(span) for span, is_context in zip(spans, inside, strict=True) if is_context]
        if answer and any(here[i : i + len(answer)] == answer for i in range(len(here))):
            complete += 1
            assert inside[first : last + 1].all()
            assert [tuple(span) for span in spans[first : last + 1]] == answer
        else:
            assert (first, last) == (0, 0)
    assert 50 < complete < len(features) - 50, "windows of both kinds"


def plain_answer(features, outputs, row, most_tokens=30):
    """Every span of every window of a question, best first and none twice, and the null score; after run_qa.py."""
    splits, spans, null = features.encoding.row_splits, {}, np.inf
    for window in np.flatnonzero(features.mapping["question"] == row):
        tokens = range(splits[window], splits[window + 1])
        start, end = outputs["start_logits"], outputs["end_logits"]
        null = min(null, start[tokens[0]] + end[tokens[0]])
        for i in tokens:
            for j in tokens:
                if all(features.mapping["in_context"][[i, j]]) and 0 <= j - i < most_tokens:
                    key = (features.mapping["offsets"][i, 0], features.mapping["offsets"][j, 1])
                    spans[key] = max(spans.get(key, -np.inf), start[i] + end[j])
    return sorted(spans.items(), key=lambda item: -item[1]), null


@pytest.mark.parametrize("version_2", [False, True])
def test_answers_are_those_of_a_search_through_all_spans(tokenizer, version_2):
    examples = learnable(25, seed=4, longest=60)
    options = {"stride": 12, "version_2": version_2, "no_answer_threshold": -7.0}
    task = QuestionAnswerer(tokenizer, 40, options=options)
    features = task.encode(examples, labelled=False)
    assert features.targets == {}
    random = np.random.default_rng(0)
    logits = {name: random.normal(0, 2, features.encoding.row_splits[-1]) for name in ("start_logits", "end_logits")}
    outputs = {name: values.astype(np.float32) for name, values in logits.items()}
    found, silent = task.predictions(examples, features, outputs), 0
    for row, one in enumerate(found):
        spans, null = plain_answer(features, outputs, row)
        if not spans:  # nothing of the text is left but what BERT drops
            assert (one["answer"], one["candidates"], one["no_answer_score"]) == ("", [], None)
            continue
        best = np.array([score for _, score in spans[:20]] + ([null] if version_2 else []), np.float64)
        probabilities = np.exp(best - best.max()) / np.exp(best - best.max()).sum()
        assert one["no_answer_score"] == pytest.approx(null - spans[0][1], abs=1e-5)
        assert [(c["start"], c["end"]) for c in one["candidates"]] == [key for key, _ in spans[:5]]
        shown = [c["score"] for c in one["candidates"]]
        np.testing.assert_allclose(shown, probabilities[: min(5, len(spans))], rtol=1e-5)
        if version_2 and null - spans[0][1] > -7.0:
            silent += 1
            assert (one["answer"], one["start"]) == ("", None)
            assert one["score"] == pytest.approx(probabilities[-1], rel=1e-5)
        else:
            assert (one["start"], one["end"]) == spans[0][0]
            assert one["score"] == shown[0]
    assert 0 < silent < 25 if version_2 else silent == 0


def test_no_span_goes_from_one_window_into_the_next_or_is_too_long():
    start, end = np.zeros(64), np.zeros(64)
    start[0] = start[31] = 9
    end[30] = end[63] = 9
    offsets = np.stack([np.arange(64), np.arange(64) + 1], 1)
    one = best_spans(start, end, np.zeros(64, int), offsets, most=10_000)
    assert (one.ends - one.begins).max() == 30
    assert len(one.begins) == sum(min(30, 64 - i) for i in range(64))
    two = best_spans(start, end, np.repeat([0, 1], 32), offsets, most=10_000)
    assert not np.any((two.begins < 32) & (two.ends > 32))
    assert [len(part) for part in best_spans(start[:0], end[:0], np.zeros(0, int), offsets[:0])] == [0, 0, 0]


def test_the_loss_is_that_of_transformers(checkpoint, tokenizer, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra test-parity)")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra test-parity)")
    task = QuestionAnswerer(tokenizer, 16)
    examples = learnable(20, seed=6)
    task.learn(examples, examples, SETTINGS)
    features = task.encode(examples)
    model = randomize(task.build_model(kb.encoder_of(checkpoint.model)))
    save_checkpoint(task.folder(model), tmp_path / "hf", "hf")
    theirs = transformers.BertForQuestionAnswering.from_pretrained(tmp_path / "hf").eval()
    model.compile(loss=task.loss(SETTINGS))

    def losses(batches):
        """Ours and theirs of each batch."""
        for inputs, labels, weights in make_dataset(features, batches, task.to_example):
            ours = model.compute_loss(inputs, labels, model(inputs), sample_weight=weights)
            positions = {name.replace("logits", "positions"): value for name, value in labels.items()}
            given = {name: torch.tensor(value.numpy()).long() for name, value in {**inputs, **positions}.items()}
            with torch.no_grad():
                yield float(ours), theirs(**given).loss.item()

    batches = plan_batches(features.lengths, 8, seed=0, epoch=0, bucketed=False)
    np.testing.assert_allclose(*zip(*losses(batches), strict=True), rtol=1e-5)
    # Of a set of examples the loss is the windows' mean; no padding takes part.
    alone = list(losses([np.array([window]) for window in range(len(features))]))
    assert evaluate(task, model, examples).metrics["loss"] == pytest.approx(np.mean(alone, 0)[1], rel=1e-5)


def test_a_long_document_and_a_long_question(tokenizer):
    words = ["the mat was very good, 我"] * 5000
    words[4321] = "the dog ran"
    context = " ".join(words)
    place = context.index("dog")
    assert len(context) > 100_000
    examples = questions_of([("was " * 40 + "?", context, [("dog", place)]), ("was a mat?", "a mat", [])])
    task = QuestionAnswerer(tokenizer, 32, options={"stride": 8})
    features = task.encode(examples)
    assert features.mapping["cut_questions"].tolist() == [True, False]
    assert features.lengths.max() == 32
    splits = features.encoding.row_splits
    with_answer = np.flatnonzero(features.targets["start"])
    assert 1 <= len(with_answer) <= 4
    outputs = {f"{name}_logits": np.zeros(splits[-1], np.float32) for name in ("start", "end")}
    for name in ("start", "end"):
        outputs[f"{name}_logits"][splits[with_answer] + features.targets[name][with_answer]] = 5
    one, other = task.predictions(examples, features, outputs)
    assert (one["answer"], one["start"], one["end"]) == ("dog", place, place + 3)
    assert one["question"] == examples.questions[0]
    assert other["answer"] in ("a mat", "a", "mat")
    evaluation = task.evaluate(examples, features, outputs)
    assert evaluation.metrics["has_answer_f1"] == 100
    assert evaluation.metrics["cut_questions_total"] == 1
    assert all(len(error["context"]) <= 400 for error in evaluation.errors)


def test_the_worst_errors_come_first(tokenizer, checkpoint):
    task = QuestionAnswerer(tokenizer, 16, options={"stride": 4})
    examples = learnable(60, seed=7)
    model = randomize(task.build_model(kb.encoder_of(checkpoint.model)))
    features = task.encode(examples)
    outputs = outputs_of(task, model, features)
    errors = task.evaluate(examples, features, outputs).errors
    assert len(errors) == 20
    assert [error["f1"] for error in errors] == sorted(error["f1"] for error in errors)
    predicted = {one["answer"] for one in task.predictions(examples, features, outputs)}
    for error in errors:
        assert error["f1"] == answer_scores(error["answers"], error["predicted"])[1] < 1
        assert error["predicted"] in predicted
        assert all(answer in error["context"] for answer in error["answers"])


def test_what_a_file_lacks_is_said(tmp_path):
    answers = {"text": ["dog"], "answer_start": [1]}
    rows = [
        {"id": "a", "question": "Who?", "context": "a dog", "answers": answers},
        {"id": "b", "question": "Who?", "context": "a dog", "answers": {"text": ["dog"], "answer_start": [2]}},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = QuestionAnswerer.read(path)
    assert examples.ids == ["b"]
    (remark,) = QuestionAnswerer.remarks(examples)
    assert remark.startswith(f"{path}: 1 answers do not stand where the file says; 1 questions")
    found = QuestionAnswerer.read(path, bad_answers="find")
    assert found.answers == [[("dog", 2)], [("dog", 2)]]
    with pytest.raises(ValueError, match=r"train.jsonl, line 1\.answers\[0\]"):
        QuestionAnswerer.read(path, bad_answers="refuse")
    with pytest.raises(ValueError, match="line 1: expected the key 'q'. Received an object with 'id', 'question'"):
        QuestionAnswerer.read(path, {"question": "q"})


def test_questions_from_lines(tuned):
    folder, _ = tuned
    lines = ["Was a mat?\tthe mat 😀 sat and a cat ran", "Was a mat?\ta dog\tran"]
    examples = QuestionAnswerer.parse(lines, folder.segments)
    assert examples.contexts[1] == "a dog\tran"
    one, other = (found["candidates"][0] for found in predict(task_of(folder), folder.model, examples))
    assert (one["answer"], one["start"], one["end"]) == ("cat", 20, 23)
    assert one["start"] == examples.contexts[0].index("cat"), "characters, not bytes"
    assert (other["answer"], other["start"]) == ("dog", 2)
    assert predict(task_of(folder), folder.model, QuestionAnswerer.parse([])) == []
    for line in ("no tab", "\tno question", "no text\t ", ""):
        with pytest.raises(ValueError, match="line 2: expected a question and the text"):
            QuestionAnswerer.parse([lines[0], line])


def test_windows_without_room_are_refused(checkpoint, tokenizer):
    settings = dataclasses.replace(SETTINGS, stride=11)
    with pytest.raises(ValueError, match="max_length=16, stride=11; make max_length longer"):
        finetune(QuestionAnswerer(tokenizer, 16), checkpoint, learnable(8), learnable(8), settings)
    with pytest.raises(ValueError, match="classes, which question_answerer does not have"):
        QuestionAnswerer(tokenizer, 16).few(learnable(8), 2, 0)
