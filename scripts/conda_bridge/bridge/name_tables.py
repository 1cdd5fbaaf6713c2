"""What is known of names on conda-forge and on PyPI: facts alone, :mod:`.names` reads them."""

from __future__ import annotations

__all__ = [
    "DIFFERENT",
    "LIBRARIES",
    "LINUX_LIBRARIES",
    "NOT_PYTHON",
    "NO_PYTHON_PATTERNS",
    "SAME",
    "TO_CONDA",
]


def _words(text: str) -> list[str]:
    return text.split()


# conda name -> PyPI name, where they differ by more than "-" for "_" or have to be chosen from. Of
# several conda names of one project, a requirement becomes the first.
DIFFERENT = {
    "pytorch": "torch",
    "pytorch-gpu": "torch",
    "pytorch-cpu": "torch",
    "airflow": "apache-airflow",
    "antlr-python-runtime": "antlr4-python3-runtime",
    "brotli-python": "brotli",
    "dask-core": "dask",
    "dask": "dask",
    "docker-py": "docker",
    "h3-py": "h3",
    "huggingface_hub": "huggingface-hub",
    "importlib-metadata": "importlib-metadata",
    "importlib_metadata": "importlib-metadata",
    "importlib_resources": "importlib-resources",
    "importlib-resources": "importlib-resources",
    "jupyter_client": "jupyter-client",
    "jupyter_core": "jupyter-core",
    "jupyter_events": "jupyter-events",
    "jupyter_server": "jupyter-server",
    "jupyter_server_terminals": "jupyter-server-terminals",
    "jupyterlab_pygments": "jupyterlab-pygments",
    "jupyterlab_server": "jupyterlab-server",
    "jupyterlab_widgets": "jupyterlab-widgets",
    "line_profiler": "line-profiler",
    "matplotlib-base": "matplotlib",
    "matplotlib": "matplotlib",
    "memory_profiler": "memory-profiler",
    "ml_dtypes": "ml-dtypes",
    "msgpack-python": "msgpack",
    "mujoco-python": "mujoco",
    "neo4j-python-driver": "neo4j",
    "ninja-python": "ninja",
    "ninja": "ninja",
    "ollama-python": "ollama",
    "ortools-python": "ortools",
    "pgvector-python": "pgvector",
    "playwright-python": "playwright",
    "podman-py": "podman",
    "prompt-toolkit": "prompt-toolkit",
    "prompt_toolkit": "prompt-toolkit",
    "pure_eval": "pure-eval",
    "py-lief": "lief",
    "py-opencv": "opencv-python",
    "opencv": "opencv-python",
    "py-xgboost": "xgboost",
    "xgboost": "xgboost",
    "pyqt": "pyqt5",
    "pysoundfile": "soundfile",
    "pytables": "tables",
    "python-annoy": "annoy",
    "python-blosc": "blosc",
    "python-build": "build",
    "python-confluent-kafka": "confluent-kafka",
    "python-duckdb": "duckdb",
    "python-fastjsonschema": "fastjsonschema",
    "python-flatbuffers": "flatbuffers",
    "python-graphviz": "graphviz",
    "python-igraph": "igraph",
    "python-installer": "installer",
    "python-kaleido": "kaleido",
    "python-kubernetes": "kubernetes",
    "python-leveldb": "leveldb",
    "python-libarchive-c": "libarchive-c",
    "python-lmdb": "lmdb",
    "python-sounddevice": "sounddevice",
    "python-symengine": "symengine",
    "python-tzdata": "tzdata",
    "python-uv": "uv",
    "python-xxhash": "xxhash",
    "python-zstd": "zstd",
    "ray-core": "ray",
    "redis-py": "redis",
    "ruamel.yaml": "ruamel.yaml",
    "ruamel.yaml.clib": "ruamel.yaml.clib",
    "smart_open": "smart-open",
    "soxr-python": "soxr",
    "sphinx_rtd_theme": "sphinx-rtd-theme",
    "stack_data": "stack-data",
    "tbb4py": "tbb",
    "tensorflow-base": "tensorflow",
    "tiledb-py": "tiledb",
    "trino-python-client": "trino",
    "typing_extensions": "typing-extensions",
    "typing-extensions": "typing-extensions",
    "zope.interface": "zope.interface",
}

# Python projects of one name that recipes require though METADATA may not.
SAME = frozenset(
    _words(
        """
        aiohttp anyio attrs cffi click cloudpickle colorama cryptography cuda-bindings cuda-core
        cuda-pathfinder cuda-python cupy cython einops filelock flask fsspec h5py httpx hypothesis
        idna ipython jax jaxlib jinja2 joblib jsonschema libcst librosa libsass libtmux llvmlite
        lxml markupsafe mpmath msgspec networkx numba numexpr numpy packaging pandas pillow pip
        platformdirs pluggy polars protobuf psutil pyarrow pycparser pydantic pydantic-core
        pyelftools pygments pytest python-dateutil pytz pyyaml pyzmq regex requests rich safetensors
        scikit-learn scipy sentencepiece setuptools setuptools-scm six sqlalchemy sympy tokenizers
        toml tomli torchaudio torchvision tornado tqdm transformers triton urllib3 wheel zstandard
        """
    )
)

# Packages that are no Python project. PyPI has something under many of these names all the same.
NOT_PYTHON = {
    **dict.fromkeys(
        ("cpython", "python_abi", "pypy", "python-gil", "python-freethreading", "python-abi3"),
        "the dependency on python says it",
    ),
    **dict.fromkeys(
        _words(
            "libgcc libgcc-ng libstdcxx libstdcxx-ng libgomp libgfortran libgfortran5"
            " libgfortran-ng _openmp_mutex llvm-openmp intel-openmp sysroot_linux-64"
        ),
        "a compiler's runtime",
    ),
    **dict.fromkeys(
        _words("cuda cudatoolkit cudnn nccl cusparselt cutensor cuda-version"),
        "a part of CUDA",
    ),
    **dict.fromkeys(
        _words("""
        abseil-cpp alsa-lib arrow-cpp assimp atk aws-c-common blas boost boost-cpp brotli bzip2
        c-ares ca-certificates cairo cfitsio cgal cmake curl cyrus-libs dbus eigen expat ffmpeg fftw
        fmt font-ttf-dejavu-sans-mono fontconfig freetype fribidi geos gettext gflags giflib git
        glib glog glpk gmp gnutls graphite2 graphviz grpc-cpp gsl gstreamer gtest gtk3 harfbuzz hdf4
        hdf5 icu imath isl jansson jpeg jsoncpp krb5 lame lapack lcms2 lerc leveldb lmdb lz4-c lzo
        magma make metis mkl mpc mpfr mpg123 mpi mpich mysql-libs ncurses netcdf nettle
        nlohmann_json nodejs nspr nss oniguruma openblas openexr opengl openh264 openjdk openjpeg
        openldap openmpi openssl orc p11-kit pango patchelf pcre pcre2 perl pixman pkg-config
        poppler postgresql proj pugixml qt qt-main qt6-main r-base rapidjson rdma-core re2 readline
        rocksdb ruby s2n sleef snappy spdlog sqlite suitesparse svt-av1 tbb tesseract tk tzdata ucx
        unixodbc utf8proc wayland x264 x265 xerces-c xz yaml yaml-cpp yasm zeromq zlib zlib-ng zstd
        """),
        "a library or a program, no Python project",
    ),
}
# The same by their beginnings, as regular expressions.
NO_PYTHON_PATTERNS = {
    r"__.*": "a virtual package: it says something of the machine",
    r"_.*": "conda's own",
    r"cuda-.*|lib(cu(blas|fft|file|rand|solver|sparse|pti)|nv|npp).*": "a part of CUDA",
    r"lib.*": "a library, no Python project",
    r"(xorg|aws-c|aws-crt|gcc|gxx|clang|binutils|gfortran|ld_impl|sysroot|font-ttf|fonts)-.*|"
    r"ld_impl_.*|r-.*|azure-.*-cpp": "a library or a program, no Python project",
}

# PyPI name -> conda name where there is no way back: what a wheel brings, conda has under the name
# of the library in it, in the prefix's lib.
TO_CONDA = {
    f"nvidia-{pip}{suffix}": conda
    for suffix in ("", "-cu11", "-cu12", "-cu13")
    for pip, conda in {
        "cublas": "libcublas",
        "cuda-cupti": "cuda-cupti",
        "cuda-nvrtc": "cuda-nvrtc",
        "cuda-runtime": "cuda-cudart",
        "cudnn": "cudnn",
        "cufft": "libcufft",
        "cufile": "libcufile",
        "curand": "libcurand",
        "cusolver": "libcusolver",
        "cusparse": "libcusparse",
        "nccl": "nccl",
        "nvjitlink": "libnvjitlink",
        "nvtx": "cuda-nvtx",
    }.items()
}

# Shared libraries that a wheel may take for granted on a Linux, and that conda has packages of.
LIBRARIES = {
    "libstdc++.so.6": "libstdcxx",
    "libgcc_s.so.1": "libgcc",
    "libgomp.so.1": "libgomp",
    "libatomic.so.1": "libgcc",
    "libgfortran.so.5": "libgfortran5",
    "libz.so.1": "libzlib",
    "libexpat.so.1": "libexpat",
    "libglib-2.0.so.0": "libglib",
    "libgobject-2.0.so.0": "libglib",
    "libgthread-2.0.so.0": "libglib",
    "libGL.so.1": "libgl",
    "libX11.so.6": "xorg-libx11",
    "libXext.so.6": "xorg-libxext",
    "libXrender.so.1": "xorg-libxrender",
    "libICE.so.6": "xorg-libice",
    "libSM.so.6": "xorg-libsm",
}
# Those that conda has of the system as well: glibc's, and the driver's.
LINUX_LIBRARIES = frozenset(
    f"{name}.so.{number}"
    for name, number in {
        **{"libc": 6, "libm": 6, "libdl": 2, "librt": 1, "libpthread": 0, "libutil": 1},
        **{"libresolv": 2, "libnsl": 1, "libanl": 1, "libcrypt": 1, "libcuda": 1},
        **{"libnvidia-ml": 1, "libmvec": 1, "libthread_db": 1},
    }.items()
) | {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "ld64.so.2"}
