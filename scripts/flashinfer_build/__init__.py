"""This project's own build: pins, toolchains, compiling, stages, the matrix, trying out."""
