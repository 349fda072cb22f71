//! Messages between r2octl, coordinator and workers, before anybody looks at what they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use r2o_proto::v1;

fn read<M: Message + Default>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        assert!(M::decode(message.encode_to_vec().as_slice()).is_ok());
    }
}

fuzz_target!(|bytes: &[u8]| {
    read::<v1::WorkerMessage>(bytes);
    read::<v1::CoordinatorMessage>(bytes);
    read::<v1::SubmitRequest>(bytes);
    read::<v1::CompareSetRequest>(bytes);
});
