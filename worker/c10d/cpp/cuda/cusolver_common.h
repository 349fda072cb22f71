// libtorch's headers name these types and this program never uses them: opaque, so that no wheel is needed for them.
#pragma once

enum cusolverStatus_t : int;
