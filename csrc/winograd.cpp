#include "winograd.h"

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

// Weights by lanes: O/lanes x C x 9 x lanes. at(o, c, k) is the place of weight k = 0..8 of output o and input c.
template <class At> Tensor by_lanes(int64_t O, int64_t C, const At &at) {
  Tensor g = torch::empty({O / kLanes, C, 9, kLanes}, torch::kFloat32);
  float *out = g.data_ptr<float>();
  at::parallel_for(0, O / kLanes, 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kLanes; first < end * kLanes; first += kLanes) {
      float *to = out + first * C * 9;
      for (int64_t c = 0; c < C; c++) {
        for (int64_t k = 0; k < 9; k++, to += kLanes) {
          for (int64_t o = 0; o < kLanes; o++) to[o] = *at(first + o, c, k);
        }
      }
    }
  });
  return g;
}

// Their points: 36 x panels x C x panel. Not by a matrix product: OpenBLAS's threads would wait for the next one on the
// cores that work.
Tensor points_of(const Tensor &g) {
  int64_t O = g.size(0) * kLanes, C = g.size(1), panel = panel_of(O);
  Tensor u = torch::empty({kPoints, O / panel, C, panel}, torch::kFloat32);
  const float *in = g.data_ptr<float>();
  float *out = u.data_ptr<float>();
  at::parallel_for(0, O / kLanes, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      int64_t o = i * kLanes;
      transform_weights(in + o * C * 9, C, out + o / panel * C * panel + o % panel, panel, O * C);
    }
  });
  return u;
}

WinogradWeights form(const Tensor &g) {
  // Of points; those of 128 to 128 channels are kept: they have many tiles, and making them anew took 4 % longer.
  constexpr int64_t most = 4 << 20; // bytes
  if (g.numel() / 9 * kPoints * static_cast<int64_t>(sizeof(float)) > most) return {g, {}};
  return {{}, points_of(g)};
}

} // namespace

WinogradWeights winograd_weights(const Tensor &weight) {
  Tensor w = weight.contiguous(torch::MemoryFormat::ChannelsLast); // in memory O x 3 x 3 x C
  int64_t O = w.size(0), C = w.size(1);
  const float *in = w.data_ptr<float>();
  return form(by_lanes(O, C, [=](int64_t o, int64_t c, int64_t k) { return in + (o * 9 + k) * C + c; }));
}

namespace {

// A convolution as it is computed: three steps for a range of tiles, which lie in v and m from place 0 on.
template <class T> struct Plan {
  int64_t B, C, H, W, O, columns, per_image;
  const T *x, *add;
  T *y;
  const float *bias;
  bool relu;
  const T *zeros; // C of them, the border

  // n channels of a tile from `first` on.
  void read(int64_t tile, int64_t first, int64_t n, float *v, int64_t stride) const {
    const T *patch[kPoints];
    int64_t b = tile / per_image;
    int64_t top = tile % per_image / columns * kTile - 1, left = tile % columns * kTile - 1;
    for (int64_t i = 0; i < kPoints; i++) {
      int64_t row = top + i / kPatch, column = left + i % kPatch;
      bool inside = b < B && row >= 0 && row < H && column >= 0 && column < W;
      patch[i] = inside ? x + ((b * H + row) * W + column) * C : zeros;
    }
    transform_input(patch, first, n, v, stride);
  }

  void write(int64_t tile, int64_t first, int64_t n, const float *m, int64_t stride) const {
    T *out[kTile * kTile];
    const T *plus[kTile * kTile];
    int64_t b = tile / per_image;
    if (b >= B) return;
    int64_t top = tile % per_image / columns * kTile, left = tile % columns * kTile;
    for (int64_t i = 0; i < kTile * kTile; i++) {
      int64_t row = top + i / kTile, column = left + i % kTile, at = ((b * H + row) * W + column) * O + first;
      bool inside = row < H && column < W;
      out[i] = inside ? y + at : nullptr;
      plus[i] = inside && add ? add + at : nullptr;
    }
    transform_output(m, stride, n, bias ? bias + first : nullptr, add ? plus : nullptr, relu, out);
  }
};

// Weights in points: every thread takes pieces of tiles through all three steps, within its own cache.
template <class T> void run_pieces(const Plan<T> &plan, const Tensor &points, int64_t all, int64_t piece) {
  int64_t C = plan.C, O = plan.O, panels = points.size(1), panel = points.size(3), workers = at::get_num_threads();
  piece = std::min(piece, whole_rows((all + workers - 1) / workers));
  int64_t v_stride = padded(piece * C), m_stride = padded(piece * O), each = kPoints * (v_stride + m_stride);
  Tensor memory = torch::empty({workers * each}, torch::kFloat32);
  float *start = memory.data_ptr<float>();
  const float *u = points.data_ptr<float>();
  at::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; worker++) {
      float *v = start + worker * each, *m = v + kPoints * v_stride;
      for (int64_t first = worker * piece; first < all; first += workers * piece) {
        for (int64_t t = 0; t < piece; t++) plan.read(first + t, 0, C, v + t * C, v_stride);
        for (int64_t i = 0; i < kPoints * panels; i++) {
          int64_t point = i / panels, at = i % panels;
          multiply(v + point * v_stride, u + i * C * panel, piece, C, O, panel, false,
                   m + point * m_stride + at * panel);
        }
        for (int64_t t = 0; t < piece; t++) plan.write(first + t, 0, O, m + t * O, m_stride);
      }
    }
  });
}

// For few tiles: all threads take each step together, and share the weights among them.
template <class T> void run_steps(const Plan<T> &plan, const Tensor &points, int64_t all) {
  int64_t C = plan.C, O = plan.O, panels = points.size(1), panel = points.size(3);
  int64_t tiles = whole_rows(all), v_stride = padded(tiles * C), m_stride = padded(tiles * O);
  Tensor memory = torch::empty({kPoints * (v_stride + m_stride)}, torch::kFloat32);
  float *v = memory.data_ptr<float>(), *m = v + kPoints * v_stride;
  const float *u = points.data_ptr<float>();
  at::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) plan.read(t, 0, C, v + t * C, v_stride);
  });
  at::parallel_for(0, kPoints * panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      int64_t point = i / panels, at = i % panels;
      multiply(v + point * v_stride, u + i * C * panel, tiles, C, O, panel, false, m + point * m_stride + at * panel);
    }
  });
  at::parallel_for(0, all, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) plan.write(t, 0, O, m + t * O, m_stride);
  });
}

// What a thread takes at a time of O outputs and so many tiles: a panel of outputs of a group of tiles.
struct Unit {
  int64_t panel, group;
};

// That with which so many threads are done first. A panel's points are made for every group, and a group's inputs are
// read for every panel; either takes as long as some four more tiles or outputs would.
Unit unit_for(int64_t O, int64_t tiles, int64_t threads) {
  Unit best = {};
  int64_t least = 0;
  auto consider = [&](int64_t panel) {
    for (int64_t parts = 1; parts <= tiles / kRows; parts++) {
      int64_t group = whole_rows((tiles + parts - 1) / parts), units = O / panel * ((tiles + group - 1) / group);
      int64_t time = (units + threads - 1) / threads * (panel * group + 4 * (panel + group));
      if (least == 0 || time < least) best = {panel, group}, least = time;
    }
  };
  int64_t widest = panel_of(O);
  consider(widest);
  if (widest == 64) consider(32);
  return best;
}

// Weights by lanes: every thread makes the points of so many weights at a time as stay in its own cache. That takes no
// longer than reading the points, of which there are four times as many, from memory would.
template <class T> void run_panels(const Plan<T> &plan, const Tensor &by_lanes, int64_t all) {
  constexpr int64_t most_tiles = 64, most_inputs = 64; // at a time
  int64_t C = plan.C, O = plan.O, workers = at::get_num_threads();
  int64_t round = std::min(most_tiles, whole_rows(all)), n = std::min(most_inputs, C), parts = (C + n - 1) / n;
  const Unit whole = unit_for(O, round, workers);
  int64_t panel = whole.panel, group = whole.group;
  int64_t v_stride = padded(round * n), u_stride = padded(n * panel), m_stride = padded(group * panel);
  int64_t v_part = kPoints * v_stride, own = kPoints * (u_stride + m_stride);
  Tensor memory = torch::empty({parts * v_part + workers * own}, torch::kFloat32);
  float *v = memory.data_ptr<float>(), *rest = v + parts * v_part;
  const float *g = by_lanes.data_ptr<float>();

  for (int64_t first = 0; first < all; first += round) {
    int64_t tiles = std::min(round, whole_rows(all - first)), units = O / panel * ((tiles + group - 1) / group);
    at::parallel_for(0, tiles * parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        int64_t t = i / parts, part = i % parts, inputs = std::min(n, C - part * n);
        plan.read(first + t, part * n, inputs, v + part * v_part + t * inputs, v_stride);
      }
    });
    at::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
      for (int64_t worker = begin; worker < end; worker++) {
        float *u = rest + worker * own, *m = u + kPoints * u_stride;
        for (int64_t unit = worker; unit < units; unit += workers) {
          int64_t o = unit % (O / panel) * panel, from = unit / (O / panel) * group,
                  size = std::min(group, tiles - from);
          for (int64_t part = 0; part < parts; part++) {
            int64_t c = part * n, inputs = std::min(n, C - c);
            for (int64_t i = 0; i < panel; i += kLanes) {
              transform_weights(g + ((o + i) * C + c * kLanes) * 9, inputs, u + i, panel, u_stride);
            }
            for (int64_t point = 0; point < kPoints; point++) {
              multiply(v + part * v_part + point * v_stride + from * inputs, u + point * u_stride, size, inputs, panel,
                       panel, part > 0, m + point * m_stride);
            }
          }
          for (int64_t t = 0; t < size; t++) plan.write(first + from + t, o, panel, m + t * panel, m_stride);
        }
      }
    });
  }
}

template <class T>
Tensor convolve(const Tensor &x, const WinogradWeights &weights, const Tensor &bias, const Tensor &add, bool relu) {
  int64_t B = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3);
  int64_t O = weights.outputs(), inputs = weights.inputs();
  TORCH_CHECK(inputs == C, "weights for ", inputs, " channels, an input of ", C);
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
                  columns,
                  per_image,
                  place(in),
                  place(plus),
                  place(y),
                  bias.defined() ? bias.data_ptr<float>() : nullptr,
                  relu,
                  zeros.data()};
  const Tensor &points = weights.points;
  if (!points.defined()) {
    run_panels(plan, weights.by_lanes, all);
    return y;
  }
  int64_t threads = at::get_num_threads(), piece = tiles_of_a_piece(C, O);
  bool few_weights = points.numel() * static_cast<int64_t>(sizeof(float)) <= 1 << 20; // each core keeps them all
  constexpr int64_t most = 256; // tiles in steps, each of which takes memory
  if (few_weights || all >= std::min(2 * piece * threads, most)) {
    run_pieces(plan, points, all, piece);
  } else {
    run_steps(plan, points, all);
  }
  return y;
}

} // namespace

Tensor winograd_conv(const Tensor &x, const WinogradWeights &weights, const Tensor &bias, const Tensor &add,
                     bool relu) {
  if (x.scalar_type() == torch::kBFloat16) return convolve<Brain>(x, weights, bias, add, relu);
  return convolve<float>(x, weights, bias, add, relu);
}

namespace {

// Those of the convolution that makes an input's gradient: channels change places, and kernels are turned by half.
WinogradWeights backward_weights(const Tensor &weight) {
  Tensor w = weight.contiguous(torch::MemoryFormat::ChannelsLast);
  int64_t O = w.size(0), C = w.size(1);
  const float *in = w.data_ptr<float>();
  return form(by_lanes(C, O, [=](int64_t c, int64_t o, int64_t k) { return in + (o * 9 + 8 - k) * C + c; }));
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
