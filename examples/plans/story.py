"""Print the receipts of a plan, one line each, as the ledger lists them on standard input."""

import json
import sys

for receipt in json.load(sys.stdin)["items"]:
    task = receipt["obligation_id"].replace(sys.argv[1], "P")
    status = receipt["status"] if receipt["phase"] == "complete" else ""
    print(f"{receipt['emitter']:15} {receipt['kind']:10} {receipt['phase']:12} {task:11} {status}".rstrip())
