"""Asks TF Serving over REST, with nothing but the standard library.

    python examples/tf_serving/rest_client.py sentiment "a lovely film" "two hours that I want back"

TF_SERVING_URL is where the server is, http://localhost:8501 if it is not set. SERVING.md, which is written beside the
version folders of an exported SavedModel, has the commands that start it.
"""

import json
import os
import sys
import urllib.error
import urllib.request


def predict(url, model, inputs, signature="serving_default"):
    """Returns the outputs of a signature by name, as lists.

    Args:
      url: of the server's REST port.
      model: its name; or "name/versions/1", or "name/labels/stable".
      inputs: lists by name, such as {"text": ["a lovely film"]}.
    """
    body = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
    request = urllib.request.Request(f"{url}/v1/models/{model}:predict", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            outputs = json.load(response)["outputs"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{url} says {error.code}: {error.read().decode(errors='replace')}") from error
    # With one output, TF Serving leaves its name out.
    return outputs if isinstance(outputs, dict) else {"output": outputs}


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    answers = predict(os.environ.get("TF_SERVING_URL", "http://localhost:8501"), sys.argv[1], {"text": sys.argv[2:]})
    print(json.dumps(answers, ensure_ascii=False, indent=2))
