package torch

// The linker finds our two libraries in build/lib, where scripts/build.sh leaves them. gotorch names libtorch's
// own libraries too; --as-needed drops those again, so that a binary depends on our two libraries alone and
// runs on whichever libtorch they were built against.

// #cgo CFLAGS: -I${SRCDIR}/../csrc
// #cgo LDFLAGS: -L${SRCDIR}/../build/lib -Wl,-rpath,${SRCDIR}/../build/lib -Wl,--as-needed -lrdpptorch
// #include "rdpp.h"
// static const char *const interface __attribute__((used)) = &rdpp_interface_71a28d8e;
import "C"
