// FastFlow as a method of prediction.
#pragma once

#include "boundary.h"
#include "module.h"
#include "predictor.h"

#include <vector>

namespace rdpp {

// modules: teacher and flow.
Predictor::Method flows(const std::vector<const rdpp_module *> &modules, const rdpp_flow_map_options &options);

} // namespace rdpp
