#include "signals.h"

#include <signal.h>
#include <stddef.h>

static const int steering[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGCHLD, SIGUSR1, SIGUSR2, SIGALRM};
enum { COUNT = sizeof steering / sizeof *steering };
static struct sigaction before[COUNT];

__attribute__((constructor)) static void remember(void) {
  for (int i = 0; i < COUNT; i++) sigaction(steering[i], NULL, &before[i]);
}

void rdpp_restore_signals(void) {
  for (int i = 0; i < COUNT; i++) sigaction(steering[i], &before[i], NULL);
}
