"""A handler in Python: `python examples/workers/handler.py`, with METAGATE_ASYNCGATE_URL and METAGATE_API_KEY_FILE set.

It counts the words of the file that a task points to, as handler.sh does.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from legivellum_worker import Failed, Output, Release, Work, Worker

worker = Worker.from_packet()


@worker.on("text.count")
def count(work: Work) -> Output:
    pointer = urlsplit(work.payload_pointer)
    if pointer.scheme != "file":
        raise Failed("NOT_A_FILE")
    file = Path(unquote(pointer.path))
    if not file.exists():
        raise Release(after=10, reason="the file is not there yet")
    return Output(f"{len(file.read_text().split())}\n")


if __name__ == "__main__":
    worker.run(parallel=4)
