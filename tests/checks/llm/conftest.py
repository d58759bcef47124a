"""Copies of exports, as in `tests/llm`."""

from __future__ import annotations

from tests.llm.conftest import copied

__all__ = ["copied"]
