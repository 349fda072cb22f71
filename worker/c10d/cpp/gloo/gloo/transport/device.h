// Held by pointer only; made by ProcessGroupGloo::createDeviceFor*.
#pragma once

namespace gloo::transport {
class Device;
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};
}  // namespace gloo::transport
