package main

// #include <sys/resource.h>
//
// // Go's package os raises the soft limit of open files while the library is loaded. The limit is its program's, which
// // may use select and so count on small numbers. This constructor runs before Go's runtime begins.
// static struct rlimit files;
// static int known;
// __attribute__((constructor(101))) static void remember_files(void) { known = getrlimit(RLIMIT_NOFILE, &files) == 0; }
// static void restore_files(void) { if (known) setrlimit(RLIMIT_NOFILE, &files); }
import "C"

func init() { C.restore_files() }
