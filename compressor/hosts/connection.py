"""Hold one connection to a host, on which scripts are sent there, and called.

What runs there lies in `templates/`: `start.sh` makes a folder, finds a Python and removes the
folder at the end; `serving.py` keeps what is sent and calls what is asked for, until orders end.
"""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import IO, Any

from compressor.errors import CompressorError
from compressor.hosts.failures import explain_ending, explain_failure
from compressor.hosts.host import PYTHONS, Host
from compressor.watch import Tick

MARK = b"compressor: "
"""Begins every line that is an answer; what a host's own start-up files print does not."""

SSH_OPTIONS = {
    "BatchMode": "yes",  # no questions
    "ConnectTimeout": "20",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
}
"""What is said to `ssh` beside the user's own configuration."""

PROBE = """
import sys
lacks = []
if sys.version_info < (3, 8):
    sys.stdout.write("is Python %d.%d, which is too old" % sys.version_info[:2])
    sys.exit()
for name in ("numpy", "onnxruntime"):
    try:
        __import__(name)
    except Exception:
        lacks.append(name)
if lacks:
    sys.stdout.write("has no " + " and no ".join(lacks))
"""
"""Says what a Python lacks; also understood by those that are too old."""

PATIENCE = 10.0
"""Seconds within which a host cleans up at the end, and `ssh` says why it has ended."""


class Connection:
    """A Python on a host that waits for orders; see `connected`."""

    def __init__(self, host: Host) -> None:
        """Start `ssh`, and send it what begins there.

        Raises:
            CompressorError: This machine has no `ssh`.
        """
        self.host, self._is_ready = host, False
        self._sent: dict[Path, str] = {}
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (is closed by `end`)
        code = _template("serving.py")
        script = _start(host, len(code))
        try:
            self._popen = subprocess.Popen(
                _command(host, len(script)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,  # Ctrl-C is for us alone: the host is to clean up first
            )
        except OSError as error:
            self._said.close()
            raise CompressorError(
                f"ssh cannot be started: {error.strerror or error}",
                where=f"--on {host.spelled}",
                consequence="nothing was measured",
                next_step="install an OpenSSH client, so that `ssh` is on the PATH",
            ) from error
        self._send(script + code)

    def wait_until_ready(self) -> None:
        """Wait until Python runs there. Raises what `ask` does."""
        self._answer(lambda done, total, text: None)
        self._is_ready = True

    def send_script(self, name: str, content: bytes) -> None:
        """Send a script, which is kept under its name in the folder there."""
        self._send_file(name, len(content), io.BytesIO(content))

    def send_files(self, file: Path, beside: Iterable[str] = ()) -> str:
        """Send a file with others of its folder, once, and return its path in the folder there.

        Args:
            file: The file.
            beside: Paths of the others in the file's folder; they lie there as they do here.
        """
        if file not in self._sent:
            home = str(len(self._sent))
            for name in (file.name, *beside):
                path = file.parent / name
                with path.open("rb") as content:
                    self._send_file(f"{home}/{name}", path.stat().st_size, content)
            self._sent[file] = f"{home}/{file.name}"
        return self._sent[file]

    def ask(
        self,
        script: str,
        call: str,
        arguments: Mapping[str, Any],
        tick: Tick = lambda done, total, text: None,
    ) -> Any:
        """Call a function of a script that was sent, and return what it returns.

        Args:
            script: Its name without the ending.
            call: The function's name; it takes the arguments, and `tick` beside them.
            arguments: Given to the function, as JSON.
            tick: Told of the progress that the function tells.

        Raises:
            CompressorError: The function raises; or the connection ends before it has answered.
        """
        order = {"script": script, "call": call, "with": dict(arguments)}
        self._send(json.dumps(order).encode() + b"\n")
        return self._answer(tick)

    def end(self) -> None:
        """Let the host end what it does and remove its folder, and close the connection."""
        assert self._popen.stdin is not None and self._popen.stdout is not None
        with suppress(OSError):
            self._popen.stdin.close()
        if not self._is_ready:  # it may still wait for the host
            self._popen.terminate()
        try:
            self._popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        finally:
            self._popen.stdout.close()
            self._said.close()

    def _send_file(self, name: str, size: int, content: IO[bytes]) -> None:
        assert self._popen.stdin is not None
        self._send(json.dumps({"file": name, "size": size}).encode() + b"\n")
        with suppress(BrokenPipeError):
            shutil.copyfileobj(content, self._popen.stdin)

    def _send(self, content: bytes) -> None:
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: the next answer says why
            self._popen.stdin.write(content)
            self._popen.stdin.flush()

    def _answer(self, tick: Tick) -> Any:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            if not line.startswith(MARK) or not line.endswith(b"\n"):
                continue  # the host's own words, or cut off
            answer = json.loads(line.removeprefix(MARK))
            if "found" in answer:
                return answer["found"]
            if "failure" in answer:
                raise explain_failure(self.host, *answer["failure"])
            tick(*answer["tick"])
        raise explain_ending(self.host, self._code(), self._words(), is_ready=self._is_ready)

    def _code(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self._popen.wait(PATIENCE)
        return None

    def _words(self) -> str:
        """Return what `ssh` and the host have printed to standard error."""
        self._said.seek(0)
        return self._said.read().decode(errors="replace")


@contextmanager
def connected(host: Host) -> Iterator[Connection]:
    """Yield a connection to a host; at the end of the block nothing is left there.

    Raises:
        CompressorError: The host cannot be reached or has no Python that will do.
    """
    connection = Connection(host)
    try:
        connection.wait_until_ready()
        yield connection
    finally:
        connection.end()


def _command(host: Host, count: int) -> list[str]:
    """Return the command that begins with the next `count` bytes on the host as a script of `sh`.

    They are read one by one, so that what follows them is left for others; and whatever the user's
    shell is there, it has next to nothing to understand.
    """
    said = [word for pair in SSH_OPTIONS.items() for word in ("-o", "=".join(pair))]
    port = [] if host.port is None else ["-p", str(host.port)]
    there = f"exec sh -c 'eval \"$(dd bs=1 count={count} 2>/dev/null)\"'"
    return ["ssh", "-T", "-x", *said, *port, "--", host.target, there]


def _start(host: Host, size: int) -> bytes:
    pythons = (host.python,) if host.python else PYTHONS
    arguments = shlex.join([str(size), PROBE, *pythons])
    return f"set -- {arguments}\n".encode() + _template("start.sh")


def _template(name: str) -> bytes:
    return (resources.files("compressor.hosts") / "templates" / name).read_bytes()
