//! The wire types of R2O, generated from `proto/r2o/v1`. Nothing but generated code lives here.

/// Version 1 of the protocol.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("r2o.v1");
}
