// A cache of large blocks in front of the C library's allocator. A step allocates and frees the same sizes over and over;
// without a cache each large tensor is mapped, zeroed page by page, and unmapped again.

#include "shim.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <sys/mman.h>

#include <cstdlib>
#include <mutex>
#include <new>

namespace {

constexpr size_t kAlign = 64;
constexpr size_t kHuge = 2 << 20;
// Smaller blocks stay with the C library, which keeps them.
constexpr size_t kSmall = 64 << 10;
constexpr size_t kClasses = 64 * 8;

// Before each block's first byte.
struct alignas(kAlign) Header {
  size_t bytes;  // of the whole block, header included
  size_t number;  // its class; kClasses: not cached
};

// Eight classes per power of two: at most an eighth of a block is wasted.
size_t class_of(size_t bytes, size_t* rounded) {
  const int top = 63 - __builtin_clzll(bytes);
  const size_t step = size_t{1} << (top - 3);
  *rounded = (bytes + step - 1) / step * step;
  const int rounded_top = 63 - __builtin_clzll(*rounded);
  return rounded_top * 8 + ((*rounded >> (rounded_top - 3)) & 7);
}

class CachingAllocator final : public c10::Allocator {
 public:
  explicit CachingAllocator(size_t limit) : limit_(limit) {}

  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes == 0 ? nullptr : take(bytes);
    return {data, data, &CachingAllocator::release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &CachingAllocator::release; }

  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }

  static CachingAllocator* instance;

 private:
  void* take(size_t bytes) {
    size_t whole = bytes + sizeof(Header), number = kClasses;
    if (bytes >= kSmall) {
      number = class_of(whole, &whole);
      std::lock_guard<std::mutex> lock(mutex_);
      auto& list = free_[number];
      if (!list.empty()) {
        Header* header = list.back();
        list.pop_back();
        cached_ -= header->bytes;
        return header + 1;
      }
    }
    const size_t align = whole >= 2 * kHuge ? kHuge : kAlign;
    void* block = nullptr;
    if (posix_memalign(&block, align, whole) != 0) throw std::bad_alloc();
    if (align == kHuge) madvise(block, whole, MADV_HUGEPAGE);
    return new (block) Header{whole, number} + 1;
  }

  static void release(void* data) {
    if (data == nullptr) return;
    Header* header = static_cast<Header*>(data) - 1;
    if (header->number != kClasses) {
      std::lock_guard<std::mutex> lock(instance->mutex_);
      if (instance->cached_ + header->bytes <= instance->limit_) {
        instance->cached_ += header->bytes;
        instance->free_[header->number].push_back(header);
        return;
      }
    }
    std::free(header);
  }

  std::mutex mutex_;
  std::vector<Header*> free_[kClasses];
  size_t cached_ = 0;
  size_t limit_;
};

CachingAllocator* CachingAllocator::instance = nullptr;

}  // namespace

extern "C" char* r2o_aten_cache_memory(size_t limit) {
  return r2o::guarded([&] {
    static std::once_flag once;
    std::call_once(once, [&] {
      // Never destroyed: tensors may outlive every static object.
      CachingAllocator::instance = new CachingAllocator(limit);
      c10::SetCPUAllocator(CachingAllocator::instance, /*priority=*/100);
    });
  });
}
