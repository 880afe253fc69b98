// The kernels behind the ops, one set per device.
#pragma once

#include "rows.h"

namespace dlmdecode {

namespace cpu {
void propose(const Rows& rows);
}

}  // namespace dlmdecode
