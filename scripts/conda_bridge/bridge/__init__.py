"""From a conda package to the wheel with the same payload."""
