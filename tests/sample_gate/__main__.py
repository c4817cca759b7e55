"""The command line of the sample gate."""

from tests.sample_gate.gate import app

from legivellum.gate.command_line import run_commands

run_commands(app, "samplegate")
