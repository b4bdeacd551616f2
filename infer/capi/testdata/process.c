/* What librdpp.so changes in a program that loads it while it runs: process LIBRARY MODEL. Prints each change that
 * rdpp.h does not tell of, and ends with 1 if there is one. */
#define _GNU_SOURCE
#include "../rdpp.h"

#include <dlfcn.h>
#include <locale.h>
#include <malloc.h>
#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

extern char **environ;

typedef struct {
  char environment[1 << 16];
  struct sigaction signals[65];
  sigset_t blocked;
  struct rlimit limits[RLIM_NLIMITS];
  char locale[1 << 10], folder[1 << 12];
  mode_t mask;
  int threads, dynamic, niceness;
  unsigned floats; /* rounding, how denormal numbers are treated, which exceptions trap */
  cpu_set_t processors;
  size_t heap; /* bytes in use */
} state;

static void take(state *s) {
  memset(s, 0, sizeof *s);
  for (char **e = environ; *e; e++) {
    strncat(s->environment, *e, sizeof s->environment - strlen(s->environment) - 2);
    strcat(s->environment, "\n");
  }
  for (int i = 1; i <= 64; i++) {
    sigaction(i, NULL, &s->signals[i]);
    s->signals[i].sa_flags &= ~0x04000000; /* SA_RESTORER, which the C library adds when it sets a handler */
  }
  pthread_sigmask(SIG_SETMASK, NULL, &s->blocked);
  for (int i = 0; i < (int)RLIM_NLIMITS; i++) getrlimit(i, &s->limits[i]);
  strncpy(s->locale, setlocale(LC_ALL, NULL), sizeof s->locale - 1);
  if (!getcwd(s->folder, sizeof s->folder)) exit(2);
  s->mask = umask(0);
  umask(s->mask);
  s->threads = omp_get_max_threads();
  s->dynamic = omp_get_dynamic();
  s->niceness = getpriority(PRIO_PROCESS, 0);
#if defined(__x86_64__)
  s->floats = _mm_getcsr() & ~0x3fu; /* but for what has happened so far */
#endif
  struct mallinfo2 heap = mallinfo2();
  s->heap = heap.uordblks + heap.hblkhd;
  sched_getaffinity(0, sizeof s->processors, &s->processors);
}

/* Signals that Go's runtime handles, as rdpp.h says. */
static int told(int signal) {
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGPIPE || signal == SIGURG;
}

static int changes;

static void compare(const state *a, const state *b, const char *when) {
#define SAME(condition, ...)                                                                                           \
  do {                                                                                                                 \
    if (!(condition)) printf("%s: ", when), printf(__VA_ARGS__), printf("\n"), changes++;                              \
  } while (0)
  SAME(strcmp(a->environment, b->environment) == 0, "the environment, from\n%sto\n%s", a->environment, b->environment);
  for (int i = 1; i <= 64; i++)
    SAME(told(i) ||
             (a->signals[i].sa_handler == b->signals[i].sa_handler && a->signals[i].sa_flags == b->signals[i].sa_flags),
         "the handler of signal %d", i);
  for (int i = 1; i <= 64; i++)
    SAME(sigismember(&a->blocked, i) == sigismember(&b->blocked, i), "signal %d is blocked or no longer", i);
  for (int i = 0; i < (int)RLIM_NLIMITS; i++)
    SAME(a->limits[i].rlim_cur == b->limits[i].rlim_cur && a->limits[i].rlim_max == b->limits[i].rlim_max,
         "limit %d from %ld to %ld", i, (long)a->limits[i].rlim_cur, (long)b->limits[i].rlim_cur);
  SAME(strcmp(a->locale, b->locale) == 0, "the locale from %s to %s", a->locale, b->locale);
  SAME(strcmp(a->folder, b->folder) == 0, "the working folder from %s to %s", a->folder, b->folder);
  SAME(a->mask == b->mask, "the umask from %o to %o", a->mask, b->mask);
  SAME(a->threads == b->threads, "OpenMP's threads from %d to %d", a->threads, b->threads);
  SAME(a->dynamic == b->dynamic, "OpenMP's dynamic threads from %d to %d", a->dynamic, b->dynamic);
  SAME(a->floats == b->floats, "floating-point arithmetic from %x to %x", a->floats, b->floats);
  SAME(a->niceness == b->niceness, "the priority from %d to %d", a->niceness, b->niceness);
  SAME(CPU_EQUAL(&a->processors, &b->processors), "the processors that it may run on");
}

/* Puts the address of a function into *pointer. */
static void find(void *library, const char *name, void *pointer) {
  void *function = dlsym(library, name);
  if (!function) exit(2);
  memcpy(pointer, &function, sizeof function);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  static state before, loaded, used;
  omp_set_num_threads(3);
  take(&before);
  void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    printf("%s\n", dlerror());
    return 2;
  }
  int32_t (*open)(const char *, const rdpp_options *, rdpp_detector *, char **);
  int32_t (*detect)(rdpp_detector, const uint8_t *, int32_t, int32_t, int64_t, int32_t, rdpp_result *, char **);
  void (*result_free)(rdpp_result *);
  void (*close)(rdpp_detector);
  uint32_t (*version)(void); /* which waits until the library is ready */
  find(library, "rdpp_open", &open);
  find(library, "rdpp_detect_pixels", &detect);
  find(library, "rdpp_result_free", &result_free);
  find(library, "rdpp_close", &close);
  find(library, "rdpp_abi_version", &version);
  if (version() != RDPP_ABI_VERSION) return 2;
  take(&loaded);
  compare(&before, &loaded, "loading");

  static uint8_t pixels[64 * 64];
  rdpp_options options = {.size = sizeof options, .threads = 2};
  rdpp_detector detector;
  rdpp_result result = {.size = sizeof result};
  char *message = NULL;
  for (int i = 0; i < 2; i++) {
    if (open(argv[2], &options, &detector, &message) != RDPP_OK ||
        detect(detector, pixels, 64, 64, 0, RDPP_GREY, &result, &message) != RDPP_OK) {
      printf("%s\n", message);
      return 2;
    }
    result_free(&result);
    close(detector);
  }
  take(&used);
  compare(&loaded, &used, "use");
  if (used.heap > loaded.heap + (16 << 20)) {
    printf("%zu bytes of memory, %zu more than before, are in use by no detector\n", used.heap,
           used.heap - loaded.heap);
    changes++;
  }
  return changes ? 1 : 0;
}
