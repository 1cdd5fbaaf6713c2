// A libcuda.so.1 that says what FAKED_DRIVER tells it to, for the doctor's tests:
//   <version>/<code of cuInit>/<name>,<major>,<minor>,<GiB>/<name>,...
// such as 13000/0/NVIDIA H200,9,0,140. A version of "crash" ends the process.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  char name[128];
  int major, minor;
  size_t gib;
} Gpu;

static int version, init_code, count;
static Gpu gpus[8];

__attribute__((constructor)) static void read_told(void) {
  char told[1024] = "";
  const char* given = getenv("FAKED_DRIVER");
  if (given == NULL) return;
  snprintf(told, sizeof(told), "%s", given);
  if (strncmp(told, "crash", 5) == 0) abort();
  char* left = NULL;
  char* part = strtok_r(told, "/", &left);
  version = part ? atoi(part) : 0;
  part = strtok_r(NULL, "/", &left);
  init_code = part ? atoi(part) : 0;
  while ((part = strtok_r(NULL, "/", &left)) != NULL) {
    Gpu* gpu = &gpus[count++];
    sscanf(part, "%127[^,],%d,%d,%zu", gpu->name, &gpu->major, &gpu->minor, &gpu->gib);
  }
}

int cuDriverGetVersion(int* out) {
  *out = version;
  return 0;
}
int cuInit(unsigned flags) { return flags != 0 ? 1 : init_code; }
int cuDeviceGetCount(int* out) {
  *out = count;
  return 0;
}
int cuDeviceGet(int* device, int index) {
  *device = 7 + index;  // a device is no index
  return index < 0 || index >= count ? 101 : 0;
}
int cuDeviceGetName(char* name, int size, int device) {
  snprintf(name, (size_t)size, "%s", gpus[device - 7].name);
  return 0;
}
int cuDeviceGetAttribute(int* out, int attribute, int device) {
  const Gpu* gpu = &gpus[device - 7];
  if (attribute != 75 && attribute != 76) return 1;
  *out = attribute == 75 ? gpu->major : gpu->minor;
  return 0;
}
int cuDeviceTotalMem_v2(size_t* out, int device) {
  *out = gpus[device - 7].gib << 30;
  return 0;
}
int cuGetErrorName(int code, const char** out) {
  *out = code == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : NULL;
  return code == 803 ? 0 : 1;
}
int cuGetErrorString(int code, const char** out) {
  *out = code == 803 ? "system has unsupported display driver / cuda driver combination" : NULL;
  return code == 803 ? 0 : 1;
}
