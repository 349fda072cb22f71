// The one method that ProcessGroupGloo.hpp calls inline. The class lives in libtorch_cpu and is held by pointer only.
#pragma once
#include <chrono>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
}  // namespace gloo
