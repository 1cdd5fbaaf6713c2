# ruff: noqa: N999
"""The compiled binding (csrc/torch/module.cpp)."""

def build_info() -> tuple[str, str]:
    """The build information of the binding and of libflashinfer: texts of ``key=value`` lines."""
