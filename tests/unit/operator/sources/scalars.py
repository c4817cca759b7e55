"""Plain scalars and what `kubectl` (go-yaml v2, then JSON, then the API server's reader) makes of each."""

from typing import Any

SCALARS: dict[str, Any] = {
    # what only looks like a number
    **{text: text for text in ("0x_", "0b_", "0x", "0b", "0o", "-0x", "_1", "._5", "1e", "1e+", "e1", ".e5", "0.1.2")},
    **{text: text for text in ("1,000", "--", "+-", "00b1", "0x1p3", "12:30", "1:30.5", "2001-01-01", "+.nan", ".5_")},
    **{text: text for text in ("0xFFFFFFFFFFFFFFFFF", "1e400", "-1e400", "infinity", "NaN", ".Infinity", ".5__0")},
    # integers, in every base, with and without underscores
    "0": 0, "00": 0, "-0": 0, "0_": 0, "017": 15, "0o17": 15, "0O17": 15, "0777_7": 4095,
    "0x1F": 31, "0X1f": 31, "+0x1F": 31, "-0x1F": -31, "0_x1F": 31,
    "0b101": 5, "-0b101": -5, "0B11": 3, "0b1_0": 2,
    "1_000": 1000, "1__0": 10, "1_": 1, "+1": 1, "+_1": 1, "-1": -1,
    "9007199254740993": 9007199254740993,
    "9223372036854775807": 2**63 - 1, "-9223372036854775808": -(2**63),
    # longer than 64 bits: floats, but for what looks octal and is not
    "9223372036854775808": 2.0**63, "-9223372036854775809": -9.223372036854776e18,
    "18446744073709551615": 2.0**64, "18446744073709551616": 2.0**64, "0xFFFFFFFFFFFFFFFF": 2.0**64,
    "123456789012345678901234567890": 1.2345678901234568e29, "07777777777777777777777777": 7.777777777777778e24,
    # floats; a whole one is an integer
    "1.0": 1, "1.": 1, "1e3": 1000, "1E+3": 1000, "1.0e2": 100, "0.1e1": 1, "-0.0": 0, "0e0": 0, "1e-400": 0, "08": 8,
    "0_8": 8, "-.5e2": -50, "1e21": 1e21, "1234567890123456789.0": 1234567890123456800, "1.5e300": 1.5e300,
    ".5": 0.5, "-.5": -0.5, "+.5": 0.5, ".5_0": 0.5, "1.5_0": 1.5, "09.5": 9.5, "5_000.25": 5000.25,
    # booleans and null
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~"), None),
    **{text: text for text in ("yEs", "tRUE", "nULL", "oN")},
    # tags and quotes
    "!!int 5": 5, "!!int '5'": 5, "!!float 5": 5, "!!float '1.5'": 1.5, "!!bool yes": True, "!!bool 'no'": False,
    "!!null ''": None, "!!str 5": "5", "!!str yes": "yes", "'5'": "5", '"yes"': "yes",
}  # fmt: skip
