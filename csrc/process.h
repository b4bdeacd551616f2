// What the library sets in its process.
#pragma once

namespace rdpp {

// What libtorch and oneDNN do by default is not all wanted: libtorch's own allows TF32.
void set_arithmetic_once();

} // namespace rdpp
