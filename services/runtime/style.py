"""How every page of the project looks, light and dark, on a phone and on a desk."""

from __future__ import annotations

from pathlib import Path

STYLE = Path(__file__).with_name("style.css").read_text()
