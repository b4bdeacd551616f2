/* Holds librdpp.so to what rdpp.h promises: check MODEL FRAME.PPM IMAGE; of the signals alone: check MODEL.
 * Says what is wrong and ends with 1. */
#include "../rdpp.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failures;

#define CHECK(condition, ...)                                                                                          \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      printf("line %d: ", __LINE__);                                                                                   \
      printf(__VA_ARGS__);                                                                                             \
      printf("\n");                                                                                                    \
      failures++;                                                                                                      \
    }                                                                                                                  \
  } while (0)

/* A call that must end with a status, and with a message of one line that contains a word. */
#define EXPECT(wanted, word, call)                                                                                     \
  do {                                                                                                                 \
    char *message = (char *)"unset";                                                                                   \
    int32_t got = (call);                                                                                              \
    CHECK(got == (wanted), "%s: got %d, want %d (%s)", #call, got, wanted, message ? message : "no message");          \
    if ((wanted) == RDPP_OK)                                                                                           \
      CHECK(message == NULL, "%s: got a message, want none", #call);                                                   \
    else                                                                                                               \
      CHECK(message &&strstr(message, word) && !strchr(message, '\n'),                                                 \
            "%s: got message \"%s\", want one line with "                                                              \
            "\"%s\"",                                                                                                  \
            #call, message ? message : "(null)", word);                                                                \
    if (got != RDPP_OK) rdpp_message_free(message);                                                                    \
  } while (0)

static unsigned char *read_file(const char *path, size_t *size) {
  FILE *f = fopen(path, "rb");
  unsigned char *data = malloc(1 << 22);
  if (!f || !data) exit(2);
  *size = fread(data, 1, 1 << 22, f);
  fclose(f);
  return data;
}

static rdpp_detector detector;
static const unsigned char *rgb;
static int width, height;
static double rgb_score;

static void same(const rdpp_result *a, const rdpp_result *b, const char *what) {
  CHECK(a->score == b->score && a->map_side == b->map_side && a->region_count == b->region_count,
        "%s: got score %.17g, "
        "want %.17g",
        what, b->score, a->score);
  CHECK(memcmp(a->map, b->map, sizeof(float) * a->map_side * a->map_side) == 0, "%s: got another map", what);
}

/* Orders and strides of the same pixels are the same image. */
static void pixels(void) {
  int stride = 3 * width + 7;
  unsigned char *bgr = malloc((size_t)stride * height), *grey = malloc((size_t)width * height);
  unsigned char *spread = malloc((size_t)3 * width * height);
  memset(bgr, 99, (size_t)stride * height);
  for (int y = 0; y < height; y++)
    for (int x = 0; x < width; x++) {
      const unsigned char *from = rgb + 3 * (y * width + x);
      for (int c = 0; c < 3; c++) {
        bgr[y * stride + 3 * x + c] = from[2 - c];
        spread[3 * (y * width + x) + c] = from[1];
      }
      grey[y * width + x] = from[1];
    }
  rdpp_result a = {.size = sizeof a}, b = {.size = sizeof b};
  EXPECT(RDPP_OK, "", rdpp_detect_pixels(detector, rgb, width, height, 0, RDPP_RGB, &a, &message));
  CHECK(a.exact == 1 && (a.p_value_bound == 0 || a.p_value_bound == 1),
        "got exact %d, p_value_bound %d, want 1, 0 or 1", a.exact, a.p_value_bound);
  rgb_score = a.score;
  printf("score %.17g\n", a.score);
  double sum = 0;
  for (int i = 0; i < a.map_side * a.map_side; i++) sum += a.map[i];
  printf("map %.17g\n", sum);
  for (int64_t i = 0; i < a.region_count; i++) {
    const rdpp_region *r = &a.regions[i];
    printf("region %d %d %d %d %lld %.9g\n", r->x, r->y, r->width, r->height, (long long)r->area, r->peak);
  }
  EXPECT(RDPP_OK, "", rdpp_detect_pixels(detector, bgr, width, height, stride, RDPP_BGR, &b, &message));
  same(&a, &b, "BGR with a stride");
  rdpp_result_free(&a);
  rdpp_result_free(&b);
  EXPECT(RDPP_OK, "", rdpp_detect_pixels(detector, grey, width, height, width, RDPP_GREY, &a, &message));
  EXPECT(RDPP_OK, "", rdpp_detect_pixels(detector, spread, width, height, 3 * width, RDPP_RGB, &b, &message));
  same(&b, &a, "grey");
  rdpp_result_free(&a);
  rdpp_result_free(&a);
  rdpp_result_free(&b);
  rdpp_result_free(NULL);
  CHECK(a.map == NULL && a.regions == NULL && a.region_count == 0 && a.size == sizeof a,
        "a freed result holds something");
  free(bgr);
  free(grey);
  free(spread);
}

/* An image that is unlike those of training is scored, with a word to those whose header has a place for it. */
static void warnings(void) {
  unsigned char *black = calloc((size_t)3 * width, height);
  rdpp_result r = {.size = sizeof r};
  EXPECT(RDPP_OK, "", rdpp_detect_pixels(detector, rgb, width, height, 0, RDPP_RGB, &r, &message));
  CHECK(r.warnings == NULL, "got warnings \"%s\", want none", r.warnings);
  rdpp_result_free(&r);
  EXPECT(RDPP_OK, "", rdpp_detect_pixels(detector, black, width, height, 0, RDPP_RGB, &r, &message));
  CHECK(r.warnings && strstr(r.warnings, "less than half") && !strchr(r.warnings, '\n'),
        "got warnings \"%s\", want one line about the brightness", r.warnings ? r.warnings : "(null)");
  rdpp_result_free(&r);
  CHECK(r.warnings == NULL, "a freed result holds warnings");
  char unset[] = "unset";
  r.size = offsetof(rdpp_result, warnings); /* of the header before */
  r.warnings = unset;
  EXPECT(RDPP_OK, "", rdpp_detect_pixels(detector, black, width, height, 0, RDPP_RGB, &r, &message));
  rdpp_result_free(&r);
  CHECK(r.warnings == unset, "a field that an older header does not have was written");
  free(black);
}

/* What a mask draws is out of score and map, and the rest of the map is what it is without. */
static void ignored(void) {
  unsigned char *drawn = calloc((size_t)(width + 3), height);
  for (int y = 0; y < height / 2; y++) memset(drawn + (size_t)y * (width + 3), 7, width);
  rdpp_mask mask = {.size = sizeof mask, .width = width, .height = height, .stride = width + 3, .pixels = drawn};
  rdpp_result a = {.size = sizeof a}, b = {.size = sizeof b};
  EXPECT(RDPP_OK, "", rdpp_detect_pixels_ignoring(detector, rgb, width, height, 0, RDPP_RGB, &mask, &a, &message));
  EXPECT(RDPP_OK, "", rdpp_detect_pixels(detector, rgb, width, height, 0, RDPP_RGB, &b, &message));
  size_t values = (size_t)a.map_width * a.map_height;
  for (size_t i = 0; i < values; i++) {
    CHECK(a.map[i] == b.map[i] || a.map[i] == 0, "value %zu of the map is %g, without a mask %g", i, a.map[i],
          b.map[i]);
    CHECK(i >= values / 2 || a.map[i] == 0, "value %zu of the map is %g, where nothing is scored", i, a.map[i]);
  }
  CHECK(a.map[values - 1] != 0, "the map is 0 where the mask draws nothing");
  CHECK(a.score != rgb_score, "a mask changes nothing");
  CHECK(a.area_x == 0 && a.area_y == 0 && a.area_width == width && a.area_height == height,
        "the map covers %g x %g pixels", a.area_width, a.area_height);
  printf("ignored %.17g\n", a.score);
  rdpp_result_free(&a);
  rdpp_result_free(&b);
  EXPECT(RDPP_OK, "", rdpp_detect_pixels_ignoring(detector, rgb, width, height, 0, RDPP_RGB, NULL, &a, &message));
  CHECK(a.score == rgb_score, "no mask: got score %g, want %g", a.score, rgb_score);
  rdpp_result_free(&a);
  mask.height = height / 2;
  EXPECT(RDPP_ERROR_ARGUMENT, "shape",
         rdpp_detect_pixels_ignoring(detector, rgb, width, height, 0, RDPP_RGB, &mask, &a, &message));
  mask.height = height, mask.stride = 1;
  EXPECT(RDPP_ERROR_ARGUMENT, "stride",
         rdpp_detect_pixels_ignoring(detector, rgb, width, height, 0, RDPP_RGB, &mask, &a, &message));
  mask.stride = width + 3, mask.size = 4;
  EXPECT(RDPP_ERROR_ARGUMENT, "sizeof(rdpp_mask)",
         rdpp_detect_pixels_ignoring(detector, rgb, width, height, 0, RDPP_RGB, &mask, &a, &message));
  mask.size = sizeof mask, mask.pixels = NULL;
  EXPECT(RDPP_ERROR_ARGUMENT, "NULL",
         rdpp_detect_pixels_ignoring(detector, rgb, width, height, 0, RDPP_RGB, &mask, &a, &message));
  memset(drawn, 1, (size_t)(width + 3) * height);
  mask.pixels = drawn;
  EXPECT(RDPP_ERROR_ARGUMENT, "nothing",
         rdpp_detect_pixels_ignoring(detector, rgb, width, height, 0, RDPP_RGB, &mask, &a, &message));
  free(drawn);
}

static void wrong_arguments(const char *model, const char *image_file) {
  size_t size;
  unsigned char *image = read_file(image_file, &size);
  rdpp_result r = {.size = sizeof r};
  rdpp_options o = {.size = sizeof o};
  rdpp_detector d = 77;
  EXPECT(RDPP_ERROR_ARGUMENT, "NULL", rdpp_open(NULL, NULL, &d, &message));
  EXPECT(RDPP_ERROR_ARGUMENT, "NULL", rdpp_open(model, NULL, NULL, &message));
  EXPECT(RDPP_ERROR_MODEL, "missing.safetensors", rdpp_open("missing.safetensors", NULL, &d, &message));
  EXPECT(RDPP_ERROR_MODEL, image_file, rdpp_open(image_file, NULL, &d, &message));
  EXPECT(RDPP_ERROR_MODEL, "\xc3\xbc?", rdpp_open("/\xc3\xbc\xff", NULL, &d, &message));
  o.device = "gpu";
  EXPECT(RDPP_ERROR_ARGUMENT, "gpu", rdpp_open(model, &o, &d, &message));
  o.device = "cuda:4000";
  EXPECT(RDPP_ERROR_DEVICE, "cuda:4000", rdpp_open(model, &o, &d, &message));
  o.device = "cpu";
  o.size = 0;
  EXPECT(RDPP_ERROR_ARGUMENT, "sizeof(rdpp_options)", rdpp_open(model, &o, &d, &message));
  o.size = sizeof o;
  o.threads = -1;
  EXPECT(RDPP_ERROR_ARGUMENT, "threads", rdpp_open(model, &o, &d, &message));
  o.threads = 0, o.max_pixels = -1;
  EXPECT(RDPP_ERROR_ARGUMENT, "max_pixels", rdpp_open(model, &o, &d, &message));
  o.max_pixels = 0, o.threshold = NAN;
  EXPECT(RDPP_ERROR_ARGUMENT, "threshold", rdpp_open(model, &o, &d, &message));
  o.threshold = 0, o.pixel_threshold = INFINITY;
  EXPECT(RDPP_ERROR_ARGUMENT, "pixel_threshold", rdpp_open(model, &o, &d, &message));
  o.pixel_threshold = 0, o.region_low = -1;
  EXPECT(RDPP_ERROR_ARGUMENT, "region_low", rdpp_open(model, &o, &d, &message));
  o.region_low = 0, o.min_area = -1;
  EXPECT(RDPP_ERROR_ARGUMENT, "min_area", rdpp_open(model, &o, &d, &message));
  o.min_area = 0, o.min_length = -1;
  EXPECT(RDPP_ERROR_ARGUMENT, "min_length", rdpp_open(model, &o, &d, &message));
  o.min_length = 0;
  o.pixel_threshold = 0, o.false_alarm = 1;
  EXPECT(RDPP_ERROR_ARGUMENT, "false_alarm", rdpp_open(model, &o, &d, &message));
  o.false_alarm = 0.01; /* the model is not calibrated */
  EXPECT(RDPP_ERROR_ARGUMENT, "calibration", rdpp_open(model, &o, &d, &message));
  o.threshold = 1;
  EXPECT(RDPP_ERROR_ARGUMENT, "exclude", rdpp_open(model, &o, &d, &message));
  CHECK(d == 77, "a failed rdpp_open set the detector");

  /* A newer header's options: fine while what it has added is not used. */
  struct {
    rdpp_options known;
    int64_t added;
  } newer = {{.size = sizeof newer, .threshold = 1e-9}, 0};
  EXPECT(RDPP_OK, "", rdpp_open(model, &newer.known, &d, &message));
  EXPECT(RDPP_OK, "", rdpp_detect_encoded(d, image, size, &r, &message));
  CHECK(r.anomalous == 1 && r.threshold == 1e-9 && r.provisional == 0 && r.exact == 0 && isnan(r.p_value),
        "the threshold is not in force");
  rdpp_result_free(&r);
  rdpp_close(d);
  EXPECT(RDPP_ERROR_CLOSED, "handle", rdpp_detect_encoded(d, image, size, &r, &message));
  rdpp_close(d);
  rdpp_close(0);
  rdpp_close(UINT64_MAX);
  newer.added = 1;
  EXPECT(RDPP_ERROR_ARGUMENT, "newer", rdpp_open(model, &newer.known, &d, &message));

  for (uint64_t stale = 0; stale < 100; stale++)
    if (stale != detector) EXPECT(RDPP_ERROR_CLOSED, "handle", rdpp_detect_encoded(stale, image, size, &r, &message));
  EXPECT(RDPP_ERROR_CLOSED, "handle", rdpp_detect_pixels(UINT64_MAX, rgb, width, height, 0, RDPP_RGB, &r, &message));
  EXPECT(RDPP_ERROR_ARGUMENT, "NULL", rdpp_detect_encoded(detector, NULL, 5, &r, &message));
  EXPECT(RDPP_ERROR_ARGUMENT, "NULL", rdpp_detect_encoded(detector, image, size, NULL, &message));
  EXPECT(RDPP_ERROR_IMAGE, "empty", rdpp_detect_encoded(detector, image, 0, &r, &message));
  EXPECT(RDPP_ERROR_IMAGE, "PNG file", rdpp_detect_encoded(detector, image, size / 2, &r, &message));
  EXPECT(RDPP_ERROR_IMAGE, "not an image", rdpp_detect_encoded(detector, "text", 4, &r, &message));
  EXPECT(RDPP_ERROR_IMAGE, "at most", rdpp_detect_encoded(detector, image, SIZE_MAX, &r, &message));
  const struct {
    int32_t width, height;
    int64_t stride;
    int32_t order;
    const char *word;
  } frames[] = {
      {0, height, 0, RDPP_RGB, "0 x"},
      {width, 0, 0, RDPP_RGB, "x 0"},
      {-width, height, 0, RDPP_RGB, "x"},
      {width, INT32_MIN, 0, RDPP_RGB, "x"},
      {INT32_MAX, INT32_MAX, 0, RDPP_RGB, "max_pixels"},
      {width, height, 3 * width - 1, RDPP_RGB, "stride"},
      {width, height, -3 * width, RDPP_RGB, "stride"},
      {width, height, width - 1, RDPP_GREY, "stride"},
      {width, height, INT64_MAX, RDPP_BGR, "stride"},
      {width, height, INT64_MIN, RDPP_BGR, "stride"},
      {width, height, 0, 3, "order"},
      {width, height, 0, -1, "order"},
  };
  for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
    EXPECT(RDPP_ERROR_ARGUMENT, frames[i].word,
           rdpp_detect_pixels(detector, rgb, frames[i].width, frames[i].height, frames[i].stride, frames[i].order, &r,
                              &message));
  EXPECT(RDPP_ERROR_ARGUMENT, "NULL", rdpp_detect_pixels(detector, NULL, width, height, 0, RDPP_RGB, &r, &message));
  CHECK(r.map == NULL && r.region_count == 0, "a failed call left something in its result");
  r.size = 8;
  EXPECT(RDPP_ERROR_ARGUMENT, "sizeof(rdpp_result)", rdpp_detect_encoded(detector, image, size, &r, &message));
  r.size = sizeof r;
  CHECK(rdpp_detect_encoded(detector, "text", 4, &r, NULL) == RDPP_ERROR_IMAGE, "without a message: another status");
  rdpp_message_free(NULL);
  free(image);
}

/* Regions reach down to a level and are left out by their size, as is asked for. */
static void regions(const char *model) {
  rdpp_options o = {.size = sizeof o, .threshold = 1e-9, .region_low = 1e-9};
  rdpp_result r = {.size = sizeof r};
  rdpp_detector d;
  EXPECT(RDPP_OK, "", rdpp_open(model, &o, &d, &message));
  EXPECT(RDPP_OK, "", rdpp_detect_pixels(d, rgb, width, height, 0, RDPP_RGB, &r, &message));
  CHECK(r.region_count == 1 && r.regions[0].area == (int64_t)width * height && r.regions[0].mean > 0 &&
            r.regions[0].mean <= r.regions[0].peak,
        "down to a level of 0: got %lld regions, want the whole image", (long long)r.region_count);
  rdpp_result_free(&r);
  rdpp_close(d);
  o.min_area = (int64_t)width * height + 1;
  EXPECT(RDPP_OK, "", rdpp_open(model, &o, &d, &message));
  EXPECT(RDPP_OK, "", rdpp_detect_pixels(d, rgb, width, height, 0, RDPP_RGB, &r, &message));
  CHECK(r.anomalous && r.region_count == 0 && !r.regions, "larger than the image: got %lld regions, want none",
        (long long)r.region_count);
  rdpp_result_free(&r);
  rdpp_close(d);
}

/* The structures of the first version, which programs that were built with its header go on using. */
typedef struct first_options {
  uint32_t size;
  int32_t threads;
  const char *device;
  int64_t max_pixels;
  double false_alarm, threshold, pixel_threshold;
} first_options;

typedef struct first_region {
  int32_t x, y, width, height;
  int64_t area;
  float peak;
  int32_t reserved;
} first_region;

typedef struct first_result {
  uint32_t size;
  int32_t anomalous;
  double score, normalised, p_value, threshold, pixel_threshold;
  int32_t provisional, width, height, map_side;
  int64_t region_count;
  rdpp_region *regions;
  float *map;
} first_result;

#define SAME_PLACE(name, field)                                                                                        \
  _Static_assert(offsetof(rdpp_##name, field) == offsetof(first_##name, field), #name "." #field " has moved")
_Static_assert(sizeof(first_options) == 48 && sizeof(rdpp_options) >= 48, "rdpp_options has shrunk");
SAME_PLACE(options, threads);
SAME_PLACE(options, device);
SAME_PLACE(options, max_pixels);
SAME_PLACE(options, false_alarm);
SAME_PLACE(options, threshold);
SAME_PLACE(options, pixel_threshold);
_Static_assert(sizeof(first_region) == 32 && sizeof(rdpp_region) == 32,
               "rdpp_region, which states no size, has another");
SAME_PLACE(region, y);
SAME_PLACE(region, height);
SAME_PLACE(region, area);
SAME_PLACE(region, peak);
_Static_assert(sizeof(first_result) == 88 && sizeof(rdpp_result) >= 88, "rdpp_result has shrunk");
SAME_PLACE(result, anomalous);
SAME_PLACE(result, score);
SAME_PLACE(result, pixel_threshold);
SAME_PLACE(result, provisional);
SAME_PLACE(result, map_side);
SAME_PLACE(result, region_count);
SAME_PLACE(result, regions);
SAME_PLACE(result, map);

/* A program of the first version is served, and nothing behind its structures is read or written. */
static void first_version(const char *model) {
  struct {
    first_options options;
    unsigned char behind[64];
  } in = {.options = {.size = sizeof in.options, .threshold = 1e-9}};
  struct {
    first_result result;
    unsigned char behind[64];
  } out = {.result = {.size = sizeof out.result}};
  memset(in.behind, 0x55, sizeof in.behind);
  memset(out.behind, 0x55, sizeof out.behind);
  rdpp_detector d;
  rdpp_result *result = (rdpp_result *)(void *)&out;
  EXPECT(RDPP_OK, "", rdpp_open(model, (const rdpp_options *)(const void *)&in, &d, &message));
  EXPECT(RDPP_OK, "", rdpp_detect_pixels(d, rgb, width, height, 0, RDPP_RGB, result, &message));
  CHECK(out.result.threshold == 1e-9 && out.result.score == rgb_score && out.result.map,
        "the first version: another result");
  rdpp_result_free(result);
  CHECK(!out.result.map, "the first version: a freed result holds something");
  CHECK(memcmp(in.behind, out.behind, sizeof in.behind) == 0 && out.behind[0] == 0x55,
        "the first version: written behind its end");
  out.result.size = sizeof out.result - 1;
  EXPECT(RDPP_ERROR_ARGUMENT, "88 or more", rdpp_detect_pixels(d, rgb, width, height, 0, RDPP_RGB, result, &message));
  in.options.size = sizeof in.options - 1;
  EXPECT(RDPP_ERROR_ARGUMENT, "48 or more", rdpp_open(model, (const rdpp_options *)(const void *)&in, &d, &message));
  rdpp_close(d);
}

enum { THREADS = 8, EACH = 25 };

static void *work(void *unused) {
  (void)unused;
  for (int i = 0; i < EACH; i++) {
    rdpp_result r = {.size = sizeof r};
    int32_t status = rdpp_detect_pixels(detector, rgb, width, height, 0, RDPP_RGB, &r, NULL);
    if (status != RDPP_OK || r.score != rgb_score) return "a thread got another score";
    rdpp_result_free(&r);
    char *message;
    if (rdpp_detect_encoded(detector, "text", 4, NULL, &message) != RDPP_ERROR_ARGUMENT) return "a thread got no error";
    rdpp_message_free(message);
  }
  return NULL;
}

/* Until the detector is closed under it. */
static void *until_closed(void *unused) {
  (void)unused;
  for (;;) {
    rdpp_result r = {.size = sizeof r};
    int32_t status = rdpp_detect_pixels(detector, rgb, width, height, 0, RDPP_RGB, &r, NULL);
    rdpp_result_free(&r);
    if (status == RDPP_ERROR_CLOSED) return NULL;
    if (status != RDPP_OK || r.map) return "closing under a thread gave another error";
  }
}

static void in_threads(void *(*f)(void *), void (*meanwhile)(void)) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++)
    if (pthread_create(&threads[i], NULL, f, NULL)) exit(2);
  if (meanwhile) meanwhile();
  for (int i = 0; i < THREADS; i++) {
    void *wrong;
    pthread_join(threads[i], &wrong);
    CHECK(!wrong, "%s", (const char *)wrong);
  }
}

static void close_it(void) { rdpp_close(detector); }

static void *close_too(void *unused) {
  (void)unused;
  rdpp_close(detector);
  return NULL;
}

static void handler(int number) { (void)number; }

static const int signals[] = {SIGHUP, SIGINT, SIGTERM, SIGCHLD, SIGUSR1, SIGUSR2, SIGALRM, SIGQUIT};

#define SIGNALS (sizeof signals / sizeof *signals)
static struct sigaction inherited[SIGNALS];

/* Called before any library's own code runs. Whoever started the program may have let it ignore some, as nohup does. */
static void remember_signals(void) {
  for (size_t i = 0; i < SIGNALS; i++) sigaction(signals[i], NULL, &inherited[i]);
}
__attribute__((section(".preinit_array"), used)) static void (*const remember)(void) = remember_signals;

/* The library, loaded at start, has left the signals as they were; a handler of ours stays ours. */
static void check_signals(int opened) {
  for (size_t i = 0; i < SIGNALS; i++) {
    struct sigaction now;
    sigaction(signals[i], NULL, &now);
    void (*want)(int) = opened && signals[i] == SIGUSR1 ? handler : inherited[i].sa_handler;
    CHECK(now.sa_handler == want, "signal %d has another handler", signals[i]);
  }
}

int main(int argc, char **argv) {
  if (argc != 2 && argc != 4) return 2;
  check_signals(0);
  struct sigaction ours = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
  sigaction(SIGUSR1, &ours, NULL);
  signal(SIGPIPE, SIG_IGN);
  if (argc == 2) {
    EXPECT(RDPP_OK, "", rdpp_open(argv[1], NULL, &detector, &message));
    rdpp_close(detector);
    check_signals(1);
    return failures ? 1 : 0;
  }

  CHECK(rdpp_abi_version() == RDPP_ABI_VERSION, "got ABI %u, want %d", rdpp_abi_version(), RDPP_ABI_VERSION);
  CHECK(rdpp_version()[0] >= '0' && rdpp_version()[0] <= '9', "got version %s", rdpp_version());
  size_t size;
  unsigned char *frame = read_file(argv[2], &size);
  int start;
  if (sscanf((const char *)frame, "P6 %d %d 255%n", &width, &height, &start) != 2) return 2;
  rgb = frame + start + 1;
  EXPECT(RDPP_OK, "", rdpp_open(argv[1], NULL, &detector, &message));
  pixels();
  warnings();
  ignored();
  wrong_arguments(argv[1], argv[3]);
  regions(argv[1]);
  first_version(argv[1]);
  in_threads(work, NULL);
  in_threads(until_closed, close_it);
  EXPECT(RDPP_OK, "", rdpp_open(argv[1], NULL, &detector, &message));
  in_threads(close_too, NULL);

  int pipe_ends[2];
  if (pipe(pipe_ends)) return 2;
  close(pipe_ends[0]);
  CHECK(write(pipe_ends[1], "x", 1) == -1, "writing into a closed pipe");
  check_signals(1);
  free(frame);
  return failures ? 1 : 0;
}
