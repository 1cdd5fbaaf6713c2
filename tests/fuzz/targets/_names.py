"""Grammars of what names builds, dependencies and versions."""

from __future__ import annotations

from ..mutators.text import Grammar

__all__ = ["LABEL", "MARKER", "NAME", "REQUIREMENT", "SPEC", "SPECIFIERS", "SYMBOL", "TEMPLATE"]

_VERSIONS = {
    "number": ("0", "1", "2", "10", "01", "2024", "99999999999999999999"),
    "release": ("<number>", "<number>.<number>", "<number>.<number>.<number>", "<number>!<number>"),
    "version": (
        *("<release>", "<release>.<number>", "<release>rc<number>", "<release>.rc<number>"),
        *("<release>.post<number>", "<release>.dev<number>", "<release>a<number>", "<release>a"),
        *("<release>.*", "<release>*", "<release>+<name>", "<release>.0a0", "<release>dev0"),
        *("v<release>", "<release>-<number>", "<release>_<number>", "<release>.post", "*"),
    ),
    "name": ("a", "torch", "pytorch", "numpy", "python", "_x", "A.b-c_d", "cpu", "cu130"),
}
_COMPARED = {
    "operator": (">=", "<", "==", "!=", "<=", ">", "~=", "===", "=", ""),
    "item": ("<operator><version>", "<operator><version>", "<operator> <version>"),
}
NAME = Grammar(
    {
        **_VERSIONS,
        "file": (
            *("flashinfer-<version>+cu130torch2.13-cp38-abi3-linux_x86_64.whl",),
            *(
                "<name>-<version>-<number>-py3-none-any.whl",
                "<name>-<version>-<name>_<number>.conda",
            ),
        ),
    },
    "file",
)
SPECIFIERS = Grammar(
    {**_VERSIONS, **_COMPARED, "list": ("<item>", "<item>,<item>", "<item>, <list>")}, "list"
)
SPEC = Grammar(
    {
        **_VERSIONS,
        **_COMPARED,
        "list": ("<item>", "<item>,<item>", "<item>|<item>", "(<list>)", "(<list>|<list>),<item>"),
        "build": ("h_0", "*cuda*", "cpu_*", "py312_<number>", "*", "^x.*$"),
        "key": ("version", "build", "build_number", "channel", "subdir", "md5", "when", "extras"),
        "bracket": ("[<key>='<list>']", "[<key>=<version>,<key>='<build>']", '[<key>="<list>"]'),
        "spec": (
            *("<name>", "<name> <list>", "<name> <list> <build>", "<name>=<version>=<build>"),
            *("<name><list>", "<name><bracket>", "conda-forge::<name> <list>", "<name> * <build>"),
            *("<name> <list><bracket>", "<name>[<key>]", "https://a/b/<name>-1-0.conda"),
            "<name> <list>; if <name> <list>",
        ),
    },
    "spec",
)
_MARKERS = {
    "variable": (
        *("python_version", "sys_platform", "platform_machine", "os_name", "extra"),
        *("implementation_name", "python_full_version", "platform_release", "extras"),
        "dependency_groups",
    ),
    "value": ("'linux'", '"3.8"', "'x86_64'", "'<version>'", "''", "'nt'", "'CPython'"),
    "compare": ("==", "!=", ">=", "<", "in", "not in", "~=", "==="),
    "test": (
        *("<variable> <compare> <value>", "<value> <compare> <variable>", "(<marker>)"),
        "<variable> <compare> <variable>",
    ),
    "marker": ("<test>", "<test> and <test>", "<test> or <marker>", "(<marker>) and <marker>"),
}
MARKER = Grammar({**_VERSIONS, **_MARKERS}, "marker")
REQUIREMENT = Grammar(
    {
        **_VERSIONS,
        **_COMPARED,
        **_MARKERS,
        "list": ("<item>", "<item>,<item>", "(<item>)"),
        "extras": ("", "[<name>]", "[<name>,<name>]"),
        "requirement": (
            *("<name>", "<name><extras><list>", "<name> <list>; <marker>", "<name>; <marker>"),
            *("<name> @ https://a/b.whl", "<name><extras>"),
        ),
    },
    "requirement",
)
LABEL = Grammar(
    {
        **_VERSIONS,
        "commit": ("1a2b3c4", "0123456789abcdef0123456789abcdef01234567", "abc"),
        "cuda": ("cpu", "cu130", "cu124", "cu9", "cu1000"),
        "build": ("<cuda>_torch213_<number>", "<cuda>_torch24_g<commit>_0", "<cuda>_<number>"),
        "local": ("<cuda>torch2.13", "<cuda>torch2.4.g<commit>", "<cuda>"),
        "tags": ("cp38-abi3-linux_x86_64", "py3-none-any", "cp312-cp312-a.b"),
        "text": (
            *("<cuda>_torch213", "<release>", "<version>", "<release>+<local>"),
            *("flashinfer-<release>-<build>.conda", "libflashinfer-<release>-<cuda>_0.conda"),
            *(
                "flashinfer-<release>+<local>-<tags>.whl",
                "<build>",
                "flashinfer-1.2.3-<build>.tar.bz2",
            ),
            "flashinfer-<release>+<local>-<number>-<tags>.whl",
        ),
    },
    "text",
)
TEMPLATE = Grammar(
    {
        "field": ("{a}", "{b}", "{c}", "{commit}", "{number}", "{a:flat}", "{d}", "{e}"),
        "text": ("_", "x", "g", ".", "cu", "0", "-"),
        "part": ("<field>", "<text>", "[<text><field>]", "<text><field>", "[<field>]"),
        "template": ("<part>_{number}", "<part><part>_{number}", "<part><template>"),
    },
    "template",
)
SYMBOL = Grammar(
    {
        "digits": ("1", "3", "10", "99999", "0"),
        "part": (
            "<digits>abc",
            "Ss",
            "St",
            "S_",
            "S0_",
            "Lb1E",
            "Li12E",
            "A10_",
            "NSt7__cxx11",
            "K",
        ),
        "symbol": (
            *(
                "_Z<part><part>",
                "_ZN3c105Error<part>E<part>",
                "_ZN2at<part><part>",
                "PyModule_Create2",
            ),
            *(
                "PyObject_<part>",
                "Py_<part>",
                "_Py_NoneStruct",
                "PyType_GetSlot",
                "PyUnicode_AsUTF8",
            ),
        ),
    },
    "symbol",
)
