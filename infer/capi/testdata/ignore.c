/* Prints the score of images, each of a file and of the mask in a PGM file behind it. */
#include <rdpp.h>

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%d: %s\n", __LINE__, #condition);                                                               \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)

enum { most = 1 << 20 }; /* bytes of a file */

static uint8_t file[most], pixels[most];

int main(int argc, char **argv) {
  rdpp_detector d;
  CHECK(argc >= 2 && rdpp_open(argv[1], NULL, &d, NULL) == RDPP_OK);
  for (int i = 2; i + 1 < argc; i += 2) {
    FILE *image = fopen(argv[i], "rb"), *mask = fopen(argv[i + 1], "rb");
    CHECK(image && mask);
    size_t size = fread(file, 1, most, image);
    rdpp_mask ignore = {.size = sizeof ignore, .pixels = pixels};
    CHECK(fscanf(mask, "P5 %d %d 255", &ignore.width, &ignore.height) == 2 && fgetc(mask) == '\n');
    CHECK(fread(pixels, 1, most, mask) == (size_t)ignore.width * (size_t)ignore.height);
    fclose(image);
    fclose(mask);
    rdpp_result r = {.size = sizeof r};
    char *message = NULL;
    int32_t status = rdpp_detect_encoded_ignoring(d, file, size, &ignore, &r, &message);
    if (status != RDPP_OK) fprintf(stderr, "%s: %s\n", argv[i], message);
    CHECK(status == RDPP_OK);
    printf("%.17g %s\n", r.score, argv[i]);
    rdpp_result_free(&r);
  }
  rdpp_close(d);
  return 0;
}
