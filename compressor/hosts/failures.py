"""Say why a host could not do what it was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.errors import CompressorError
from compressor.hosts.host import Host

LONGEST = 500
"""The most characters of a host's own words that are shown."""


class HostError(CompressorError):
    """A host is of no more use: whatever else it is asked for will fail too."""


@dataclass(frozen=True)
class _Kind:
    """A way to fail: what it means, and what to do.

    Attributes:
        what: `{words}` is what the host said.
        next_step: `{hand}` is the command that logs in by hand.
        ends: Whether the connection is over.
    """

    what: str
    next_step: str
    ends: bool = True


_FAILURES = {
    "python": _Kind(
        "no Python there will do: {words}",
        "install Python 3.8 or later with onnxruntime and numpy there, e.g. {hand} python3 -m pip "
        "install onnxruntime numpy, or name the one that has them: --on-python FILE",
    ),
    "folder": _Kind(
        "no folder can be made there in {words}",
        "make room there, or have another TMPDIR there",
    ),
    "disk": _Kind(
        "a file cannot be written there: {words}",
        "make room among the temporary files there, or have another TMPDIR there",
    ),
    "call": _Kind(
        "the host's ONNX Runtime could not do it: {words}",
        "install the ONNX Runtime there that this machine has, and check that it knows the "
        "operators of the network",
        ends=False,
    ),
    "ended": _Kind(
        "the process there ended by itself (status {words}); 137 means that it was killed, mostly "
        "since memory ran out",
        "look at the memory that is free there, or give a smaller --batch",
    ),
}
"""By the name that the scripts in `templates/` give it."""

_REFUSALS = {
    "Permission denied": _Kind(
        "the host lets nobody in without a password: {words}",
        "let your key in, e.g. ssh-copy-id, and try it: {hand}",
    ),
    "Host key verification failed": _Kind(
        "the host's key is not known, or is another one than before: {words}",
        "log in once by hand, and judge its key: {hand}",
    ),
    "Could not resolve": _Kind("no host of this name is known: {words}", "check the name: {hand}"),
    "Bad owner or permissions": _Kind("ssh refuses its configuration: {words}", "try it: {hand}"),
}
"""By what `ssh` says then."""

_AWAY = _Kind("the host cannot be reached: {words}", "see that it is up, and try it: {hand}")
_CUT_OFF = _Kind(
    "the connection was cut off midway: {words}",
    "try again; what runs there ends by itself and removes its folder, once the host has noticed",
)
_NO_START = _Kind(
    "nothing could be started there (status {code}): {words}",
    "the host needs a POSIX shell (sh, dd, mktemp) and Python; try it: {hand} sh -c true",
)
_OF_SSH = 255


def explain_failure(host: Host, kind: str, words: str) -> CompressorError:
    """Return the error for what the scripts on the host said.

    Args:
        host: Where.
        kind: One of the table's.
        words: What was said beside.
    """
    return _error(_FAILURES[kind], host, words)


def explain_ending(host: Host, code: int | None, words: str, *, is_ready: bool) -> CompressorError:
    """Return the error for a connection that ended before the last answer.

    Args:
        host: Where to.
        code: The exit code of `ssh`; None where it did not end.
        words: What was on its standard error.
        is_ready: Whether Python ran there already.
    """
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    for said, kind in _REFUSALS.items():
        for line in lines:
            if said in line and not is_ready:
                return _error(kind, host, line)
    last = lines[-1] if lines else "without a word"
    if is_ready:
        return _error(_CUT_OFF, host, last)
    return _error(_AWAY if code in (_OF_SSH, None) else _NO_START, host, last, code)


def _error(kind: _Kind, host: Host, words: str, code: int | None = None) -> CompressorError:
    plain = "".join(letter if letter.isprintable() else " " for letter in words[:LONGEST])
    known = {"hand": host.by_hand, "words": plain, "code": code}
    what = kind.what.format(**known)
    return (HostError if kind.ends else CompressorError)(
        what,
        where=f"--on {host.spelled}",
        consequence="nothing was measured",
        next_step=kind.next_step.format(**known),
    )
