"""This project's own build: pins, toolchains, compiling, stages, the matrix, trying out.

Uses :mod:`conda_bridge`, which knows nothing of it. Data goes one way: pins -> toolchain -> payload
-> conda package -> wheel -> channel and index -> installed and tried.
"""
