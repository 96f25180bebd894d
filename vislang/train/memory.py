"""Memory that a step frees is kept for the next step."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Names of glibc's settings (malloc.h)."""


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory, rather than give it back to the system and request it again.

    Gradients of a large model are gigabytes that every step frees and takes. Each time the system hands them out as
    empty pages, which costs a fault a page: a sixth of a pretraining step of ViLBERT's base model on a processor
    (``benchmarks/vilbert.py``). The process then stays as large as its largest step, and may grow to twice that where
    steps differ in their shapes.

    Returns:
        Whether the library could be set; only glibc can.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, AttributeError):
        return False
