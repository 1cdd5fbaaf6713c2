// The build information of a CPU build; see build_info.inc.
#include "build_info.inc"
