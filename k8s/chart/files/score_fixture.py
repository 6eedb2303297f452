"""What `helm test` runs: scores one completion through the gateway, by every verifier that the aggregator has.

It fails where the gateway does not answer, where a verifier is not ready or fails on the item, or where none scores it.
"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from typing import Any

ITEM = {
    "prompt": "Is a knockdown of AARS in k562 cells likely to result in differential expression of TRIB3?",
    "completion": "<think>AARS loss starves the cell; TRIB3 follows ATF4.</think> <answer>yes</answer>",
}
url = os.environ["GATEWAY_URL"]
key = os.environ.get("GATEWAY_KEY", "")
authority = os.environ.get("GATEWAY_CA") or None


def call(path: str, body: Any = None) -> Any:
    request = urllib.request.Request(url + path, data=json.dumps(body).encode() if body else None)
    request.add_header("content-type", "application/json")
    if key:
        request.add_header("authorization", f"Bearer {key}")
    context = ssl.create_default_context(cafile=authority) if url.startswith("https:") else None
    # A proxy of the environment is for the world outside of the cluster.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"{path}: {error.code} {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{url}{path}: {error}")


verifiers = call("/v1/verifiers")["verifiers"]
away = [verifier["name"] for verifier in verifiers if not verifier["is_ready"]]
if away:
    sys.exit(f"not ready: {', '.join(away)}")
names = [verifier["name"] for verifier in verifiers]
reward = call("/v1/score", {"items": [ITEM], "weights": dict.fromkeys(names, 1.0)})["rewards"][0]
outcomes = {part["verifier"]: part["outcome"] for part in reward["parts"]}
print(json.dumps({"reward": reward["reward"], "outcomes": outcomes}))
failed = [name for name in names if outcomes.get(name) not in ("scored", "not_applicable")]
if failed:
    sys.exit(f"failed: {', '.join(failed)}")
if "scored" not in outcomes.values():
    sys.exit("no verifier scored the item")
