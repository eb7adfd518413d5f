"""Stand-in until the fused encoder."""

from __future__ import annotations

from typing import Any


def fused_forward(network: Any, precision: str) -> Any:
    """Answers None: no faster forward is known."""
    return None
