"""Give the equations of Fourier transforms.

What is transformed is mixed, and kept; the other dimensions pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from compressor.graph.rules.call import Call, Equations, Refusal, Rule, fresh, keep_all, table
from compressor.graph.rules.reasons import COUNTED, FREQUENCIES


def transform(call: Call, dims: Sequence[int]) -> Equations:
    """Fourier transform: out = x except along `dims`, which are kept on both sides.

    Along them the two sides have other sizes and meanings.
    """
    listed, out = {dim % len(call.x) for dim in dims}, list(call.x)
    for at in listed:
        out[at] = fresh([call.outputs[0][at]])[0]
    touched = [shape[at] for at in sorted(listed) for shape in (call.x, out)]
    return Equations((tuple(out),), keep=keep_all(touched, FREQUENCIES))


def along_one(call: Call) -> Equations:
    """fft, ifft, rfft, irfft, ...: out = x except along `dim`, kept on both sides."""
    return transform(call, [call.dim("dim", -1)])


def along_several(call: Call) -> Equations:
    """fft2, fftn, ...: out = x except along several dimensions, which are kept on both sides.

    They are those that are listed, else as many of the last as sizes are given, else all. Operators
    that transform two always list them.
    """
    listed, sizes = call.get("dim"), call.get("s")
    count = len(call.x) if sizes is None else len(sizes)
    return transform(call, range(-count, 0) if listed is None else listed)


def short_time(call: Call) -> Equations:
    """stft and istft: a leading dimension of several signals passes, all else is kept."""
    lead = call.x[:1] if len(call.x) > len(_one_signal(call)) else ()
    out = (*lead, *fresh(call.outputs[0][len(lead) :]))
    window = call.get("window", ())
    touched = (*call.x[len(lead) :], *out[len(lead) :], *window)
    return Equations((out,), keep=keep_all(touched, FREQUENCIES))


def _one_signal(call: Call) -> Sequence[str]:
    return ("frequency", "frame") if call.op.startswith("istft") else ("sample",)


frequencies = Refusal(COUNTED)
"""fftfreq and windows: all is kept, since the values depend on positions."""


RULES: dict[str, Rule] = {
    **table(along_one, "fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft"),
    **table(
        along_several,
        """fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_hfft2 fft_ihfft2 fft_fftn fft_ifftn fft_rfftn
        fft_irfftn fft_hfftn fft_ihfftn _fft_r2c _fft_c2r _fft_c2c""",
    ),
    **table(short_time, "stft stft.center istft"),
    **table(
        frequencies,
        """fft_fftfreq fft_rfftfreq hann_window hann_window.periodic hamming_window
        hamming_window.periodic blackman_window blackman_window.periodic bartlett_window
        bartlett_window.periodic kaiser_window kaiser_window.periodic kaiser_window.beta""",
    ),
}
