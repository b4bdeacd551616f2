// go:build !codecs_shared

#include <tiffio.h>

// In a program that libtiff is linked into, these take the place of its codecs for LERC, WebP, LZMA and JBIG, and with
// them of four more libraries. What they leave is what libtiff has for a compression that it does not know; tiff.go
// refuses it.

#define LEFT_OUT(codec)                                                                                                \
  __attribute__((visibility("hidden"))) int codec(TIFF *tif, int scheme) {                                             \
    (void)tif, (void)scheme;                                                                                           \
    return 1;                                                                                                          \
  }

LEFT_OUT(TIFFInitLERC)
LEFT_OUT(TIFFInitWebP)
LEFT_OUT(TIFFInitLZMA)
LEFT_OUT(TIFFInitJBIG)
