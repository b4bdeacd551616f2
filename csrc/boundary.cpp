#include "boundary.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

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

char out_of_memory[] = "out of memory"; // the message where there is none for a message; never freed

// One line without libtorch's stack trace.
char *message(const char *what) noexcept {
  const char *trace = strstr(what, "\nException raised from");
  size_t n = trace ? static_cast<size_t>(trace - what) : strlen(what);
  char *text = static_cast<char *>(malloc(n + 1));
  if (!text) return out_of_memory;
  for (size_t i = 0; i < n; i++) text[i] = what[i] == '\n' ? ' ' : what[i];
  text[n] = 0;
  return text;
}

} // namespace

void want_threads(int32_t n) { wanted_threads = n; }

void enter() {
  int32_t threads = wanted_threads.load(std::memory_order_relaxed);
  thread_local int32_t applied = 0;
  if (threads == applied) return;
  at::set_num_threads(applied = threads);
#ifdef _OPENMP
  omp_set_num_threads(threads); // libtorch may have brought an OpenMP library of its own
#endif
}

rdpp_error failure() noexcept {
  try {
    throw;
  } catch (const c10::Error &e) {
    return message(e.what_without_backtrace());
  } catch (const std::exception &e) {
    return message(e.what());
  } catch (...) {
    return message("an unknown C++ exception");
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
    throw std::invalid_argument("CUDA device " + std::to_string(device) + " does not exist, libtorch sees " +
                                std::to_string(count) + "; use the CPU, or a CUDA libtorch on a machine with a GPU");
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

void rdpp_string_free(char *s) {
  if (s != rdpp::out_of_memory) free(s);
}
