"""A CNI meta-plugin: a pod's default network first, then each network that its annotation selects.

Read commands/add.py first: it tells the story. The packages below it decide, those above it act.
"""

from __future__ import annotations

__version__ = "0.1.0.dev0"
