#include "allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

namespace rdpp {

namespace {

constexpr size_t kAlignment = 64;   // of small blocks, as libtorch's own
constexpr size_t kPage = 1 << 21;   // of large ones, a huge page
constexpr size_t kUnit = 128 << 10; // of those between: the C library would return them to the system again and again
constexpr size_t kSlack = 64 << 20; // bytes cached that are never worth giving back

// Blocks that are free, by size. Freed ones are kept as long as all blocks together take no more than twice the most
// that was ever in use at once: the sizes' own peaks come at different times.
class Cache {
public:
  void *take(size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    void *block = nullptr;
    auto found = free_.find(size);
    if (found != free_.end() && !found->second.empty()) {
      block = found->second.back();
      found->second.pop_back();
      cached_ -= size;
    } else {
      size_t alignment = size >= kPage ? kPage : kAlignment;
      block = std::aligned_alloc(alignment, size);
      if (!block) {
        drop(); // what is cached in other sizes may make room
        block = std::aligned_alloc(alignment, size);
      }
      if (!block) throw std::bad_alloc();
      if (size >= kPage) madvise(block, size, MADV_HUGEPAGE); // only advice: an error changes nothing
    }
    try {
      live_[block] = size;
    } catch (...) {
      std::free(block);
      throw;
    }
    used_ += size;
    peak_ = std::max(peak_, used_);
    return block;
  }

  // Takes back what `take` gave; false for any other memory.
  bool give(void *block) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = live_.find(block);
    if (found == live_.end()) return false;
    size_t size = found->second;
    live_.erase(found);
    used_ -= size;
    if (used_ == 0) { // the last network is gone
      std::free(block);
      drop();
      peak_ = 0;
      return true;
    }
    try {
      free_[size].push_back(block);
    } catch (...) { // no memory to remember it by
      std::free(block);
      return true;
    }
    cached_ += size;
    if (used_ + cached_ > 2 * peak_ + kSlack) drop();
    return true;
  }

  size_t used() {
    std::lock_guard<std::mutex> lock(mutex_);
    return used_;
  }

  void trim() {
    std::lock_guard<std::mutex> lock(mutex_);
    drop();
    peak_ = used_;
  }

private:
  void drop() {
    for (auto &[size, blocks] : free_) {
      for (void *block : blocks) std::free(block);
    }
    free_.clear();
    cached_ = 0;
  }

  std::mutex mutex_;
  std::map<size_t, std::vector<void *>> free_;
  std::unordered_map<void *, size_t> live_;
  size_t used_ = 0, cached_ = 0, peak_ = 0;
};

Cache &cache() {
  static Cache *instance = new Cache; // outlives every tensor
  return *instance;
}

// Sizes are rounded up to whole units or huge pages: one class holds all tensors of a shape, and on average half a unit
// or page of each block is unused.
size_t rounded(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

void release(void *data) {
  if (!cache().give(data)) std::free(data);
}

thread_local bool cached = false; // see CachedAllocations

c10::DataPtr make(size_t n, c10::Allocator *other) {
  if (!cached) return other->allocate(n);
  void *data = nullptr;
  if (n >= kUnit) {
    data = cache().take(rounded(n, n >= kPage ? kPage : kUnit));
  } else if (n > 0) {
    data = std::aligned_alloc(kAlignment, rounded(n, kAlignment));
    if (!data) throw std::bad_alloc();
  }
  return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
}

// libtorch's interface differs between versions: without `override` each function overrides what is there.
class CachingAllocator final : public c10::Allocator {
public:
  explicit CachingAllocator(c10::Allocator *other) : other_(other) {}
  c10::DataPtr allocate(size_t n) const { return make(n, other_); }
  c10::DataPtr allocate(size_t n) { return make(n, other_); }
  c10::DeleterFnPtr raw_deleter() const { return &release; }
  void copy_data(void *dest, const void *src, size_t count) const { std::memcpy(dest, src, count); }

private:
  c10::Allocator *other_; // of what is not cached
};

void install() {
  static const bool installed = [] {
    c10::SetCPUAllocator(new CachingAllocator(c10::GetCPUAllocator()), /*priority=*/1); // libtorch keeps it for ever
    return true;
  }();
  (void)installed;
}

} // namespace

void return_memory() {
  cache().trim();
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

size_t memory_in_use() { return cache().used(); }

CachedAllocations::CachedAllocations() : outer_(cached) {
  install();
  cached = true;
}

CachedAllocations::~CachedAllocations() { cached = outer_; }

} // namespace rdpp
