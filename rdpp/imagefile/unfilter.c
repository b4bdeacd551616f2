#include "unfilter.h"

// The first of a, b and c that is nearest to a + b - c: c where that lies between a and b, else the one of a and b that
// is farther from c.
static inline int paeth(int a, int b, int c) {
  int low = a < b ? a : b;
  int high = a < b ? b : a;
  int t = 3 * c - b - a;
  int nearest = high <= t ? low : c;
  return t <= low ? high : nearest;
}

// Returns 0 where it knows no such filter. up is the row above, and what lies left of the first pixel counts as 0.
static int unfilter_row(int filter, uint8_t *row, const uint8_t *up, size_t width, size_t pixel) {
  const uint8_t *left = row - pixel, *up_left = up - pixel;
  size_t i = 0;
  switch (filter) {
  case 0:
    return 1;
  case 1:
    for (i = pixel; i < width; i++) row[i] += left[i];
    return 1;
  case 2:
    for (; i < width; i++) row[i] += up[i];
    return 1;
  case 3:
    for (; i < pixel; i++) row[i] += up[i] / 2;
    for (; i < width; i++) row[i] += (left[i] + up[i]) / 2;
    return 1;
  case 4:
    for (; i < pixel; i++) row[i] += up[i];
    for (; i < width; i++) row[i] += paeth(left[i], up[i], up_left[i]);
    return 1;
  }
  return 0;
}

size_t rdpp_unfilter(uint8_t *data, size_t height, size_t width, size_t pixel) {
  for (size_t y = 0; y < height; y++) {
    uint8_t *up = data + y * (1 + width) + 1, *row = up + 1 + width;
    if (!unfilter_row(row[-1], row, up, width, pixel)) return y;
  }
  return height;
}
