"""Settle what formats and widths a network is to have, by what its configuration can say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from compressor.choose.uniform import Uniform, find_uniform
from compressor.errors import CompressorError, UsageError
from compressor.files.format_table import HF, ONNX, PROGRAM
from compressor.formats.folder_source import FolderSource, changes_of
from compressor.graph.network import Network
from compressor.graph.whole_layers import WHOLE, path_of_layer
from compressor.listing import some_of
from compressor.loading.configurations import Configurations
from compressor.options import Options
from compressor.records import LoadedModel
from compressor.run.opened import Opened, Run
from compressor.slicing import Sliced


def settle_formats(options: Options, loaded: LoadedModel) -> Options:
    """Return the options with the formats that they leave open, and whether widths are uniform.

    Raises:
        UsageError: They ask for what only networks from transformers folders have.
    """
    is_folder = loaded.folder is not None
    asked = options.format
    if not is_folder and (options.uniform or HF in (asked or ())):
        raise UsageError(
            f"the network is {loaded.recognised}, and no transformers folder",
            where="--uniform" if options.uniform else f"--format {HF}",
            consequence="nothing was done",
            next_step="leave it out, or give hf:FOLDER",
        )
    usual = (ONNX, PROGRAM, HF) if is_folder and options.uniform is not False else (ONNX, PROGRAM)
    formats = usual if asked is None else asked
    uniform = HF in formats if options.uniform is None else options.uniform
    return replace(options, format=formats, uniform=uniform)


def find_widths(
    opened: Opened, network: Network, asked: Options, options: Options
) -> tuple[Uniform | None, Options]:
    """Find the widths that the configuration of a network can say, where only such are wanted.

    Args:
        opened: The network.
        network: Its analysis.
        asked: The options as they were given.
        options: The same, settled.

    Returns:
        The widths, and the options: where nothing can be said and nothing of it was asked for,
        any widths may be chosen, which is noted.

    Raises:
        CompressorError: Nothing can be said, and such widths were asked for.
    """
    if not options.uniform:
        return None, options
    configurations = _configurations(opened.loaded)
    with opened.stopwatch.stage("what the configuration can say"):
        widths = find_uniform(configurations, network, options.prune)
    if widths is not None:
        return widths, options
    what = f"{configurations.name} has no number for any width that may change"
    if asked.uniform or HF in (asked.format or ()):
        raise CompressorError(
            what,
            where="--uniform" if asked.uniform else f"--format {HF}",
            consequence="nothing was done",
            next_step="--prune stream lets more go; --no-uniform gives each layer its own widths",
        )
    opened.stopwatch.note(f"no transformers folder is delivered, and widths differ: {what}")
    formats = tuple(name for name in options.format or () if name != HF)
    return None, replace(options, format=formats, uniform=False)


def source_of(run: Run, sliced: Sliced) -> Callable[[], FolderSource] | None:
    """Return what makes the source of a result's transformers folder; None where there is none."""
    folder, uniform = run.loaded.folder, run.uniform
    if folder is None or uniform is None:
        return None

    def make() -> FolderSource:
        configurations = _configurations(run.loaded)
        leaving = _leaving(sliced)
        edits = uniform.edits(run.network, sliced.plan.kept, leaving)
        numbers = [knob for held in uniform.found for knob in held.knobs]
        numbers += [count.knob for count in uniform.counts]
        return FolderSource(
            kind=type(run.loaded.given),
            root=folder.root,
            transformer=folder.transformer,
            config=configurations.edited(edits),
            changes=changes_of(numbers, edits),
            types=run.loaded.types,
            computed=run.loaded.computed,
            cuts=sliced.plan.tensors,
            aliases=sliced.plan.aliases,
            leaving=leaving,
        )

    return make


def _leaving(sliced: Sliced) -> tuple[str, ...]:
    """Return the items of lists of layers that are gone.

    Raises:
        CompressorError: Blocks are gone that are no whole items.
    """
    removal = sliced.plan.removal
    if removal is None:
        return ()
    leaving = removal.leaving
    if sliced.plan.form != "class":  # one is built of the new configuration, not the user's cut
        leaving = tuple(path_of_layer(name) for name in removal.blocks if name.endswith(WHOLE))
    left = sorted(set(map(path_of_layer, removal.blocks)) - set(leaving))
    if left:
        raise CompressorError(
            f"blocks are gone from layers that stay: {some_of(left)}",
            consequence="there is no folder that transformers loads",
            next_step="leave --no-uniform out, so that whole layers go",
        )
    return leaving


def _configurations(loaded: LoadedModel) -> Configurations:
    assert loaded.folder is not None
    return Configurations(loaded.given or loaded.module, loaded.folder.home)
