/* Scores images with a model, in C11:
 *
 *   cc -std=c11 -I include detect.c -L lib -lrdpp -Wl,-rpath,lib -o detect
 *   ./detect model.safetensors image.png frame.ppm ...
 *
 * A binary PPM with a maximum of 255 is handed over as pixels, as from a camera, anything else as the file it is.
 * Prints "score normalised anomalous regions width height file" per image. */
#include <rdpp.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Reads a whole file; the caller frees it. */
static unsigned char *read_file(const char *path, size_t *size) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  unsigned char *data = NULL;
  long length = -1;
  if (fseek(f, 0, SEEK_END) == 0 && (length = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0) {
    data = malloc((size_t)length + 1);
    if (data && fread(data, 1, (size_t)length, f) == (size_t)length) {
      data[length] = 0; /* so that sscanf stops */
      *size = (size_t)length;
    } else {
      free(data);
      data = NULL;
    }
  }
  fclose(f);
  return data;
}

static int32_t detect(rdpp_detector detector, const unsigned char *data, size_t size, rdpp_result *result,
                      char **message) {
  int width, height, start = 0;
  if (sscanf((const char *)data, "P6 %d %d 255%n", &width, &height, &start) == 2 && start > 0 && width > 0 &&
      height > 0 && size - (size_t)start - 1 == 3 * (size_t)width * (size_t)height)
    return rdpp_detect_pixels(detector, data + start + 1, width, height, 0, RDPP_RGB, result, message);
  return rdpp_detect_encoded(detector, data, size, result, message);
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: detect MODEL IMAGE...\n");
    return 2;
  }
  rdpp_detector detector;
  char *message;
  if (rdpp_open(argv[1], NULL, &detector, &message) != RDPP_OK) {
    fprintf(stderr, "detect: %s\n", message);
    rdpp_message_free(message);
    return 1;
  }
  int failed = 0;
  for (int i = 2; i < argc; i++) {
    size_t size = 0;
    unsigned char *data = read_file(argv[i], &size);
    if (!data) {
      fprintf(stderr, "detect: cannot read %s\n", argv[i]);
      failed = 1;
      continue;
    }
    rdpp_result r = {.size = sizeof r};
    if (detect(detector, data, size, &r, &message) == RDPP_OK) {
      printf("%.17g %.17g %d %" PRId64 " %d %d %s\n", r.score, r.normalised, r.anomalous, r.region_count, r.width,
             r.height, argv[i]);
    } else {
      fprintf(stderr, "detect: %s: %s\n", argv[i], message);
      rdpp_message_free(message);
      failed = 1;
    }
    rdpp_result_free(&r);
    free(data);
  }
  rdpp_close(detector);
  return failed;
}
