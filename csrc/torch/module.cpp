// `import flashinfer._C`: loading the file registers the ops, and build_info() says what was built.
// Only Python's stable ABI, so one file serves every CPython from 3.8 on.
#if __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#else
#include <torch/version.h>
#endif

#include <string>

#include "flashinfer/api.h"
#include "python_abi.h"

#ifndef FLASHINFER_VERSION
#error "define FLASHINFER_VERSION: the public version, as a string"
#endif
#ifndef FLASHINFER_VARIANT
#error "define FLASHINFER_VARIANT: the variant id, such as \"cu130_torch213\", as a string"
#endif

#define FI_STR2(x) #x
#define FI_STR(x) FI_STR2(x)

// Read from the file by `verify`, without loading it. The torch version and the C++ ABI are those
// of the headers and macros that this very compilation used.
extern "C" __attribute__((visibility("default"), used, section("flashinfer_info")))
const char flashinfer_binding_info[] =
    "component=binding\n"
    "version=" FLASHINFER_VERSION "\n"
    "torch=" FI_STR(TORCH_VERSION_MAJOR) "." FI_STR(TORCH_VERSION_MINOR) "\n"
    "cxx11_abi=" FI_STR(_GLIBCXX_USE_CXX11_ABI) "\n"
    "variant=" FLASHINFER_VARIANT "\n"
    "cxx=gcc " FI_STR(__GNUC__) "." FI_STR(__GNUC_MINOR__) "\n";

namespace {

PyObject* build_info(PyObject*, PyObject*) {
  return Py_BuildValue("(ss)", flashinfer_binding_info, fi_build_info());
}

PyMethodDef methods[] = {
    {"build_info", build_info, kMethodWithoutArguments,
     "The build information of the binding and of libflashinfer, as two texts of key=value lines."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {
    {1, nullptr}, nullptr, 0,
    nullptr,      "_C",    "The torch binding of FlashInfer; see flashinfer._ops.",
    -1,  // no state of its own, and not for subinterpreters
    methods,      nullptr, nullptr,
    nullptr,      nullptr};

}  // namespace

extern "C" __attribute__((visibility("default"))) PyObject* PyInit__C(void) {
  return PyModule_Create2(&module, kPythonAbiVersion);
}
