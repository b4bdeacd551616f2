/* A model that looks at tiles: maps have the image's shape, and programs of before that was known get none. */
#include <rdpp.h>

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%d: %s\n", __LINE__, #condition);                                                               \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)

int main(int argc, char **argv) {
  enum { W = 90, H = 50 };
  static uint8_t pixels[W * H];
  for (int i = 0; i < W * H; i++) pixels[i] = (uint8_t)(i * 7);
  rdpp_detector d;
  CHECK(argc == 2 && rdpp_open(argv[1], NULL, &d, NULL) == RDPP_OK);

  rdpp_result r = {.size = sizeof r};
  CHECK(rdpp_detect_pixels(d, pixels, W, H, 0, RDPP_GREY, &r, NULL) == RDPP_OK);
  CHECK(r.map_side == 0 && r.map_width == 72 && r.map_height == 40 && r.map);
  CHECK(r.area_x == 0 && r.area_y == 0 && r.area_width == W && r.area_height == H);
  float highest = 0;
  for (int i = 0; i < r.map_width * r.map_height; i++) highest = r.map[i] > highest ? r.map[i] : highest;
  CHECK(highest >= (float)r.score && r.score > 0);
  double score = r.score;
  rdpp_result_free(&r);

  rdpp_mask mask = {.size = sizeof mask, .width = W, .height = H, .pixels = pixels};
  char *message = NULL;
  CHECK(rdpp_detect_pixels_ignoring(d, pixels, W, H, 0, RDPP_GREY, &mask, &r, &message) == RDPP_ERROR_ARGUMENT);
  CHECK(message && strstr(message, "tiles"));
  rdpp_message_free(message);

  r.size = offsetof(rdpp_result, map_width);
  CHECK(rdpp_detect_pixels(d, pixels, W, H, 0, RDPP_GREY, &r, NULL) == RDPP_OK);
  CHECK(r.score == score && r.map_side == 0 && !r.map);
  rdpp_result_free(&r);
  rdpp_close(d);
  return 0;
}
