#ifndef RDPP_UNFILTER_H
#define RDPP_UNFILTER_H

#include <stddef.h>
#include <stdint.h>

// Undoes the filters of a PNG's rows in place (PNG, section 9). data holds 1 + height rows of 1 + width bytes: a row of
// zeros, then the picture's, each after the number of its filter. Pixels are pixel bytes apart, at most width. Returns
// the number of rows undone: fewer than height where the next one's filter is unknown.
__attribute__((visibility("hidden"))) size_t rdpp_unfilter(uint8_t *data, size_t height, size_t width, size_t pixel);

#endif
