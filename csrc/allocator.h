// A CPU allocator that keeps freed tensors' memory for the next ones of their size. The C library hands large blocks
// back to the kernel, which then zeroes them page by page for every activation of every step.
#pragma once

namespace rdpp {

// Makes it libtorch's CPU allocator, once per process. Tensors made before keep theirs.
void install_caching_allocator();

} // namespace rdpp
