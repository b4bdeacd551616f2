#include "predict.h"

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
  return {map, highest(map, options.top)};
}

Tensor highest(const Tensor &map, double share) {
  Tensor pixels = map.flatten(1); // B x S*S
  int64_t n = static_cast<int64_t>(share * static_cast<double>(pixels.size(1)));
  if (n < 2) return pixels.amax(1);
  // In float64 the order of summation, which the batch may change, leaves no trace in the result.
  Tensor values = std::get<0>(pixels.topk(n, 1, /*largest=*/true, /*sorted=*/false)); // B x n
  return values.mean(1, /*keepdim=*/false, torch::kFloat64).to(map.scalar_type());
}

} // namespace rdpp
