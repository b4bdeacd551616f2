// The library, its devices, and what it sets in its process.
#include "process.h"

#include "allocator.h"
#include "boundary.h"
#include "contention.h"

#include <cstdlib>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#ifdef RDPP_CUDA
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#endif

// oneDNN's, where libtorch's is a library of its own; else NULL.
extern "C" {
__attribute__((weak)) int dnnl_set_primitive_cache_capacity(int capacity);
__attribute__((weak)) int dnnl_get_primitive_cache_capacity(int *capacity);
}

namespace rdpp {

namespace {

constexpr int32_t kMostThreads = 1024; // OpenMP would start any number, and die of it

void allow_tf32(bool yes) {
  at::globalContext().setAllowTF32CuBLAS(yes);
  at::globalContext().setAllowTF32CuDNN(yes);
}

// oneDNN 2.6 now and then computes wrong numbers once its cache of primitives is full and drops some.
void enlarge_cache() {
  constexpr int kPrimitives = 65536;
  if (dnnl_set_primitive_cache_capacity) {
    int now = 0;
    if (dnnl_get_primitive_cache_capacity(&now) != 0 || now < kPrimitives) {
      dnnl_set_primitive_cache_capacity(kPrimitives);
    }
    return;
  }
  // A oneDNN inside of libtorch reads these when it is first used.
  setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "65536", /*overwrite=*/1);
  setenv("DNNL_PRIMITIVE_CACHE_CAPACITY", "65536", /*overwrite=*/1);
}

// libtorch's own default allows TF32 in convolutions.
void set_cuda_defaults() {
  static const bool done = [] {
    allow_tf32(false);
    at::globalContext().setBenchmarkCuDNN(true);
    return true;
  }();
  (void)done;
}

} // namespace

void prepare_process(const torch::Device &device) {
  static const bool done = [] {
    enlarge_cache();
    return true;
  }();
  (void)done;
  if (device.is_cuda()) set_cuda_defaults();
}

} // namespace rdpp

using namespace rdpp;

const char RDPP_INTERFACE = 0;

rdpp_error rdpp_libtorch_version(const char **version) {
  return asked([&] { *version = TORCH_VERSION; });
}

rdpp_error rdpp_cuda_device_count(int32_t *count) {
  return asked([&] { *count = torch::cuda::is_available() ? static_cast<int32_t>(torch::cuda::device_count()) : 0; });
}

rdpp_error rdpp_has_bfloat16(int32_t device, int32_t *yes) {
  return asked([&] {
    [[maybe_unused]] torch::Device where = at_device(device);
    bool has = false;
#ifdef RDPP_CUDA
    if (where.is_cuda()) has = at::cuda::getDeviceProperties(where.index())->major >= 8;
#endif
#if defined(__x86_64__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (where.is_cpu() && __builtin_cpu_supports("avx512bw") && __get_cpuid_count(7, 0, &a, &b, &c, &d)) {
      has = d >> 22 & 1; // AMX-BF16
      if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) has |= a >> 5 & 1;
    }
#endif
    *yes = has;
  });
}

rdpp_error rdpp_set_threads(int32_t n) {
  return asked([&] {
    if (n < 1 || n > kMostThreads) {
      throw std::invalid_argument("threads must be 1 to " + std::to_string(kMostThreads) + ", got " +
                                  std::to_string(n));
    }
    want_threads(n);
  });
}

rdpp_error rdpp_contended(int32_t *yes) {
  return asked([&] { *yes = contended(); });
}

rdpp_error rdpp_set_arithmetic(int32_t tf32, int32_t deterministic) {
  return asked([&] {
    set_cuda_defaults();
    allow_tf32(tf32 != 0);
    at::Context &context = at::globalContext();
    if (deterministic) setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0); // cuBLAS reads it at its start
    context.setDeterministicAlgorithms(deterministic != 0, /*warn_only=*/false);
    context.setDeterministicCuDNN(deterministic != 0);
    context.setBenchmarkCuDNN(deterministic == 0);
  });
}

rdpp_error rdpp_device_memory(int32_t device, int64_t *used, int64_t *peak) {
  return asked([&] {
    int64_t now = 0, most = 0;
    if (at_device(device).is_cuda()) {
#ifdef RDPP_CUDA
      auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
      auto &bytes = stats.allocated_bytes[0]; // [0]: all pools together
      now = bytes.current, most = bytes.peak;
#else
      throw Error(RDPP_UNSUPPORTED, "this build cannot read device memory; build against a CUDA libtorch");
#endif
    }
    *used = now, *peak = most;
  });
}

rdpp_error rdpp_host_memory(int64_t *bytes) {
  return asked([&] { *bytes = static_cast<int64_t>(memory_in_use()); });
}
