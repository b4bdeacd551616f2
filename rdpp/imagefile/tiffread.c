#include "tiffread.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>

#if TIFFLIB_VERSION < 20221213
#error libtiff 4.5 or newer is needed: older ones have no handlers and limits of their own for each file
#endif

// libtiff sees a mapped file, whose strips it reads where they are. What is written to it is lost.

static tmsize_t read_bytes(thandle_t handle, void *buffer, tmsize_t size) {
  rdpp_tiff_source *source = handle;
  const size_t rest = source->size - source->position;
  const size_t n = size < 0 ? 0 : (size_t)size < rest ? (size_t)size : rest;
  memcpy(buffer, source->data + source->position, n);
  source->position += n;
  return n;
}

static tmsize_t write_bytes(thandle_t handle, void *buffer, tmsize_t size) {
  (void)handle, (void)buffer, (void)size;
  return 0;
}

static toff_t seek(thandle_t handle, toff_t offset, int whence) {
  rdpp_tiff_source *source = handle;
  if (whence == SEEK_CUR) offset += source->position;
  if (whence == SEEK_END) offset += source->size;
  source->position = offset < source->size ? offset : source->size;
  return source->position;
}

static int no_close(thandle_t handle) {
  (void)handle;
  return 0;
}

static toff_t size_of(thandle_t handle) { return ((rdpp_tiff_source *)handle)->size; }

static int map(thandle_t handle, void **base, toff_t *size) {
  rdpp_tiff_source *source = handle;
  *base = (void *)source->data;
  *size = source->size;
  return 1;
}

static void unmap(thandle_t handle, void *base, toff_t size) { (void)handle, (void)base, (void)size; }

static void keep(char *kept, size_t size, const char *module, const char *format, va_list values) {
  if (*kept) return;
  int n = snprintf(kept, size, "%s: ", module ? module : "tiff");
  if (n > 0 && (size_t)n < size) vsnprintf(kept + n, size - n, format, values);
}

static int on_error(TIFF *tif, void *user, const char *module, const char *format, va_list values) {
  (void)tif;
  rdpp_tiff_source *source = user;
  keep(source->error, sizeof source->error, module, format, values);
  return 1;
}

static int has_any(const char *text, const char *const *parts) {
  for (; *parts; parts++) {
    if (strstr(text, *parts)) return 1;
  }
  return 0;
}

// Tells whether a warning is one of damage to the picture, where libtiff goes on without a colour map, or with grey or
// white.
static int damage(const rdpp_tiff_source *source, TIFF *tif, const char *text) {
  static const char *const ignored[] = {"ignored", "Ignoring", NULL};
  static const char *const tags[] = {
      "ColorMap", "SampleFormat", "ExtraSamples", "YCbCr", "JPEGTables", "ReferenceBlackWhite", NULL};
  // Neither padding before the end marker nor rows below the picture touch a pixel.
  static const char *const harmless[] = {"extraneous bytes before marker 0xd9", "exceeds expected dimensions", NULL};
  if (!source->reading) return has_any(text, ignored) && has_any(text, tags);
  uint16_t compression = COMPRESSION_NONE;
  if (tif) TIFFGetField(tif, TIFFTAG_COMPRESSION, &compression);
  switch (compression) {
  case COMPRESSION_CCITTRLE:
  case COMPRESSION_CCITTRLEW:
  case COMPRESSION_CCITTFAX3:
  case COMPRESSION_CCITTFAX4:
    return 1;
  case COMPRESSION_JPEG:
    return !has_any(text, harmless);
  }
  return 0;
}

static int on_warning(TIFF *tif, void *user, const char *module, const char *format, va_list values) {
  rdpp_tiff_source *source = user;
  char text[sizeof source->warning] = "";
  keep(text, sizeof text, module, format, values);
  if (!*source->warning && damage(source, tif, text)) memcpy(source->warning, text, sizeof text);
  return 1;
}

static TIFF *open_tiff(rdpp_tiff_source *source) {
  source->position = 0;
  TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
  if (!options) return NULL;
  TIFFOpenOptionsSetMaxSingleMemAlloc(options, source->limit);
  TIFFOpenOptionsSetErrorHandlerExtR(options, on_error, source);
  TIFFOpenOptionsSetWarningHandlerExtR(options, on_warning, source);
  // c: strips stay as they are.
  TIFF *tif =
      TIFFClientOpenExt("tiff", "rc", source, read_bytes, write_bytes, seek, no_close, size_of, map, unmap, options);
  TIFFOpenOptionsFree(options);
  if (tif) *source->error = 0;
  return tif;
}

// Closes tif and tells whether all of its pixels were read.
static int finish(rdpp_tiff_source *source, TIFF *tif, int ok) {
  source->reading = 0;
  TIFFClose(tif);
  return ok && !*source->error && !*source->warning;
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

int rdpp_tiff_read_header(rdpp_tiff_source *source, rdpp_tiff_header *header) {
  TIFF *tif = open_tiff(source);
  if (!tif) return 0;
  memset(header, 0, sizeof *header);
  uint16_t *extra = NULL;
  TIFFGetField(tif, TIFFTAG_IMAGEWIDTH, &header->width);
  TIFFGetField(tif, TIFFTAG_IMAGELENGTH, &header->height);
  TIFFGetFieldDefaulted(tif, TIFFTAG_BITSPERSAMPLE, &header->bits);
  TIFFGetFieldDefaulted(tif, TIFFTAG_SAMPLESPERPIXEL, &header->samples);
  header->has_photometric = TIFFGetField(tif, TIFFTAG_PHOTOMETRIC, &header->photometric);
  TIFFGetFieldDefaulted(tif, TIFFTAG_COMPRESSION, &header->compression);
  TIFFGetFieldDefaulted(tif, TIFFTAG_SAMPLEFORMAT, &header->sample_format);
  TIFFGetFieldDefaulted(tif, TIFFTAG_PLANARCONFIG, &header->planar);
  TIFFGetFieldDefaulted(tif, TIFFTAG_ORIENTATION, &header->orientation);
  TIFFGetFieldDefaulted(tif, TIFFTAG_EXTRASAMPLES, &header->extra_samples, &extra);
  if (header->extra_samples && extra) header->first_extra = extra[0];
  header->decodable = TIFFIsCODECConfigured(header->compression);
  if (TIFFIsTiled(tif)) {
    header->tile = TIFFTileSize64(tif);
    TIFFGetField(tif, TIFFTAG_TILEWIDTH, &header->block_width);
    TIFFGetField(tif, TIFFTAG_TILELENGTH, &header->block_height);
  } else {
    TIFFGetFieldDefaulted(tif, TIFFTAG_ROWSPERSTRIP, &header->block_height);
    header->block_width = header->width;
    header->block_height = least(header->block_height, header->height);
  }
  TIFFClose(tif);
  return !*source->warning;
}

// Copies count pixels of apart samples each from row to pix.
static inline __attribute__((always_inline)) void copy_bits(const rdpp_tiff_target *target, const uint8_t *row,
                                                            int bits, int apart, int take, uint32_t count,
                                                            uint8_t *pix) {
  const unsigned most = (1u << bits) - 1;
  for (size_t x = 0; x < count; x++, pix += target->pixel) {
    for (int s = 0; s < take; s++) {
      const size_t i = x * apart + s;
      unsigned v = 0;
      if (bits == 8) {
        v = row[i];
      } else if (bits == 16) { // in the machine's order
        uint16_t wide;
        memcpy(&wide, row + 2 * i, 2);
        v = wide;
      } else {
        size_t first = i * bits, last = first + bits - 1; // bits of the row, the high one of a byte being first
        for (size_t b = first / 8; b <= last / 8; b++) v = v << 8 | row[b];
        v = v >> (7 - last % 8) & most;
      }
      v = (target->invert && s == 0 ? most - v : v) * target->scale;
      if (target->bytes == 1) {
        pix[s] = v;
      } else {
        pix[2 * s] = v >> 8;
        pix[2 * s + 1] = v;
      }
    }
  }
}

// copy_bits, compiled for each of the usual widths.
static void copy_samples(const rdpp_tiff_target *target, const uint8_t *row, int bits, int apart, int take,
                         uint32_t count, uint8_t *pix) {
  switch (bits) {
  case 8:
    copy_bits(target, row, 8, apart, take, count, pix);
    break;
  case 16:
    copy_bits(target, row, 16, apart, take, count, pix);
    break;
  default:
    copy_bits(target, row, bits, apart, take, count, pix);
  }
}

// The samples that one strip or tile holds of a pixel.
typedef struct {
  TIFF *tif;
  uint32_t width, height;
  int bits, apart, take; // of apart samples the first take
  uint16_t plane;
} part;

static int read_strips(const part *p, const rdpp_tiff_target *target, uint8_t *pix) {
  uint8_t *row = _TIFFmalloc(TIFFScanlineSize(p->tif) + 8);
  int ok = row != NULL;
  for (uint32_t y = 0; ok && y < p->height; y++) {
    ok = TIFFReadScanline(p->tif, row, y, p->plane) == 1;
    if (ok) copy_samples(target, row, p->bits, p->apart, p->take, p->width, pix + y * target->stride);
  }
  _TIFFfree(row);
  return ok;
}

static int read_tiles(const part *p, const rdpp_tiff_target *target, uint8_t *pix) {
  uint32_t width = 0, height = 0;
  TIFFGetField(p->tif, TIFFTAG_TILEWIDTH, &width);
  TIFFGetField(p->tif, TIFFTAG_TILELENGTH, &height);
  const tmsize_t size = TIFFTileSize(p->tif), row = TIFFTileRowSize(p->tif);
  uint8_t *tile = size > 0 && width && height ? _TIFFmalloc(size + 8) : NULL;
  int ok = tile != NULL;
  for (uint64_t top = 0; ok && top < p->height; top += height) {
    for (uint64_t left = 0; ok && left < p->width; left += width) {
      uint32_t number = TIFFComputeTile(p->tif, left, top, 0, p->plane);
      ok = TIFFReadEncodedTile(p->tif, number, tile, size) == size;
      const uint32_t rows = least(height, p->height - top), columns = least(width, p->width - left);
      for (uint32_t y = 0; ok && y < rows; y++) {
        copy_samples(target, tile + y * row, p->bits, p->apart, p->take, columns,
                     pix + (top + y) * target->stride + left * target->pixel);
      }
    }
  }
  _TIFFfree(tile);
  return ok;
}

int rdpp_tiff_read_samples(rdpp_tiff_source *source, const rdpp_tiff_target *target) {
  TIFF *tif = open_tiff(source);
  if (!tif) return 0;
  source->reading = 1;
  uint16_t bits = 0, samples = 0, planar = 0, compression = 0, photometric = 0;
  part p = {.tif = tif, .take = target->take};
  TIFFGetField(tif, TIFFTAG_IMAGEWIDTH, &p.width);
  TIFFGetField(tif, TIFFTAG_IMAGELENGTH, &p.height);
  TIFFGetFieldDefaulted(tif, TIFFTAG_BITSPERSAMPLE, &bits);
  TIFFGetFieldDefaulted(tif, TIFFTAG_SAMPLESPERPIXEL, &samples);
  TIFFGetFieldDefaulted(tif, TIFFTAG_PLANARCONFIG, &planar);
  TIFFGetFieldDefaulted(tif, TIFFTAG_COMPRESSION, &compression);
  TIFFGetField(tif, TIFFTAG_PHOTOMETRIC, &photometric);
  if (compression == COMPRESSION_JPEG && photometric == PHOTOMETRIC_YCBCR) {
    TIFFSetField(tif, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
  }
  p.bits = bits, p.apart = samples;
  int ok = 1;
  if (planar == PLANARCONFIG_SEPARATE) {
    p.apart = p.take = 1;
    for (int s = 0; ok && s < target->take; s++) {
      p.plane = s;
      ok = (TIFFIsTiled(tif) ? read_tiles : read_strips)(&p, target, target->pix + s * target->bytes);
    }
  } else {
    ok = (TIFFIsTiled(tif) ? read_tiles : read_strips)(&p, target, target->pix);
  }
  return finish(source, tif, ok);
}

int rdpp_tiff_read_rgba(rdpp_tiff_source *source, uint8_t *pix) {
  TIFF *tif = open_tiff(source);
  if (!tif) return 0;
  source->reading = 1;
  uint32_t width = 0, height = 0;
  uint16_t orientation = ORIENTATION_TOPLEFT;
  TIFFGetField(tif, TIFFTAG_IMAGEWIDTH, &width);
  TIFFGetField(tif, TIFFTAG_IMAGELENGTH, &height);
  TIFFGetFieldDefaulted(tif, TIFFTAG_ORIENTATION, &orientation);
  const int stop_on_error = 1;
  // On this machine a pixel's bytes are R G B A in this order. Asked for the orientation that it has, it stays as it
  // is.
  int ok = TIFFReadRGBAImageOriented(tif, width, height, (uint32_t *)pix, orientation, stop_on_error);
  return finish(source, tif, ok);
}

int rdpp_tiff_read_palette(rdpp_tiff_source *source, uint8_t *rgb) {
  TIFF *tif = open_tiff(source);
  if (!tif) return 0;
  uint16_t bits = 0, *map[3] = {NULL, NULL, NULL};
  TIFFGetFieldDefaulted(tif, TIFFTAG_BITSPERSAMPLE, &bits);
  int ok = bits <= 8 && TIFFGetField(tif, TIFFTAG_COLORMAP, &map[0], &map[1], &map[2]);
  int wide = 0; // some writers leave 8 bits in the low byte
  const int colours = 1 << bits;
  for (int i = 0; ok && i < 3 * colours; i++) wide |= map[i / colours][i % colours] > 255;
  for (int i = 0; ok && i < 3 * colours; i++) {
    unsigned v = map[i % 3][i / 3];
    rgb[i] = wide ? v >> 8 : v;
  }
  if (!ok && !*source->error) strcpy(source->error, "tiff: no ColorMap");
  TIFFClose(tif);
  return ok;
}

uint32_t rdpp_tiff_pages(rdpp_tiff_source *source) {
  TIFF *tif = open_tiff(source);
  if (!tif) return 1;
  uint32_t pages = TIFFNumberOfDirectories(tif);
  TIFFClose(tif);
  return pages ? pages : 1;
}
