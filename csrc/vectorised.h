// RDPP_VECTORISED: a function that the compiler makes for several generations of processors; the one that runs is
// chosen when the library is loaded.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define RDPP_VECTORISED __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define RDPP_VECTORISED
#endif
