"""Output on consoles that lack some signs: those are spelled with letters, and no command ends for them."""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
import unicodedata
from collections.abc import Iterator

# Signs that the commands print, and what stands for them where a console has no such sign.
SIGNS = {
    **{"✔": "[x]", "○": "[ ]", "✘": "[-]", "·": "-", "•": "-", "−": "-", "–": "-", "—": "-", "×": "x", "±": "+-"},
    **{"→": "->", "←": "<-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∈": "in", "∞": "inf", "…": "...", "°": " deg"},
    **{"Σ": "sum", "∫": "integral", "∂": "d", "Δ": "delta", "λ": "lambda", "μ": "mu", "σ": "sigma", "π": "pi"},
    **{"τ": "tau", "θ": "theta", "γ": "gamma", "ε": "eps", "φ": "phi", "ν": "nu", "Ψ": "Psi", "α": "alpha"},
    **{"‖": "||", "√": "sqrt", "“": '"', "”": '"', "‘": "'", "’": "'", "′": "'", "½": "1/2", "¼": "1/4", "ᵀ": "^T"},
}


def spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler of codecs: what cannot be encoded, spelled with letters that can."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(SIGNS.get(sign) or _plain(sign) for sign in missing), error.end


def _plain(sign: str) -> str:
    """A letter without its accent, a superscript as a digit, and a question mark for what is neither."""
    return "".join(c for c in unicodedata.normalize("NFKD", sign) if c.isascii()) or "?"


codecs.register_error("flowlab.spelled", spelled)


@contextlib.contextmanager
def forgiving() -> Iterator[None]:
    """While it lasts, printing raises no UnicodeEncodeError, whatever the console's encoding is."""
    changed = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            changed.append((stream, stream.errors))
            stream.reconfigure(errors="flowlab.spelled")
    try:
        yield
    finally:
        for stream, errors in changed:
            with contextlib.suppress(ValueError):  # it was closed meanwhile
                stream.reconfigure(errors=errors)
