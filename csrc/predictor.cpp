#include "predictor.h"

#include "bank.h"
#include "boundary.h"
#include "cfa.h"
#include "csflow.h"
#include "flows.h"
#include "module.h"

#ifdef RDPP_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>

namespace rdpp {

using torch::Tensor;

#ifdef RDPP_CUDA

namespace {

bool graphs_wanted() {
  static const bool wanted = [] {
    const char *value = std::getenv("RDPP_CUDA_GRAPHS");
    return value && std::string(value) == "1";
  }();
  return wanted;
}

} // namespace

struct Predictor::Graphs {
  struct Graph {
    std::vector<int64_t> shape; // of the images that it is for
    torch::Device device;
    torch::ScalarType type;
    bool usable = false; // else such images are predicted without a graph
    at::cuda::CUDAGraph cuda;
    Tensor x; // that it reads
    Prediction result;

    explicit Graph(const Tensor &of) : shape(of.sizes().vec()), device(of.device()), type(of.scalar_type()) {}
  };

  static constexpr size_t kMost = 16; // shapes
  Versions versions;
  std::vector<std::unique_ptr<Graph>> all; // of those versions: they read what is prepared for them

  // The graph for x, or nullptr where there is none yet.
  Graph *find(const Versions &of, const Tensor &x) {
    if (of != versions) all.clear();
    versions = of;
    for (auto &g : all) {
      if (x.sizes() == g->shape && x.device() == g->device && x.scalar_type() == g->type) return g.get();
    }
    return nullptr;
  }

  // Adds the graph for x. It is not usable where memory or an operation that can be recorded is missing.
  void record(const Method &method, const Tensor &x) {
    auto g = std::make_unique<Graph>(x);
    c10::cuda::OptionalCUDAStreamGuard guard;
    bool capturing = false;
    try {
      c10::cuda::CUDAStream ours = c10::cuda::getStreamFromPool();
      g->x = x.clone(torch::MemoryFormat::Contiguous);
      c10::cuda::getCurrentCUDAStream().synchronize();
      guard.reset_stream(ours);
      // The first runs fold weights and choose algorithms, neither of which can be recorded.
      for (int i = 0; i < 3; i++) method(g->x);
      ours.synchronize();
      // Graphs are replayed one after the other, and their results copied: one pool of memory serves them all.
      auto other = std::find_if(all.begin(), all.end(), [](const auto &o) { return o->usable; });
      if (other != all.end()) {
        g->cuda.capture_begin((*other)->cuda.pool());
      } else {
        g->cuda.capture_begin();
      }
      capturing = true;
      g->result = method(g->x);
      capturing = false; // whether or not it can be ended
      g->cuda.capture_end();
      g->usable = true;
    } catch (const std::exception &) {
      try {
        if (capturing) g->cuda.capture_end();
      } catch (const std::exception &) {
      }
      g->result = {}, g->x.reset();
    }
    all.push_back(std::move(g));
  }
};

Prediction Predictor::run(const Tensor &x, const Versions &versions) {
  Graphs::Graph *g = nullptr;
  bool wanted = x.is_cuda() && graphs_wanted();
  c10::cuda::OptionalCUDAGuard device;
  torch::NoGradGuard no_grad;
  if (wanted) {
    device.set_device(x.device());
    std::shared_lock<std::shared_mutex> among(recording());
    g = graphs_->find(versions, x);
  }
  if (wanted && !g && graphs_->all.size() < Graphs::kMost) {
    std::unique_lock<std::shared_mutex> alone(recording());
    graphs_->record(method_, x);
    g = graphs_->all.back().get();
  }
  std::shared_lock<std::shared_mutex> among(recording());
  if (!g || !g->usable) return method_(x);
  g->x.copy_(x);
  g->cuda.replay();
  return {g->result.map.clone(), g->result.score.clone()}; // the graph writes to the same place again
}

#else

struct Predictor::Graphs {};

Prediction Predictor::run(const Tensor &x, const Versions &) { return method_(x); }

#endif

Predictor::Predictor(Method method) : method_(std::move(method)), graphs_(std::make_unique<Graphs>()) {}
Predictor::Predictor(Predictor &&) noexcept = default;
Predictor::~Predictor() = default;

MapOptions at_map_options(const rdpp_map_options &options) {
  static_assert(RDPP_TERMS == kTerms);
  MapOptions o{};
  o.sigma = options.sigma;
  o.top = options.top;
  std::copy_n(options.weights, RDPP_TERMS, o.terms.weights.begin());
  std::copy_n(options.levels, RDPP_TERMS, o.terms.levels.begin());
  return o;
}

namespace {

// Methods keep the networks that they read, and those alone.

Predictor::Method students(const std::vector<const rdpp_module *> &modules, const MapOptions &options) {
  if (modules.size() != 4)
    throw std::invalid_argument("four networks are needed, got " + std::to_string(modules.size()));
  auto teacher = shared<TeacherImpl>(modules[0], RDPP_TEACHER);
  auto projection = modules[1] ? shared<ProjectionImpl>(modules[1], RDPP_PROJECTION) : nullptr;
  auto bottleneck = shared<BottleneckImpl>(modules[2], RDPP_BOTTLENECK);
  auto student = shared<StudentImpl>(modules[3], RDPP_STUDENT);
  return [=](const Tensor &x) {
    return predict({teacher.get(), projection.get(), bottleneck.get(), student.get()}, x, options);
  };
}

Predictor::Method method(int32_t number, const std::vector<const rdpp_module *> &modules,
                         const rdpp_predictor_options &options) {
  switch (number) {
  case RDPP_STUDENTS:
    return students(modules, at_map_options(options.map));
  case RDPP_PATCHES:
    return patch_distances(modules, options.bank);
  case RDPP_FLOWS:
    return flows(modules, options.flow);
  case RDPP_CROSS_SCALES:
    return cross_scales(modules, options.cross);
  case RDPP_SPHERES:
    return spheres(modules, options.sphere);
  }
  throw std::invalid_argument("unknown method " + std::to_string(number));
}

} // namespace

} // namespace rdpp

struct rdpp_predictor {
  rdpp::Predictor predictor;
  std::vector<std::shared_ptr<uint64_t>> versions;
};

using namespace rdpp;

rdpp_error rdpp_predictor_new(int32_t number, const rdpp_module *const *modules, int64_t n,
                              const rdpp_predictor_options *options, rdpp_predictor **out) {
  return guarded([&] {
    if (n < 1 || !modules || !options) throw std::invalid_argument("a predictor needs modules and options");
    std::vector<const rdpp_module *> all(modules, modules + n);
    auto p = std::make_unique<rdpp_predictor>(rdpp_predictor{Predictor(method(number, all, *options)), {}});
    for (const rdpp_module *m : all) {
      if (m) p->versions.push_back(m->version);
    }
    *out = p.release();
  });
}

void rdpp_predictor_free(rdpp_predictor *p) {
  std::shared_lock<std::shared_mutex> among(recording());
  delete p;
}

rdpp_error rdpp_predict(rdpp_predictor *p, rdpp_tensor x, rdpp_tensor *map, rdpp_tensor *score) {
  return computed([&] {
    Versions versions;
    for (const auto &version : opened(p).versions) versions.push_back(*version);
    Prediction result = p->predictor.run(at_tensor(x), versions);
    auto score_handle = std::make_unique<Tensor>(result.score);
    *map = handle(result.map);
    *score = score_handle.release();
  });
}
