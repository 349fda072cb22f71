// A backend that can be aborted though its collectives hang.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

namespace r2o_c10d {

// All-reduce, broadcast, all-gather and barrier of `inner`. After `abort()` everything that waits for them wakes with an
// error at once.
c10::intrusive_ptr<c10d::Backend> make_abortable(c10::intrusive_ptr<c10d::Backend> inner);

}  // namespace r2o_c10d
