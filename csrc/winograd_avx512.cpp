#include "winograd_avx512.h"

namespace rdpp::winograd {

namespace {

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float))));

typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t)), aligned(sizeof(uint16_t))));
typedef uint32_t Words __attribute__((vector_size(kLanes * sizeof(uint32_t))));

inline Lanes load(const float *p) { return *reinterpret_cast<const Lanes *>(p); }
inline void store(float *p, Lanes v) { *reinterpret_cast<Lanes *>(p) = v; }

inline Lanes load(const Brain *p) {
  return (Lanes)(__builtin_convertvector(*reinterpret_cast<const Halves *>(p), Words) << 16); // the same bits
}

// Rounds to the nearest, to even where two are as near.
inline void store(Brain *p, Lanes v) {
  Words words = (Words)v; // the same bits
  words = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
  *reinterpret_cast<Halves *>(p) = __builtin_convertvector(words, Halves);
}

// One row or column of G g.
inline void weight_line(const Lanes &g0, const Lanes &g1, const Lanes &g2, Lanes y[kPatch]) {
  Lanes even = (g0 + g2) * (1.0f / 6), odd = g1 * (1.0f / 6);
  Lanes near = g0 * (1.0f / 24) + g2 * (1.0f / 6), far = g1 * (1.0f / 12);
  y[0] = g0 * 0.25f;
  y[1] = -even - odd;
  y[2] = odd - even;
  y[3] = near + far;
  y[4] = near - far;
  y[5] = g2;
}

// One row or column of B^T d.
inline void input_line(const Lanes d[kPatch], Lanes y[kPatch]) {
  Lanes a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
  y[0] = 4 * d[0] - 5 * d[2] + d[4];
  y[1] = a + b;
  y[2] = a - b;
  y[3] = c + e;
  y[4] = c - e;
  y[5] = 4 * d[1] - 5 * d[3] + d[5];
}

// One row or column of A^T m.
inline void output_line(const Lanes m[kPatch], Lanes y[kTile]) {
  Lanes a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
  y[0] = m[0] + a + c;
  y[1] = b + 2 * e;
  y[2] = a + 4 * c;
  y[3] = b + 8 * e + m[5];
}

// kTiles rows of m, kVectors * kLanes columns. The sums stay in registers where all loops over them are unrolled.
template <int kTiles, int kVectors, bool kMore>
inline void block(const float *v, const float *u, int64_t C, int64_t O, float *m) {
  Lanes sum[kTiles][kVectors];
#pragma GCC unroll 8
  for (int t = 0; t < kTiles; t++) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; j++) sum[t][j] = kMore ? load(m + t * O + j * kLanes) : Lanes{};
  }
  for (int64_t c = 0; c < C; c++, u += kVectors * kLanes) {
    Lanes weight[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; j++) weight[j] = load(u + j * kLanes);
#pragma GCC unroll 8
    for (int t = 0; t < kTiles; t++) {
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; j++) sum[t][j] += v[t * C + c] * weight[j];
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTiles; t++) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; j++) store(m + t * O + j * kLanes, sum[t][j]);
  }
}

template <int kTiles, int kVectors>
void blocks(const float *v, const float *u, int64_t tiles, int64_t C, int64_t O, bool more, float *m) {
  for (int64_t t = 0; t < tiles; t += kTiles) {
    if (more) {
      block<kTiles, kVectors, true>(v + t * C, u, C, O, m + t * O);
    } else {
      block<kTiles, kVectors, false>(v + t * C, u, C, O, m + t * O);
    }
  }
}

template <class T> void input(const T *const patch[kPoints], int64_t first, int64_t C, float *v, int64_t stride) {
  for (int64_t c = 0; c < C; c += kLanes) {
    Lanes half[kPatch][kPatch]; // [column][row]
    for (int x = 0; x < kPatch; x++) {
      Lanes column[kPatch];
      for (int y = 0; y < kPatch; y++) column[y] = load(patch[y * kPatch + x] + first + c);
      input_line(column, half[x]);
    }
    for (int y = 0; y < kPatch; y++) {
      Lanes row[kPatch], result[kPatch];
      for (int x = 0; x < kPatch; x++) row[x] = half[x][y];
      input_line(row, result);
      for (int x = 0; x < kPatch; x++) store(v + (y * kPatch + x) * stride + c, result[x]);
    }
  }
}

template <class T>
void output(const float *m, int64_t stride, int64_t O, const float *bias, const T *const *add, bool relu,
            T *const out[kTile * kTile]) {
  for (int64_t o = 0; o < O; o += kLanes) {
    Lanes half[kPatch][kTile]; // [column][row]
    for (int x = 0; x < kPatch; x++) {
      Lanes column[kPatch];
      for (int y = 0; y < kPatch; y++) column[y] = load(m + (y * kPatch + x) * stride + o);
      output_line(column, half[x]);
    }
    Lanes shift = {};
    if (bias) shift = load(bias + o);
    for (int y = 0; y < kTile; y++) {
      Lanes row[kPatch], result[kTile];
      for (int x = 0; x < kPatch; x++) row[x] = half[x][y];
      output_line(row, result);
      for (int x = 0; x < kTile; x++) {
        int i = y * kTile + x;
        if (!out[i]) continue;
        Lanes value = result[x] + shift;
        if (add) value += load(add[i] + o);
        if (relu) value = value < 0 ? Lanes{} : value; // NaN stays
        store(out[i] + o, value);
      }
    }
  }
}

} // namespace

void transform_weights(const float *g, int64_t C, float *u, int64_t panel, int64_t stride) {
  for (int64_t c = 0; c < C; c++, g += 9 * kLanes, u += panel) {
    Lanes half[3][kPatch]; // [column][row]
    for (int x = 0; x < 3; x++) {
      weight_line(load(g + x * kLanes), load(g + (3 + x) * kLanes), load(g + (6 + x) * kLanes), half[x]);
    }
    for (int y = 0; y < kPatch; y++) {
      Lanes row[kPatch];
      weight_line(half[0][y], half[1][y], half[2][y], row);
      for (int x = 0; x < kPatch; x++) store(u + (y * kPatch + x) * stride, row[x]);
    }
  }
}

void transform_input(const float *const patch[kPoints], int64_t first, int64_t C, float *v, int64_t stride) {
  input(patch, first, C, v, stride);
}

void transform_input(const Brain *const patch[kPoints], int64_t first, int64_t C, float *v, int64_t stride) {
  input(patch, first, C, v, stride);
}

void multiply(const float *v, const float *u, int64_t tiles, int64_t C, int64_t O, int64_t panel, bool more, float *m) {
  // As many sums as hide the latency of their additions and fit into the registers.
  if (panel == 64) return blocks<4, 4>(v, u, tiles, C, O, more, m);
  if (panel == 32) return blocks<8, 2>(v, u, tiles, C, O, more, m);
  blocks<8, 1>(v, u, tiles, C, O, more, m);
}

void transform_output(const float *m, int64_t stride, int64_t O, const float *bias, const float *const *add, bool relu,
                      float *const out[kTile * kTile]) {
  output(m, stride, O, bias, add, relu, out);
}

void transform_output(const float *m, int64_t stride, int64_t O, const float *bias, const Brain *const *add, bool relu,
                      Brain *const out[kTile * kTile]) {
  output(m, stride, O, bias, add, relu, out);
}

} // namespace rdpp::winograd
