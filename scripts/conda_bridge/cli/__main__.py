"""``python -m conda_bridge.cli``."""

from .main import main

raise SystemExit(main())
