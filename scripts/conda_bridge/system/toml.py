"""The standard library's reader of TOML, or its twin for Pythons that have none."""

import sys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["tomllib"]
