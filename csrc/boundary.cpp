#include "boundary.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <system_error>

#include "signals.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace rdpp {

using torch::Tensor;

namespace {

// Runs when libtorch and all that it brings have been initialised.
__attribute__((constructor)) void restore_signals() { rdpp_restore_signals(); }

std::atomic<int32_t> wanted_threads{0}; // 0: libtorch's own choice

// The error where there is no memory for an error; never freed.
constexpr rdpp_failure no_memory{RDPP_OUT_OF_MEMORY, "out of memory"};

// One line without libtorch's stack trace.
rdpp_error error(int32_t code, const char *what) noexcept {
  const char *trace = strstr(what, "\nException raised from");
  size_t n = trace ? static_cast<size_t>(trace - what) : strlen(what);
  auto *memory = static_cast<char *>(malloc(sizeof(rdpp_failure) + n + 1));
  if (!memory) return &no_memory;
  char *text = memory + sizeof(rdpp_failure);
  for (size_t i = 0; i < n; i++) text[i] = what[i] == '\n' ? ' ' : what[i];
  text[n] = 0;
  return new (memory) rdpp_failure{code, text};
}

// The kind of an error whose type is none of its own in every libtorch, by the words that libtorch has for it.
int32_t code_of(const char *what) noexcept {
  static const struct {
    const char *words;
    int32_t code;
  } known[] = {
      {"INTERNAL ASSERT FAILED", RDPP_INTERNAL},
      {"DefaultCPUAllocator", RDPP_OUT_OF_MEMORY},
      {"out of memory", RDPP_OUT_OF_MEMORY},
      {"CUBLAS_STATUS_ALLOC_FAILED", RDPP_OUT_OF_MEMORY},
      {"CUDNN_STATUS_ALLOC_FAILED", RDPP_OUT_OF_MEMORY},
      {"CUBLAS_STATUS_NOT_SUPPORTED", RDPP_UNSUPPORTED},
      {"CUDNN_STATUS_NOT_SUPPORTED", RDPP_UNSUPPORTED},
      {"no kernel image is available", RDPP_UNSUPPORTED}, // for a GPU of this age
      {"CUDA error", RDPP_DEVICE_FAILED},
      {"CUDA driver", RDPP_DEVICE_FAILED},
      {"cuDNN error", RDPP_DEVICE_FAILED},
      {"NVIDIA driver", RDPP_DEVICE_FAILED},
      {"CUDA GPUs are available", RDPP_DEVICE_FAILED},
      {"not implemented for", RDPP_UNSUPPORTED},
      {"deterministic implementation", RDPP_UNSUPPORTED},
      {"not compiled with", RDPP_UNSUPPORTED},
      {"not linked with support", RDPP_UNSUPPORTED},
  };
  for (auto &k : known) {
    if (strstr(what, k.words)) return k.code;
  }
  return RDPP_BAD_ARGUMENT; // what TORCH_CHECK is for
}

} // namespace

void want_threads(int32_t n) { wanted_threads = n; }

void set_threads() {
  int32_t threads = wanted_threads.load(std::memory_order_relaxed);
  thread_local int32_t applied = 0;
  if (threads != applied) {
    // A thread's first question about it takes over what any other thread has set last, instead of what is set here.
    at::get_num_threads();
    at::set_num_threads(applied = threads);
#ifdef _OPENMP
    omp_set_num_threads(threads); // libtorch may have brought an OpenMP library of its own
#endif
  }
}

std::shared_mutex &recording() {
  static auto *mutex = new std::shared_mutex; // outlives every predictor
  return *mutex;
}

rdpp_error failure() noexcept {
  try {
    throw;
  } catch (const Error &e) {
    return error(e.code, e.what());
  } catch (const c10::OutOfMemoryError &e) {
    return error(RDPP_OUT_OF_MEMORY, e.what_without_backtrace());
  } catch (const c10::NotImplementedError &e) {
    return error(RDPP_UNSUPPORTED, e.what_without_backtrace());
  } catch (const c10::Error &e) {
    return error(code_of(e.what_without_backtrace()), e.what_without_backtrace());
  } catch (const std::bad_alloc &e) {
    return error(RDPP_OUT_OF_MEMORY, "out of memory");
  } catch (const std::system_error &e) {
    return error(e.code() == std::errc::not_enough_memory ? RDPP_OUT_OF_MEMORY : RDPP_INTERNAL, e.what());
  } catch (const std::logic_error &e) { // invalid_argument, out_of_range and length_error
    return error(RDPP_BAD_ARGUMENT, e.what());
  } catch (const std::exception &e) {
    return error(RDPP_INTERNAL, e.what());
  } catch (...) {
    return error(RDPP_INTERNAL, "an unknown C++ exception");
  }
}

const Tensor &at_tensor(rdpp_tensor t) {
  if (!t) throw std::invalid_argument("a tensor handle is NULL or closed");
  return *static_cast<Tensor *>(t);
}

torch::Device at_device(int32_t device) {
  if (device == RDPP_CPU) return torch::kCPU;
  int32_t count = static_cast<int32_t>(torch::cuda::device_count());
  if (device < 0 || device >= count) {
    throw Error(RDPP_DEVICE_FAILED, "CUDA device " + std::to_string(device) + " does not exist, libtorch sees " +
                                        std::to_string(count) +
                                        "; use the CPU, or a CUDA libtorch on a machine with a GPU");
  }
  return torch::Device(torch::kCUDA, static_cast<torch::DeviceIndex>(device));
}

torch::Dtype at_dtype(int32_t dtype) {
  switch (dtype) {
  case RDPP_UINT8:
  case RDPP_INT64:
  case RDPP_FLOAT16:
  case RDPP_FLOAT32:
  case RDPP_FLOAT64:
  case RDPP_BFLOAT16:
    return static_cast<torch::Dtype>(dtype);
  }
  throw std::invalid_argument("unknown element type " + std::to_string(dtype));
}

Features features(const rdpp_tensor x[kScales]) {
  Features f;
  for (int k = 0; k < kScales; k++) f[k] = at_tensor(x[k]);
  return f;
}

rdpp_tensor handle(Tensor t) { return new Tensor(std::move(t)); }

Made make(const Features &f) {
  Made made;
  for (int k = 0; k < kScales; k++) made[k] = std::make_unique<Tensor>(f[k]);
  return made;
}

void give(Made made, rdpp_tensor out[kScales]) {
  for (int k = 0; k < kScales; k++) out[k] = made[k].release();
}

void give(const Features &f, rdpp_tensor out[kScales]) { give(make(f), out); }

} // namespace rdpp

void rdpp_error_free(rdpp_error e) {
  if (e != &rdpp::no_memory) free(const_cast<rdpp_failure *>(e));
}
