// Loads the model and answers the form.
import { FilesetResolver, TextClassifier } from "./node_modules/@mediapipe/tasks-text/text_bundle.mjs";

const status = document.querySelector("#status");
const table = document.querySelector("table");
const button = document.querySelector("button");

// MediaPipe's tokenizer keeps accents, lowers ASCII letters only and knows ASCII's white space only. Texts prepared so
// get the pieces that BERT was trained with (keras_bert.export.mediapipe_metadata).
function prepare(text) {
  return text.normalize("NFD").replace(/\p{Mn}/gu, "").toLowerCase().replace(/\s/gu, " ");
}

function show(categories) {
  const rows = categories.map(({ categoryName, score }) => {
    const row = document.createElement("tr");
    row.insertCell().textContent = categoryName;
    row.insertCell().textContent = score.toFixed(4);
    return row;
  });
  table.tBodies[0].replaceChildren(...rows);
  table.hidden = false;
}

async function main() {
  const files = await FilesetResolver.forTextTasks("./node_modules/@mediapipe/tasks-text/wasm");
  const classifier = await TextClassifier.createFromModelPath(files, "model.tflite");
  document.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const start = performance.now();
    // The first head is the probabilities, most probable first; the second one the logits.
    const [probabilities] = classifier.classify(prepare(document.querySelector("#text").value)).classifications;
    show(probabilities.categories);
    status.textContent = `Answered in ${(performance.now() - start).toFixed(1)} ms.`;
  });
  button.disabled = false;
  status.textContent = "Ready.";
}

main().catch((error) => {
  status.textContent = `The model cannot be loaded: ${error.message}. The first lines of index.html say what is needed.`;
});
