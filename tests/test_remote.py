"""Another machine is measured by the user's own ssh, and nothing is left there.

Some tests have a real sshd on this machine. In the others a stand-in for `ssh` runs the command
that the host would run.
"""

from __future__ import annotations

import ast
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import compressor
from compressor.cli import main
from compressor.errors import CompressorError, UsageError
from compressor.hosts import Host, HostError, connected, connection, read_host
from compressor.hosts.failures import explain_ending
from compressor.latency import Case, on_host
from compressor.latency.machine import this_machine
from compressor.latency.on_host import ask_target, bench_on, measure_turns_on
from compressor.latency.operators import external_files
from compressor.options import BenchOptions, Options

PACKAGE = Path(compressor.__file__).parent
HOST = Host("board", python=sys.executable)


def write_network(path: Path, width: int) -> Path:
    """An ONNX file of four square matrices for any batch."""
    names = [f"w{n}" for n in range(4)]
    ends = ["x", *(f"h{n}" for n in range(3)), "y"]
    weight = np.full((width, width), 0.01, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [ends[n], name], [ends[n + 1]], name=f"m{n}")
            for n, name in enumerate(names)
        ],
        "square",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(weight, name) for name in names],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


# -- how a host is spelled -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("ssh:board", Host("board")),
        ("ssh:pi@board.local:2222", Host("board.local", "pi", 2222)),
        ("ssh:10.0.0.7:22", Host("10.0.0.7", "", 22)),
        ("ssh:me@[fe80::1%eth0]:22", Host("fe80::1%eth0", "me", 22)),
        ("ssh:me@[::1]", Host("::1", "me")),
    ],
)
def test_a_host_is_read_as_it_is_spelled(text: str, host: Host) -> None:
    assert read_host(text) == host
    assert host.spelled == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "board", "ssh:", "ssh:a b", "ssh:-oProxyCommand=true", "ssh:-l@board", "ssh://board"),
        *("ssh:pi@", "ssh:board:", "ssh:board:0", "ssh:board:65536", "ssh:board:x", "ssh:a@b@c"),
        *("ssh:$(true)", "ssh:board;true", "ssh:::1", "telnet:board", "ssh:board\n"),
    ],
)
def test_what_names_no_host_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no machine"):
        read_host(text)
    with pytest.raises(UsageError, match="names no machine"):
        BenchOptions(on=text)


def test_what_does_not_go_with_another_machine_is_refused() -> None:
    on: Any = {"on": "ssh:board"}
    for more, says in (
        ({**on, "latency_table": "table.json"}, "give --on or --latency-table"),
        ({**on, "latency_on": "torch-cpu"}, "--latency-on says otherwise"),
        ({**on, "latency_on": "cuda"}, "--latency-on says otherwise"),
        ({"on_python": "python3"}, "give --on too"),
    ):
        with pytest.raises(UsageError, match=says):
            Options(of="latency", **more)
    for more in ({"backend": ("torch",)}, {"device": "cuda"}, {"backend": ("openvino",)}):
        with pytest.raises(UsageError, match="ONNX Runtime runs there, on the CPU"):
            BenchOptions(**on, **more)
    assert Options(on="ssh:a@b:1", on_python="~/p").host == Host("b", "a", 1, "~/p")
    assert Options().host is None


def test_ssh_is_given_the_host_and_asks_no_questions() -> None:
    words = connection._command(Host("board", "pi", 2222), 7)
    assert words[0] == "ssh" and "BatchMode=yes" in words
    assert words[words.index("-p") + 1] == "2222"
    assert words[-3:-1] == ["--", "pi@board"]
    assert "-p" not in connection._command(Host("board"), 7)


# -- what goes there -----------------------------------------------------------------------------

SENT = (
    *("hosts/templates/serving.py", "report/templates/bench.py"),
    "report/templates/host_calls.py",
)


@pytest.mark.parametrize("name", SENT)
def test_what_runs_there_needs_python_3_8_numpy_and_onnxruntime_alone(name: str) -> None:
    tree = ast.parse((PACKAGE / name).read_text(), feature_version=(3, 8))
    used = {n.names[0].name for n in ast.walk(tree) if isinstance(n, ast.Import)}
    used |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert used - sys.stdlib_module_names <= {"numpy", "onnxruntime", "bench"}
    called = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    later = {"removeprefix", "removesuffix", "cache", "bit_count", "is_relative_to", "pairwise"}
    assert not called & later
    assert not [
        call
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", "") == "zip"
        and call.keywords  # `strict` came with 3.10
    ]


# -- a stand-in for ssh --------------------------------------------------------------------------


@dataclass(frozen=True)
class There:
    """The host's temporary files, which nothing may be left among."""

    tmp: Path

    def left(self) -> list[str]:
        """What is there once the host has had some time to clean up."""
        end = time.monotonic() + 10
        while (found := [p.name for p in self.tmp.iterdir()]) and time.monotonic() < end:
            time.sleep(0.02)
        return found


Standing = Callable[[str], None]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[There]:
    """A host that `ssh` is said to reach: this machine, with temporary files of its own."""
    (tmp_path / "there").mkdir()
    ask_target.cache_clear()
    stand_in(tmp_path, monkeypatch, RUNS)
    yield There(tmp_path / "there")
    ask_target.cache_clear()


RUNS = """
echo "Welcome to the board"
echo "a banner" >&2
for command; do :; done
TMPDIR=$0.there exec sh -c "$command"
"""
"""Runs the last word, as a host would; its start-up files print something."""


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an `ssh` first on the PATH."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text("#!/bin/sh\n" + script.replace("$0.there", str(tmp_path / "there")))
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any Python will do, so that nothing is imported to see what it has."""
    monkeypatch.setattr(connection, "PROBE", "")


SCRIPT = b"""
import os, time

def echo(word, tick):
    tick(1, 2, "half")
    return [word, sorted(os.listdir()), open("0/a.txt").read()]

def wait(tick):
    tick(0, 1, "waiting")
    time.sleep(600)

def die(tick):
    os.kill(os.getpid(), 9)

def fail(tick):
    raise ValueError("no\\nsuch layer")
"""


def test_scripts_are_called_there_and_nothing_is_left(
    tmp_path: Path, there: There, unasked: None
) -> None:
    (tmp_path / "a.txt").write_text("content")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.bin").write_bytes(bytes(3_000_000))
    ticks: list[Any] = []
    with connected(HOST) as remote:
        remote.send_script("script.py", SCRIPT)
        assert remote.send_files(tmp_path / "a.txt", ["b/c.bin"]) == "0/a.txt"
        assert remote.send_files(tmp_path / "a.txt") == "0/a.txt"  # is not sent twice
        found = remote.ask("script", "echo", {"word": "ü'\"\n"}, lambda *tick: ticks.append(tick))
        assert found == ["ü'\"\n", ["0", "script.py"], "content"]
        (folder,) = there.tmp.iterdir()
        assert (folder / "0" / "b" / "c.bin").stat().st_size == 3_000_000
        assert folder.stat().st_mode & 0o077 == 0
        with pytest.raises(CompressorError, match="ValueError: no such layer"):
            remote.ask("script", "fail", {})
        assert remote.ask("script", "echo", {"word": 1})[0] == 1  # goes on
    assert ticks == [(1, 2, "half")]
    assert there.left() == []


def test_an_interruption_ends_what_runs_there(there: There, unasked: None) -> None:
    def interrupt(*_: object) -> None:
        assert list(there.tmp.iterdir())
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), connected(HOST) as remote:
        remote.send_script("script.py", SCRIPT)
        remote.ask("script", "wait", {}, interrupt)
    assert time.monotonic() - begin < 9
    assert there.left() == []


def test_a_process_that_is_killed_there_is_told(there: There, unasked: None) -> None:
    with pytest.raises(HostError, match=r"ended by itself \(status 137\)"), connected(HOST) as it:
        it.send_script("script.py", SCRIPT)
        it.ask("script", "die", {})
    assert there.left() == []


def test_a_full_disk_there_is_told(
    tmp_path: Path, there: There, unasked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "ulimit -f 100\n" + RUNS)
    (tmp_path / "large").write_bytes(bytes(1 << 22))
    with pytest.raises(HostError, match="cannot be written there") as caught, connected(HOST) as it:
        it.send_files(tmp_path / "large")
        it.ask("script", "echo", {})
    assert "make room" in caught.value.next_step
    assert there.left() == []


def test_a_killed_compress_leaves_nothing_there(there: There, unasked: None) -> None:
    code = f"""
import os
from compressor.hosts import Host, connected, connection
connection.PROBE = ""
with connected(Host("board", python={sys.executable!r})) as it:
    it.send_script("script.py", {SCRIPT!r})
    it.ask("script", "wait", {{}}, lambda *_: os.kill(os.getpid(), 9))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert there.left() == []


# -- what goes wrong before ----------------------------------------------------------------------


def test_a_python_that_will_not_do_is_told(tmp_path: Path, there: There) -> None:
    bare = tmp_path / "a bare 'python'"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho 'is Python 2.7, which is too old'\n")
    old.chmod(0o755)
    for python, says in (
        (str(bare), "has no numpy and no onnxruntime"),
        (str(old), "is Python 2.7, which is too old"),
        ("~/no/python", "/no/python is not there"),
        ("no/python", f"{Path.cwd()}/no/python is not there"),
        ("false", "false does not run"),
    ):
        with pytest.raises(HostError, match=says) as caught, connected(Host("b", python=python)):
            pass
        assert "--on-python FILE" in caught.value.next_step
    assert there.left() == []


def test_a_host_without_room_for_a_folder_is_told(
    tmp_path: Path, there: There, unasked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, RUNS.replace("$0.there", "$0.there/gone"))
    with pytest.raises(HostError, match=r"no folder can be made there in .*gone"), connected(HOST):
        pass


@pytest.mark.parametrize(
    ("code", "said", "what", "next_step"),
    [
        (255, "ssh: Could not resolve hostname b: no", "no host of this name", "check the name"),
        (255, "pi@b: Permission denied (publickey).", "without a password", "ssh-copy-id"),
        (255, "@@@\nHost key verification failed.", "key is not known", "log in once by hand"),
        (255, "ssh: connect to host b port 22: No route", "cannot be reached", "see that it is up"),
        (255, "", "cannot be reached: without a word", "ssh pi@b"),
        (127, "sh: not found", "could not|nothing could be started", "POSIX shell"),
    ],
)
def test_what_ssh_says_is_explained(
    *,
    tmp_path: Path,
    there: There,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    said: str,
    what: str,
    next_step: str,
) -> None:
    stand_in(tmp_path, monkeypatch, f"echo noise\nprintf %s '{said}' >&2\nexit {code}\n")
    with pytest.raises(HostError, match=what) as caught, connected(Host("b", "pi")):
        pass
    assert next_step in caught.value.next_step
    assert caught.value.where == "--on ssh:pi@b"


def test_a_connection_that_ends_midway_is_no_host_that_is_away() -> None:
    error = explain_ending(HOST, 255, "client_loop: send disconnect: Broken pipe", is_ready=True)
    assert "cut off midway" in error.what
    assert "could not" not in error.what


def test_without_ssh_here_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompressorError, match="ssh cannot be started") as caught, connected(HOST):
        pass
    assert "OpenSSH" in caught.value.next_step


# -- what is measured there ----------------------------------------------------------------------


def test_layers_and_networks_are_timed_there(tmp_path: Path, there: There) -> None:
    said = ask_target(HOST)
    assert said.machine == {**this_machine(), "host": "ssh:board"}
    with bench_on(HOST, 1) as bench:
        cases = [
            Case("linear", {"rows": 1, "in": width, "out": width}, LITERALS) for width in (16, 1024)
        ]
        small, large = bench.times_ms(cases)
    assert 0 < small < large / 4
    files = {name: write_network(tmp_path / f"{name}.onnx", w) for name, w in SIZES.items()}
    found = measure_turns_on(HOST, files, threads=1, batch=2, seconds=0.1)
    wide, narrow = (found[name].latency for name in SIZES)
    assert (wide.host, wide.device, wide.batch) == ("ssh:board", "cpu", 2)
    assert narrow.own_ms < wide.own_ms / 2
    assert wide.own_ms == wide.cpu_ms
    assert len(found["wide"].turns) >= 3
    assert there.left() == []


LITERALS = {"bias": True, "matrix": True}


def test_weights_in_other_files_go_along(tmp_path: Path) -> None:
    path = write_network(tmp_path / "a.onnx", 64)
    assert external_files(path) == []
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert external_files(path) == ["w.bin"]
    model = onnx.load(path, load_external_data=False)
    (tmp_path / "secret").write_text("")
    model.graph.initializer[0].external_data[0].value = "../secret"
    onnx.save(model, tmp_path / "b.onnx")
    assert external_files(tmp_path / "b.onnx") == ["w.bin"]


SIZES = {"wide": 1024, "narrow": 128}


def test_the_bench_times_files_there(
    tmp_path: Path, there: There, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(write_network(tmp_path / f"{name}.onnx", w)) for name, w in SIZES.items()]
    out = tmp_path / "found.json"
    on = ["--on", "ssh:me@board", "--on-python", sys.executable]
    few = ["--threads", "1", "--batch", "2", "--seconds", "0.3", "--out", str(out)]
    assert main(["bench", *files, *on, *few]) == 0
    shown = capsys.readouterr()
    assert "1 thread, batch 2, on ssh:me@board" in shown.out
    assert "ssh:me@board: " in shown.err
    found = json.loads(out.read_text())
    assert found["machine"]["host"] == "ssh:me@board"
    assert found["here"] == this_machine()
    ((wide, narrow),) = (way["records"] for way in found["ways"])
    assert narrow["faster"]["value"] > 2
    assert wide["peak_mb"] is None
    assert [len(each) for each in found["layers"]] == [4, 4]
    assert sum(o["ms"] for o in found["layers"][0]) > sum(o["ms"] for o in found["layers"][1]) > 0
    assert there.left() == []
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".temporary"]


# -- a real sshd ---------------------------------------------------------------------------------

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SSH = shutil.which("ssh")
needs_sshd = pytest.mark.skipif(
    None in (SSHD, SSH, shutil.which("ps")),
    reason="no sshd here (Debian: openssh-server), or no ssh, or no ps",
)


@dataclass(frozen=True)
class Daemon:
    """An sshd that this test started, and the temporary files of those that it lets in."""

    there: There
    pid: int

    def sessions(self) -> list[int]:
        """The processes that serve a connection each."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, check=False
        )
        return [int(pid) for pid in listed.stdout.split()]


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A real sshd on a free port, with keys of its own; `ssh:board` reaches it."""
    ask_target.cache_clear()
    home, tmp = tmp_path / "sshd", tmp_path / "there"
    home.mkdir()
    tmp.mkdir()
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)]
        subprocess.run(words, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copy(home / "user.pub", home / "let_in")
    (home / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nPidFile none\n"
        f"AuthorizedKeysFile {home}/let_in\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv TMPDIR={tmp}\n"
    )
    key = " ".join((home / "host.pub").read_text().split()[:2])
    (home / "known").write_text(f"[127.0.0.1]:{port} {key}\n")
    (home / "config").write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n"
        f" IdentityFile {home}/user\n IdentitiesOnly yes\n UserKnownHostsFile {home}/known\n"
        " GlobalKnownHostsFile /dev/null\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # which sshd wants of root
    stand_in(tmp_path, monkeypatch, f'exec {SSH} -F {home}/config "$@"\n')
    assert SSHD is not None
    process = subprocess.Popen([SSHD, "-D", "-q", "-f", str(home / "sshd_config")])
    try:
        _wait_for(port, process)
        yield Daemon(There(tmp), process.pid)
    finally:
        process.terminate()
        process.wait()
        ask_target.cache_clear()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.skip("sshd does not start here")


@needs_sshd
def test_a_connection_killed_midway_ends_with_an_error_and_leaves_nothing(
    daemon: Daemon, unasked: None
) -> None:
    def kill(*_: object) -> None:
        assert list(daemon.there.tmp.iterdir())
        for session in daemon.sessions():
            os.kill(session, signal.SIGKILL)

    with pytest.raises(HostError, match="cut off midway") as caught, connected(HOST) as remote:
        remote.send_script("script.py", SCRIPT)
        remote.ask("script", "wait", {}, kill)
    assert "try again" in caught.value.next_step
    assert daemon.there.left() == []


@needs_sshd
@pytest.mark.slow
def test_a_real_host_is_refused_entrance_a_key_or_is_away(
    tmp_path: Path, daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write_network(tmp_path / "a.onnx", 16))

    def says(*words: str) -> str:
        ask_target.cache_clear()
        assert main(["bench", file, *words]) == 1
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return " ".join(error.split())

    on = ("--on", "ssh:board", "--on-python", sys.executable)
    home = tmp_path / "sshd"
    assert "cannot be reached" in says("--on", "ssh:board:1", *on[2:])
    known = (home / "known").read_text()
    (home / "known").write_text("")
    assert "log in once by hand" in says(*on)
    (home / "known").write_text(known)
    (home / "let_in").write_text("")
    assert "without a password" in says(*on)
    assert daemon.there.left() == []


@needs_sshd
@pytest.mark.slow
@pytest.mark.parametrize("on_which", ["bench", "compress"])
def test_an_interrupted_command_leaves_nothing_there_or_here(
    tmp_path: Path, daemon: Daemon, on_which: str
) -> None:
    file = str(write_network(tmp_path / "a.onnx", 256))
    command = ["bench", file] if on_which == "bench" else [file, "--of", "latency"]
    on = ["--on", "ssh:board", "--on-python", sys.executable]
    (tmp_path / "here").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "here"), "XDG_CACHE_HOME": str(tmp_path)}
    words = [sys.executable, "-m", "compressor", *command, *on]
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    end = time.monotonic() + 120
    while not list(daemon.there.tmp.glob("*/0")) and time.monotonic() < end:
        if on_which == "compress" and list(daemon.there.tmp.glob("*/host_calls.py")):
            break
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert b"Traceback" not in error
    assert daemon.there.left() == []
    assert not [p for p in (tmp_path / "here").iterdir() if p.name.endswith(".temporary")]
    assert not (tmp_path / "exported").exists()


@needs_sshd
@pytest.mark.slow
def test_the_network_that_is_fast_there_is_found_and_timed_there(
    tmp_path: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file, out = str(write_network(tmp_path / "a.onnx", 512)), tmp_path / "out"
    on = ["--on", "ssh:board", "--on-python", sys.executable]
    assert main([file, "--of", "latency", "--ratio", "0.5", *on, "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    measured = report["budget"]["measured"]
    assert 0.3 < measured["share"] <= 0.4975
    before, after = (report[when]["latency"][0] for when in ("before", "after"))
    assert before["host"] == after["host"] == "ssh:board"
    assert after["cpu_ms"] < 0.7 * before["cpu_ms"]
    assert report["before"]["latency"][1]["host"] == ""
    assert report["machines"]["target"] == {**report["machines"]["here"], "host": "ssh:board"}
    for page in ("report.md", "report.html"):
        assert "timed on ssh:board: " in (out / page).read_text()
    (kept,) = (tmp_path / "cache" / "compressor" / "latency").glob("*.json")
    assert json.loads(kept.read_text())["machine"]["host"] == "ssh:board"
    assert daemon.there.left() == []
    asked = []
    monkeypatch.setattr(on_host.HostBench, "times_ms", lambda bench, cases: asked.append(cases))
    assert main([file, "--of", "latency", "--ratio", "0.5", *on, "--dry-run"]) == 0
    assert asked == []  # what was measured is kept
