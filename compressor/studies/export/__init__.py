"""Write a result's file again, with other options, and in smaller types: `compress export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from compressor.files.claimed import temporary_folder
from compressor.files.folder import parts_of, size_of
from compressor.files.hashes import sha256_of
from compressor.formats.job import check_installed
from compressor.loading.given import open_result
from compressor.options import ExportOptions
from compressor.report import versions
from compressor.studies.export.conversions import names_of
from compressor.studies.export.new_weights import export_retrained
from compressor.studies.export.publishing import check_free, publish
from compressor.studies.export.source import open_source
from compressor.studies.export.worth import latencies_of, metrics_of, runnable_of
from compressor.studies.export.writing import write_files
from compressor.watch import Stopwatch, Watch

__all__ = ["export_again", "export_retrained", "names_of"]


def export_again(
    folder: Path, options: ExportOptions, watch: Watch, *, target: Path, force: bool = False
) -> dict[str, Any]:
    """Write a result's files again with other options, each verified and measured.

    What was measured goes into exports.json beside them.

    Args:
        folder: The result, as compress wrote it.
        options: What is asked for.
        watch: Shows progress and notes.
        target: The folder that the files go to.
        force: Replace files of these names.

    Returns:
        The entries of exports.json for the files written, and for the one with 32 bits.

    Raises:
        UsageError: A file is there already and `force` is off; sizes that the network cannot take.
        CompressorError: The folder holds no result or a damaged one; an export fails, or computes
            something else than the network.
    """
    result = open_result(str(folder), "export")
    check_installed(options.format, f"--format {options.format}")
    check_free(target, names_of(options), force=force)
    stopwatch = Stopwatch(watch)
    with stopwatch.stage("load"):
        source = open_source(result, options, stopwatch)
    with temporary_folder() as temporary:
        files, differences = write_files(source, temporary, stopwatch)
        runnable = runnable_of(files, stopwatch, options.format)
        metrics = metrics_of(source, runnable, stopwatch)
        latency = latencies_of(runnable, source.batch or 1, stopwatch, options.format)
        found = {
            name: {
                "options": asdict(source.options),
                "size_bytes": size_of(path),
                "sha256": {part.name: sha256_of(part) for part in parts_of(path)},
                "difference": differences[name],
                "metrics": metrics.get(name, {}),
                "latency": [asdict(each) for each in latency.get(name, [])],
                "versions": versions(),
            }
            for name, path in files.items()
        }
        asked = {name: files[name] for name in names_of(options)}
        with stopwatch.stage("write the files"):
            publish(asked, {name: found[name] for name in asked}, target)
    return found
