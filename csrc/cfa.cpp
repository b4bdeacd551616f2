#include "cfa.h"

#include "coreset.h"
#include "cosine.h"
#include "vectorised.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>

namespace rdpp {

namespace F = torch::nn::functional;
using torch::Tensor;

// Descriptors

namespace {

Tensor stretched(const Tensor &x, int64_t H, int64_t W) {
  auto options = F::InterpolateFuncOptions().mode(torch::kBilinear).align_corners(false);
  return F::interpolate(x, options.size(std::vector<int64_t>{H, W}));
}

// -1 to 1 in n steps.
Tensor steps(int64_t n, const torch::TensorOptions &options) {
  return torch::arange(n, options) * (2.0 / static_cast<double>(n - 1)) - 1;
}

// The options where they can be, else throws. The bounds are far above use, and low enough that no size overflows.
const rdpp_descriptor_options &possible(const rdpp_descriptor_options *o) {
  if (!o) throw std::invalid_argument("a descriptor needs options");
  constexpr int64_t most = 1 << 24;
  TORCH_CHECK(o->rows >= 1 && o->rows <= most && o->dimensions >= 1 && o->dimensions <= most && o->radius >= 0 &&
                  std::isfinite(o->radius),
              "a descriptor of ", o->dimensions, " dimensions with a bank of ", o->rows, " rows and a radius of ",
              o->radius);
  return *o;
}

} // namespace

Tensor joined(const Features &f) {
  TORCH_CHECK(f[0].dim() == 4 && f[0].size(2) > 1 && f[0].size(3) > 1,
              "features must be B x C x H x W with H and W of 2 or more, got ", f[0].sizes());
  int64_t B = f[0].size(0), H = f[0].size(2), W = f[0].size(3);
  std::vector<Tensor> parts;
  for (const Tensor &scale : f) {
    Tensor around = torch::avg_pool2d(wide(scale), 3, 1, 1); // B x C x H_k x W_k
    parts.push_back(around.size(2) == H && around.size(3) == W ? around : stretched(around, H, W));
  }
  auto options = parts[0].options();
  parts.push_back(steps(H, options).view({1, 1, H, 1}).expand({B, 1, H, W}));
  parts.push_back(steps(W, options).view({1, 1, 1, W}).expand({B, 1, H, W}));
  return torch::cat(parts, 1);
}

DescriptorImpl::DescriptorImpl(const Arch &arch, const rdpp_descriptor_options &o) {
  int64_t seen = (64 + 128 + 256) * arch.expansion();
  conv = register_module("conv", Conv(seen + 2, o.dimensions, 1, 1, ConvImpl::kPlain, /*with_bias=*/true));
  Tensor r = torch::full({1}, o.radius, torch::kFloat64); // until the module gets its type
  radius = o.fixed ? register_buffer("radius", r) : register_parameter("radius", r);
  centres = register_buffer("centres", torch::zeros({o.rows, o.dimensions}));
}

Tensor DescriptorImpl::forward(const Features &f) {
  torch::nn::BatchNorm2d none{nullptr};
  Tensor seen = joined(f).to(centres.scalar_type());
  return conv_bn(conv, none, seen, false).permute({0, 2, 3, 1}).contiguous(); // B x H x W x D
}

void DescriptorImpl::train(bool on) {
  torch::nn::Module::train(on);
  rows_.reset();
}

const Rows &DescriptorImpl::rows() {
  if (!rows_) rows_ = std::make_unique<Rows>(centres);
  return *rows_;
}

// The nearest rows

Rows::Rows(const Tensor &of) : centres(of) {
  torch::NoGradGuard no_grad;
  mean = of.to(torch::kFloat64).mean(0).to(of.scalar_type());
  Tensor left = of - mean; // M x D
  lengths = left.square().sum(1);
  doubled = left.mul_(-2);
}

namespace {

constexpr int64_t kLanes = 16; // that are compared side by side

// Of the n values x, the k least, ascending, and their numbers. Of equal ones the first come first.
RDPP_VECTORISED void least(const float *__restrict x, int64_t n, int64_t k, float *values, int64_t *numbers) {
  for (int64_t i = 0; i < k; i++) values[i] = std::numeric_limits<float>::infinity(), numbers[i] = i;
  auto insert = [&](int64_t i) {
    int64_t place = k - 1;
    for (; place > 0 && x[i] < values[place - 1]; place--) {
      values[place] = values[place - 1], numbers[place] = numbers[place - 1];
    }
    values[place] = x[i], numbers[place] = i;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    float limit = values[k - 1];
    int less = 0;
    for (int64_t j = 0; j < kLanes; j++) less |= x[i + j] < limit;
    if (!less) continue;
    for (int64_t j = i; j < i + kLanes; j++) {
      if (x[j] < values[k - 1]) insert(j);
    }
  }
  for (; i < n; i++) {
    if (x[i] < values[k - 1]) insert(i);
  }
}

// x: n x M -> n x k, int64: the places of the k least values of each row.
Tensor least_of_rows(const Tensor &x, int64_t k) {
  if (!x.is_cpu() || x.scalar_type() != torch::kFloat32) {
    return std::get<1>(x.topk(k, 1, /*largest=*/false, /*sorted=*/true));
  }
  Tensor rows = x.contiguous(), places = torch::empty({x.size(0), k}, x.options().dtype(torch::kInt64));
  const float *in = rows.data_ptr<float>();
  int64_t *out = places.data_ptr<int64_t>();
  int64_t M = x.size(1);
  at::parallel_for(0, x.size(0), 16, [&](int64_t begin, int64_t end) {
    std::vector<float> values(static_cast<size_t>(k));
    for (int64_t i = begin; i < end; i++) least(in + i * M, M, k, values.data(), out + i * k);
  });
  return places;
}

// |c|^2 - 2xc of every x, n x D, and row c, both without their mean: n x M. Which row is near is not to depend on
// products that are rounded to TF32.
Tensor products(const Tensor &x, const Rows &rows) {
  int64_t n = x.size(0), M = rows.doubled.size(0), D = rows.doubled.size(1);
  Tensor left = x - rows.mean; // n x D
  if (!x.is_cpu()) {
    at::NoTF32Guard exact;
    return torch::addmm(rows.lengths, left, rows.doubled.t());
  }
  Tensor image = left.view({1, n, 1, D}).permute({0, 3, 1, 2}); // 1 x D x n x 1
  return exact_conv(image, rows.doubled.view({M, D, 1, 1}), rows.lengths).permute({0, 2, 3, 1}).reshape({n, M});
}

// How many x are compared with all rows at a time: their distances take at most so many bytes, or those of one do.
int64_t at_a_time(const Rows &rows, int64_t bytes) {
  int64_t all = rows.centres.size(0) * static_cast<int64_t>(rows.centres.element_size());
  return std::max<int64_t>(bytes / all, 1);
}

// The numbers of the k rows that are nearest to each of x, N x D: N x k.
Tensor nearest_rows(const Tensor &x, const Rows &rows, int64_t k, int64_t bytes) {
  torch::NoGradGuard no_grad;
  int64_t N = x.size(0), n = at_a_time(rows, bytes);
  std::vector<Tensor> all;
  for (int64_t first = 0; first < N; first += n) {
    all.push_back(least_of_rows(products(x.narrow(0, first, std::min(n, N - first)), rows), k));
  }
  return torch::cat(all);
}

// |x - c|^2 of every x, N x D, and each of its k rows c of centres, ascending: N x k. What autograd would keep of it, N
// x k x D differences, is made again instead.
struct Distances : torch::autograd::Function<Distances> {
  static Tensor forward(torch::autograd::AutogradContext *context, const Tensor &x, const Tensor &centres,
                        const Tensor &rows) {
    std::vector<Tensor> columns; // that |x|^2 - 2xc + |c|^2 would cancel in where x is near c
    for (int64_t i = 0; i < rows.size(1); i++) {
      columns.push_back((x - centres.index_select(0, rows.select(1, i))).square_().sum(1));
    }
    auto [distances, order] = torch::stack(columns, 1).sort(1);
    context->save_for_backward({x, centres, rows.gather(1, order)});
    return distances;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 const torch::autograd::variable_list &of) {
    auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &centres = saved[1], &rows = saved[2];
    Tensor grad = torch::zeros_like(x);
    for (int64_t i = 0; i < rows.size(1); i++) {
      grad.addcmul_(x - centres.index_select(0, rows.select(1, i)), of[0].select(1, i).unsqueeze(1), 2);
    }
    return {grad, {}, {}};
  }
};

} // namespace

Tensor nearest_distances(const Tensor &x, const Rows &rows, int64_t k, int64_t bytes) {
  const Tensor &centres = rows.centres;
  TORCH_CHECK(x.dim() == 2 && centres.dim() == 2 && x.size(0) > 0 && x.size(1) == centres.size(1), "points of ",
              x.sizes(), " and centres of ", centres.sizes());
  TORCH_CHECK(k >= 1 && k <= centres.size(0), "the nearest ", k, " of ", centres.size(0), " centres");
  return Distances::apply(x, centres, nearest_rows(x.detach(), rows, k, bytes));
}

// Losses

SphereLosses loss_spheres(DescriptorImpl &descriptor, const Tensor &phi, const rdpp_sphere_loss_options &o) {
  TORCH_CHECK(phi.dim() == 4, "descriptors must be B x H x W x D, got ", phi.sizes());
  int64_t M = descriptor.centres.size(0);
  TORCH_CHECK(o.near >= 1 && o.near <= M && o.far >= 0 && o.far <= M && o.nu > 0, "a loss of ", o.near, " near and ",
              o.far, " far rows, divided by ", o.nu);
  Tensor d = nearest_distances(phi.flatten(0, 2), descriptor.rows(), o.near + o.far, o.bytes); // N x (K + J)
  Tensor r2 = descriptor.radius.square();                                                      // 1
  Tensor outside = (d.narrow(1, 0, o.near) - r2).relu();                                       // N x K
  Tensor attraction = outside.mean() / o.nu;
  if (o.far == 0) return {attraction, torch::zeros_like(attraction)};
  Tensor inside = (r2 - d.narrow(1, o.near, o.far) - o.margin).relu(); // N x J
  return {attraction, inside.mean() / o.nu};
}

// K-means

namespace {

// 0 to 1, of the generator's own bits: the standard library's distributions differ from one to the other.
double uniform(std::mt19937_64 &random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

// What points are compared with means at a time, bytes of distances.
constexpr int64_t kCompared = 1 << 24;

} // namespace

Clusters::Clusters(const Tensor &points, int64_t count, int64_t most, uint64_t seed)
    : points_(points.contiguous()), count_(count), most_(most), random_(seed) {
  TORCH_CHECK(points.is_cpu() && points.dim() == 2 && points.scalar_type() == torch::kFloat32,
              "points must be rows of float32 on the CPU, got ", points.scalar_type(), " ", points.sizes());
  TORCH_CHECK(count >= 1 && count <= points.size(0), count, " clusters of ", points.size(0), " points");
}

bool Clusters::step() {
  torch::NoGradGuard no_grad;
  if (!centres_.defined()) {
    draw();
  } else if (iterations_ >= most_) {
    done_ = true;
  } else if (!done_ && compare()) {
    iterations_++;
    done_ = cluster_.defined() && cluster_.equal(other_);
    if (!done_) move();
  }
  return done_;
}

const Tensor &Clusters::centres() const {
  if (!done_) throw std::invalid_argument("the centres are not found yet");
  return centres_;
}

// k-means++ (Arthur and Vassilvitskii, 2007): each point is as likely to be the next as it is far from those before, in
// squares.
void Clusters::draw() {
  int64_t N = points_.size(0), next = 0;
  if (drawn_.empty()) {
    next = static_cast<int64_t>(uniform(random_) * static_cast<double>(N));
    nearest_ = squared_distances(points_, points_.select(0, next));
  } else {
    Tensor sums = nearest_.cumsum(0, torch::kFloat64); // N
    const double *all = sums.data_ptr<double>();
    next = std::min<int64_t>(std::upper_bound(all, all + N, uniform(random_) * all[N - 1]) - all, N - 1);
    nearest_ = torch::minimum(nearest_, squared_distances(points_, points_.select(0, next)));
  }
  drawn_.push_back(next);
  if (static_cast<int64_t>(drawn_.size()) == count_) centres_ = rows_of({points_}, drawn_);
}

// Compares some more points with all centres; whether they were the last ones.
bool Clusters::compare() {
  int64_t N = points_.size(0);
  if (compared_ == 0) {
    rows_ = std::make_unique<Rows>(centres_);
    other_ = torch::empty({N}, torch::kInt64);
  }
  int64_t n = std::min(at_a_time(*rows_, kCompared), N - compared_);
  other_.narrow(0, compared_, n).copy_(nearest_rows(points_.narrow(0, compared_, n), *rows_, 1, kCompared).flatten());
  compared_ = compared_ + n == N ? 0 : compared_ + n;
  return compared_ == 0;
}

// Each centre becomes the mean of the points that were nearest to it.
void Clusters::move() {
  cluster_ = other_;
  int64_t N = points_.size(0), D = points_.size(1);
  std::vector<double> sums(static_cast<size_t>(count_ * D));
  std::vector<int64_t> members(static_cast<size_t>(count_));
  const float *in = points_.data_ptr<float>();
  const int64_t *of = cluster_.data_ptr<int64_t>();
  for (int64_t p = 0; p < N; p++) {
    members[of[p]]++;
    for (int64_t j = 0; j < D; j++) sums[of[p] * D + j] += in[p * D + j];
  }
  float *out = centres_.data_ptr<float>();
  for (int64_t c = 0; c < count_; c++) {
    if (members[c] == 0) continue; // it stays where it is
    for (int64_t j = 0; j < D; j++) {
      out[c * D + j] = static_cast<float>(sums[c * D + j] / static_cast<double>(members[c]));
    }
  }
}

// Prediction

namespace {

Prediction predict_spheres(TeacherImpl &teacher, DescriptorImpl &descriptor, const Tensor &x,
                           const rdpp_sphere_map_options &o) {
  torch::NoGradGuard no_grad;
  TORCH_CHECK(x.dim() == 4 && x.size(2) == x.size(3), "images must be B x 3 x S x S, got ", x.sizes());
  Tensor phi = descriptor.forward(teacher.forward(x)); // B x H x W x D
  std::vector<Tensor> all;
  // Image by image, so that no result depends on the batch.
  for (int64_t b = 0; b < phi.size(0); b++) {
    Tensor d = nearest_distances(phi[b].flatten(0, 1), descriptor.rows(), o.near, o.bytes).sqrt(); // N x K
    Tensor nearest = d.narrow(1, 0, 1);                                                            // N x 1
    // The softmin's share of the nearest, e^-d_1 over the sum of e^-d_k, without powers that underflow.
    all.push_back(nearest / (nearest - d).exp().sum(1, /*keepdim=*/true));
  }
  Tensor map = torch::stack(all).view({phi.size(0), 1, phi.size(1), phi.size(2)});
  map = smooth(stretched(map, x.size(2), x.size(3)).squeeze(1).contiguous(), o.sigma); // B x S x S
  return {map, map.flatten(1).amax(1)};
}

} // namespace

Predictor::Method spheres(const std::vector<const rdpp_module *> &modules, const rdpp_sphere_map_options &options) {
  if (modules.size() != 2) {
    throw std::invalid_argument("a teacher and a descriptor are needed, got " + std::to_string(modules.size()) +
                                " networks");
  }
  auto teacher = shared<TeacherImpl>(modules[0], RDPP_TEACHER);
  auto descriptor = shared<DescriptorImpl>(modules[1], RDPP_DESCRIPTOR);
  return [=](const Tensor &x) { return predict_spheres(*teacher, *descriptor, x, options); };
}

} // namespace rdpp

// The boundary

using namespace rdpp;

rdpp_error rdpp_descriptor_new(const char *arch, const rdpp_descriptor_options *options, int32_t dtype, int32_t device,
                               uint64_t seed, int32_t flags, rdpp_module **out) {
  return guarded([&] {
    auto net = std::make_shared<DescriptorImpl>(arch_named(arch), possible(options));
    *out = finish(RDPP_DESCRIPTOR, net, dtype, device, seed, flags).release();
  });
}

rdpp_error rdpp_descriptor(const rdpp_module *m, const rdpp_tensor f[RDPP_SCALES], rdpp_tensor *phi) {
  return guarded([&] {
    torch::AutoGradMode grad(records(m));
    *phi = handle(network<DescriptorImpl>(m, RDPP_DESCRIPTOR).forward(features(f)));
  });
}

rdpp_error rdpp_loss_spheres(const rdpp_module *m, rdpp_tensor phi, const rdpp_sphere_loss_options *options,
                             rdpp_tensor *attraction, rdpp_tensor *repulsion) {
  return guarded([&] {
    if (!options) throw std::invalid_argument("the loss needs options");
    torch::AutoGradMode grad(records(m));
    SphereLosses losses = loss_spheres(network<DescriptorImpl>(m, RDPP_DESCRIPTOR), at_tensor(phi), *options);
    auto second = std::make_unique<Tensor>(losses.repulsion);
    *attraction = handle(losses.attraction);
    *repulsion = second.release();
  });
}

struct rdpp_clusters {
  Clusters search;
};

namespace {

template <class T> T &searching(T *c) {
  if (!c) throw std::invalid_argument("a search for clusters is NULL or closed");
  return *c;
}

} // namespace

rdpp_error rdpp_clusters_new(rdpp_tensor points, int64_t count, int64_t most, uint64_t seed, rdpp_clusters **out) {
  return guarded([&] { *out = new rdpp_clusters{Clusters(at_tensor(points), count, most, seed)}; });
}

void rdpp_clusters_free(rdpp_clusters *c) { delete c; }

rdpp_error rdpp_clusters_step(rdpp_clusters *c, int32_t *done) {
  return guarded([&] { *done = searching(c).search.step(); });
}

rdpp_error rdpp_clusters_centres(const rdpp_clusters *c, rdpp_tensor *centres) {
  return guarded([&] { *centres = handle(searching(c).search.centres()); });
}
