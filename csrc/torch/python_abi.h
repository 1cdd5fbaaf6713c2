// The few declarations of CPython's stable ABI that a module needs to exist.
//
// By hand, because Python.h comes with Python's development files, which a machine that only runs
// Python does not have. The layouts are fixed for every CPython from 3.2 on: PEP 384 and "Stable
// Application Binary Interfaces" in the C API manual.
#ifndef FLASHINFER_TORCH_PYTHON_ABI_H_
#define FLASHINFER_TORCH_PYTHON_ABI_H_

#include <cstdint>

extern "C" {

struct PyObject {
  intptr_t reference_count;
  void* type;
};

struct PyMethodDef {
  const char* name;
  PyObject* (*function)(PyObject* self, PyObject* arguments);
  int flags;
  const char* doc;
};

struct PyModuleDef {
  PyObject head;
  PyObject* (*init)(void);
  intptr_t index;
  PyObject* copy;
  const char* name;
  const char* doc;
  intptr_t state_size;
  PyMethodDef* methods;
  void* slots;
  void* traverse;
  void* clear;
  void* free;
};

// The interpreter provides these when it loads the file. Weak, they do not stop a link that refuses
// undefined symbols.
__attribute__((weak)) PyObject* PyModule_Create2(PyModuleDef* definition, int abi_version);
__attribute__((weak)) PyObject* Py_BuildValue(const char* format, ...);

}  // extern "C"

constexpr int kPythonAbiVersion = 3;        // PYTHON_ABI_VERSION of modules with the stable ABI
constexpr int kMethodWithoutArguments = 4;  // METH_NOARGS

#endif  // FLASHINFER_TORCH_PYTHON_ABI_H_
