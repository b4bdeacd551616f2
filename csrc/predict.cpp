#include "predict.h"

#include "losses.h"

#ifdef RDPP_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <vector>

namespace rdpp {

using torch::Tensor;

Prediction predict(const Networks &n, const Tensor &x, double sigma) {
  torch::NoGradGuard no_grad;
  TORCH_CHECK(x.dim() == 4 && x.size(2) == x.size(3), "images must be B x 3 x S x S, got ", x.sizes());
  Features f = n.teacher->forward(x);                       // K tensors
  Features p = n.projection ? n.projection->forward(f) : f; // K tensors
  Tensor z = n.bottleneck->forward(p);                      // B x 512e x S/32 x S/32
  Features g = n.student->forward(z);                       // K tensors
  Tensor map = smooth(anomaly_map(f, g, x.size(2)), sigma); // B x S x S
  return {map, map.flatten(1).amax(1)};
}

#ifdef RDPP_CUDA

struct Predictor::Graphs {
  struct Graph {
    Networks networks;
    uint64_t version;
    double sigma;
    bool usable = false;
    at::cuda::CUDAGraph cuda;
    Tensor x; // that it reads
    Prediction result;
  };

  static constexpr size_t kMost = 16; // shapes; every graph keeps the memory of its features
  std::vector<std::unique_ptr<Graph>> all;

  static bool same(const Networks &a, const Networks &b) {
    return a.teacher == b.teacher && a.projection == b.projection && a.bottleneck == b.bottleneck &&
           a.student == b.student;
  }

  // The graph for x, or nullptr where there are enough of them.
  Graph *find(const Networks &n, uint64_t version, const Tensor &x, double sigma) {
    for (auto &g : all) {
      if (!same(g->networks, n) || g->version != version) {
        all.clear(); // of weights that are no more
        break;
      }
    }
    for (auto &g : all) {
      if (g->x.sizes() == x.sizes() && g->x.scalar_type() == x.scalar_type() && g->x.device() == x.device() &&
          g->sigma == sigma) {
        return g.get();
      }
    }
    if (all.size() == kMost) return nullptr;
    all.push_back(record(n, version, x, sigma));
    return all.back().get();
  }

  static std::unique_ptr<Graph> record(const Networks &n, uint64_t version, const Tensor &x, double sigma) {
    auto g = std::make_unique<Graph>();
    g->networks = n, g->version = version, g->sigma = sigma;
    g->x = x.clone(torch::MemoryFormat::Contiguous);
    c10::cuda::CUDAStream ours = c10::cuda::getStreamFromPool(), callers = c10::cuda::getCurrentCUDAStream();
    callers.synchronize();
    c10::cuda::CUDAStreamGuard guard(ours);
    // The first runs fold weights and choose algorithms, neither of which can be recorded.
    for (int i = 0; i < 3; i++) predict(n, g->x, sigma);
    ours.synchronize();
    try {
      g->cuda.capture_begin();
      g->result = predict(n, g->x, sigma);
      g->cuda.capture_end();
      g->usable = true;
    } catch (const std::exception &) {
      // Some operation cannot be recorded by this libtorch: such images are predicted without a graph.
      g->result = {};
    }
    return g;
  }
};

Prediction Predictor::run(const Networks &n, uint64_t version, const Tensor &x, double sigma) {
  if (!x.is_cuda()) return predict(n, x, sigma);
  c10::cuda::CUDAGuard device(x.device());
  torch::NoGradGuard no_grad;
  Graphs::Graph *g = graphs_->find(n, version, x, sigma);
  if (!g || !g->usable) return predict(n, x, sigma);
  g->x.copy_(x);
  g->cuda.replay();
  return {g->result.map.clone(), g->result.score.clone()}; // the graph writes to the same place again
}

#else

struct Predictor::Graphs {};

Prediction Predictor::run(const Networks &n, uint64_t, const Tensor &x, double sigma) { return predict(n, x, sigma); }

#endif

Predictor::Predictor() : graphs_(std::make_unique<Graphs>()) {}
Predictor::~Predictor() = default;

} // namespace rdpp
