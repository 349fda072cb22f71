//! The indices of a data set: index.json, and that of its first shard.
#![no_main]

use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use r2o_storage::shard;

/// Between the two indices.
const CUT: u8 = 0;

fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.iter().position(|byte| *byte == CUT).unwrap_or(bytes.len());
    let (index, rest) = bytes.split_at(cut);
    let Ok(set) = block_on(shard::read_set(&r2o_fuzz::store(&[("index.json", index)]))) else { return };
    let (_samples, _chunks) = (set.samples(), set.chunks());
    let Some(mut entry) = set.shards.first().cloned() else { return };
    // Otherwise only what it says of its bytes would ever be seen.
    let rest = rest.get(1..).unwrap_or_default();
    entry.index_blake3 = blake3::hash(rest).to_hex().to_string();
    entry.index = "shard.json".to_owned();
    let _refused_or_not = block_on(shard::read_shard(&r2o_fuzz::store(&[("shard.json", rest)]), &entry));
});
