// The C boundary: converts handles, turns every C++ error into a message, and nothing else.
#include "rdpp.h"

#include <torch/torch.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "adam.h"
#include "allocator.h"
#include "coreset.h"
#include "losses.h"
#include "networks.h"
#include "patchcore.h"
#include "predict.h"
#include "script.h"
#include "signals.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#ifdef RDPP_CUDA
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#endif

using rdpp::Features;
using rdpp::kScales;
using torch::Tensor;

namespace {

// Runs when libtorch and all that it brings have been initialised.
__attribute__((constructor)) void restore_signals() { rdpp_restore_signals(); }

// No two states of networks in a process share a version.
uint64_t next_version() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

} // namespace

struct rdpp_module {
  int32_t kind;
  bool trainable;
  std::shared_ptr<torch::nn::Module> net;
  struct Entry {
    std::string name;
    Tensor tensor;
    bool trainable;
  };
  std::vector<Entry> state;
  uint64_t version = next_version();          // another one whenever the network is prepared for prediction
  std::unique_ptr<rdpp::Predictor> predictor; // of a student
};

struct rdpp_adam {
  rdpp::Adam adam;
};

struct rdpp_coreset {
  std::vector<Tensor> patches; // N' x D each
  rdpp::Coreset search;
};

namespace {

constexpr int32_t kMostThreads = 1024; // OpenMP would start any number, and die of it

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

// Runs f with this thread set up as rdpp.h promises and turns what it throws into an owned message.
template <class F> rdpp_error guarded(F &&f) noexcept {
  try {
    int32_t threads = wanted_threads.load(std::memory_order_relaxed);
    thread_local int32_t applied = 0;
    if (threads != applied) {
      at::set_num_threads(applied = threads);
#ifdef _OPENMP
      omp_set_num_threads(threads); // libtorch may have brought an OpenMP library of its own
#endif
    }
    torch::AutoGradMode grad(true);
    f();
    return nullptr;
  } catch (const c10::Error &e) {
    return message(e.what_without_backtrace());
  } catch (const std::exception &e) {
    return message(e.what());
  } catch (...) {
    return message("an unknown C++ exception");
  }
}

void set_arithmetic(bool tf32, bool deterministic) {
  at::Context &context = at::globalContext();
  context.setAllowTF32CuBLAS(tf32);
  context.setAllowTF32CuDNN(tf32);
  if (deterministic) setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0); // cuBLAS reads it at its start
  context.setDeterministicAlgorithms(deterministic, /*warn_only=*/false);
  context.setDeterministicCuDNN(deterministic);
  context.setBenchmarkCuDNN(!deterministic);
}

// What libtorch and oneDNN do by default is not all wanted: libtorch's own allows TF32.
void set_arithmetic_once() {
  static const bool done = [] {
    // oneDNN 2.6 now and then computes wrong numbers once its cache of primitives is full and drops some. It reads the
    // size when it is first used, under either name.
    setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "65536", /*overwrite=*/1);
    setenv("DNNL_PRIMITIVE_CACHE_CAPACITY", "65536", /*overwrite=*/1);
    set_arithmetic(false, false);
    return true;
  }();
  (void)done;
}

const Tensor &at_tensor(rdpp_tensor t) {
  if (!t) throw std::invalid_argument("a tensor handle is NULL or closed");
  return *static_cast<Tensor *>(t);
}

template <class T> T &opened(T *object) {
  if (!object) throw std::invalid_argument("a network, an optimiser or a coreset is NULL or closed");
  return *object;
}

template <class Impl> Impl &network(const rdpp_module *m, int32_t wanted) {
  static const char *const names[] = {"teacher", "projection", "bottleneck", "student", "head", "bank"};
  if (opened(m).kind != wanted) {
    throw std::invalid_argument(std::string("a ") + names[wanted] + " is needed, this is a " + names[m->kind]);
  }
  return static_cast<Impl &>(*m->net);
}

rdpp_tensor handle(Tensor t) { return new Tensor(std::move(t)); }

Features features(const rdpp_tensor x[kScales]) {
  Features f;
  for (int k = 0; k < kScales; k++) f[k] = at_tensor(x[k]);
  return f;
}

// Those of the scales that a loss is of: the others are NULL.
Features given(const rdpp_tensor x[kScales]) {
  Features f;
  bool any = false;
  for (int k = 0; k < kScales; k++) {
    if (!x[k]) continue;
    f[k] = at_tensor(x[k]);
    any = true;
  }
  if (!any) throw std::invalid_argument("features of no scale");
  return f;
}

void same_scales(const Features &a, const Features &b) {
  for (int k = 0; k < kScales; k++) {
    if (a[k].defined() != b[k].defined()) throw std::invalid_argument("features are not of the same scales");
  }
}

using Made = std::array<std::unique_ptr<Tensor>, kScales>;

Made make(const Features &f) {
  Made made;
  for (int k = 0; k < kScales; k++) made[k] = std::make_unique<Tensor>(f[k]);
  return made;
}

void give(Made made, rdpp_tensor out[kScales]) {
  for (int k = 0; k < kScales; k++) out[k] = made[k].release();
}

// All K handles or, when memory runs out on the way, none.
void give(const Features &f, rdpp_tensor out[kScales]) { give(make(f), out); }

void give(const rdpp::Judged &judged, rdpp_tensor *loss, rdpp_tensor *accuracy) {
  auto first = std::make_unique<Tensor>(judged.loss);
  *accuracy = handle(judged.accuracy);
  *loss = first.release();
}

rdpp::MapOptions map_options(const rdpp_map_options &options) {
  static_assert(RDPP_TERMS == rdpp::kTerms);
  rdpp::MapOptions o{};
  o.sigma = options.sigma;
  std::copy_n(options.weights, RDPP_TERMS, o.terms.weights.begin());
  std::copy_n(options.levels, RDPP_TERMS, o.terms.levels.begin());
  return o;
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

rdpp::SinkhornOptions at_options(const rdpp_sinkhorn_options &o) {
  return {o.p, o.blur, o.reach, o.diameter, o.scaling, o.debias != 0};
}

std::vector<Tensor> scalars(const rdpp_tensor *terms, int64_t n) {
  if (n < 1) throw std::invalid_argument("no terms");
  std::vector<Tensor> all;
  for (int64_t i = 0; i < n; i++) {
    all.push_back(at_tensor(terms[i]));
    if (all.back().numel() != 1) throw std::invalid_argument("term " + std::to_string(i) + " is no scalar");
  }
  return all;
}

std::shared_ptr<torch::nn::Module> build(int32_t kind, const rdpp::Arch &arch, int32_t flags) {
  switch (kind) {
  case RDPP_TEACHER:
    return std::make_shared<rdpp::TeacherImpl>(arch);
  case RDPP_PROJECTION:
    return std::make_shared<rdpp::ProjectionImpl>(arch, flags & RDPP_COARSEST ? kScales - 1 : 0);
  case RDPP_BOTTLENECK:
    return std::make_shared<rdpp::BottleneckImpl>(arch);
  case RDPP_STUDENT:
    return std::make_shared<rdpp::StudentImpl>(arch);
  }
  throw std::invalid_argument("unknown kind of network " + std::to_string(kind));
}

// The parameters and buffers of m in PyTorch's state-dict order: a module's own first, then its children's.
void collect(torch::nn::Module &m, const std::string &prefix, bool trainable, std::vector<rdpp_module::Entry> &state) {
  for (auto &p : m.named_parameters(false)) state.push_back({prefix + p.key(), p.value(), trainable});
  for (auto &b : m.named_buffers(false)) state.push_back({prefix + b.key(), b.value(), false});
  for (auto &child : m.named_children()) collect(*child.value(), prefix + child.key() + ".", trainable, state);
}

// Module::to would turn the counts of batches into floating-point numbers too.
void set_float_type(torch::nn::Module &m, torch::Dtype dtype) {
  torch::NoGradGuard no_grad;
  for (auto list : {m.parameters(), m.buffers()}) {
    for (Tensor &t : list) {
      if (t.is_floating_point()) t.set_data(t.to(dtype));
    }
  }
}

std::unique_ptr<rdpp_module> finish(int32_t kind, std::shared_ptr<torch::nn::Module> net, int32_t dtype, int32_t device,
                                    uint64_t seed, int32_t flags) {
  set_arithmetic_once();
  auto m = std::make_unique<rdpp_module>();
  m->kind = kind;
  if (kind == RDPP_STUDENT) m->predictor = std::make_unique<rdpp::Predictor>();
  m->net = std::move(net);
  m->trainable = kind != RDPP_TEACHER || (flags & RDPP_TRAINABLE);
  if (!(flags & RDPP_BLANK)) rdpp::initialise(*m->net, seed);
  m->net->to(at_device(device));
  set_float_type(*m->net, at_dtype(dtype));
  if (flags & RDPP_CHANNELS_LAST) rdpp::use_channels_last(*m->net);
  m->net->train(m->trainable);
  for (Tensor &p : m->net->parameters()) p.requires_grad_(m->trainable);
  collect(*m->net, "", m->trainable, m->state);
  return m;
}

Features teach(const rdpp_module *m, const Tensor &x) {
  rdpp::TeacherImpl &teacher = network<rdpp::TeacherImpl>(m, RDPP_TEACHER);
  torch::AutoGradMode grad(torch::GradMode::is_enabled() && m->trainable && m->net->is_training());
  return teacher.forward(x);
}

} // namespace

void rdpp_string_free(char *s) {
  if (s != out_of_memory) free(s);
}

// Library and device

rdpp_error rdpp_libtorch_version(const char **version) {
  return guarded([&] { *version = TORCH_VERSION; });
}

rdpp_error rdpp_cuda_device_count(int32_t *count) {
  return guarded([&] { *count = torch::cuda::is_available() ? static_cast<int32_t>(torch::cuda::device_count()) : 0; });
}

rdpp_error rdpp_has_bfloat16(int32_t device, int32_t *yes) {
  return guarded([&] {
    torch::Device where = at_device(device);
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
  return guarded([&] {
    if (n < 1 || n > kMostThreads) {
      throw std::invalid_argument("threads must be 1 to " + std::to_string(kMostThreads) + ", got " +
                                  std::to_string(n));
    }
    wanted_threads = n;
  });
}

rdpp_error rdpp_set_arithmetic(int32_t tf32, int32_t deterministic) {
  return guarded([&] {
    set_arithmetic_once();
    set_arithmetic(tf32 != 0, deterministic != 0);
  });
}

rdpp_error rdpp_device_memory(int32_t device, int64_t *used, int64_t *peak) {
  return guarded([&] {
    int64_t now = 0, most = 0;
    if (at_device(device).is_cuda()) {
#ifdef RDPP_CUDA
      auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
      auto &bytes = stats.allocated_bytes[0]; // [0]: all pools together
      now = bytes.current, most = bytes.peak;
#else
      throw std::runtime_error("this build cannot read device memory; build against a CUDA libtorch");
#endif
    }
    *used = now, *peak = most;
  });
}

// Tensors

rdpp_error rdpp_tensor_new(int32_t dtype, const void *data, const int64_t *shape, int64_t dims, rdpp_tensor *out) {
  return guarded([&] {
    torch::IntArrayRef sizes(shape, static_cast<size_t>(dims));
    *out = handle(torch::from_blob(const_cast<void *>(data), sizes, at_dtype(dtype)).clone());
  });
}

void rdpp_tensor_free(rdpp_tensor t) { delete static_cast<Tensor *>(t); }

rdpp_error rdpp_tensor_to(rdpp_tensor t, int32_t device, int32_t dtype, rdpp_tensor *out) {
  return guarded([&] { *out = handle(at_tensor(t).to(at_device(device), at_dtype(dtype))); });
}

rdpp_error rdpp_tensor_read(rdpp_tensor t, int32_t dtype, void *dst, int64_t n) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    const Tensor &source = at_tensor(t);
    if (source.numel() != n) {
      throw std::invalid_argument("the tensor holds " + std::to_string(source.numel()) + " elements, not " +
                                  std::to_string(n));
    }
    if (n > 0) torch::from_blob(dst, source.sizes(), at_dtype(dtype)).copy_(source);
  });
}

rdpp_error rdpp_tensor_write(rdpp_tensor t, int32_t dtype, const void *src, int64_t n) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    const Tensor &target = at_tensor(t);
    if (target.numel() != n) {
      throw std::invalid_argument("the tensor holds " + std::to_string(target.numel()) + " elements, not " +
                                  std::to_string(n));
    }
    if (n > 0) target.copy_(torch::from_blob(const_cast<void *>(src), target.sizes(), at_dtype(dtype)));
  });
}

rdpp_error rdpp_tensor_require_grad(rdpp_tensor t) {
  return guarded([&] { at_tensor(t).requires_grad_(); });
}

rdpp_error rdpp_tensor_grad(rdpp_tensor t, rdpp_tensor *out) {
  return guarded([&] {
    const Tensor &grad = at_tensor(t).grad();
    *out = grad.defined() ? handle(grad) : nullptr;
  });
}

rdpp_error rdpp_tensor_set_grad(rdpp_tensor t, rdpp_tensor grad) {
  return guarded([&] {
    const Tensor &target = at_tensor(t);
    Tensor copy;
    if (grad) copy = at_tensor(grad).to(target.options().requires_grad(false), false, /*copy=*/true);
    target.mutable_grad() = copy;
  });
}

rdpp_error rdpp_split(const rdpp_tensor x[RDPP_SCALES], int64_t B, rdpp_tensor head[RDPP_SCALES],
                      rdpp_tensor tail[RDPP_SCALES]) {
  return guarded([&] {
    Features all = features(x), first, rest;
    for (int k = 0; k < kScales; k++) {
      first[k] = all[k].narrow(0, 0, B);
      rest[k] = all[k].narrow(0, B, all[k].size(0) - B);
    }
    Made heads = make(first), tails = make(rest);
    give(std::move(heads), head);
    give(std::move(tails), tail);
  });
}

rdpp_error rdpp_join(const rdpp_tensor head[RDPP_SCALES], const rdpp_tensor tail[RDPP_SCALES],
                     rdpp_tensor x[RDPP_SCALES]) {
  return guarded([&] {
    Features first = features(head), rest = features(tail), all;
    for (int k = 0; k < kScales; k++) all[k] = torch::cat({first[k], rest[k]});
    give(all, x);
  });
}

rdpp_error rdpp_images(const uint8_t *pixels, int64_t B, int64_t S, const float mean[3], const float std[3],
                       int32_t device, int32_t dtype, rdpp_tensor *x) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    rdpp::install_caching_allocator();
    torch::Device to = at_device(device);
    Tensor bytes = torch::from_blob(const_cast<uint8_t *>(pixels), {B, S, S, 3}, torch::kUInt8).to(to);
    auto type = at_dtype(dtype) == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    auto channels = [&](const float v[3]) { return torch::tensor({v[0], v[1], v[2]}).to(to, type); };
    Tensor y = bytes.to(type).div_(255).sub_(channels(mean)).div_(channels(std)); // B x S x S x 3
    *x = handle(y.to(at_dtype(dtype)).permute({0, 3, 1, 2}));
  });
}

// Networks

rdpp_error rdpp_module_new(int32_t kind, const char *arch, int32_t dtype, int32_t device, uint64_t seed, int32_t flags,
                           rdpp_module **out) {
  return guarded([&] {
    rdpp::install_caching_allocator();
    *out = finish(kind, build(kind, rdpp::arch_named(arch), flags), dtype, device, seed, flags).release();
  });
}

rdpp_error rdpp_head_new(int32_t objective, const char *arch, int64_t outputs, int32_t dtype, int32_t device,
                         uint64_t seed, rdpp_module **out) {
  return guarded([&] {
    if (objective < RDPP_CLASS || objective > RDPP_PAIR) throw std::invalid_argument("unknown objective of a head");
    rdpp::install_caching_allocator();
    auto net =
        std::make_shared<rdpp::HeadImpl>(rdpp::arch_named(arch), static_cast<rdpp::Objective>(objective), outputs);
    *out = finish(RDPP_HEAD, net, dtype, device, seed, RDPP_CHANNELS_LAST).release();
  });
}

void rdpp_module_free(rdpp_module *m) { delete m; }

rdpp_error rdpp_module_train(rdpp_module *m, int32_t on) {
  return guarded([&] {
    bool training = on != 0 && opened(m).trainable;
    m->net->train(training);
    rdpp::freeze(*m->net, !training);
    m->version = next_version();
  });
}

rdpp_error rdpp_module_state_len(const rdpp_module *m, int64_t *n) {
  return guarded([&] { *n = static_cast<int64_t>(opened(m).state.size()); });
}

rdpp_error rdpp_module_state(const rdpp_module *m, int64_t i, const char **name, rdpp_tensor *out, int32_t *trainable) {
  return guarded([&] {
    const rdpp_module::Entry &entry = opened(m).state.at(static_cast<size_t>(i));
    *out = handle(entry.tensor);
    *name = entry.name.c_str();
    *trainable = entry.trainable;
  });
}

rdpp_error rdpp_module_average(rdpp_module *into, const rdpp_module *from, double weight) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    std::vector<rdpp_module::Entry> &to = opened(into).state;
    const std::vector<rdpp_module::Entry> &by = opened(from).state;
    if (into->kind != from->kind || to.size() != by.size()) {
      throw std::invalid_argument("networks of two kinds have no average");
    }
    for (size_t i = 0; i < to.size(); i++) {
      TORCH_CHECK(to[i].tensor.sizes() == by[i].tensor.sizes(), to[i].name, " has shapes ", to[i].tensor.sizes(),
                  " and ", by[i].tensor.sizes());
    }
    for (size_t i = 0; i < to.size(); i++) {
      if (to[i].tensor.is_floating_point()) {
        to[i].tensor.lerp_(by[i].tensor, weight);
      } else {
        to[i].tensor.copy_(by[i].tensor);
      }
    }
  });
}

rdpp_error rdpp_teacher_ignore_level(rdpp_module *m, const double std[3]) {
  return guarded([&] {
    network<rdpp::TeacherImpl>(m, RDPP_TEACHER).ignore_level({std[0], std[1], std[2]});
    m->version = next_version();
  });
}

rdpp_error rdpp_teacher(const rdpp_module *m, rdpp_tensor x, rdpp_tensor f[RDPP_SCALES]) {
  return guarded([&] { give(teach(m, at_tensor(x)), f); });
}

rdpp_error rdpp_teacher_pair(const rdpp_module *m, rdpp_tensor clean, rdpp_tensor noisy, rdpp_tensor f[RDPP_SCALES]) {
  return guarded([&] { give(teach(m, torch::cat({at_tensor(clean), at_tensor(noisy)})), f); });
}

rdpp_error rdpp_projection(const rdpp_module *m, const rdpp_tensor f[RDPP_SCALES], rdpp_tensor p[RDPP_SCALES]) {
  return guarded([&] { give(network<rdpp::ProjectionImpl>(m, RDPP_PROJECTION).forward(features(f)), p); });
}

rdpp_error rdpp_bottleneck(const rdpp_module *m, const rdpp_tensor p[RDPP_SCALES], rdpp_tensor *z) {
  return guarded([&] { *z = handle(network<rdpp::BottleneckImpl>(m, RDPP_BOTTLENECK).forward(features(p))); });
}

rdpp_error rdpp_student(const rdpp_module *m, rdpp_tensor z, rdpp_tensor g[RDPP_SCALES]) {
  return guarded([&] { give(network<rdpp::StudentImpl>(m, RDPP_STUDENT).forward(at_tensor(z)), g); });
}

rdpp_error rdpp_head(const rdpp_module *m, int64_t k, rdpp_tensor f_k, rdpp_tensor *y) {
  return guarded([&] { *y = handle(network<rdpp::HeadImpl>(m, RDPP_HEAD).forward(k, at_tensor(f_k))); });
}

// Losses

rdpp_error rdpp_loss_kd(const rdpp_tensor f[RDPP_SCALES], const rdpp_tensor g[RDPP_SCALES], int32_t per_position,
                        double easy_cut, double easy_below, rdpp_tensor *out) {
  return guarded(
      [&] { *out = handle(rdpp::loss_kd(features(f), features(g), per_position != 0, {easy_cut, easy_below})); });
}

rdpp_error rdpp_loss_recon(const rdpp_tensor p_noisy[RDPP_SCALES], const rdpp_tensor p[RDPP_SCALES], rdpp_tensor *out) {
  return guarded([&] {
    Features noisy = given(p_noisy), clean = given(p);
    same_scales(noisy, clean);
    *out = handle(rdpp::loss_recon(noisy, clean));
  });
}

rdpp_error rdpp_loss_contrast(const rdpp_tensor f_noisy[RDPP_SCALES], const rdpp_tensor p[RDPP_SCALES], double margin,
                              rdpp_tensor *out) {
  return guarded([&] {
    Features noisy = given(f_noisy), projected = given(p);
    same_scales(noisy, projected);
    *out = handle(rdpp::loss_contrast(noisy, projected, margin));
  });
}

rdpp_error rdpp_loss_ssot(const rdpp_tensor p[RDPP_SCALES], const int64_t *permutation, int64_t B, int32_t mode,
                          const rdpp_sinkhorn_options *options, rdpp_tensor *out) {
  return guarded([&] {
    if (mode < RDPP_SSOT_PAIRWISE || mode > RDPP_SSOT_OFF) throw std::invalid_argument("unknown mode of L_SSOT");
    Features projected = given(p);
    Tensor rows = torch::from_blob(const_cast<int64_t *>(permutation), {B}, torch::kInt64).clone();
    *out = handle(rdpp::loss_ssot(projected, rows, static_cast<rdpp::Ssot>(mode), at_options(*options)));
  });
}

rdpp_error rdpp_sinkhorn(rdpp_tensor x, rdpp_tensor y, rdpp_tensor a, rdpp_tensor b,
                         const rdpp_sinkhorn_options *options, rdpp_tensor *out) {
  return guarded([&] {
    Tensor none;
    *out = handle(rdpp::sinkhorn(at_tensor(x), at_tensor(y), a ? at_tensor(a) : none, b ? at_tensor(b) : none,
                                 at_options(*options)));
  });
}

rdpp_error rdpp_loss_class(rdpp_tensor logits, const int64_t *labels, int64_t n, double smoothing, rdpp_tensor *loss,
                           rdpp_tensor *accuracy) {
  return guarded([&] {
    Tensor wanted = torch::from_blob(const_cast<int64_t *>(labels), {n}, torch::kInt64).clone();
    give(rdpp::loss_class(at_tensor(logits), wanted, smoothing), loss, accuracy);
  });
}

rdpp_error rdpp_loss_pair(rdpp_tensor z, double temperature, rdpp_tensor *loss, rdpp_tensor *accuracy) {
  return guarded([&] { give(rdpp::loss_pair(at_tensor(z), temperature), loss, accuracy); });
}

rdpp_error rdpp_weighted_sum(const rdpp_tensor *terms, const double *weights, int64_t n, rdpp_tensor *out) {
  return guarded([&] {
    std::vector<Tensor> all = scalars(terms, n);
    Tensor sum = all[0] * weights[0];
    for (int64_t i = 1; i < n; i++) sum = sum + all[i] * weights[i];
    *out = handle(sum);
  });
}

rdpp_error rdpp_sum(rdpp_tensor t, rdpp_tensor *out) {
  return guarded([&] { *out = handle(at_tensor(t).sum()); });
}

rdpp_error rdpp_backward(rdpp_tensor loss) {
  return guarded([&] { at_tensor(loss).backward(); });
}

rdpp_error rdpp_scalars(const rdpp_tensor *terms, int64_t n, double *values) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    std::vector<Tensor> all = scalars(terms, n);
    for (Tensor &t : all) t = t.reshape({}).to(torch::kFloat64);
    torch::from_blob(values, {n}, torch::kFloat64).copy_(torch::stack(all));
  });
}

// Adam

rdpp_error rdpp_adam_new(double beta1, double beta2, double eps, rdpp_adam **out) {
  return guarded([&] { *out = new rdpp_adam{rdpp::Adam(beta1, beta2, eps)}; });
}

void rdpp_adam_free(rdpp_adam *a) { delete a; }

rdpp_error rdpp_adam_add(rdpp_adam *a, const rdpp_module *m, double learning_rate) {
  return guarded([&] {
    std::vector<Tensor> params;
    for (const rdpp_module::Entry &entry : opened(m).state) {
      if (entry.trainable) params.push_back(entry.tensor);
    }
    opened(a).adam.add_group(params, learning_rate);
  });
}

rdpp_error rdpp_adam_set_rate(rdpp_adam *a, int64_t group, double learning_rate) {
  return guarded([&] { opened(a).adam.groups.at(static_cast<size_t>(group)).learning_rate = learning_rate; });
}

rdpp_error rdpp_adam_set_decay(rdpp_adam *a, int64_t group, double weight_decay) {
  return guarded([&] { opened(a).adam.groups.at(static_cast<size_t>(group)).weight_decay = weight_decay; });
}

rdpp_error rdpp_adam_set_clip(rdpp_adam *a, double length) {
  return guarded([&] {
    if (!(length >= 0))
      throw std::invalid_argument("a gradient's length must be 0 or more, got " + std::to_string(length));
    opened(a).adam.clip = length;
  });
}

rdpp_error rdpp_adam_step(rdpp_adam *a) {
  return guarded([&] { opened(a).adam.step(); });
}

rdpp_error rdpp_adam_state(rdpp_adam *a, int64_t group, int64_t i, rdpp_tensor *exp_avg, rdpp_tensor *exp_avg_sq,
                           int64_t *step) {
  return guarded([&] {
    rdpp::Adam::Group &g = opened(a).adam.groups.at(static_cast<size_t>(group));
    size_t at = static_cast<size_t>(i);
    auto first = std::make_unique<Tensor>(g.exp_avg.at(at)), second = std::make_unique<Tensor>(g.exp_avg_sq.at(at));
    *step = g.steps.at(at);
    *exp_avg = first.release();
    *exp_avg_sq = second.release();
  });
}

rdpp_error rdpp_adam_set_step(rdpp_adam *a, int64_t group, int64_t i, int64_t step) {
  return guarded([&] { opened(a).adam.groups.at(static_cast<size_t>(group)).steps.at(static_cast<size_t>(i)) = step; });
}

// Inference

rdpp_error rdpp_anomaly_map(const rdpp_tensor f[RDPP_SCALES], const rdpp_tensor g[RDPP_SCALES], int64_t S,
                            const rdpp_map_options *options, rdpp_tensor *raw, rdpp_tensor *smoothed) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    rdpp::MapOptions o = map_options(*options);
    auto map = std::make_unique<Tensor>(rdpp::anomaly_map(features(f), features(g), S, o.terms));
    *smoothed = handle(rdpp::smooth(*map, o.sigma));
    *raw = map.release();
  });
}

rdpp_error rdpp_predict(const rdpp_module *teacher, const rdpp_module *projection, const rdpp_module *bottleneck,
                        const rdpp_module *student, rdpp_tensor x, const rdpp_map_options *options, rdpp_tensor *map,
                        rdpp_tensor *score) {
  return guarded([&] {
    rdpp::Networks n = {&network<rdpp::TeacherImpl>(teacher, RDPP_TEACHER),
                        projection ? &network<rdpp::ProjectionImpl>(projection, RDPP_PROJECTION) : nullptr,
                        &network<rdpp::BottleneckImpl>(bottleneck, RDPP_BOTTLENECK),
                        &network<rdpp::StudentImpl>(student, RDPP_STUDENT)};
    rdpp::Versions versions = {teacher->version, projection ? projection->version : 0, bottleneck->version,
                               student->version};
    rdpp::Prediction result = student->predictor->run(n, versions, at_tensor(x), map_options(*options));
    auto score_handle = std::make_unique<Tensor>(result.score);
    *map = handle(result.map);
    *score = score_handle.release();
  });
}

// PatchCore

rdpp_error rdpp_patches(const rdpp_tensor f[RDPP_SCALES], int64_t dimensions, rdpp_tensor *patches) {
  return guarded([&] { *patches = handle(rdpp::patches(features(f), dimensions)); });
}

rdpp_error rdpp_coreset_new(const rdpp_tensor *patches, int64_t n, rdpp_tensor signs, const int64_t *start,
                            int64_t n_start, rdpp_coreset **out) {
  return guarded([&] {
    if (n < 1) throw std::invalid_argument("a coreset of no patches");
    std::vector<Tensor> all, points;
    for (int64_t i = 0; i < n; i++) {
      all.push_back(at_tensor(patches[i]).flatten(0, -2));
      points.push_back(signs ? rdpp::project(all.back(), at_tensor(signs)) : all.back().to(torch::kFloat32));
    }
    Tensor joined = torch::cat(points);
    points.clear();
    *out = new rdpp_coreset{all, rdpp::Coreset(joined, {start, start + n_start})};
  });
}

void rdpp_coreset_free(rdpp_coreset *c) { delete c; }

rdpp_error rdpp_coreset_grow(rdpp_coreset *c, int64_t n, int64_t *size) {
  return guarded([&] {
    opened(c).search.grow(n);
    *size = static_cast<int64_t>(c->search.chosen().size());
  });
}

rdpp_error rdpp_coreset_chosen(const rdpp_coreset *c, int64_t size, int64_t *numbers) {
  return guarded([&] {
    std::vector<int64_t> chosen = opened(c).search.chosen();
    if (size != static_cast<int64_t>(chosen.size())) {
      throw std::invalid_argument("the coreset has " + std::to_string(chosen.size()) + " patches, not " +
                                  std::to_string(size));
    }
    std::copy(chosen.begin(), chosen.end(), numbers);
  });
}

rdpp_error rdpp_coreset_patches(const rdpp_coreset *c, rdpp_tensor *patches) {
  return guarded([&] { *patches = handle(rdpp::rows_of(opened(c).patches, c->search.chosen())); });
}

rdpp_error rdpp_bank_new(int64_t count, int64_t D, int32_t dtype, int32_t device, rdpp_module **out) {
  return guarded([&] {
    rdpp::install_caching_allocator();
    *out = finish(RDPP_BANK, std::make_shared<rdpp::BankImpl>(count, D), dtype, device, 0, RDPP_BLANK).release();
  });
}

rdpp_error rdpp_predict_patches(const rdpp_module *teacher, const rdpp_module *bank, rdpp_tensor x,
                                const rdpp_bank_options *options, rdpp_tensor *map, rdpp_tensor *score) {
  return guarded([&] {
    rdpp::BankOptions o = {options->sigma, options->dimensions, options->of_map != 0, options->neighbours,
                           options->bytes};
    rdpp::Prediction result = rdpp::predict_patches(network<rdpp::TeacherImpl>(teacher, RDPP_TEACHER),
                                                    network<rdpp::BankImpl>(bank, RDPP_BANK), at_tensor(x), o);
    auto score_handle = std::make_unique<Tensor>(result.score);
    *map = handle(result.map);
    *score = score_handle.release();
  });
}

// TorchScript

rdpp_error rdpp_script_save(const char *source, const char *const *names, const rdpp_tensor *tensors, int64_t n,
                            const char *const *extra, int64_t n_extra, int32_t fd) {
  return guarded([&] {
    std::vector<std::pair<std::string, Tensor>> named;
    for (int64_t i = 0; i < n; i++) named.emplace_back(names[i], at_tensor(tensors[i]));
    std::vector<std::pair<std::string, std::string>> entries;
    for (int64_t i = 0; i < n_extra; i++) entries.emplace_back(extra[2 * i], extra[2 * i + 1]);
    rdpp::save_script(source, named, entries, fd);
  });
}
