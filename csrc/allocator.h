// A CPU allocator that keeps freed tensors' memory for the next ones of their size. The C library hands large blocks
// back to the kernel, which then zeroes them page by page for every activation of every step.
#pragma once

#include <cstddef>

namespace rdpp {

// While one of these lives, tensors that this thread makes on the CPU have such memory. Those of other threads, and of
// a program that uses libtorch beside this library, have libtorch's own.
class CachedAllocations {
public:
  CachedAllocations();
  ~CachedAllocations();
  CachedAllocations(const CachedAllocations &) = delete;
  CachedAllocations &operator=(const CachedAllocations &) = delete;

private:
  bool outer_;
};

// Gives what is kept for allocations to come back to the system, after a large tensor went for good.
void return_memory();

// Bytes of the large blocks, of 128 KiB and more, that tensors have now.
size_t memory_in_use();

} // namespace rdpp
