"""Errors say what, consequence and next step, all in one style."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import compressor
from compressor.errors import CompressorError, UsageError

ROOT = Path(compressor.__file__).parent
ERRORS = {"CompressorError", "UsageError", "OutOfReachError", "NoRoomError", "NotFiniteError"}
NAMES = ("ONNX", "OpenVINO", "ExecuTorch", "PyTorch", "Ray", "MACs", "Did you mean")
"""What begins with a capital letter wherever it stands."""


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Give every place in the package that makes an error."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ERRORS:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def texts(call: ast.Call) -> Iterator[str]:
    """Give what is known of the call's texts without running it; braces stand for values."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    for value in (*call.args[:1], *(named[n] for n in ("consequence", "next_step") if n in named)):
        choices = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
        for choice in choices:
            parts = choice.values if isinstance(choice, ast.JoinedStr) else [choice]
            known = [str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts]
            yield "".join(known)


CALLS = list(raised())


@pytest.mark.parametrize(("place", "call"), CALLS, ids=[place for place, _ in CALLS])
def test_an_error_says_what_to_do(place: str, call: ast.Call) -> None:
    assert "next_step" in {keyword.arg for keyword in call.keywords}, place


@pytest.mark.parametrize(("place", "call"), CALLS, ids=[place for place, _ in CALLS])
def test_an_error_is_no_sentence_with_capital_and_full_stop(place: str, call: ast.Call) -> None:
    for text in texts(call):
        assert not text[:1].isupper() or text.startswith(NAMES), f"{place}: {text}"
        assert not text.endswith(".") or text.endswith(("...", "{}.")), f"{place}: {text}"


def test_there_are_errors() -> None:
    assert len(CALLS) > 200


def test_an_error_has_a_consequence_even_if_none_is_given() -> None:
    assert "an earlier result is untouched" in str(CompressorError("no"))
    assert "nothing was done" in str(UsageError("no"))
    assert "nothing was timed" in str(UsageError("no", consequence="nothing was timed"))
