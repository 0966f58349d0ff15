"""Run a script on another machine by the user's own `ssh`, and leave nothing behind there."""

from compressor.hosts.connection import Connection, connected
from compressor.hosts.failures import HostError
from compressor.hosts.host import Host, read_host

__all__ = ["Connection", "Host", "HostError", "connected", "read_host"]
