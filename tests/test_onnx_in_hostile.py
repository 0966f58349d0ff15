"""Damaged, hostile and unsupported ONNX files: each is refused in words, and nothing else happens.

No exception but the project's own, no file outside of the folder is read, no memory is taken for
what a file only claims.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_files import FLOAT, graph, perceptron, save

from compressor.errors import CompressorError
from compressor.loading import load_model

Damage = Callable[[onnx.ModelProto], None]


def _tensor(model: onnx.ModelProto) -> TensorProto:
    return model.graph.initializer[0]


def _external(location: str, **more: str) -> Damage:
    def damage(model: onnx.ModelProto) -> None:
        tensor = _tensor(model)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            tensor.external_data.add(key=key, value=value)

    return damage


def _huge_side(model: onnx.ModelProto) -> None:
    _tensor(model).dims[0] = 10**12


def _huge_product(model: onnx.ModelProto) -> None:
    del _tensor(model).dims[:]
    _tensor(model).dims.extend([10**6, 10**6])


def _negative_side(model: onnx.ModelProto) -> None:
    _tensor(model).dims[0] = -6


def _wrong_shape(model: onnx.ModelProto) -> None:
    _tensor(model).dims[0] = 7


def _fewer_values(model: onnx.ModelProto) -> None:
    _tensor(model).raw_data = _tensor(model).raw_data[:-4]


def _strange_type(model: onnx.ModelProto) -> None:
    _tensor(model).data_type = 99


def _text(model: onnx.ModelProto) -> None:
    _tensor(model).data_type = TensorProto.STRING


def _missing_initializer(model: onnx.ModelProto) -> None:
    del model.graph.initializer[0]


def _circle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "c"


def _itself(model: onnx.ModelProto) -> None:
    model.graph.node[2].input[0] = "c"


def _twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[1])


def _value_twice(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "a"


def _input_twice(model: onnx.ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


def _no_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "nowhere"


def _no_nodes(model: onnx.ModelProto) -> None:
    del model.graph.node[:]


def _no_version(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def _future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def _foreign_domain(model: onnx.ModelProto) -> None:
    model.graph.node[2].domain = "com.evil"


def _huge_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 10**12


def _no_rank(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def _wrong_product(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def _unknown(model: onnx.ModelProto) -> None:
    model.graph.node[2].op_type = "StringNormalizer"


def _quantised(model: onnx.ModelProto) -> None:
    model.graph.node[2].op_type = "QuantizeLinear"


def _loop(model: onnx.ModelProto) -> None:
    model.graph.node[2].op_type = "Loop"


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a side of 10^12": (_huge_side, "impossible sizes"),
    "10^12 elements": (_huge_product, "more memory than is free|has .* bytes"),
    "a negative side": (_negative_side, "impossible sizes"),
    "a wrong shape": (_wrong_shape, "bytes, and needs"),
    "fewer values": (_fewer_values, "bytes, and needs"),
    "no such type": (_strange_type, "type that is not read"),
    "texts": (_text, "type that is not read: string"),
    "a missing initializer": (_missing_initializer, "no initializer is"),
    "a circle": (_circle, "in a circle"),
    "a node that needs itself": (_itself, "in a circle"),
    "an initializer twice": (_twice, "twice"),
    "a value twice": (_value_twice, "twice"),
    "an input twice": (_input_twice, "twice"),
    "no such output": (_no_output, "nothing computes the outputs"),
    "no nodes": (_no_nodes, "holds no network"),
    "no version": (_no_version, "which version"),
    "a version of the future": (_future, "checker refuses|does not load"),
    "a domain that is not declared": (_foreign_domain, "which version"),
    "an input of 10^12": (_huge_input, "more memory than is sensible"),
    "an input without a rank": (_no_rank, "checker refuses"),
    "factors that do not fit": (_wrong_product, "checker refuses|does not run"),
    "sparse tensors": (_sparse, "sparse"),
    "an operator without an entry": (_unknown, "StringNormalizer .*version 17.* no entry"),
    "a quantised graph": (_quantised, "quantised"),
    "a loop": (_loop, "Loop .* as data decide"),
    "data above the folder": (_external("../secret.bin"), "outside of the file's folder"),
    "data at the root": (_external("/etc/passwd"), "outside of the file's folder"),
    "data by backslashes": (_external("..\\secret.bin"), "outside of the file's folder"),
    "data through a detour": (_external("a/../../secret.bin"), "outside of the file's folder"),
    "data behind a link": (_external("link.bin"), "outside of the file's folder"),
    "data in a linked folder": (_external("linked/secret.bin"), "outside of the file's folder"),
    "data nowhere": (_external(""), "outside of the file's folder"),
    "data that are not there": (_external("gone.bin"), "not there"),
    "data behind the end": (_external("data.bin", offset="80"), "are not those of"),
    "data before the start": (_external("data.bin", offset="-8"), "are not those of"),
    "data of another length": (_external("data.bin", length="12"), "are not those of"),
    "data at no number": (_external("data.bin", offset="x"), "no number"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_wrong_with_a_file_is_said(name: str, tmp_path: Path) -> None:
    damage, words = DAMAGES[name]
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(6 * 12 * 4))
    (folder / "data.bin").write_bytes(bytes(6 * 12 * 4))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    model = perceptron()
    damage(model)
    with pytest.raises(CompressorError, match=words) as raised:
        load_model(str(save(model, folder / "model.onnx")))
    assert raised.value.next_step


def test_data_beside_the_file_are_read(tmp_path: Path) -> None:
    model = perceptron()
    values = _tensor(model).raw_data
    _external("data.bin", offset="16", length=str(len(values)))(model)
    (tmp_path / "data.bin").write_bytes(bytes(16) + values)
    module = load_model(str(save(model, tmp_path / "model.onnx"))).module
    held = module.get_parameter("dense.kernel_0").detach().numpy()
    np.testing.assert_array_equal(held.T.reshape(-1), np.frombuffer(values, np.float32))


def test_cut_and_flipped_files_are_refused_or_whole(tmp_path: Path) -> None:
    """A hundred files: what flips a weight's bit may load; nothing else may happen."""
    content = perceptron().SerializeToString()
    rng = np.random.default_rng(0)
    cuts = [content[:length] for length in np.linspace(3, len(content) - 1, 40).astype(int)]
    flipped = []
    for place in rng.integers(2, len(content), 60):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        flipped.append(bytes(changed))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for i, damaged in enumerate((*cuts, *flipped)):
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(damaged)
        try:
            load_model(str(path))
        except CompressorError:
            refused += 1
    assert refused >= len(cuts)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_a_result_of_10_to_the_12_is_refused(tmp_path: Path) -> None:
    """The file is tiny, and what it computes is not."""
    model = graph(
        [
            helper.make_node("Expand", ["x", "shape"], ["big"], name="grow"),
            helper.make_node("ReduceSum", ["big"], ["out"], keepdims=0),
        ],
        {"shape": np.array([10**6, 10**6], np.int64)},
        inputs={"x": (FLOAT, [1, 1])},
        outputs=0,
    )
    model.graph.node[0].op_type = "Tile"
    with pytest.raises(CompressorError, match="memory"):
        load_model(str(save(model, tmp_path / "model.onnx")))


def test_a_branch_that_data_choose_is_refused(tmp_path: Path) -> None:
    branch = lambda name: helper.make_graph(  # noqa: E731
        [helper.make_node("Identity", ["x"], [name])],
        name,
        [],
        [helper.make_tensor_value_info(name, FLOAT, [None, None])],
    )
    model = graph(
        [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["flag"], to=TensorProto.BOOL),
            helper.make_node(
                "If", ["flag"], ["out"], then_branch=branch("a"), else_branch=branch("b")
            ),
        ],
        {},
        inputs={"x": (FLOAT, ["batch", 3])},
    )
    with pytest.raises(CompressorError, match="branch that data choose"):
        load_model(str(save(model, tmp_path / "model.onnx")))
