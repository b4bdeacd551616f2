#include "patchcore.h"

#include "coreset.h"
#include "vectorised.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace rdpp {

namespace F = torch::nn::functional;
using torch::Tensor;

// Patches

namespace {

// f: B x C x H x W, float32 -> B x d x H x W, d = C or dimensions / 2.
Tensor around(const Tensor &f, int64_t dimensions) {
  if (dimensions == 0) return torch::avg_pool2d(f, 3, 1, 1);
  int64_t B = f.size(0), C = f.size(1), H = f.size(2), W = f.size(3);
  Tensor values = torch::im2col(f, {3, 3}, {1, 1}, {1, 1}, {1, 1}); // B x 9C x HW
  values = values.transpose(1, 2).reshape({B * H * W, 1, 9 * C});
  values = torch::adaptive_avg_pool1d(torch::adaptive_avg_pool1d(values, dimensions), dimensions / 2);
  return values.reshape({B, H, W, dimensions / 2}).permute({0, 3, 1, 2});
}

} // namespace

Tensor patches(const Features &f, int64_t dimensions) {
  TORCH_CHECK(dimensions >= 0 && dimensions % 2 == 0, "patches of ", dimensions,
              " dimensions; use a multiple of 2, or 0");
  torch::NoGradGuard no_grad;
  auto wide = [](const Tensor &x) { return x.scalar_type() == torch::kFloat64 ? x : x.to(torch::kFloat32); };
  Tensor fine = around(wide(f[1]), dimensions), coarse = around(wide(f[2]), dimensions);
  auto options = F::InterpolateFuncOptions().mode(torch::kBilinear).align_corners(false);
  coarse = F::interpolate(coarse, options.size(std::vector<int64_t>{fine.size(2), fine.size(3)}));
  return torch::cat({fine, coarse}, 1).permute({0, 2, 3, 1}).contiguous();
}

// Bank

BankImpl::BankImpl(int64_t count, int64_t D) {
  TORCH_CHECK(count >= 1 && D >= 1, "a bank of ", count, " patches of ", D, " dimensions");
  rows = register_buffer("patches", torch::zeros({count, D}));
}

void BankImpl::train(bool on) {
  torch::nn::Module::train(on);
  packed_.clear(), weight_.reset(), bias_.reset();
}

namespace {

constexpr int64_t kLanes = 16; // that are compared side by side

// Of the n values x, which begin with number first: the least and its number, where it is less than *least.
RDPP_VECTORISED void lower(const float *__restrict x, int64_t n, int64_t first, float *least, int64_t *number) {
  float values[kLanes];
  int32_t places[kLanes] = {};
  std::fill_n(values, kLanes, std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; j++) {
      bool less = x[i + j] < values[j];
      values[j] = less ? x[i + j] : values[j];
      places[j] = less ? static_cast<int32_t>(i) : places[j];
    }
  }
  for (int64_t j = 0; j < kLanes; j++) {
    int64_t place = first + places[j] + j;
    if (values[j] < *least || (values[j] == *least && place < *number)) *least = values[j], *number = place;
  }
  for (; i < n; i++) {
    if (x[i] < *least) *least = x[i], *number = first + i;
  }
}

// products: B x n x H x W. Lowers least and row, B x H x W, where one of the n numbers from first on is less.
void lower(const Tensor &products, int64_t first, Tensor &least, Tensor &row) {
  Tensor x = products.permute({0, 2, 3, 1}); // B x H x W x n
  if (!x.is_cpu() || x.scalar_type() != torch::kFloat32) {
    auto [values, places] = x.min(-1);
    Tensor less = values < least;
    least = torch::where(less, values, least), row = torch::where(less, places + first, row);
    return;
  }
  x = x.contiguous();
  int64_t n = x.size(3);
  const float *in = x.data_ptr<float>();
  float *values = least.data_ptr<float>();
  int64_t *places = row.data_ptr<int64_t>();
  at::parallel_for(0, least.numel(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) lower(in + i * n, n, first, values + i, places + i);
  });
}

} // namespace

BankImpl::Nearest BankImpl::nearest(const Tensor &p, int64_t bytes) {
  TORCH_CHECK(p.dim() == 4 && p.size(3) == rows.size(1), "patches must be B x H x W x ", rows.size(1), ", got ",
              p.sizes());
  torch::NoGradGuard no_grad;
  int64_t M = rows.size(0), positions = p.size(1) * p.size(2);
  int64_t n = std::clamp<int64_t>(bytes / (positions * static_cast<int64_t>(rows.element_size())), 1, M);
  prepare(n);
  std::vector<Tensor> distances, numbers;
  // Image by image, so that no result depends on the batch.
  for (int64_t b = 0; b < p.size(0); b++) {
    Tensor image = p.narrow(0, b, 1), x = image.permute({0, 3, 1, 2}); // 1 x D x H x W
    Tensor least = torch::full({1, p.size(1), p.size(2)}, std::numeric_limits<double>::infinity(), p.options());
    Tensor row = torch::zeros({1, p.size(1), p.size(2)}, p.options().dtype(torch::kInt64));
    for (int64_t first = 0; first < M; first += n) lower(products(x, first, n), first, least, row);
    // |x|^2 - 2xy + |y|^2 cancels where x is near y: what decides has an error that what is reported need not have.
    Tensor chosen = rows.index_select(0, row.flatten()).view_as(image);
    distances.push_back((image - chosen).square_().sum(-1).sqrt_());
    numbers.push_back(row);
  }
  return {torch::cat(distances), torch::cat(numbers)};
}

void BankImpl::prepare(int64_t n) {
  if (!rows.is_cpu() || rows.scalar_type() != torch::kFloat32) {
    if (weight_.defined()) return;
    bias_ = rows.square().sum(1);
    weight_ = (rows * -2).view({rows.size(0), rows.size(1), 1, 1});
    return;
  }
  if (!packed_.empty() && packed_[0]->weight.size(0) == n) return;
  packed_.clear();
  for (int64_t first = 0; first < rows.size(0); first += n) {
    Tensor part = rows.narrow(0, first, std::min(n, rows.size(0) - first));
    Conv conv(part.size(1), part.size(0), 1, 1, ConvImpl::kPlain, /*with_bias=*/true);
    conv->weight.set_data((part * -2).view({part.size(0), part.size(1), 1, 1}));
    conv->bias.set_data(part.square().sum(1));
    use_channels_last(*conv);
    freeze(*conv, true);
    packed_.push_back(conv);
  }
}

Tensor BankImpl::products(const Tensor &x, int64_t first, int64_t n) {
  torch::nn::BatchNorm2d none{nullptr};
  if (!packed_.empty()) return conv_bn(packed_[static_cast<size_t>(first / n)], none, x, false);
  n = std::min(n, rows.size(0) - first);
  // Which row is the nearest is not to depend on products that are rounded to TF32.
  return exact_conv(x, weight_.narrow(0, first, n), bias_.narrow(0, first, n));
}

Tensor BankImpl::neighbours(const Tensor &of, int64_t b) {
  torch::NoGradGuard no_grad;
  std::vector<Tensor> all;
  for (int64_t i = 0; i < of.size(0); i++) {
    Tensor distance = squared_distances(rows, rows.index_select(0, of.narrow(0, i, 1)).squeeze(0));
    all.push_back(std::get<1>(distance.topk(b, 0, /*largest=*/false, /*sorted=*/true)));
  }
  return torch::stack(all);
}

// Prediction

namespace {

// Eq. 7: what share of an image's score counts, B. Little of it does where the row nearest to the farthest patch has
// many others about as near to the patch as itself, which is then of a rare kind of good patches, not of none.
Tensor weight(BankImpl &bank, const Tensor &p, const BankImpl::Nearest &nearest, int64_t b) {
  int64_t B = p.size(0), D = p.size(3);
  Tensor at = nearest.distance.flatten(1).argmax(1, /*keepdim=*/true);                // B x 1
  Tensor patch = p.view({B, -1, D}).gather(1, at.unsqueeze(2).expand({B, 1, D}));     // B x 1 x D
  Tensor around = bank.neighbours(nearest.row.flatten(1).gather(1, at).flatten(), b); // B x b
  Tensor rows = bank.rows.index_select(0, around.flatten()).view({B, b, D});          // B x b x D
  return 1 - torch::softmax((rows - patch).square_().sum(2).sqrt_(), 1).select(1, 0); // less the nearest row's share
}

} // namespace

Prediction predict_patches(TeacherImpl &teacher, BankImpl &bank, const Tensor &x, const BankOptions &options) {
  torch::NoGradGuard no_grad;
  TORCH_CHECK(x.dim() == 4 && x.size(2) == x.size(3), "images must be B x 3 x S x S, got ", x.sizes());
  Tensor p = patches(teacher.forward(x), options.dimensions).to(bank.rows.scalar_type()); // B x H x W x D
  BankImpl::Nearest nearest = bank.nearest(p, options.bytes);                             // B x H x W
  auto stretch = F::InterpolateFuncOptions().mode(torch::kBilinear).align_corners(false);
  Tensor map = F::interpolate(nearest.distance.unsqueeze(1), stretch.size(std::vector<int64_t>{x.size(2), x.size(3)}));
  map = smooth(map.squeeze(1).contiguous(), options.sigma);
  Tensor score = (options.of_map ? map : nearest.distance).flatten(1).amax(1);
  int64_t b = std::min(options.neighbours, bank.rows.size(0));
  if (b >= 2) score = score * weight(bank, p, nearest, b);
  return {map, score};
}

} // namespace rdpp
