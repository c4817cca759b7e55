"""Runs in a pod: GET each path as the pod's service account and print the answer, a line each; `--stay` waits to be asked."""
# ruff: noqa: PTH123, TID251

import os
import signal
import sys
import urllib.request

if sys.argv[1] == "--stay":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()
with open(os.environ["METAGATE_TOKEN_FILE"]) as file:
    headers = {"Authorization": f"Bearer {file.read()}"}
for path in sys.argv[1:]:
    request = urllib.request.Request(os.environ["METAGATE_URL"] + path, headers=headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        print(answer.read().decode())
