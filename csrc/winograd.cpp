#include "winograd.h"

#include "vectorised.h"
#include "winograd_avx512.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

namespace rdpp {

using namespace winograd;
using torch::Tensor;

namespace {

bool available() {
#ifdef RDPP_AVX512
  static const bool there = __builtin_cpu_supports("avx512f");
  return there;
#else
  return false;
#endif
}

int64_t tiles_along(int64_t n) { return (n + kTile - 1) / kTile; }

int64_t whole_rows(int64_t tiles) { return (tiles + kRows - 1) / kRows * kRows; }

int64_t panel_of(int64_t O) { return O % 64 == 0 ? 64 : O % 32 == 0 ? 32 : 16; }

// So many that their products stay in a core's own cache.
int64_t tiles_of_a_piece(int64_t C, int64_t O) {
  constexpr int64_t bytes = 640 << 10;
  int64_t n = bytes / (kPoints * (C + O) * static_cast<int64_t>(sizeof(float)));
  return std::max(n / kRows * kRows, kRows);
}

// A point's products lie a cache line further than a power of two apart, so that they do not crowd into one set of it.
int64_t padded(int64_t n) { return n + kLanes; }

} // namespace

bool winograd_pays(int64_t C, int64_t H, int64_t W, int64_t O) {
  // With few tiles the time goes into reading the weights, of which there are four times as many. Those of one image
  // decide: weights are then kept in one form, and a score does not depend on the batch's size.
  constexpr int64_t fewest_tiles = 16;
  return available() && C % kLanes == 0 && O % kLanes == 0 && tiles_along(H) * tiles_along(W) >= fewest_tiles;
}

namespace {

// y = G g: a row or column of a kernel, n lanes side by side.
RDPP_VECTORISED void weight_line(const float *__restrict g0, const float *__restrict g1, const float *__restrict g2,
                                 float *__restrict y, int64_t stride) {
  for (int64_t i = 0; i < kLanes; i++) {
    float even = (g0[i] + g2[i]) * (1.0f / 6), odd = g1[i] * (1.0f / 6);
    float near = g0[i] * (1.0f / 24) + g2[i] * (1.0f / 6), far = g1[i] * (1.0f / 12);
    y[i] = g0[i] * 0.25f;
    y[stride + i] = -even - odd;
    y[2 * stride + i] = odd - even;
    y[3 * stride + i] = near + far;
    y[4 * stride + i] = near - far;
    y[5 * stride + i] = g2[i];
  }
}

// The weights in their new form: 36 x panels x C x panel. at(o, c, k) is the place of weight k = 0..8 of output o and
// input c. Not by a matrix product: OpenBLAS's threads would wait for the next one on the cores that work.
template <class At> Tensor transformed(int64_t O, int64_t C, const At &at) {
  int64_t panel = panel_of(O), points = O * C;
  Tensor u = torch::empty({kPoints, O / panel, C, panel}, torch::kFloat32);
  float *out = u.data_ptr<float>();
  at::parallel_for(0, O / kLanes, 1, [&](int64_t begin, int64_t end) {
    float g[9][kLanes], half[3][kPatch][kLanes], y[kPatch][kPatch][kLanes]; // half: [column][row], y: [column][row]
    for (int64_t first = begin * kLanes; first < end * kLanes; first += kLanes) {
      float *to = out + first / panel * C * panel + first % panel;
      for (int64_t c = 0; c < C; c++) {
        for (int64_t k = 0; k < 9; k++) {
          for (int64_t i = 0; i < kLanes; i++) g[k][i] = *at(first + i, c, k);
        }
        for (int x = 0; x < 3; x++) weight_line(g[x], g[3 + x], g[6 + x], half[x][0], kLanes);
        for (int row = 0; row < kPatch; row++) {
          weight_line(half[0][row], half[1][row], half[2][row], y[0][row], kPatch * kLanes);
        }
        for (int64_t i = 0; i < kPoints; i++) {
          std::copy_n(y[i % kPatch][i / kPatch], kLanes, to + i * points + c * panel);
        }
      }
    }
  });
  return u;
}

} // namespace

Tensor winograd_weights(const Tensor &weight) {
  Tensor w = weight.contiguous(torch::MemoryFormat::ChannelsLast); // in memory O x 3 x 3 x C
  int64_t O = w.size(0), C = w.size(1);
  const float *in = w.data_ptr<float>();
  return transformed(O, C, [=](int64_t o, int64_t c, int64_t k) { return in + (o * 9 + k) * C + c; });
}

namespace {

// A convolution as it is computed: three steps for a range of tiles, which lie in v and m from place 0 on.
template <class T> struct Plan {
  int64_t B, C, H, W, O, panels, panel, columns, per_image;
  const T *x, *add;
  T *y;
  const float *weights, *bias;
  bool relu;
  const T *zeros; // C of them, the border

  void read(int64_t tile, float *v, int64_t stride) const {
    const T *patch[kPoints];
    int64_t b = tile / per_image;
    int64_t top = tile % per_image / columns * kTile - 1, left = tile % columns * kTile - 1;
    for (int64_t i = 0; i < kPoints; i++) {
      int64_t row = top + i / kPatch, column = left + i % kPatch;
      bool inside = b < B && row >= 0 && row < H && column >= 0 && column < W;
      patch[i] = inside ? x + ((b * H + row) * W + column) * C : zeros;
    }
    transform_input(patch, C, v, stride);
  }

  // Products i of kPoints * panels.
  void multiply_part(int64_t i, const float *v, int64_t v_stride, int64_t tiles, float *m, int64_t m_stride) const {
    int64_t point = i / panels, at = i % panels;
    multiply(v + point * v_stride, weights + i * C * panel, tiles, C, O, panel, m + point * m_stride + at * panel);
  }

  void write(int64_t tile, const float *m, int64_t stride) const {
    T *out[kTile * kTile];
    const T *plus[kTile * kTile];
    int64_t b = tile / per_image;
    if (b >= B) return;
    int64_t top = tile % per_image / columns * kTile, left = tile % columns * kTile;
    for (int64_t i = 0; i < kTile * kTile; i++) {
      int64_t row = top + i / kTile, column = left + i % kTile, at = ((b * H + row) * W + column) * O;
      bool inside = row < H && column < W;
      out[i] = inside ? y + at : nullptr;
      plus[i] = inside && add ? add + at : nullptr;
    }
    transform_output(m, stride, O, bias, add ? plus : nullptr, relu, out);
  }
};

// Every thread takes pieces of tiles through all three steps, within its own cache.
template <class T> void run_pieces(const Plan<T> &plan, int64_t all, int64_t piece) {
  int64_t v_stride = padded(piece * plan.C), m_stride = padded(piece * plan.O), each = kPoints * (v_stride + m_stride);
  int64_t workers = at::get_num_threads();
  Tensor memory = torch::empty({workers * each}, torch::kFloat32);
  float *start = memory.data_ptr<float>();
  at::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; worker++) {
      float *v = start + worker * each, *m = v + kPoints * v_stride;
      for (int64_t first = worker * piece; first < all; first += workers * piece) {
        for (int64_t t = 0; t < piece; t++) plan.read(first + t, v + t * plan.C, v_stride);
        for (int64_t i = 0; i < kPoints * plan.panels; i++) plan.multiply_part(i, v, v_stride, piece, m, m_stride);
        for (int64_t t = 0; t < piece; t++) plan.write(first + t, m + t * plan.O, m_stride);
      }
    }
  });
}

// For few tiles: all threads take each step together, and share the weights among them.
template <class T> void run_steps(const Plan<T> &plan, int64_t all) {
  int64_t tiles = whole_rows(all), v_stride = padded(tiles * plan.C), m_stride = padded(tiles * plan.O);
  Tensor memory = torch::empty({kPoints * (v_stride + m_stride)}, torch::kFloat32);
  float *v = memory.data_ptr<float>(), *m = v + kPoints * v_stride;
  at::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) plan.read(t, v + t * plan.C, v_stride);
  });
  at::parallel_for(0, kPoints * plan.panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) plan.multiply_part(i, v, v_stride, tiles, m, m_stride);
  });
  at::parallel_for(0, all, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) plan.write(t, m + t * plan.O, m_stride);
  });
}

template <class T>
Tensor convolve(const Tensor &x, const Tensor &weights, const Tensor &bias, const Tensor &add, bool relu) {
  int64_t B = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3);
  int64_t panels = weights.size(1), panel = weights.size(3), O = panels * panel;
  TORCH_CHECK(weights.size(2) == C, "weights for ", weights.size(2), " channels, an input of ", C);
  auto order = torch::MemoryFormat::ChannelsLast;
  Tensor in = x.contiguous(order), plus = add.defined() ? add.contiguous(order) : add;
  Tensor y = torch::empty({B, O, H, W}, x.options(), order);
  TORCH_CHECK(!add.defined() || (add.sizes() == y.sizes() && add.scalar_type() == y.scalar_type()),
              "a sum of tensors of different shapes or types, ", y.sizes(), " and ", add.sizes());
  const std::vector<T> zeros(C, T{});
  auto place = [](const Tensor &t) { return t.defined() ? static_cast<T *>(t.data_ptr()) : nullptr; };
  int64_t columns = tiles_along(W), per_image = tiles_along(H) * columns, all = B * per_image;
  Plan<T> plan = {B,
                  C,
                  H,
                  W,
                  O,
                  panels,
                  panel,
                  columns,
                  per_image,
                  place(in),
                  place(plus),
                  place(y),
                  weights.data_ptr<float>(),
                  bias.defined() ? bias.data_ptr<float>() : nullptr,
                  relu,
                  zeros.data()};
  int64_t threads = at::get_num_threads(), piece = tiles_of_a_piece(C, O);
  bool few_weights = weights.numel() * static_cast<int64_t>(sizeof(float)) <= 1 << 20; // each core keeps them all
  constexpr int64_t most = 256; // tiles in steps, each of which takes memory
  if (few_weights || all >= std::min(2 * piece * threads, most)) {
    run_pieces(plan, all, std::min(piece, whole_rows((all + threads - 1) / threads)));
  } else {
    run_steps(plan, all);
  }
  return y;
}

} // namespace

Tensor winograd_conv(const Tensor &x, const Tensor &weights, const Tensor &bias, const Tensor &add, bool relu) {
  if (x.scalar_type() == torch::kBFloat16) return convolve<Brain>(x, weights, bias, add, relu);
  return convolve<float>(x, weights, bias, add, relu);
}

namespace {

// Those of the convolution that makes an input's gradient: channels change places, and kernels are turned by half.
Tensor backward_weights(const Tensor &weight) {
  Tensor w = weight.contiguous(torch::MemoryFormat::ChannelsLast);
  int64_t O = w.size(0), C = w.size(1);
  const float *in = w.data_ptr<float>();
  return transformed(C, O, [=](int64_t c, int64_t o, int64_t k) { return in + (o * 9 + 8 - k) * C + c; });
}

struct Learning : torch::autograd::Function<Learning> {
  static Tensor forward(torch::autograd::AutogradContext *ctx, const Tensor &x, const Tensor &weight,
                        const Tensor &bias) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["bias"] = bias.numel() > 0;
    return winograd_conv(x, winograd_weights(weight), bias.numel() > 0 ? bias : Tensor(), {}, false);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *ctx,
                                                 torch::autograd::variable_list grads) {
    torch::autograd::variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1];
    bool with_bias = ctx->saved_data["bias"].toBool();
    Tensor dy = grads[0].contiguous(torch::MemoryFormat::ChannelsLast), dx;
    if (ctx->needs_input_grad(0)) dx = winograd_conv(dy, backward_weights(weight), {}, {}, false);
    Tensor w = weight.to(x.scalar_type());
    const std::vector<int64_t> one = {1, 1}, none = {0, 0}, outputs = {w.size(0)};
    auto rest = at::convolution_backward(dy, x, w, at::OptionalIntArrayRef(outputs), one, one, one, false, none, 1,
                                         {false, true, with_bias});
    Tensor db = with_bias ? std::get<2>(rest).to(weight.scalar_type()) : Tensor();
    return {dx, std::get<1>(rest).to(weight.scalar_type()), db};
  }
};

} // namespace

Tensor winograd_conv_learning(const Tensor &x, const Tensor &weight, const Tensor &bias) {
  Tensor shift = bias.defined() ? bias : torch::empty({0}); // autograd takes no undefined tensors
  return Learning::apply(x.contiguous(torch::MemoryFormat::ChannelsLast), weight, shift);
}

bool winograd_pays_learning(const Tensor &x, const Tensor &weight) {
  // The weights are new in every step, and brought into the other form twice.
  constexpr int64_t fewest_tiles = 128;
  int64_t tiles = x.size(0) * tiles_along(x.size(2)) * tiles_along(x.size(3));
  return available() && x.is_cpu() && (x.scalar_type() == torch::kFloat32 || x.scalar_type() == torch::kBFloat16) &&
         weight.scalar_type() == torch::kFloat32 && weight.size(0) % kLanes == 0 && weight.size(1) % kLanes == 0 &&
         tiles >= fewest_tiles;
}

} // namespace rdpp
