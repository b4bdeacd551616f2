// The inner loops of Winograd's convolution. Their file alone is compiled for AVX-512; it includes nothing whose inline
// functions other files, which run anywhere, could be given instead of their own.
#pragma once

#include <cstdint>

namespace rdpp::winograd {

constexpr int kTile = 4;       // outputs a tile has on a side
constexpr int kPatch = 6;      // inputs it is made from
constexpr int kPoints = 36;    // products per channel, kPatch^2
constexpr int64_t kLanes = 16; // channels that are worked on at once; numbers of channels are multiples
constexpr int64_t kRows = 8;   // numbers of tiles are multiples

// An element of bfloat16: the upper half of a float.
struct Brain {
  uint16_t bits;
};

// g: C x 9 x kLanes, the weights k = 0..8 of kLanes outputs for C inputs -> u[point * stride + c * panel].
void transform_weights(const float *g, int64_t C, float *u, int64_t panel, int64_t stride);

// patch: for each of the kPatch^2 inputs of a tile the place of its channels, C of them from `first` on
// -> v[point * stride + c - first].
void transform_input(const float *const patch[kPoints], int64_t first, int64_t C, float *v, int64_t stride);
void transform_input(const Brain *const patch[kPoints], int64_t first, int64_t C, float *v, int64_t stride);

// m[t * O + o] = sum over c of v[t * C + c] * u[c * panel + o], for a panel of `panel` (16, 32 or 64) columns o: u is
// C x panel, m points to the panel's first column. more: that is added to what m has already.
void multiply(const float *v, const float *u, int64_t tiles, int64_t C, int64_t O, int64_t panel, bool more, float *m);

// m[point * stride + o] -> out[i]: for each of the kTile^2 outputs of a tile O channels, plus bias, plus add[i], then
// ReLU; bias NULL and add NULL mean none. Places that are NULL lie outside of the image.
void transform_output(const float *m, int64_t stride, int64_t O, const float *bias, const float *const *add, bool relu,
                      float *const out[kTile * kTile]);
void transform_output(const float *m, int64_t stride, int64_t O, const float *bias, const Brain *const *add, bool relu,
                      Brain *const out[kTile * kTile]);

} // namespace rdpp::winograd
