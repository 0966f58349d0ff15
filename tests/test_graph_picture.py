"""The network as a picture: its rows, and the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import TinyNet, inputs, write_model

from compressor.cli import main
from compressor.graph.analysis import analyse
from compressor.graph.trace import trace
from compressor.records import ExampleInputs
from compressor.studies.inspect.graph_picture import LayerRow, draw_network, rows_of


def test_rows_are_layers_and_joins_with_the_groups_that_they_touch() -> None:
    traced = trace(TinyNet(), ExampleInputs((inputs(2),)))
    network = analyse(traced)
    (group,) = (g.name for g in network.groups)
    assert rows_of(traced, network) == [
        LayerRow("stem", "conv2d", (), (), (group,)),
        LayerRow("norm", "batch_norm", (0,), (), (group,)),
        LayerRow("inner", "conv2d", (1,), (group,), (group,)),
        LayerRow("", "add", (1, 2)),
        LayerRow("head", "linear", (3,), (group,), ()),
    ]


def test_the_same_network_gives_the_same_file(tmp_path: Path) -> None:
    traced = trace(TinyNet(), ExampleInputs((inputs(2),)))
    network = analyse(traced)
    for name in ("a.svg", "b.svg"):
        draw_network(traced, network, tmp_path / name)
    one, other = ((tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert one == other


def test_the_command_draws_and_replaces_only_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "net.pt")
    arguments = ["inspect", "net.pt", "--input", "1x3x8x8", "--graph", "net.svg"]
    assert main(arguments) == 0
    assert "written to net.svg" in capsys.readouterr().out
    picture = Path("net.svg").read_text()
    assert "<!-- 3  (conv2d) -->" in picture
    assert main(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
