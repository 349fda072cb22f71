//! The wire types of R2O, generated from `proto/r2o/v1`, and the little that both ends of the wire share by hand: the
//! number of the protocol, and how a client shows its token.

pub mod token;

/// The number of the protocol that workers of this version speak. It changes with what a worker of another version could
/// not follow; new fields alone do not change it. A coordinator refuses workers of another number.
pub const PROTOCOL: u32 = 1;

/// Version 1 of the messages.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("r2o.v1");
}
