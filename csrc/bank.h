// PatchCore as a method of prediction.
#pragma once

#include "boundary.h"
#include "module.h"
#include "predictor.h"

#include <vector>

namespace rdpp {

// modules: teacher and bank.
Predictor::Method patch_distances(const std::vector<const rdpp_module *> &modules, const rdpp_bank_options &options);

} // namespace rdpp
