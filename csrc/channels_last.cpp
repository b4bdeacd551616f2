#include "channels_last.h"

#include "vectorised.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace rdpp {

using torch::Tensor;

namespace {

// y = max(y, x), or NaN.
RDPP_VECTORISED void raise(float *__restrict y, const float *__restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] > y[i] || x[i] != x[i] ? x[i] : y[i];
}

// The same for the bits of bfloat16, which are in order as integers once those of negative numbers are turned round; a
// NaN whose sign is set counts as the least.
RDPP_VECTORISED void raise(int16_t *__restrict y, const int16_t *__restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    int16_t a = static_cast<int16_t>(x[i] ^ ((x[i] >> 15) & 0x7fff));
    int16_t b = static_cast<int16_t>(y[i] ^ ((y[i] >> 15) & 0x7fff));
    y[i] = a > b ? x[i] : y[i];
  }
}

// y = (1 - w) * a + w * b
RDPP_VECTORISED void blend(float *__restrict y, const float *__restrict a, const float *__restrict b, float w,
                           int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = a[i] + w * (b[i] - a[i]);
}

// y += w * x
RDPP_VECTORISED void add_scaled(float *__restrict y, const float *__restrict x, float w, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] += w * x[i];
}

constexpr int64_t kLanes = 16; // sums that are made side by side

// sums: of a*a, b*b and a*b, kLanes each.
RDPP_VECTORISED void add_products(const float *__restrict a, const float *__restrict b, int64_t n,
                                  float *__restrict sums) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; j++) {
      sums[j] += a[i + j] * a[i + j];
      sums[kLanes + j] += b[i + j] * b[i + j];
      sums[2 * kLanes + j] += a[i + j] * b[i + j];
    }
  }
  for (; i < n; i++) {
    sums[0] += a[i] * a[i];
    sums[kLanes] += b[i] * b[i];
    sums[2 * kLanes] += a[i] * b[i];
  }
}

float total(const float *x) {
  float sum = 0;
  for (int64_t i = 0; i < kLanes; i++) sum += x[i];
  return sum;
}

int64_t mirrored(int64_t i, int64_t n) {
  i = (i % (2 * n) + 2 * n) % (2 * n);
  return i < n ? i : 2 * n - 1 - i;
}

} // namespace

bool lies_channels_last(const Tensor &x) {
  return x.is_cpu() && x.dim() == 4 && !torch::GradMode::is_enabled() &&
         x.is_contiguous(torch::MemoryFormat::ChannelsLast);
}

namespace {

template <class T> Tensor max_pool(const Tensor &x) {
  int64_t B = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3), h = (H + 1) / 2, w = (W + 1) / 2;
  Tensor y = torch::empty({B, C, h, w}, x.options(), torch::MemoryFormat::ChannelsLast);
  const T *in = static_cast<const T *>(x.data_ptr());
  T *out = static_cast<T *>(y.data_ptr());
  at::parallel_for(0, B * h, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> line(W * C); // the maxima of up to three rows
    for (int64_t i = begin; i < end; i++) {
      const T *image = in + i / h * H * W * C;
      int64_t first = std::max<int64_t>(2 * (i % h) - 1, 0), last = std::min(2 * (i % h) + 1, H - 1);
      std::copy_n(image + first * W * C, W * C, line.data());
      for (int64_t row = first + 1; row <= last; row++) raise(line.data(), image + row * W * C, W * C);
      for (int64_t column = 0; column < w; column++) {
        T *at = out + (i * w + column) * C;
        int64_t from = std::max<int64_t>(2 * column - 1, 0), to = std::min(2 * column + 1, W - 1);
        std::copy_n(&line[from * C], C, at);
        for (int64_t place = from + 1; place <= to; place++) raise(at, &line[place * C], C);
      }
    }
  });
  return y;
}

// Where output i of S along a line of n lies: between which two inputs, and how near to the second.
struct Between {
  int64_t first, second;
  float weight;
};

std::vector<Between> stretch(int64_t n, int64_t S) {
  std::vector<Between> places(S);
  for (int64_t i = 0; i < S; i++) {
    float at = S > 1 ? static_cast<float>(n - 1) / static_cast<float>(S - 1) * static_cast<float>(i) : 0;
    int64_t first = std::min(static_cast<int64_t>(at), n - 1);
    places[i] = {first, std::min(first + 1, n - 1), at - static_cast<float>(first)};
  }
  return places;
}

} // namespace

Tensor max_pool_3x3(const Tensor &x) {
  return x.scalar_type() == torch::kBFloat16 ? max_pool<int16_t>(x) : max_pool<float>(x);
}

namespace {

// y += x
RDPP_VECTORISED void gather(float *__restrict y, const float *__restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

void gather(float *y, const at::BFloat16 *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] += static_cast<float>(x[i]);
}

template <class T> Tensor means(const Tensor &x) {
  int64_t B = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3);
  Tensor rows = torch::zeros({B, H, C}, x.options().dtype(torch::kFloat32)),
         y = torch::empty({B, C, 1, 1}, x.options());
  const T *in = x.data_ptr<T>();
  float *sums = rows.data_ptr<float>();
  T *out = y.data_ptr<T>();
  at::parallel_for(0, B * H, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * W; i < end * W; i++) gather(sums + i / W * C, in + i * C, C);
  });
  for (int64_t image = 0; image < B; image++) {
    float *sum = sums + image * H * C; // the first row's, then all rows'
    for (int64_t row = 1; row < H; row++) gather(sum, sum + row * C, C);
    for (int64_t c = 0; c < C; c++) out[image * C + c] = static_cast<T>(sum[c] / static_cast<float>(H * W));
  }
  return y;
}

// 1 + exp(-x), up to 1e-7 of it: 2^k exp(r) with the |r| of at most log(2) / 2 by its Taylor series. Beyond +-87 it is
// what it is there.
inline __attribute__((always_inline)) float one_and_exp(float x) {
  constexpr float kNumber = 12582912; // 1.5 * 2^23: added to a number it leaves the nearest integer in the last bits
  float y = -x;
  y = y < -87 ? -87 : y;
  y = y > 87 ? 87 : y;
  float shifted = y * 1.44269504f + kNumber, k = shifted - kNumber;
  float r = y - k * 0.693359375f + k * 2.12194440e-4f; // log(2) in two parts, of which k times the first is exact
  float p = 1.0f / 5040;
  for (float over : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = p * r + over;
  int32_t bits = (static_cast<int32_t>(k) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return 1 + p * power;
}

RDPP_VECTORISED void swish(float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] /= one_and_exp(x[i]);
}

RDPP_VECTORISED void sigmoid(float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = 1 / one_and_exp(x[i]);
}

// f of all numbers of x, which fill a piece of memory.
void change(const Tensor &x, void (*f)(float *x, int64_t n)) {
  TORCH_CHECK(x.is_non_overlapping_and_dense(), "a tensor with gaps");
  at::parallel_for(0, x.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
    if (x.scalar_type() == torch::kFloat32) return f(x.data_ptr<float>() + begin, end - begin);
    at::BFloat16 *brain = x.data_ptr<at::BFloat16>();
    float line[1024];
    for (int64_t i = begin; i < end; i += 1024) {
      int64_t n = std::min<int64_t>(end - i, 1024);
      std::copy_n(brain + i, n, line);
      f(line, n);
      std::copy_n(line, n, brain + i);
    }
  });
}

} // namespace

void swish_in_place(const Tensor &x) { change(x, swish); }

void sigmoid_in_place(const Tensor &x) { change(x, sigmoid); }

Tensor mean_of_positions(const Tensor &x) {
  return x.scalar_type() == torch::kBFloat16 ? means<at::BFloat16>(x) : means<float>(x);
}

Tensor cosine_distance(const Tensor &a, const Tensor &b, double floor) {
  int64_t B = a.size(0), C = a.size(1), H = a.size(2), W = a.size(3);
  Tensor y = torch::empty({B, H, W}, a.options());
  const float *pa = a.data_ptr<float>(), *pb = b.data_ptr<float>();
  float *out = y.data_ptr<float>();
  at::parallel_for(0, B * H * W, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      float sums[3 * kLanes] = {};
      add_products(pa + i * C, pb + i * C, C, sums);
      double norms = static_cast<double>(total(sums)) * static_cast<double>(total(sums + kLanes));
      out[i] = static_cast<float>(1 - total(sums + 2 * kLanes) / std::sqrt(std::max(norms, floor)));
    }
  });
  return y;
}

void add_upsampled(const Tensor &map, const Tensor &out) {
  int64_t B = map.size(0), H = map.size(1), W = map.size(2), S = out.size(1);
  const std::vector<Between> rows = stretch(H, S), columns = stretch(W, S);
  const float *in = map.data_ptr<float>();
  float *sum = out.data_ptr<float>();
  at::parallel_for(0, B * S, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> line(W);
    for (int64_t i = begin; i < end; i++) {
      const Between &row = rows[i % S];
      const float *image = in + i / S * H * W;
      blend(line.data(), image + row.first * W, image + row.second * W, row.weight, W);
      for (int64_t j = 0; j < S; j++) {
        const Between &place = columns[j];
        sum[i * S + j] += line[place.first] + place.weight * (line[place.second] - line[place.first]);
      }
    }
  });
}

Tensor convolve_mirrored(const Tensor &map, const std::vector<float> &kernel) {
  int64_t B = map.size(0), H = map.size(1), W = map.size(2), R = static_cast<int64_t>(kernel.size()) / 2;
  Tensor y = torch::empty_like(map);
  const float *in = map.data_ptr<float>();
  float *out = y.data_ptr<float>();
  at::parallel_for(0, B * H, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> wide(W + 2 * R); // a row that is done along H, with its mirrored ends
    for (int64_t i = begin; i < end; i++) {
      std::fill(wide.begin(), wide.end(), 0.0f);
      for (int64_t k = -R; k <= R; k++) {
        add_scaled(&wide[R], in + (i / H * H + mirrored(i % H + k, H)) * W, kernel[R + k], W);
      }
      for (int64_t k = 1; k <= R; k++) {
        wide[R - k] = wide[R + mirrored(-k, W)];
        wide[R + W - 1 + k] = wide[R + mirrored(W - 1 + k, W)];
      }
      std::fill_n(out + i * W, W, 0.0f);
      for (int64_t k = 0; k <= 2 * R; k++) add_scaled(out + i * W, &wide[k], kernel[k], W);
    }
  });
  return y;
}

} // namespace rdpp
