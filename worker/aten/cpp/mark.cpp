// Moments in a device's own time.

#include "shim.h"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <memory>

using r2o::guarded;

extern "C" {

char* r2o_aten_mark(int device_index, c10::Event** out) {
  return guarded([&] {
    constexpr auto type = c10::DeviceType::CUDA;
    const c10::impl::VirtualGuardImpl backend(type);
    // BACKEND_DEFAULT events keep the time.
    auto event = std::make_unique<c10::Event>(type, c10::EventFlag::BACKEND_DEFAULT);
    event->record(backend.getStream(c10::Device(type, static_cast<c10::DeviceIndex>(device_index))));
    *out = event.release();
  });
}

char* r2o_aten_mark_wait(const c10::Event* mark) {
  return guarded([&] { mark->synchronize(); });
}

char* r2o_aten_mark_milliseconds(const c10::Event* from, const c10::Event* to, double* out) {
  return guarded([&] { *out = from->elapsedTime(*to); });
}

void r2o_aten_mark_drop(c10::Event* mark) { delete mark; }
}
