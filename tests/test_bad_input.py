"""What a user gives and gets wrong: each is one line that says what was expected, what came and what to do."""

import gzip
import io
import os
import re
import resource
import signal
import sys

import pytest
from cli_runs import hidden, make_data, make_launcher, run, start
from tiny_classifier import LABELS, MAX_LENGTH, VOCABULARY, classifier

import keras_bert as kb
from keras_bert.cli import errors, stages
from keras_bert.training import pretrain

pytest.importorskip("tensorflow_text")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of good and of bad input."""
    folder = make_data(tmp_path_factory.mktemp("input"))
    rows = {
        "empty.tsv": "",
        "header.tsv": "text\tlabel\n",
        "column.tsv": "sentence\tlabel\na\tx\nb\ty\n",
        "one.tsv": "text\tlabel\na\tx\nb\tx\n",
        "unseen.tsv": "text\tlabel\na\tsport\nb\t动物\n",
        "pairs.tsv": "text\ttext_pair\tlabel\na\tb\tsport\nc\td\t食物\n",
        "lines.jsonl": '{"text": "a", "label": "x\\ny"}\n{"text": "b", "label": "z"}\n',
        "texts.tsv": "text\na\nb\n",
        "rows.xlsx": "no table",
        "empty.txt": "",
        "blank.txt": "\n \n",
        "document.txt": "One sentence. Another one.\n",
        "no_cls.txt": "[PAD]\n[UNK]\n[SEP]\n[MASK]\na\n",
        "vocab.txt": "".join(f"{piece}\n" for piece in VOCABULARY),
    }
    for name, content in rows.items():
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "binary.tsv").write_bytes(bytes(range(256)) * 9)
    (folder / "gb.tsv").write_bytes("text\tlabel\n你好\t0\n".encode("gb18030"))
    (folder / "gb.txt").write_bytes("你好。世界。".encode("gb18030"))
    (folder / "utf16.tsv").write_bytes("text\tlabel\n".encode("utf-16"))
    (folder / "cut.tsv.gz").write_bytes(gzip.compress((folder / "train.tsv").read_bytes())[:200])
    (folder / "folder.tsv").mkdir()
    tokenizer = kb.Tokenizer(VOCABULARY)
    model = kb.ModelFolder(classifier(), tokenizer, "classifier", MAX_LENGTH, LABELS)
    kb.save_model_folder(model, folder / "classifier")
    model.segments = 2
    kb.save_model_folder(model, folder / "of_pairs")
    encoder = kb.build_encoder(kb.BertConfig(len(VOCABULARY), 16, 1, 2, 32, max_position_embeddings=12))
    kb.save_model_folder(kb.ModelFolder(encoder, tokenizer, "pretraining", 12), folder / "pretrained")
    for name, file, content in (
        ("bad_model", "model.keras", "no zip file"),
        ("bad_json", "keras_bert.json", "{"),
        ("bad_vocab", "vocab.txt", "".join(f"{piece}\n" for piece in [*VOCABULARY[:-1], "other"])),
    ):
        kb.save_model_folder(model, folder / name)
        (folder / name / file).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _in_the_folder(files, monkeypatch):
    monkeypatch.chdir(files)


PRETRAIN = "pretrain --out new --text"
FINETUNE = "finetune --checkpoint pretrained --out new --max-length 12"
QUICK = "quickstart --out new --max-length 12"
FAILURES = [
    ("vocab --out new --text missing.txt", r"missing\.txt: file does not exist .*Check the spelling"),
    ("vocab --out new --text miss*.txt", "pattern matches no file"),
    ("vocab --out new --text empty.txt", r"empty\.txt: the file is empty; expected UTF-8 text"),
    ("vocab --out new --text blank.txt", "expected text, but every line is blank"),
    ("vocab --out new --text gb.txt", "line 1: expected UTF-8, but the byte 0xc4 .*iconv -f GB18030"),
    ("vocab --out new --text folder.tsv", "expected a file, received a folder"),
    ("vocab --out new --text text.txt --vocab-size 9", r"Expected a size of at least \d+.*Received: size=9"),
    ("vocab --out text.txt --text text.txt", "Expected a folder.*text.txt, which is a file; name another one"),
    ("vocab --out text.txt/new --text text.txt", "Expected a folder.*which is a file; name another one"),
    (f"{PRETRAIN} text.txt --vocab missing.txt", "Expected a vocabulary file.*missing.txt, which does not exist"),
    (f"{PRETRAIN} text.txt --vocab no_cls.txt", r"Missing: \[CLS\]\. Is it the vocabulary of a BERT model"),
    (f"{PRETRAIN} text.txt --vocab binary.tsv", "which is binary"),
    (f"{PRETRAIN} document.txt --vocab vocab.txt", "at least 4 documents.*Received: 1; separate documents by a blank"),
    (f"{FINETUNE} --train missing.tsv --dev dev.tsv", r"missing\.tsv: file does not exist"),
    (f"{FINETUNE} --train empty.tsv --dev dev.tsv", r"empty\.tsv: the file is empty"),
    (f"{FINETUNE} --train header.tsv --dev dev.tsv", "expected rows, but the file has none after its header"),
    (f"{FINETUNE} --train binary.tsv --dev dev.tsv", "received a binary file"),
    (f"{FINETUNE} --train gb.tsv --dev dev.tsv", "line 2: expected UTF-8"),
    (f"{FINETUNE} --train utf16.tsv --dev dev.tsv", "received UTF-16. Convert it: iconv"),
    (f"{FINETUNE} --train cut.tsv.gz --dev dev.tsv", "the gzip file ends .* Copy it again"),
    (f"{FINETUNE} --train folder.tsv --dev dev.tsv", "expected a file, received a folder"),
    (f"{FINETUNE} --train rows.xlsx --dev dev.tsv", r"expected a table named .tsv.*Received the suffix '\.xlsx'"),
    (f"{FINETUNE} --train column.tsv --dev dev.tsv", "no column 'text'.*'sentence'.*--columns text=NAME"),
    (f"{FINETUNE} --train train.tsv --dev dev.tsv --columns label=class", "no column 'class'"),
    (f"{FINETUNE} --train one.tsv --dev dev.tsv", "at least two classes.* the label 'x'. Train on rows of two or more"),
    (f"{FINETUNE} --train train.tsv --dev unseen.tsv", "line 3: the label '动物' does not occur in training.*Correct"),
    (f"{FINETUNE} --train lines.jsonl --dev lines.jsonl", r"every label to be one line of text. Received: 'x\\ny'"),
    (f"{FINETUNE} --train pairs.tsv --dev dev.tsv", r"dev\.tsv: expected rows of pairs.*add, drop or rename"),
    (f"{FINETUNE} --train train.tsv --dev dev.tsv --max-length 13", "max_position_embeddings, 12.*max_length=13;"),
    (
        "finetune --checkpoint missing --out new --train train.tsv --dev dev.tsv",
        "Expected a checkpoint: a folder.*'missing'",
    ),
    ("finetune --checkpoint vocab.txt --out new --train train.tsv --dev dev.tsv", "vocab.txt, which is a file"),
    (
        "finetune --checkpoint folder.tsv --out new --train train.tsv --dev dev.tsv",
        "Expected a BERT checkpoint in folder.tsv",
    ),
    (
        "evaluate --checkpoint pretrained --dev dev.tsv",
        "Expected a model for a task.*'pretraining'; train it with keras-bert",
    ),
    ("evaluate --checkpoint classifier --dev dev.tsv", r"the label '\w+' does not occur in training"),
    ("evaluate --checkpoint classifier --dev pairs.tsv", "expected rows of single texts.*Received: pairs"),
    ("evaluate --checkpoint bad_model --dev dev.tsv", "Expected a complete Keras model.*train or copy the model again"),
    ("evaluate --checkpoint bad_json --dev dev.tsv", "Expected the description of a model.*or copy the model again"),
    ("evaluate --checkpoint bad_vocab --dev dev.tsv", "Expected the tokenizer .* put the old ones back"),
    ("predict --checkpoint pretrained x", "Expected a model for a task: classifier, .* 'pretraining'"),
    ("predict --checkpoint of_pairs x", "Expected two texts with a tab between them.*Received: 'x'"),
    ("predict --checkpoint classifier \udcff", "Expected texts in UTF-8. Received: an argument that is not"),
    ("export pretrained --to saved_model --out new/1", "Expected a model for a task: classifier, .* 'pretraining'"),
    (
        "export classifier --to saved_model --out new/1 --max-length 999",
        "at most [0-9]+, the model's max_position",
    ),
    ("export classifier --to litert --out new.tflite --lengths 999", "Expected max_length from 3 to"),
    ("export classifier --to litert --out new.tflite --keep-float block_9", "Received: .*block_9"),
    ("export classifier --to litert --out new.tflite --verify-data empty.tsv", "the file is empty"),
    ("export classifier --to litert --out vocab.txt/new.tflite", "Expected a folder.*which is a file"),
    ("verify classifier missing.tflite --data texts.tsv", "Received: nothing is there; export the model"),
    ("verify classifier folder.tsv --data texts.tsv", "a folder without saved_model.pb"),
    ("verify classifier vocab.txt --data texts.tsv", "a file that does not have the TFL3 mark"),
    ("verify classifier vocab.txt --data texts.tsv --max-drop 0.1", "does not have the TFL3 mark"),
    ("verify classifier vocab.txt --data missing.tsv", "file does not exist"),
    ("verify classifier vocab.txt --data header.tsv", "expected rows, but the file has none after its header"),
    ("verify of_pairs vocab.txt --data dev.tsv", "the TFL3 mark"),
    ("verify missing vocab.txt --data dev.tsv", "Expected a checkpoint: a folder.*'missing'"),
    (f"{QUICK} --text missing.txt", r"missing\.txt: file does not exist"),
    (f"{QUICK} --text folder.tsv", "expected a file, received a folder"),
    (f"{QUICK} --text document.txt --train train.tsv --dev dev.tsv", "at least 4 documents.*give more --text"),
    (f"{QUICK} --train pairs.tsv --dev pairs.tsv", "expected rows of one text.*keras-bert finetune and evaluate"),
    (f"{QUICK} --train lines.jsonl --dev lines.jsonl", "one line of text"),
]


@pytest.mark.parametrize(("command", "message"), FAILURES, ids=[command for command, _ in FAILURES])
def test_one_line_and_status_1(command, message, files):
    outcome = run(*command.split(" "))
    assert outcome.status == 1
    assert outcome.out == ""
    assert re.match(rf"keras-bert {command.split()[0]}: error: ", outcome.last_error())
    assert re.search(message, outcome.last_error())
    assert "Traceback" not in outcome.err
    assert outcome.err.count("error: ") == 1
    assert not (files / "new").exists()
    assert not hidden(files)


USAGE = [
    ("", "required: COMMAND"),
    ("vocabulary", "invalid choice: 'vocabulary'"),
    ("vocab --text text.txt", "required: --out"),
    ("vocab --text text.txt --out new --lower", "unrecognized arguments: --lower"),
    ("vocab --text text.txt --out new --vocab-size many", "a whole number from 1 .*'many'"),
    ("pretrain --text text.txt --vocab vocab.txt --out new --steps 0", "a whole number from 1 .*'0'"),
    ("pretrain --text text.txt --vocab vocab.txt --out new --max-length 4", "a whole number from 5 .*'4'"),
    (
        "pretrain --text text.txt --vocab vocab.txt --out new --batch-size 9999999999",
        "a whole number from 1 to 2147483647",
    ),
    (
        "pretrain --text text.txt --vocab vocab.txt --out new --preset huge",
        "one of tiny, .*Received: huge",
    ),
    (f"{QUICK} --seed -1", "a whole number from 0 to 4294967295, got '-1'"),
    (f"{QUICK} --learning-rate nan", "a learning rate above 0 .*'nan'"),
    (f"{QUICK} --learning-rate -1e-3", "a learning rate above 0|expected one argument"),
    (f"{QUICK} --columns sentence", "expected NAME=COLUMN pairs"),
    (f"{QUICK} --columns sentence=words", "each NAME one of text, text_pair, "),
    (f"{QUICK} --columns text=a,text=b", "given once"),
    (f"{QUICK} --columns text=sentence", "--columns names columns of --train and --dev"),
    (f"{QUICK} --train train.tsv", "Expected --train and --dev together"),
    (
        "finetune --checkpoint pretrained --train train.tsv --dev dev.tsv --out pretrained",
        "Expected an --out other than",
    ),
    ("export classifier --out new --to tfjs", "invalid choice: 'tfjs'"),
    ("export classifier --to litert --out new", "a file that ends in .tflite"),
    ("export classifier --to litert --out vocab.txt", "a file that ends in .tflite"),
    ("export classifier --to saved_model --out new.tflite", "Expected a folder for --out"),
    ("export classifier --to saved_model --out classifier", "which exists; choose another one .* or give --overwrite"),
    ("export classifier --to saved_model --out new/1 --quantize dynamic", "Received: --quantize, which would have no"),
    ("export classifier --to litert --out new.tflite --max-drop 0.1", "Expected --verify-data FILE with --max-drop"),
    ("export classifier --to litert --out new.tflite --lengths 8,8", "expected different lengths"),
    ("verify classifier --data dev.tsv", "required: ARTIFACT"),
    ("verify classifier a.tflite --data dev.tsv --min-metric much", "expected a number, got 'much'"),
    ("verify classifier a.tflite --data dev.tsv --columns words=w", "Expected --columns to name"),
]


@pytest.mark.parametrize(("command", "message"), USAGE, ids=[command for command, _ in USAGE])
def test_wrong_usage_is_status_2(command, message, files):
    outcome = run(*command.split())
    assert outcome.status == 2
    assert outcome.out == ""
    assert re.search(message, outcome.last_error())
    assert "Traceback" not in outcome.err
    assert not (files / "new").exists()


def test_an_empty_name_is_wrong_usage():
    assert "expected a name, got an empty one" in run("vocab", "--text", "text.txt", "--out", "").last_error()


def test_debug_shows_the_traceback():
    with pytest.raises(FileNotFoundError, match="missing.txt"):
        run("vocab", "--debug", "--text", "missing.txt", "--out", "new")


@pytest.mark.parametrize(
    ("given", "message"),
    [(b"", "Expected texts, as arguments or one a line"), (b"good\n\xff\n", "standard input, line 2: expected UTF-8")],
)
def test_standard_input(given, message, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    outcome = run("predict", "--checkpoint", "classifier")
    assert outcome.status == 1
    assert message in outcome.last_error()


def test_standard_input_of_any_text(monkeypatch):
    given = "\ufeffgood\r\n\n" + "很" * 3000 + "\nno line end"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    outcome = run("predict", "--checkpoint", "classifier")
    assert outcome.status == 0
    texts = [re.match('{"text": "(.*?)", "label"', line).group(1) for line in outcome.out.splitlines()]
    assert texts == ["good", "", "很" * 3000, "no line end"]


def test_predict_takes_pairs():
    outcome = run("predict", "--checkpoint", "of_pairs", "good\tbad", "\t")
    assert outcome.status == 0
    assert outcome.out.count('"label"') == 2


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="num_attention_heads must divide hidden_size.*hidden_size=10, num.*heads=3"):
        kb.BertConfig(hidden_size=10, num_attention_heads=3)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError("it broke\nhere"), MemoryError()])
def test_a_stage_that_fails_leaves_nothing(kind, monkeypatch, files):
    def fail(folder, *arguments):
        raise kind

    monkeypatch.setattr(stages, "learn_vocabulary_stage", fail)
    outcome = run("vocab", "--text", "text.txt", "--out", "new/deep")
    assert outcome.status == 1
    assert not (files / "new").exists()
    expected = {
        KeyboardInterrupt: "interrupted; nothing half-written was left. Run the same command again.",
        RuntimeError: r"error: RuntimeError: it broke here \(--debug shows where\)",
        MemoryError: "error: Expected enough memory.*--batch-size",
    }[kind if isinstance(kind, type) else type(kind)]
    assert re.search(expected, outcome.last_error())


def test_sigterm_is_as_ctrl_c(monkeypatch, files):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(stages, "learn_vocabulary_stage", lambda *arguments: signal.raise_signal(signal.SIGTERM))
    outcome = run("vocab", "--text", "text.txt", "--out", "new")
    assert outcome.status == 1
    assert "vocab: interrupted; " in outcome.last_error()
    assert not (files / "new").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_result_outlives_a_failed_attempt_to_replace_it(monkeypatch, files):
    command = ("vocab", "--text", "text.txt", "--vocab-size", "120", "--out", "kept")
    assert run(*command).status == 0

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "save_vocabulary", interrupt)
        assert run(*command, "--cased").status == 1
    assert "complete already" in run(*command).err


def test_a_full_disk(files):
    """A limit on the size of a file says what a full disk says."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        outcome = run("export", "classifier", "--to", "litert", "--out", "new/model.tflite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert outcome.status == 1
    assert re.search("error: Expected room for the results.*File too large.*free some space", outcome.last_error())
    assert not [path for path in (files / "new").rglob("*") if path.is_file()]
    assert not hidden(files)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything is writable for root")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    outcome = run("vocab", "--text", "text.txt", "--out", tmp_path / "new")
    tmp_path.chmod(0o700)
    assert outcome.status == 1
    assert "Expected a folder that can be written" in outcome.last_error()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError(13, "Permission denied", "/nowhere/new"),
            "Expected a folder that can be written.*nowhere/new",
        ),
        (PermissionError(13, "Permission denied", __file__), "Expected a file that can be read.*test_bad_input"),
        (OSError(30, "Read-only file system", "/nowhere"), "Expected a folder that can be written"),
        (OSError(28, "No space left on device"), "Expected room for the results"),
        (OSError(36, "File name too long", "n" * 300), "n, File name too long; name another one"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_systems_errors_say_what_to_do(error, message):
    assert re.search(message, errors.one_line(error))


def test_a_loss_that_is_no_number(monkeypatch, files):
    monkeypatch.setattr(pretrain, "make_schedule", lambda *arguments, **options: 1e30)
    command = f"{PRETRAIN} text.txt --vocab vocab.txt --preset tiny --steps 3 --max-length 8 --batch-size 4"
    outcome = run(*command.split())
    assert outcome.status == 1
    assert re.search("The loss is (nan|inf) after .* a lower --learning-rate usually helps", outcome.last_error())
    assert not (files / "new" / "model.keras").exists()


def test_a_reader_that_has_enough(tmp_path):
    with start(make_launcher(tmp_path), "predict", "--checkpoint", "classifier", *["good"] * 600) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert said == ""
