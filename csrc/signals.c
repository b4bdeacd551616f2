#include "signals.h"

#include <signal.h>
#include <stddef.h>

enum { COUNT = 65 };
static struct sigaction before[COUNT];
static int known[COUNT]; /* the C library keeps some to itself */

__attribute__((constructor)) static void remember(void) {
  for (int i = 1; i < COUNT; i++) known[i] = sigaction(i, NULL, &before[i]) == 0;
}

void rdpp_restore_signals(void) {
  for (int i = 1; i < COUNT; i++) {
    if (known[i] && i != SIGKILL && i != SIGSTOP) sigaction(i, &before[i], NULL);
  }
}
