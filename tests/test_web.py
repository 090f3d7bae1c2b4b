"""The page of examples/web in a headless browser, beside Keras."""

import functools
import http.server
import json
import queue
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from tiny_classifier import LABELS, MAX_LENGTH, TEXTS, preprocessor, probabilities, shared_classifier

import keras_bert as kb
from keras_bert.export import save_litert
from keras_bert.export.mediapipe_metadata import add_mediapipe_metadata

PAGE = Path(__file__).parents[1] / "examples" / "web"
# Types into the page as a user does, and sends home what it shows.
DRIVER = """<!doctype html><iframe src="index.html"></iframe><script type="module">
const wait = () => new Promise((done) => setTimeout(done, 50));
const send = (result) => fetch("/result", { method: "POST", body: JSON.stringify(result) });
const frame = document.querySelector("iframe");
const page = () => frame.contentDocument;
const status = () => page()?.querySelector("#status")?.textContent ?? "";
try {
  while (!status().startsWith("Ready")) {
    if (status().includes("cannot be loaded")) throw new Error(status());
    await wait();
  }
  const shown = [];
  for (const text of TEXTS) {
    page().querySelector("#text").value = text;
    page().querySelector("button").click();
    shown.push([...page().querySelectorAll("tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent)));
  }
  await send({ shown });
} catch (error) { await send({ error: String(error) }); }
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page with what npm fetches for it."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm: apt-get install npm")
    site = tmp_path_factory.mktemp("web") / "site"
    ignored = (PAGE / ".gitignore").read_text().split()
    shutil.copytree(PAGE, site, ignore=shutil.ignore_patterns(*(name.strip("/") for name in ignored)))
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    result = subprocess.run(command, cwd=site, capture_output=True, text=True, timeout=300)
    if result.returncode:
        pytest.skip(f"npm cannot fetch what the page needs: {result.stderr.strip().splitlines()[-1:]}")
    return site


@pytest.fixture(scope="module")
def browser():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return name
    pytest.skip("needs a browser: apt-get install chromium")


class Server(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}
    results = queue.Queue()

    def do_POST(self):
        self.results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        """Not on standard error."""


def shown(site, browser, tmp_path, texts):
    """What the page shows for each text: the cells of its table."""
    (site / "driver.html").write_text(DRIVER.replace("TEXTS", json.dumps(texts)), encoding="utf-8")
    handler = functools.partial(Server, directory=str(site))
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://localhost:{server.server_port}/driver.html"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        with open(tmp_path / "browser.log", "w") as log:
            process = subprocess.Popen([browser, *flags, address], stdout=log, stderr=log)
            try:
                result = Server.results.get(timeout=120)
            finally:
                process.terminate()
                process.wait()
                server.shutdown()
                thread.join()
    assert "error" not in result, result
    return result["shown"]


@pytest.mark.slow
def test_the_page_shows_keras_probabilities(site, browser, tmp_path):
    folder = kb.ModelFolder(shared_classifier(), preprocessor().tokenizer, "classifier", MAX_LENGTH, labels=LABELS)
    save_litert(folder, site / "model.tflite", max_length=MAX_LENGTH)
    add_mediapipe_metadata(site / "model.tflite", folder)
    texts = [*TEXTS, "Thé　Cát\u00a0SAT"]  # accents and odd spaces, which MediaPipe alone would not know
    expected = probabilities(shared_classifier(), texts)
    for table, row in zip(shown(site, browser, tmp_path, texts), expected, strict=True):
        assert [label for label, _ in table] == [LABELS[i] for i in np.argsort(-row)]
        np.testing.assert_allclose([float(score) for _, score in table], np.sort(row)[::-1], atol=1e-4)


@pytest.mark.slow
def test_the_page_says_what_is_wrong(site, browser, tmp_path):
    (site / "model.tflite").write_text("not a model")
    with pytest.raises(AssertionError, match="The model cannot be loaded: .*index.html say what is needed"):
        shown(site, browser, tmp_path, TEXTS)
