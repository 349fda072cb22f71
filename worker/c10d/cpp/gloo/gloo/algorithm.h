// ProcessGroupGloo.hpp includes this header and needs nothing of it.
#pragma once
