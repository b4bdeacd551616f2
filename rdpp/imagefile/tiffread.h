#ifndef RDPP_TIFFREAD_H
#define RDPP_TIFFREAD_H

#include <stddef.h>
#include <stdint.h>

#define RDPP_HIDDEN __attribute__((visibility("hidden")))

// Where a file's bytes come from, and what libtiff says about them. No function keeps a pointer after it returns.
typedef struct {
  const uint8_t *data;
  size_t size;
  size_t limit; // the most bytes that libtiff may allocate at once

  size_t position;   // of the next read
  int reading;       // pixels, so that what is said is about them
  char error[256];   // the first error while opening or reading, "" if there is none
  char warning[256]; // the first warning of damage, likewise
} rdpp_tiff_source;

// What a file's first page says about itself. Tags that are not there have the values of TIFF 6.0.
typedef struct {
  uint32_t width, height; // pixels
  uint16_t bits, samples; // per sample, per pixel
  uint16_t photometric, compression, sample_format, planar, orientation;
  uint16_t extra_samples, first_extra; // how many of the samples are no colour, and what the first of them is
  int has_photometric;
  int decodable;                      // whether libtiff has the compression's codec
  uint64_t tile;                      // bytes of a tile, 0 if there are none
  uint32_t block_width, block_height; // pixels of a strip or tile
} rdpp_tiff_header;

// How samples become an image's bytes: pixel bytes from one pixel to the next and stride from row to row, take samples
// of each pixel, of bytes bytes each, high one first. A sample v becomes v * scale, the first one of white-is-zero grey
// (2^bits - 1 - v) * scale.
typedef struct {
  uint8_t *pix;
  size_t stride, pixel;
  int take, bytes, scale, invert;
} rdpp_tiff_target;

// All return 1, or 0 with the reason in source->error (or in its warning).
RDPP_HIDDEN int rdpp_tiff_read_header(rdpp_tiff_source *source, rdpp_tiff_header *header);
// Reads samples as they are stored, those of JPEG data as RGB if they are YCbCr.
RDPP_HIDDEN int rdpp_tiff_read_samples(rdpp_tiff_source *source, const rdpp_tiff_target *target);
// Reads what has to be converted to RGB into R G B A bytes, as stored: not turned.
RDPP_HIDDEN int rdpp_tiff_read_rgba(rdpp_tiff_source *source, uint8_t *pix);
// Reads a palette of 1 << bits colours as R G B bytes.
RDPP_HIDDEN int rdpp_tiff_read_palette(rdpp_tiff_source *source, uint8_t *rgb);
// Counts the pages, at least 1.
RDPP_HIDDEN uint32_t rdpp_tiff_pages(rdpp_tiff_source *source);

#endif
