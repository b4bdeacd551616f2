#include "instance_norm.h"

#include "vectorised.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

// libtorch's own instance norm turns channels-last tensors around and back again. For float32 on the CPU this file
// has one that reads and writes them as they lie: H*W rows of C values per image.

namespace rdpp {

namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kRows = 256; // summed in float32 before the sums go on in float64

// sum[c] += x - shift, squares[c] += (x - shift)^2. The shift, a value of the channel, keeps the variance from being a
// small difference of large numbers.
RDPP_VECTORISED void add_moments(const float *__restrict x, const float *__restrict shift, int64_t rows, int64_t C,
                                 float *__restrict sum, float *__restrict squares) {
  for (int64_t i = 0; i < rows; i++, x += C) {
    for (int64_t c = 0; c < C; c++) {
      float d = x[c] - shift[c];
      sum[c] += d;
      squares[c] += d * d;
    }
  }
}

RDPP_VECTORISED void normalise(const float *__restrict x, const float *__restrict mean, const float *__restrict scale,
                               float slope, int64_t rows, int64_t C, float *__restrict y) {
  for (int64_t i = 0; i < rows; i++, x += C, y += C) {
    for (int64_t c = 0; c < C; c++) {
      float v = (x[c] - mean[c]) * scale[c];
      y[c] = v > 0 ? v : v * slope;
    }
  }
}

// With v the normalised value (y or y / slope) and d the gradient at v: sum[c] += d, products[c] += d * v.
RDPP_VECTORISED void add_gradient_moments(const float *__restrict y, const float *__restrict dy, float slope,
                                          int64_t rows, int64_t C, float *__restrict sum, float *__restrict products) {
  float back = 1 / slope;
  for (int64_t i = 0; i < rows; i++, y += C, dy += C) {
    for (int64_t c = 0; c < C; c++) {
      float v = y[c] > 0 ? y[c] : y[c] * back;
      float d = y[c] > 0 ? dy[c] : dy[c] * slope;
      sum[c] += d;
      products[c] += d * v;
    }
  }
}

// dx = scale * (d - mean of d - v * mean of d*v)
RDPP_VECTORISED void input_gradient(const float *__restrict y, const float *__restrict dy,
                                    const float *__restrict scale, const float *__restrict mean_d,
                                    const float *__restrict mean_dv, float slope, int64_t rows, int64_t C,
                                    float *__restrict dx) {
  float back = 1 / slope;
  for (int64_t i = 0; i < rows; i++, y += C, dy += C, dx += C) {
    for (int64_t c = 0; c < C; c++) {
      float v = y[c] > 0 ? y[c] : y[c] * back;
      float d = y[c] > 0 ? dy[c] : dy[c] * slope;
      dx[c] = scale[c] * (d - mean_d[c] - v * mean_dv[c]);
    }
  }
}

// Runs part(b, first row, rows) over the images in pieces of kRows, so that results do not depend on the threads.
template <class F> void over_pieces(int64_t B, int64_t HW, const F &part) {
  int64_t pieces = (HW + kRows - 1) / kRows;
  at::parallel_for(0, B * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      int64_t row = i % pieces * kRows;
      part(i / pieces, row, std::min(kRows, HW - row));
    }
  });
}

// Two sums per image and channel, gathered by add(b, first row, rows, sum, other) and divided by H*W: 2 x B x C.
template <class F> std::vector<double> means(int64_t B, int64_t HW, int64_t C, const F &add) {
  int64_t pieces = (HW + kRows - 1) / kRows;
  std::vector<float> partial(B * pieces * 2 * C, 0);
  over_pieces(B, HW, [&](int64_t b, int64_t row, int64_t rows) {
    float *sum = &partial[(b * pieces + row / kRows) * 2 * C];
    add(b, row, rows, sum, sum + C);
  });
  std::vector<double> mean(2 * B * C, 0);
  for (int64_t b = 0; b < B; b++) {
    for (int64_t i = 0; i < pieces; i++) {
      const float *sum = &partial[(b * pieces + i) * 2 * C];
      for (int64_t c = 0; c < C; c++) {
        mean[b * C + c] += sum[c] / static_cast<double>(HW);
        mean[(B + b) * C + c] += sum[C + c] / static_cast<double>(HW);
      }
    }
  }
  return mean;
}

struct Fused : torch::autograd::Function<Fused> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, double eps, double slope) {
    int64_t B = x.size(0), C = x.size(1), HW = x.size(2) * x.size(3);
    const float *in = x.data_ptr<float>();
    std::vector<double> m = means(B, HW, C, [&](int64_t b, int64_t row, int64_t rows, float *sum, float *squares) {
      add_moments(in + (b * HW + row) * C, in + b * HW * C, rows, C, sum, squares);
    });
    std::vector<float> mean(B * C);
    Tensor scale = torch::empty({B, C}, torch::kFloat32); // 1 / standard deviation
    float *s = scale.data_ptr<float>();
    for (int64_t i = 0; i < B * C; i++) {
      double variance = m[B * C + i] - m[i] * m[i];
      mean[i] = static_cast<float>(in[i / C * HW * C + i % C] + m[i]);
      s[i] = static_cast<float>(1 / std::sqrt(std::max(variance, 0.0) + eps));
    }
    Tensor y = torch::empty_like(x); // channels last, as x
    float *out = y.data_ptr<float>();
    over_pieces(B, HW, [&](int64_t b, int64_t row, int64_t rows) {
      int64_t at = (b * HW + row) * C;
      normalise(in + at, &mean[b * C], s + b * C, static_cast<float>(slope), rows, C, out + at);
    });
    ctx->save_for_backward({y, scale});
    ctx->saved_data["slope"] = slope;
    return y;
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    variable_list saved = ctx->get_saved_variables();
    const Tensor &y = saved[0], &scale = saved[1];
    float slope = static_cast<float>(ctx->saved_data["slope"].toDouble());
    Tensor dy = grads[0].contiguous(torch::MemoryFormat::ChannelsLast);
    int64_t B = y.size(0), C = y.size(1), HW = y.size(2) * y.size(3);
    const float *py = y.data_ptr<float>(), *pd = dy.data_ptr<float>(), *s = scale.data_ptr<float>();
    std::vector<double> m = means(B, HW, C, [&](int64_t b, int64_t row, int64_t rows, float *sum, float *products) {
      int64_t at = (b * HW + row) * C;
      add_gradient_moments(py + at, pd + at, slope, rows, C, sum, products);
    });
    std::vector<float> mean(m.begin(), m.end());
    Tensor dx = torch::empty_like(y);
    float *out = dx.data_ptr<float>();
    over_pieces(B, HW, [&](int64_t b, int64_t row, int64_t rows) {
      int64_t at = (b * HW + row) * C;
      input_gradient(py + at, pd + at, s + b * C, &mean[b * C], &mean[(B + b) * C], slope, rows, C, out + at);
    });
    return {dx, Tensor(), Tensor()};
  }
};

} // namespace

Tensor instance_norm_leaky_relu(const Tensor &x, double eps, double slope) {
  if (x.scalar_type() == torch::kBFloat16) { // statistics in float32
    return instance_norm_leaky_relu(x.to(torch::kFloat32), eps, slope).to(torch::kBFloat16);
  }
  // A tensor of one channel or one position is contiguous in both orders; libtorch's way serves it too.
  if (x.is_cpu() && x.scalar_type() == torch::kFloat32 && x.is_contiguous(torch::MemoryFormat::ChannelsLast) &&
      !x.is_contiguous()) {
    return Fused::apply(x, eps, slope);
  }
  Tensor y = torch::instance_norm(x, {}, {}, {}, {}, true, 0.1, eps, true);
  return torch::leaky_relu_(y, slope);
}

} // namespace rdpp
