#include "predict.h"

#ifdef RDPP_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <cstdlib>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

namespace rdpp {

using torch::Tensor;

Prediction predict(const Networks &n, const Tensor &x, const MapOptions &options) {
  torch::NoGradGuard no_grad;
  TORCH_CHECK(x.dim() == 4 && x.size(2) == x.size(3), "images must be B x 3 x S x S, got ", x.sizes());
  Features f = n.teacher->forward(x);                                              // K tensors
  Features p = n.projection ? n.projection->forward(f) : f;                        // K tensors
  Tensor z = n.bottleneck->forward(p);                                             // B x 512e x S/32 x S/32
  Features g = n.student->forward(z);                                              // K tensors
  Tensor map = smooth(anomaly_map(f, g, x.size(2), options.terms), options.sigma); // B x S x S
  return {map, map.flatten(1).amax(1)};
}

#ifdef RDPP_CUDA

namespace {

bool graphs_wanted() {
  static const bool wanted = [] {
    const char *value = std::getenv("RDPP_CUDA_GRAPHS");
    return value && std::string(value) == "1";
  }();
  return wanted;
}

std::shared_mutex recording; // held alone by the one that records

} // namespace

struct Predictor::Graphs {
  struct Graph {
    bool usable = false;
    at::cuda::CUDAGraph cuda;
    Tensor x; // that it reads
    Prediction result;
  };

  static constexpr size_t kMost = 16; // shapes
  Versions versions{};
  torch::ScalarType type = torch::kFloat32;
  MapOptions options{};
  std::vector<std::unique_ptr<Graph>>
      all; // of those versions, type and options: they read the networks' folded weights

  // The graph for x, or nullptr where there is none yet.
  Graph *find(const Versions &of, const Tensor &x, const MapOptions &wanted) {
    if (of != versions || x.scalar_type() != type || !(wanted == options)) {
      all.clear();
      versions = of, type = x.scalar_type(), options = wanted;
    }
    for (auto &g : all) {
      if (g->x.sizes() == x.sizes() && g->x.device() == x.device()) return g.get();
    }
    return nullptr;
  }

  void record(const Networks &n, const Tensor &x) {
    all.push_back(std::make_unique<Graph>());
    Graph &g = *all.back();
    g.x = x.clone(torch::MemoryFormat::Contiguous);
    c10::cuda::CUDAStream ours = c10::cuda::getStreamFromPool();
    c10::cuda::getCurrentCUDAStream().synchronize();
    c10::cuda::CUDAStreamGuard guard(ours);
    bool capturing = false;
    try {
      // The first runs fold weights and choose algorithms, neither of which can be recorded.
      for (int i = 0; i < 3; i++) predict(n, g.x, options);
      ours.synchronize();
      // Graphs are replayed one after the other, and their results copied: one pool of memory serves them all.
      if (all.size() > 1 && all.front()->usable) {
        g.cuda.capture_begin(all.front()->cuda.pool());
      } else {
        g.cuda.capture_begin();
      }
      capturing = true;
      g.result = predict(n, g.x, options);
      g.cuda.capture_end();
      g.usable = true;
    } catch (const std::exception &) {
      // Memory or an operation that cannot be recorded is missing: such images are predicted without a graph.
      g.result = {};
      try {
        if (capturing) g.cuda.capture_end();
      } catch (const std::exception &) {
      }
    }
  }
};

Prediction Predictor::run(const Networks &n, const Versions &versions, const Tensor &x, const MapOptions &options) {
  if (!x.is_cuda() || !graphs_wanted()) return predict(n, x, options);
  c10::cuda::CUDAGuard device(x.device());
  torch::NoGradGuard no_grad;
  Graphs::Graph *g = graphs_->find(versions, x, options);
  if (!g && graphs_->all.size() < Graphs::kMost) {
    std::unique_lock<std::shared_mutex> alone(recording);
    graphs_->record(n, x);
    g = graphs_->all.back().get();
  }
  std::shared_lock<std::shared_mutex> among(recording);
  if (!g || !g->usable) return predict(n, x, options);
  g->x.copy_(x);
  g->cuda.replay();
  return {g->result.map.clone(), g->result.score.clone()}; // the graph writes to the same place again
}

#else

struct Predictor::Graphs {};

Prediction Predictor::run(const Networks &n, const Versions &, const Tensor &x, const MapOptions &options) {
  return predict(n, x, options);
}

#endif

Predictor::Predictor() : graphs_(std::make_unique<Graphs>()) {}
Predictor::~Predictor() = default;

} // namespace rdpp
