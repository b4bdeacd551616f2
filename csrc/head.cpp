#include "head.h"

namespace rdpp {

HeadImpl::HeadImpl(const Arch &arch, Objective objective, int64_t outputs) : objective(objective) {
  TORCH_CHECK(outputs >= 1, "a head needs at least one output, got ", outputs);
  for (int k = 0; k < kScales; k++) {
    std::vector<int64_t> channels = {(64 << k) * arch.expansion(), outputs};
    if (objective == Objective::kPair) channels.insert(channels.begin() + 1, 256);
    auto list = register_module("head" + std::to_string(k + 1), torch::nn::ModuleList());
    for (size_t i = 0; i + 1 < channels.size(); i++) {
      Conv conv(channels[i], channels[i + 1], 1, 1, ConvImpl::kPlain, true);
      list->push_back(conv);
      convs[k].push_back(conv);
    }
  }
}

torch::Tensor HeadImpl::forward(int64_t k, const torch::Tensor &f_k) {
  bool pooled = objective != Objective::kDense;
  auto wide = f_k.scalar_type() == torch::kBFloat16 ? torch::kFloat32 : f_k.scalar_type();
  torch::Tensor y = pooled ? f_k.mean({2, 3}, /*keepdim=*/true, wide) : f_k;
  std::vector<Conv> &layers = convs.at(static_cast<size_t>(k));
  for (size_t i = 0; i < layers.size(); i++) y = layers[i](i == 0 ? y : y.relu());
  y = y.to(wide);
  if (pooled) y = y.flatten(1);
  if (objective == Objective::kPair)
    y = torch::nn::functional::normalize(y, torch::nn::functional::NormalizeFuncOptions().dim(1));
  return y;
}

} // namespace rdpp
