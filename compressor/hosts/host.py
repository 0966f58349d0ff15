"""Read how the command line names another machine: `ssh:user@host:port`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from compressor.errors import UsageError

PYTHONS = ("python3", "python")
"""What is tried on a host in this order, unless one is named."""

_SPELLING = re.compile(
    r"ssh:(?:(?P<user>[^\s@:/-][^\s@:/]*)@)?"
    r"(?P<name>[\w.][\w.-]*|\[[0-9A-Fa-f:.]+(?:%\w+)?\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_PORTS = range(1, 2**16)


@dataclass(frozen=True)
class Host:
    """A machine that `ssh` reaches.

    Attributes:
        name: Its name, address, or a name of the user's ssh configuration.
        user: Who logs in; "" leaves it to the configuration.
        port: Where; None leaves it to the configuration.
        python: The Python to run there; "" tries `PYTHONS`.
    """

    name: str
    user: str = ""
    port: int | None = None
    python: str = ""

    @property
    def target(self) -> str:
        """Return what `ssh` is given: the name, with the user where one is named."""
        return f"{self.user}@{self.name}" if self.user else self.name

    @property
    def spelled(self) -> str:
        """Return the host as the command line spells it."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port is not None else ""
        return f"ssh:{user}{name}{port}"

    @property
    def by_hand(self) -> str:
        """Return the command that logs in to it by hand."""
        port = f"-p {self.port} " if self.port is not None else ""
        return f"ssh {port}{self.target}"


def read_host(text: str, python: str = "") -> Host:
    """Read a host as the command line spells it.

    Args:
        text: `ssh:host`, with a user before the host and a port behind it where need be.
        python: The Python to run there.

    Raises:
        UsageError: It is spelled otherwise.
    """
    parts = _SPELLING.fullmatch(text)
    port = int(parts["port"]) if parts and parts["port"] else None
    if parts is None or (port is not None and port not in _PORTS):
        raise UsageError(
            f"{text!r} names no machine that can be reached",
            where="--on",
            next_step="give ssh:user@host or ssh:user@host:port, e.g. --on ssh:pi@board.local; "
            "the host may be a name of your ssh configuration",
        )
    return Host(parts["name"].strip("[]"), parts["user"] or "", port, python)
