// The build information of a CUDA build, compiled by nvcc; see build_info.inc.
#include "../build_info.inc"
