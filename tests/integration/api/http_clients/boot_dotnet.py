# ruff: noqa: E402, TID251 - a program of its own, which chooses its runtime before it imports from it
"""Boots one component with .NET's HttpClient as it is. Python only calls it: pythonnet, on the runtime that DOTNET_ROOT names."""

import json
import os

from clr_loader import get_coreclr
from pythonnet import set_runtime

set_runtime(get_coreclr())

import clr

clr.AddReference("System.Net.Http")

from System.Net.Http import HttpClient, StringContent
from System.Text import Encoding

client = HttpClient()
client.DefaultRequestHeaders.Add("X-API-Key", os.environ["GATE_KEY"])


def send(path, body=None):
    address = os.environ["GATE_URL"] + path
    if body is None:
        task = client.GetAsync(address)
    else:
        task = client.PostAsync(address, StringContent(json.dumps(body), Encoding.UTF8, "application/json"))
    text = task.Result.Content.ReadAsStringAsync().Result
    print(int(task.Result.StatusCode), f"HTTP/{task.Result.Version}", text)
    return text


packet = json.loads(send("/v1/bootstrap", {"component_key": "indexer_1"}))
send("/v1/startup/ready", {"startup_id": packet["startup"]["startup_id"], "build_version": "1"})
send("/health")
