"""Answers orders on the other machine: reads them from standard input, a line of JSON each, and
writes a line of JSON for every answer. It needs Python >= 3.8; what the orders call is in the
scripts that come first. When the orders end, since all is done or the connection is gone, the
process ends at once, whatever it does; whoever started it removes the folder.
"""

import importlib
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path

MARK = "compressor: "
CHUNK = 1 << 20
PATIENCE = 900  # seconds; whoever is silent for longer is gone, though nobody has said so
heard = [time.monotonic()]
orders = queue.Queue()
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print does not get among the answers
sys.path.insert(0, str(Path.cwd()))
sys.dont_write_bytecode = True


def tell(**answer):
    answers.write(MARK + json.dumps(answer) + "\n")
    answers.flush()


def fail(kind, error):
    tell(failure=[kind, " ".join(f"{type(error).__name__}: {error}".split())[:1000]])


def keep(stream, name, size):
    """Write the next bytes to a file of this folder."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    with Path(name).open("wb") as file:
        while size:
            part = stream.read(min(size, CHUNK))
            if not part:
                os._exit(0)
            file.write(part)
            heard[0] = time.monotonic()
            size -= len(part)


def receive(stream):
    try:
        for line in iter(stream.readline, b""):
            heard[0] = time.monotonic()
            order = json.loads(line.decode())
            if "file" in order:
                keep(stream, order["file"], order["size"])
            else:
                orders.put(order)
    except OSError as error:
        fail("disk", error)
    os._exit(0)


def serve():
    while True:
        try:
            order = orders.get(timeout=60)
        except queue.Empty:
            if time.monotonic() - heard[0] > PATIENCE:
                os._exit(0)
            continue
        tick = lambda done, total, text="": tell(tick=[done, total, text])  # noqa: E731
        try:
            call = getattr(importlib.import_module(order["script"]), order["call"])
            answer = call(**order["with"], tick=tick)
        except Exception as error:  # whatever the runtime raises
            fail("call", error)
        else:
            tell(found=answer)


threading.Thread(target=receive, args=(sys.stdin.buffer,), daemon=True).start()
tell(found="ready")
try:
    serve()
except BrokenPipeError:
    os._exit(0)
