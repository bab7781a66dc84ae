"""Shared parts stand beside: an authority for the tests of identity."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "device"))
