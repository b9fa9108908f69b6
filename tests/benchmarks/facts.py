"""What the runs of these tests were made on, all the same unless a test says otherwise."""

from __future__ import annotations

from typing import Any

FACTS: dict[str, Any] = {
    "date": "2026-01-01T10:00:00+00:00",
    "commit": "1" * 40,
    "machine": "one",
    "device": "cpu",
    "device_name": "a processor",
    "precision": "float32",
    "threads": 2,
    "versions": {"python": "3.11.7", "torch": "2.11.0"},
    "data": {"fingerprint": "f" * 64},
}
