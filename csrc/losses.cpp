#include "losses.h"

#include "cosine.h"
#include "group.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace rdpp {

namespace {

// Mean and deviation of the distances of all processes' images, B x H x W here.
std::pair<torch::Tensor, torch::Tensor> spread_of_all(Group &group, const torch::Tensor &distance) {
  torch::NoGradGuard no_grad;
  torch::Tensor counted = distance.narrow(0, 0, group.rows());
  double n = static_cast<double>(group.of * distance.size(1) * distance.size(2));
  torch::Tensor mean = counted.sum();
  group.sum(mean);
  mean = mean / n;
  torch::Tensor squares = (counted - mean).square().sum();
  group.sum(squares);
  return {mean, (squares / (n - 1)).sqrt()};
}

// g with easy positions' gradients cut. A student that has learned most of a part goes on learning where it is wrong,
// instead of learning to copy (ReContrast: Guo et al., 2023, "hard mining").
torch::Tensor held_back(const torch::Tensor &f, const torch::Tensor &g, const EasyPositions &easy) {
  torch::Tensor student = wide(g), fixed = student.detach();
  torch::Tensor distance = 1 - cosine(f, fixed, kPosition); // B x H x W
  auto [mean, deviation] =
      easy.group ? spread_of_all(*easy.group, distance) : std::pair(distance.mean(), distance.std());
  torch::Tensor is_easy = distance < mean + easy.below * deviation;
  return torch::where(is_easy.unsqueeze(1), student * (1 - easy.cut) + fixed * easy.cut, student);
}

} // namespace

torch::Tensor loss_kd(const Features &f, const Features &g, bool per_position, const EasyPositions &easy) {
  torch::Tensor loss;
  for (int k = 0; k < kScales; k++) {
    if (!g[k].defined()) continue;
    torch::Tensor student = easy.cut > 0 ? held_back(f[k], g[k], easy) : g[k];
    torch::Tensor c = per_position ? cosine(f[k], student, kPosition) : cosine(f[k], student, kImage);
    torch::Tensor term = (1 - c).mean();
    loss = loss.defined() ? loss + term : term;
  }
  return loss;
}

torch::Tensor loss_recon(const Features &p_noisy, const Features &p) {
  return loss_kd(p_noisy, p, /*per_position=*/true);
}

torch::Tensor loss_contrast(const Features &f_noisy, const Features &p, double margin) {
  torch::Tensor loss;
  for (int k = 0; k < kScales; k++) {
    if (!p[k].defined()) continue;
    torch::Tensor c = cosine(f_noisy[k], p[k], kImage); // B
    torch::Tensor term = (c - margin).clamp_min(0).mean();
    loss = loss.defined() ? loss + term : term;
  }
  return loss;
}

torch::Tensor loss_ssot(const Features &p, const torch::Tensor &permutation, Ssot mode,
                        const SinkhornOptions &options) {
  torch::Tensor coarsest = *std::find_if(p.rbegin(), p.rend(), [](const torch::Tensor &t) { return t.defined(); });
  if (mode == Ssot::kOff) return torch::zeros({}, wide(coarsest).options());
  torch::Tensor rows = permutation.to(coarsest.device());
  std::vector<torch::Tensor> x, y; // per scale: the batch as B points in C*H*W dimensions, and its shuffle
  for (int k = 0; k < kScales; k++) {
    if (!p[k].defined()) continue;
    TORCH_CHECK(p[k].size(0) == rows.size(0), "features of ", p[k].size(0), " images, a shuffle of ", rows.size(0));
    x.push_back(torch::softmax(wide(p[k]).permute({0, 2, 3, 1}).flatten(1), 1)); // in channels-last order: a view
    y.push_back(x.back().index_select(0, rows));
  }
  if (mode == Ssot::kBatch) return sinkhorn_clouds(x, y, options).sum();
  // One point against one point: the de-biased divergence is the cost itself, |x - y|^2 / 2, whatever the blur.
  torch::Tensor loss;
  for (size_t k = 0; k < x.size(); k++) {
    torch::Tensor term = (x[k] - y[k]).square().sum(1).mean() / 2;
    loss = loss.defined() ? loss + term : term;
  }
  return loss;
}

Judged loss_class(const torch::Tensor &logits, const torch::Tensor &labels, double smoothing) {
  int64_t N = logits.size(1);
  torch::Tensor rows = logits.dim() == 4 ? logits.permute({0, 2, 3, 1}).flatten(0, 2) : logits; // rows x N
  TORCH_CHECK(rows.dim() == 2 && labels.numel() == rows.size(0), "logits of ", logits.sizes(), " and ", labels.numel(),
              " labels; every row needs one");
  int64_t low = labels.min().item<int64_t>(), high = labels.max().item<int64_t>();
  TORCH_CHECK(low >= -1 && high < N, "labels from ", low, " to ", high, " for ", N, " classes");
  if (high < 0) return {rows.sum() * 0, torch::zeros({}, rows.options())};
  torch::Tensor wanted = labels.flatten().to(rows.device());
  auto options = torch::nn::functional::CrossEntropyFuncOptions().ignore_index(-1).label_smoothing(smoothing);
  torch::Tensor right = (rows.detach().argmax(1) == wanted).sum(); // no row is told to be -1
  return {torch::nn::functional::cross_entropy(rows, wanted, options), right / (wanted >= 0).sum()};
}

Judged loss_pair(const torch::Tensor &z, double temperature) {
  TORCH_CHECK(z.dim() == 2 && z.size(0) >= 2 && z.size(0) % 2 == 0, "an even number of rows is needed, got ",
              z.sizes());
  TORCH_CHECK(temperature > 0, "a temperature of ", temperature, " is not positive");
  int64_t B = z.size(0);
  torch::Tensor self = torch::eye(B, z.options().dtype(torch::kBool));
  torch::Tensor similarity = (z.matmul(z.t()) / temperature).masked_fill(self, -INFINITY); // B x B
  torch::Tensor partner = torch::arange(B, z.options().dtype(torch::kInt64)).bitwise_xor(1);
  torch::Tensor right = similarity.detach().argmax(1) == partner;
  return {torch::nn::functional::cross_entropy(similarity, partner), right.to(z.scalar_type()).mean()};
}

} // namespace rdpp
