"""Runs in a pod: POSTs each line of the input, `{"path", "body"}`, as the pod's service account; prints status and answer, a line each.

With `--loop` it asks for one root after the other instead, four at a time and a connection each, until /tmp/stop is there. What gets
no answer, or 503, is asked again under the same Idempotency-Key for up to a minute. The last line is what became of it.
"""
# ruff: noqa: PTH110, PTH123, TID251

import http.client
import json
import os
import sys
import threading
import time
import urllib.parse
import uuid

URL = urllib.parse.urlsplit(os.environ["GATE_URL"])
LOCK = threading.Lock()
RESULT = {"admitted": [], "refused": [], "retried_503": 0, "retried_connection": 0}


def post(path, body, key=None):
    with open(os.environ["METAGATE_TOKEN_FILE"]) as file:
        headers = {"Authorization": f"Bearer {file.read()}", "Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=10)
    try:
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def note(name, value):
    with LOCK:
        RESULT[name] += value


def patiently(body, key):
    """Status and answer; None when a minute was not enough."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            status, answer = post("/v1/evaluate", body, key)
        except (OSError, http.client.HTTPException, ValueError):
            note("retried_connection", 1)
        else:
            if status != 503:
                return status, answer
            note("retried_503", 1)
        time.sleep(0.2)
    return None


def ask_in_a_loop(template):
    while not os.path.exists("/tmp/stop"):
        task = str(uuid.uuid4())
        body = {**template, "causality": {**template["causality"], "root_task_id": task}}
        answered = patiently(body, str(uuid.uuid4()))
        if answered is not None and answered[0] == 200:
            note("admitted", [[task, answered[1]["receipt_id"]]])
        else:
            note("refused", [answered])
        time.sleep(0.05)


if sys.argv[1:2] == ["--loop"]:
    print("asking", flush=True)
    threads = [threading.Thread(target=ask_in_a_loop, args=(json.loads(sys.argv[2]),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(RESULT), flush=True)
else:
    for line in sys.stdin:
        asked = json.loads(line)
        status, answer = post(asked["path"], asked["body"])
        print(json.dumps({"status": status, "answer": answer}), flush=True)
