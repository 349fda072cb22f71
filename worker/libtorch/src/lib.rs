//! The door to libtorch for build scripts: fails early, with what to type, when there is none.
//!
//! Crates that link libtorch depend on this one and read `DEP_R2O_LIBTORCH_ROOT` in their build script for the folder
//! that holds `include/` and `lib/`.
