"""Bad input of every task on the command line: one line with file and place, nothing half-written, old results kept."""

import html
import json
import re

import pytest
from cli_runs import hidden, run
from task_data import LENGTH, SUFFIXES, TRAINING, save_pretrained, write, write_files

from keras_bert.training import finetune as loop

pytest.importorskip("tensorflow_text")

FILES = {
    "no_label.jsonl": '{"text": "a", "label": "x"}\n{"text": "b"}\n',
    "number.jsonl": '{"text": "a", "label": "x"}\n{"text": 5, "label": "y"}\n',
    "score.tsv": "text\tlabel\na\t1.5\nb\tmany\n",
    "nan.tsv": "text\tlabel\na\t1.5\nb\tnan\n",
    "labels.jsonl": '{"text": "a", "labels": ["x"]}\n{"text": "b", "labels": "x"}\n',
    "no_labels.jsonl": '{"text": "a", "labels": []}\n{"text": "b", "labels": []}\n',
    "unseen_labels.jsonl": '{"text": "a", "labels": ["good", "new"]}\n',
    "unseen.conll": "the O\ncat B-CAR\n",
    "scheme.conll": "the O\ncat B-ANI\ndog I-ANI\nmat ANI\n",
    "columns.conll": "the x O\ncat O\n",
    "lengths.jsonl": '{"words": ["a", "b"], "tags": ["O", "B-X"]}\n{"words": ["a", "b"], "tags": ["O"]}\n',
    "only_o.conll": "the O\ncat O\n\ndog O\n",
    "choice.jsonl": '{"question": "a", "choices": ["b", "c"], "label": 2}\n',
    "one_choice.jsonl": '{"question": "a", "choices": ["b"], "label": 0}\n',
    "no_choices.jsonl": '{"question": "a", "label": 0}\n',
    "single.tsv": "text\na\n",
    "both.tsv": "text\ttext_pair\tnegative\tlabel\na\tb\tc\t1\n",
    "empty.conll": "",
    "empty.json": "",
    "empty.jsonl": "",
    "blank.txt": "\n\n",
    "broken.json": '{"data": [',
    "other.json": '{"rows": []}',
    "one_class.tsv": "text\tlabel\nthe cat good\tgood\na dog good\tgood\n",
    "unseen.tsv": "text\tlabel\na\tgood\nb\tneutral\n",
    "other_labels.tsv": "text\tlabel\na\tyes\nb\tno\n",
    "few.tsv": "text\tlabel\na\tgood\nb\tbad\nc\tbad\n",
}


def squad(*answers):
    context = "the cat sat on the mat"
    entries = [
        {"id": f"q{number}", "question": "who ?", "answers": [{"text": text, "answer_start": start}]}
        for number, (text, start) in enumerate(answers)
    ]
    return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": entries}]}]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    save_pretrained(folder / "pretrained")
    for task in SUFFIXES:
        (folder / task).mkdir()
        write_files(task, folder / task)
    for name, text in FILES.items():
        write(folder / name, text)
    write(folder / "answers.json", squad(("cat", 4), ("mat", 2), ("mat", 19), ("dog", 0)))
    write(folder / "bad_answers.json", squad(("mat", 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = run(*words("classifier", "--epochs 1 --out trained"))
        assert done.status == 0, done.err
    return folder


@pytest.fixture(autouse=True)
def _in_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def words(task, more, train=None, dev=None):
    train, dev = (given or f"{task}/{part}{SUFFIXES[task]}" for given, part in ((train, "train"), (dev, "dev")))
    base = ["finetune", "--task", task, "--checkpoint", "pretrained", "--train", train, "--dev", dev, *TRAINING]
    return [*base, *more.split()]


# Task, training file, dev file (None for a good one), and what is said.
ROWS = [
    ("classifier", "no_label.jsonl", None, "no_label.jsonl, line 2: no column 'label'"),
    ("classifier", "number.jsonl", None, "number.jsonl, line 2, column 'text': expected a string. Received: 5"),
    ("classifier", None, "unseen.tsv", "unseen.tsv, line 3: the label 'neutral' does not occur in training"),
    ("classifier", "one_class.tsv", None, "one_class.tsv: expected at least two classes.*'good'"),
    ("classifier", "empty.jsonl", None, "empty.jsonl: .*empty"),
    ("multi_label", "labels.jsonl", None, "labels.jsonl, line 2.*labels"),
    ("multi_label", "no_labels.jsonl", None, "no_labels.jsonl: expected labels, but every one of the 2 rows has none"),
    ("multi_label", None, "unseen_labels.jsonl", "unseen_labels.jsonl, line 1: the label 'new' does not occur"),
    ("multi_label", "empty.jsonl", None, "empty.jsonl: .*empty"),
    ("regression", "score.tsv", "score.tsv", "score.tsv, line 3: expected a finite number as label. Received: 'many'"),
    ("regression", "nan.tsv", "nan.tsv", "nan.tsv, line 3: expected a finite number"),
    (
        "token_classifier",
        None,
        "unseen.conll",
        r"unseen.conll, line 1, word 2 \('cat'\): the tag 'B-CAR' does not occur",
    ),
    ("token_classifier", "scheme.conll", None, r"scheme.conll, line 1, word 4 \('mat'\): expected O or a tag.*'ANI'"),
    ("token_classifier", "columns.conll", None, "columns.conll, line 2: expected 3 columns.*Received 2"),
    ("token_classifier", "lengths.jsonl", None, "lengths.jsonl, line 2: expected one tag for each word.*2 words and 1"),
    ("token_classifier", "only_o.conll", None, "only_o.conll: expected at least two tags, but every word.*'O'"),
    ("token_classifier", "empty.conll", None, "empty.conll: .*empty"),
    ("question_answerer", "broken.json", None, "broken.json: expected SQuAD's JSON.*not JSON"),
    ("question_answerer", "other.json", None, "other.json: expected the key 'data'"),
    ("question_answerer", "empty.json", None, "empty.json: .*empty"),
    (
        "question_answerer",
        "bad_answers.json",
        None,
        r"bad_answers.json: expected questions; all 1 have bad answers.*q0",
    ),
    ("multiple_choice", "choice.jsonl", None, "choice.jsonl, line 1: expected a label that names one of the 2 choices"),
    ("multiple_choice", "one_choice.jsonl", None, "one_choice.jsonl, line 1: expected at least two choices"),
    ("multiple_choice", "no_choices.jsonl", None, "no_choices.jsonl.*choices"),
    ("embedder", "single.tsv", None, "single.tsv.*no column 'text_pair'"),
    ("embedder", "both.tsv", None, "both.tsv: expected scored pairs.*or triplets"),
    ("masked_lm", "blank.txt", None, "blank.txt.*every line is blank"),
    ("masked_lm", "empty.json", None, "empty.json: the file is empty"),
]


@pytest.mark.parametrize(
    ("task", "train", "dev", "message"), ROWS, ids=[f"{row[0]}-{row[1] or row[2]}" for row in ROWS]
)
def test_rows(task, train, dev, message, folder):
    check(run(*words(task, "--out new", train, dev)), 1, message, folder)


def check(outcome, status, message, folder):
    assert outcome.status == status, outcome.err
    assert outcome.out == ""
    assert re.search(message, outcome.last_error()), outcome.err
    assert outcome.err.count("error: ") == 1
    assert "Traceback" not in outcome.err
    assert not (folder / "new").exists()
    assert not hidden(folder)


COMMANDS = [
    (
        "question_answerer",
        "--out new --train answers.json --bad-answers refuse",
        1,
        r"qas\[1\].*expected 'mat' at char",
    ),
    ("classifier", f"--out new --max-length {LENGTH + 1}", 1, f"max_position_embeddings, {LENGTH}.*max_length="),
    (
        "classifier",
        "--out new --train few.tsv --few-shot 2",
        1,
        "few.tsv: expected at least 2 rows of every class.*1 rows with the label 'good'",
    ),
    ("regression", "--out new --few-shot 2 --columns text=first,label=score", 1, "few-shot.*regression does not have"),
    ("classifier", "--out new --class-weights neutral=2", 1, "class weights for labels.*Received: 'neutral'"),
    (
        "classifier",
        "--out new --columns words=text",
        2,
        "Expected --columns to name text, text_pair, label, for classifier",
    ),
    (
        "question_answerer",
        "--out new --columns text=a",
        2,
        "Expected --columns to name question, context, answers, id, for question_answerer. Received: text",
    ),
    (
        "classifier",
        "--out new --checkpoint trained --train other_labels.tsv --dev other_labels.tsv",
        1,
        "labels of trained, 'bad', 'good'.*'no', 'yes'.*--new-head",
    ),
    ("classifier", "--out trained --checkpoint trained", 2, "Expected an --out other than --checkpoint"),
    ("classifier", "--out new --task sentiment", 2, "expected one of classifier, multi_label, .*got 'sentiment'"),
    ("classifier", "--out new --freeze half", 2, "none, embeddings, encoder or a number of blocks, got 'half'"),
    ("classifier", "--out new --class-weights good", 2, "LABEL=WEIGHT pairs.*got 'good'"),
    (
        "classifier",
        "--out new --lora-rank 2 --unfreeze-every 1",
        1,
        "unfreeze_every must be 0 where there are adapters",
    ),
    ("token_classifier", "--out new --stride 14", 1, "stride below the 14 pieces.*stride=14"),
    (
        "question_answerer",
        "--out new --stride 12",
        1,
        "max_length=16, stride=12; make max_length longer or stride smaller",
    ),
    ("classifier", "--out new --pooling cls --stride 4", 2, "Received: --pooling, --stride, which would"),
    ("masked_lm", "--out new --bad-answers find", 2, "masked_lm knows. Received: --bad-answers"),
    ("embedder", "--out new --batch-size 1", 1, "batch_size must be at least 2 for an embedder"),
    ("classifier", "--out new --recipe missing.yaml", 2, "missing.yaml, which does not exist"),
]


@pytest.mark.parametrize(("task", "more", "status", "message"), COMMANDS, ids=[" ".join(row[:2]) for row in COMMANDS])
def test_flags(task, more, status, message, folder):
    check(run(*words(task, more)), status, message, folder)


PREDICT = [
    ("predict --checkpoint trained --task multi_label x", 1, "for multi_label_classification.*for single_label_class"),
    (
        "predict --checkpoint trained --task token_classifier x",
        1,
        "model for token_classifier in trained.*'classifier'",
    ),
    (
        "predict --checkpoint pretrained --task classifier x",
        1,
        "Expected a model for classifier in pretrained.*'pretraining'",
    ),
    ("predict --checkpoint trained --columns text=a x", 2, "--columns names columns of --input"),
    ("predict --checkpoint trained --input few.tsv x", 2, "texts as arguments or --input FILE. Received: both"),
    (
        "predict --checkpoint trained --input few.tsv --columns words=text",
        2,
        "Expected --columns to name text, text_pair",
    ),
    ("predict --checkpoint trained --input missing.txt", 1, "missing.txt: file does not exist"),
    ("predict --checkpoint trained --input answers.json", 1, "answers.json: expected a table"),
    ("evaluate --checkpoint trained --dev single.tsv", 1, "single.tsv.*no column 'label'"),
    ("evaluate --checkpoint trained --dev unseen.tsv", 1, "unseen.tsv, line 3: the label 'neutral' does not occur"),
    ("evaluate --checkpoint trained --dev few.tsv --out trained", 2, "Expected an --out other than --checkpoint"),
]


@pytest.mark.parametrize(("command", "status", "message"), PREDICT, ids=[row[0] for row in PREDICT])
def test_evaluate_and_predict(command, status, message, folder):
    check(run(*command.split()), status, message, folder)


@pytest.mark.parametrize(("bad_answers", "examples"), [("skip", 2), ("find", 3)])
def test_answers_that_stand_elsewhere_are_counted(bad_answers, examples, folder):
    more = f"--out {bad_answers} --train answers.json --epochs 1 --max-length {LENGTH} --bad-answers {bad_answers}"
    outcome = run(*words("question_answerer", more))
    assert outcome.status == 0, outcome.err
    left_out = 4 - examples
    assert re.search(rf"answers.json: 2 answers do not stand.*{left_out} questions .* left out.*'mat'", outcome.err)
    metrics = json.loads((folder / bad_answers / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["data"]["train"] == examples


def test_a_dev_set_of_one_class(folder):
    outcome = run(*words("classifier", "--out one_class --epochs 1", dev="one_class.tsv"))
    assert outcome.status == 0, outcome.err
    printed = json.loads(outcome.out)
    assert 0 <= printed["accuracy"] <= 1
    assert printed["roc_auc"] is None
    assert "every row is labelled 'good'" in printed["notes"][0]
    report = (folder / "one_class" / "report.html").read_text(encoding="utf-8")
    assert printed["notes"][0] in html.unescape(report)


def test_a_new_head_for_other_labels(folder):
    more = "--out new_head --epochs 1 --checkpoint trained --new-head"
    outcome = run(*words("classifier", more, "other_labels.tsv", "other_labels.tsv"))
    assert outcome.status == 0, outcome.err
    assert "warning: 2 of 2 dev examples are training examples too" in outcome.err
    description = json.loads((folder / "new_head" / "keras_bert.json").read_text(encoding="utf-8"))
    assert description["labels"] == ["no", "yes"]


def test_an_old_result_outlives_a_failure(folder, monkeypatch):
    before = {path: path.read_bytes() for path in (folder / "trained").iterdir() if path.is_file()}
    monkeypatch.setattr(loop, "LinearWarmupDecay", lambda *arguments: 1e30)
    outcome = run(*words("classifier", "--epochs 2 --out trained"))
    assert outcome.status == 1
    assert re.search("The loss is (nan|inf) after .* a lower --learning-rate usually helps", outcome.last_error())
    assert outcome.out == ""
    assert {path: path.read_bytes() for path in (folder / "trained").iterdir() if path.is_file()} == before
    assert not hidden(folder)
