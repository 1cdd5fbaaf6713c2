"""Conda packages and pip wheels of one build: read, bridged, proved and published.

Knows nothing of how anything is built. Rooms, from the bottom: ``system``, ``formats``, ``bridge``,
``verify`` and ``publish``, ``cli``; docs/architecture.md has the whole house.
"""

__version__ = "0.1.0"
