"""What a log line says of an error."""

import sys

import pytest

from legivellum.base.logging_setup import traceback_places


@pytest.mark.invariant("INV-034")
def test_an_error_is_logged_by_type_and_place() -> None:
    """Every error of the chain with its file and type; the text of none, for a driver's may quote a value."""
    try:
        try:
            {}["hunter2"]
        except KeyError as error:
            raise ValueError("hunter" + str(2)) from error
    except ValueError:
        output = traceback_places(sys.exc_info())
    assert "hunter2" not in output.replace('{}["hunter2"]', "")
    assert output.index("ValueError") < output.index("after") < output.rindex("KeyError")
    assert "test_logging_setup.py" in output
