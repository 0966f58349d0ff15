"""List the operators that do much work without a formula for it, so that reports can name them."""

from __future__ import annotations

from fnmatch import fnmatchcase

UNCOUNTED = """
fft_* _fft_* stft* istft* linalg_* cholesky* inverse.* det.* logdet.* slogdet.* svd.* qr.* lu_*
*_solve.* pinverse.* matrix_power.* matrix_exp.* chain_matmul.* cdist.* _cdist_forward.*
conv_tbc.* kron.* embedding_bag.* _embedding_bag* *sparse* *_attention*
_scaled_mm* _grouped_mm* _native_multi_head* _transformer_encoder* *quantize* *qlinear*
*_int_mm* *_int4pack* *_int8pack* trapezoid.* convolution_backward.*
"""
"""Patterns of overloads that may do much work; those without a namespace are ATen's."""

CHEAP = """
fft_fftshift.* fft_ifftshift.* fft_fftfreq.* fft_rfftfreq.* linalg_vector_norm.* linalg_norm.*
linalg_cross.* linalg_diagonal.*
"""
"""Patterns of overloads among `UNCOUNTED` that only pass over their operand once, as norms and
copies do."""


def is_uncounted(operator: str, *, is_known: bool) -> bool:
    """Return whether an operator whose rule gives no multiply-adds may do many.

    Args:
        operator: The overload's name as in the table of rules.
        is_known: Whether it has a rule, or the operator itself says that it works element by
            element. What is not known may do anything.
    """

    def is_among(patterns: str) -> bool:
        return any(fnmatchcase(operator, pattern) for pattern in patterns.split())

    return not is_known or (is_among(UNCOUNTED) and not is_among(CHEAP))
