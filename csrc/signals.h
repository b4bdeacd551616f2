/* Signals stay what they were before libtorch came. Debian 13's brings UCX, a library of clusters, which on loading
 * takes SIGHUP for a debugging aid of its own, so that a program under nohup would no longer ignore it, and those of
 * crashes, SIGILL among them. */
#ifndef RDPP_SIGNALS_H
#define RDPP_SIGNALS_H

#ifdef __cplusplus
extern "C" {
#endif

/* rdpp_restore_signals gives all signals the handlers that they had when librdppsignals.so was loaded. That library's
 * initialiser runs before all others. */
void rdpp_restore_signals(void);

#ifdef __cplusplus
}
#endif
#endif
