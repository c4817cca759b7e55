"""Runs in a pod: boots and reports READY in a loop, a connection each, as many pods would; then checks what it was told.

Every request that gets no answer, or 503, is sent again with the same Idempotency-Key for up to a minute. Once /tmp/stop is
there, each startup that was acknowledged is asked for: one that is unknown or not READY was accepted and then lost.
"""
# ruff: noqa: PTH110, PTH123, TID251

import collections
import http.client
import json
import os
import threading
import time
import urllib.parse
import uuid

URL = urllib.parse.urlsplit(os.environ["METAGATE_URL"])
COUNTS = collections.Counter(booted=0, failed=0, retried_503=0, retried_connection=0, lost=0)
LOCK = threading.Lock()
ACKNOWLEDGED = []


def count(name):
    with LOCK:
        COUNTS[name] += 1


def request(method, path, body=None, key=None):
    with open(os.environ["METAGATE_TOKEN_FILE"]) as file:
        headers = {"Authorization": f"Bearer {file.read()}", "Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=5)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def patiently(method, path, body=None, key=None):
    """The parsed answer, or None when it was refused or a minute was not enough."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            status, answer = request(method, path, body, key)
        except (OSError, http.client.HTTPException, ValueError):
            count("retried_connection")
            time.sleep(0.2)
            continue
        if status == 200:
            return answer
        if status != 503:
            print("refused", status, answer, flush=True)
            return None
        count("retried_503")
        time.sleep(0.2)
    return None


def boot_in_a_loop():
    while not os.path.exists("/tmp/stop"):
        packet = patiently("POST", "/v1/bootstrap", {"component_key": "courier-load"}, str(uuid.uuid4()))
        if packet is None:
            count("failed")
            continue
        startup_id = packet["startup"]["startup_id"]
        if patiently("POST", "/v1/startup/ready", {"startup_id": startup_id, "build_version": "load"}) is None:
            count("failed")
            continue
        with LOCK:
            ACKNOWLEDGED.append(startup_id)
            COUNTS["booted"] += 1
        time.sleep(0.05)


print("booting", flush=True)
threads = [threading.Thread(target=boot_in_a_loop) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for startup_id in ACKNOWLEDGED:
    result = patiently("GET", f"/v1/startup/{startup_id}")
    if result is None or result["status"] != "READY":
        count("lost")
print(json.dumps(COUNTS), flush=True)
