"""Run trials in a process of its own: `python -m compressor.studies.sweep.pool_worker`.

The process reads pickled tasks, and answers each by pickled texts of what it is doing and by its
outcome. It ends with whoever started it, in the middle of a trial if need be.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import sys
import threading
import warnings
from typing import BinaryIO

from compressor.studies.sweep.carrying_out import Outcome, Task, carry_out_trial


def serve(tasks: BinaryIO, answers: BinaryIO) -> None:
    """Run tasks and answer them until no more come; the process then ends."""
    waiting: queue.Queue[Task | Exception] = queue.Queue()
    threading.Thread(target=_read, args=(tasks, waiting), daemon=True).start()
    while True:
        task = waiting.get()
        if isinstance(task, Exception):
            _answer(answers, Outcome(failure=f"the network or the data did not arrive: {task}"))
            continue
        os.chdir(task.directory)
        _answer(answers, carry_out_trial(task, lambda text: _answer(answers, text)))


def _read(tasks: BinaryIO, waiting: queue.Queue[Task | Exception]) -> None:
    while True:
        try:
            waiting.put(pickle.load(tasks))
        except EOFError:
            os._exit(0)
        except Exception as error:  # a class that cannot be found in this process
            waiting.put(error)


def _answer(answers: BinaryIO, value: Outcome | str) -> None:
    pickle.dump(value, answers)
    answers.flush()


def main() -> None:
    """Serve tasks from the standard input, with answers to the standard output."""
    # what libraries print must not come between the answers
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
