// c10d::Store over a Rust trait object.

#include "shim.h"

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <memory>
#include <utility>
#include <vector>

namespace r2o_c10d {

char* message(const char* text) noexcept { return strdup(text); }

namespace {

using Millis = std::chrono::milliseconds;

// Throws what Rust answered.
void check(char* error) {
  if (error == nullptr) return;
  std::string text(error);
  r2o_c10d_free(error);
  C10_THROW_ERROR(DistStoreError, text);
}

class RustStore final : public c10d::Store {
 public:
  RustStore(std::shared_ptr<void> handle, Millis timeout) : c10d::Store(timeout), handle_(std::move(handle)) {}

  c10::intrusive_ptr<c10d::Store> clone() override { return c10::make_intrusive<RustStore>(handle_, timeout_); }

  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    check(r2o_store_set(handle_.get(), key.data(), key.size(), value.data(), value.size()));
  }

  std::vector<uint8_t> compareSet(const std::string& key, const std::vector<uint8_t>& expected,
                                  const std::vector<uint8_t>& desired) override {
    std::vector<uint8_t> out;
    check(r2o_store_compare_set(handle_.get(), key.data(), key.size(), expected.data(), expected.size(),
                                desired.data(), desired.size(), &out));
    return out;
  }

  std::vector<uint8_t> get(const std::string& key) override { return get_within(key, timeout_); }

  int64_t add(const std::string& key, int64_t value) override {
    int64_t out = 0;
    check(r2o_store_add(handle_.get(), key.data(), key.size(), value, &out));
    return out;
  }

  bool deleteKey(const std::string& key) override {
    bool out = false;
    check(r2o_store_delete(handle_.get(), key.data(), key.size(), &out));
    return out;
  }

  bool check(const std::vector<std::string>& keys) override {
    std::vector<const char*> data;
    std::vector<size_t> lens;
    for (const auto& key : keys) {
      data.push_back(key.data());
      lens.push_back(key.size());
    }
    bool out = false;
    r2o_c10d::check(r2o_store_check(handle_.get(), data.data(), lens.data(), keys.size(), &out));
    return out;
  }

  int64_t getNumKeys() override { C10_THROW_ERROR(NotImplementedError, "the rendezvous store does not count its keys"); }

  void wait(const std::vector<std::string>& keys) override { wait(keys, timeout_); }

  void wait(const std::vector<std::string>& keys, const Millis& timeout) override {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (const auto& key : keys) {
      const auto left = std::chrono::duration_cast<Millis>(deadline - std::chrono::steady_clock::now());
      get_within(key, std::max(left, Millis(1)));
    }
  }

 private:
  // Named alike in the namespace: the member `check` hides it.
  static void check(char* error) { r2o_c10d::check(error); }

  std::vector<uint8_t> get_within(const std::string& key, Millis timeout) {
    std::vector<uint8_t> out;
    check(r2o_store_get(handle_.get(), key.data(), key.size(), timeout.count(), &out));
    return out;
  }

  std::shared_ptr<void> handle_;
};

}  // namespace

c10::intrusive_ptr<c10d::Store> make_store(void* store, int64_t timeout_ms) {
  return c10::make_intrusive<RustStore>(std::shared_ptr<void>(store, r2o_store_drop), Millis(timeout_ms));
}

}  // namespace r2o_c10d

extern "C" {

void r2o_c10d_free(char* text) { free(text); }

char* r2o_c10d_message(const char* text, size_t len) { return strndup(text, len); }

void r2o_c10d_bytes(void* out_bytes, const uint8_t* data, size_t len) {
  static_cast<std::vector<uint8_t>*>(out_bytes)->assign(data, data + len);
}
}
