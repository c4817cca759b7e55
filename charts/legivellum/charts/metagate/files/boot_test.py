# ruff: noqa: ANN001, ANN201, INP001, PTH123, S310, S323, SLF001, T201, TID251
"""What `helm test` runs in a pod: boot through the release and report READY, within a minute."""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request

base = os.environ["METAGATE_URL"]
# The test asks whether this release boots pods, not who signed its certificate.
context = ssl._create_unverified_context()


def post(path, body):
    with open(os.environ["METAGATE_TOKEN_FILE"]) as file:
        headers = {"Authorization": "Bearer " + file.read().strip(), "Content-Type": "application/json"}
    request = urllib.request.Request(base + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=5, context=context) as answer:
        return json.load(answer)


deadline = time.monotonic() + 60
while True:
    try:
        packet = post("/v1/bootstrap", {"component_key": os.environ["METAGATE_COMPONENT_KEY"]})
        ready = post("/v1/startup/ready", {"startup_id": packet["startup"]["startup_id"], "build_version": "helm-test"})
        break
    except (OSError, urllib.error.HTTPError) as error:
        said = error.read().decode()[:300] if isinstance(error, urllib.error.HTTPError) else error
        print("not yet:", said, flush=True)
        if time.monotonic() > deadline:
            sys.exit("no boot within a minute")
        time.sleep(1)
print("booted as", packet["principal_key"], "from revision", packet["snapshot"]["revision"])
print("startup", ready["startup_id"], "is", ready["status"])
