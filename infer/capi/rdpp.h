/* librdpp.so: finding defects from C, C++ and whatever calls C, with a model that `train` made.
 *
 *   rdpp_detector detector;
 *   if (rdpp_open("model.safetensors", NULL, &detector, NULL) != RDPP_OK) ...
 *   rdpp_result result = {.size = sizeof result};
 *   if (rdpp_detect_pixels(detector, pixels, width, height, stride, RDPP_BGR, &result, NULL) == RDPP_OK)
 *     printf("%s, score %g\n", result.anomalous ? "anomalous" : "good", result.score);
 *   rdpp_result_free(&result);
 *   rdpp_close(detector);
 *
 * Errors. Every function that can fail returns a status, RDPP_OK being 0, and takes `message`: NULL, or where to put
 * the reason, one line of UTF-8. *message is NULL after success; after failure it is the caller's, to be freed with
 * rdpp_message_free. No function ends the process, and no exception or panic leaves the library.
 *
 * Memory. What the caller passes is copied or read during the call and never kept. What the library allocates
 * (messages, a result's regions, map and warnings) belongs to the caller, who gives it back with the function named for
 * it, not with free().
 *
 * Threads. Every function may be called from any thread at any time, for the same detector too: one detector works
 * through its images in turn, several work at the same time. A result belongs to one thread at a time.
 *
 * Versions. Structures begin with their size, set by the caller. Later versions only add fields at the end, functions
 * and status codes, so that a program runs with any library of the same RDPP_ABI_VERSION that is not older than its
 * header, and rdpp_abi_version tells which one that is.
 *
 * Process. The library holds a Go runtime: load it once, it stays until the process ends (dlclose does nothing). A
 * child made by fork must not call it without exec; load it after forking. On loading it installs handlers for SIGSEGV,
 * SIGBUS, SIGFPE, SIGPIPE and SIGURG, which pass on to the handlers of before whatever its own code did not cause;
 * handlers that the program installs later must use SA_ONSTACK. Signals that end or steer a program (SIGINT, SIGTERM,
 * SIGHUP, SIGCHLD, SIGUSR1, ...) are left as they are.
 *
 * It has threads of its own: Go's, one per detector, and OpenMP's, which wait for the next image. The caller's OpenMP
 * thread count, the environment, resource limits, locale, working folder and floating-point modes stay as they were.
 * From the first rdpp_open on oneDNN keeps up to 65536 primitives; where oneDNN is a part of libtorch, as in PyTorch's
 * own builds, that takes the environment variables ONEDNN_PRIMITIVE_CACHE_CAPACITY and DNNL_PRIMITIVE_CACHE_CAPACITY.
 * Where its threads have to queue for processors, it adds sleeping threads ("rdpp-crowd") until OpenMP's are more than
 * the processors, of which libgomp takes heed: its threads wait for each other asleep then, the caller's too. They end
 * seconds after the last image, or when the queue is over. Not so on a machine with a GPU, nor where the environment
 * has OMP_WAIT_POLICY or GOMP_SPINCOUNT. The library keeps freed memory for the next image, and gives it back when the
 * last detector is closed. Go's collector is left to wait for 16 MiB more garbage, unless the environment has GOGC.
 *
 * A program that uses the same libtorch itself keeps libtorch's allocator for its own tensors. Its threads that compute
 * for the first time get the number of the options' threads. Once a model is opened on a GPU, TF32 is off and cuDNN
 * chooses its algorithms by trial, for that program too. */
#ifndef RDPP_DETECTOR_H
#define RDPP_DETECTOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RDPP_ABI_VERSION 1

/* Statuses. */
enum {
  RDPP_OK = 0,
  RDPP_ERROR_ARGUMENT = 1, /* an argument is NULL or out of range; nothing was done */
  RDPP_ERROR_CLOSED = 2,   /* the detector is closed, or there never was one of that handle */
  RDPP_ERROR_MODEL = 3,    /* the model file cannot be read, or is none */
  RDPP_ERROR_IMAGE = 4,    /* the encoded image is damaged, too large or of an unknown format */
  RDPP_ERROR_DEVICE = 5,   /* there is no such device, or it or its driver has failed: then for all detectors of it */
  RDPP_ERROR_FAILED = 6,   /* computing failed, for a reason that has no status of its own */
  RDPP_ERROR_INTERNAL = 7, /* a bug of the library; the detector may still be used and closed */
  /* Here end the statuses of the first libraries, which had RDPP_ERROR_FAILED or _MODEL for what follows. */
  RDPP_ERROR_MEMORY = 8,     /* the processor's or the device's memory is used up; the detector may still be used */
  RDPP_ERROR_UNSUPPORTED = 9 /* this libtorch or the device has no operation that the model needs */
};

/* Orders of 8-bit channels in a pixel. */
enum { RDPP_RGB = 0, RDPP_BGR = 1, RDPP_GREY = 2 };

/* An open model. Handles are numbers that are never used again; 0 is none. */
typedef uint64_t rdpp_detector;

/* How to open a model. All zero but for size: the defaults. */
typedef struct rdpp_options {
  uint32_t size;      /* sizeof(rdpp_options) */
  int32_t threads;    /* of one operation on the CPU, 1 to 1024, for the whole process from now on; 0: as before, which
                         is at first as many as the process may keep busy, by its affinity and its cgroups' quotas */
  const char *device; /* "auto", "cpu", "cuda" or "cuda:N"; NULL: "auto", the first CUDA device or else the CPU */
  int64_t max_pixels; /* largest image accepted, width x height; 0: 100 million */
  double false_alarm; /* share of good images that may be anomalous, above 0 and below 1; 0: the model's own */
  double threshold;   /* score above which an image is anomalous; 0: the model's own, or what false_alarm says */
  double pixel_threshold; /* of the map, above which a pixel is in a region, also of a good image; 0: threshold where
                             that is given, else the model's own, and good images have no regions */
  /* Here ends the structure of the first libraries, which refuse other values than 0 in what follows. */
  double region_low;  /* of the map, which regions reach down to whose peak is above pixel_threshold; 0: half their
                         height, or pixel_threshold where that is given */
  int64_t min_area;   /* pixels of the image; smaller regions are left out */
  int64_t min_length; /* so are those whose box's longer side is shorter */
} rdpp_options;

/* A connected part of the image where the map stands out, with a peak above pixel_threshold, or above the score where
 * that is lower, in pixels of the image. */
typedef struct rdpp_region {
  int32_t x, y;          /* left and upper edge of the bounding box */
  int32_t width, height; /* of the bounding box */
  int64_t area;          /* of the region itself */
  float peak;            /* highest value of the map inside */
  float mean;            /* of the map's values inside; 0 of the first libraries */
} rdpp_region;

/* What is known about an image. */
typedef struct rdpp_result {
  uint32_t size;     /* sizeof(rdpp_result), set by the caller */
  int32_t anomalous; /* 1: score > threshold, else 0 */
  double score;      /* 0 (like good parts) or more */
  double normalised; /* 0 to 1, rises with the score, 0.5 at the threshold */
  double p_value;    /* how rare such a score is among good parts, above 0 to 1; NaN: the model is not calibrated */
  double threshold;  /* in force, of the score */
  double pixel_threshold; /* in force, of the map */
  int32_t provisional;    /* 1: the threshold is a stand-in that promises no rate of false alarms */
  int32_t width, height;  /* of the image, pixels */
  int32_t map_side;       /* S; 0 of a model that looks at tiles, whose maps are not square: see map_width */
  int64_t region_count;
  rdpp_region *regions; /* region_count of them, highest peak first; NULL where there are none, as in a good image
                           unless the options have a pixel_threshold */
  float *map; /* the anomaly map, S x S, row by row, over the whole image, or what area_x and so on tell of it; 0
                 where nothing is scored. Of a model that looks at tiles map_height x map_width, and NULL for programs
                 whose structure ends before those */
  /* Here ends the structure of the first libraries: they leave what follows 0. */
  int32_t exact;         /* 1: the rate of false alarms is exact, instead of nearly so or a fit of too few scores */
  int32_t p_value_bound; /* 1: p_value is a bound, as no good part's score is as high; 0 of older libraries */
  /* Here ends the structure of the second ones. */
  char
      *warnings; /* in words, one line: the image was not taken, or stored, as the training images were; NULL: it was */
  /* Here ends the structure of the third ones. */
  int32_t map_width, map_height;  /* of map, in values */
  double area_x, area_y;          /* left and upper edge of what the map covers, pixels of the image */
  double area_width, area_height; /* of that: the image's own, unless the model looks at a part of images or pads them;
                                     where it pads, the map reaches over the image's edges */
  double pose_x, pose_y;          /* of a model that aligns parts: how far to the right and down the part was found to
                                     lie, pixels of the image */
  double pose_degrees;            /* and how far it is turned, clockwise, around the image's middle */
  double pose_correlation;        /* of the image with the training images' mean; 0: no part was looked for, or it was
                                     not found, which the warnings say, and the image was judged as it is */
} rdpp_result;

/* RDPP_ABI_VERSION of the library. */
uint32_t rdpp_abi_version(void);
/* The library's own version, such as "0.1.0"; a static string. */
const char *rdpp_version(void);

/* Opens a model file; options NULL: the defaults. *detector is set on success alone, and closed with rdpp_close. */
int32_t rdpp_open(const char *model_file, const rdpp_options *options, rdpp_detector *detector, char **message);
/* Frees a model once the images that it works on are done. Later calls with the handle get RDPP_ERROR_CLOSED; closing
 * again, or 0, does nothing. */
void rdpp_close(rdpp_detector detector);

/* Scores an image in memory: height rows, each beginning stride bytes after the one before, of width pixels of 3 bytes
 * (RDPP_RGB, RDPP_BGR) or 1 (RDPP_GREY). stride 0: rows follow each other without a gap. What *result held is
 * overwritten and not freed; after failure it holds nothing. */
int32_t rdpp_detect_pixels(rdpp_detector detector, const uint8_t *pixels, int32_t width, int32_t height, int64_t stride,
                           int32_t order, rdpp_result *result, char **message);
/* Scores the content of a PNG, JPEG, BMP, TIFF or WebP file; otherwise like rdpp_detect_pixels. */
int32_t rdpp_detect_encoded(rdpp_detector detector, const void *data, size_t size, rdpp_result *result, char **message);

/* A mask of what of an image is not scored, beside what the model itself leaves out: height rows, each beginning stride
 * bytes after the one before, of width bytes, which are not 0 where nothing is to be scored. stride 0: rows follow each
 * other without a gap. One of another size than the image is scaled to it, which the result's warnings say; one of
 * another shape, or that leaves nothing of the image, is RDPP_ERROR_ARGUMENT. */
typedef struct rdpp_mask {
  uint32_t size; /* sizeof(rdpp_mask) */
  int32_t width, height;
  int32_t reserved; /* 0 */
  int64_t stride;
  const uint8_t *pixels;
} rdpp_mask;

/* rdpp_detect_pixels and rdpp_detect_encoded of an image with a mask; ignore NULL: without. Libraries older than this
 * header do not have these functions. */
int32_t rdpp_detect_pixels_ignoring(rdpp_detector detector, const uint8_t *pixels, int32_t width, int32_t height,
                                    int64_t stride, int32_t order, const rdpp_mask *ignore, rdpp_result *result,
                                    char **message);
int32_t rdpp_detect_encoded_ignoring(rdpp_detector detector, const void *data, size_t size, const rdpp_mask *ignore,
                                     rdpp_result *result, char **message);

/* Frees regions, map and warnings and empties the result but for its size. Doing so again, or with NULL, does nothing.
 */
void rdpp_result_free(rdpp_result *result);
void rdpp_message_free(char *message);

#ifdef __cplusplus
}
#endif
#endif
