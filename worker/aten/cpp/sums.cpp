// MKL adds in one order whatever the number of threads and wherever its operands lie, if it is asked to before its first call. On
// AMD's processors it does not do so unasked. It is about all products of the process; what a user has set stays.

#include <cstdlib>

namespace {

__attribute__((constructor)) void ask_for_one_order_of_sums() { setenv("MKL_CBWR", "AUTO,STRICT", 0); }

}  // namespace
