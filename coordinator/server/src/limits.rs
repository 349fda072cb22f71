//! How much of anything a peer may send. Whoever sends more is refused with the limit, and nobody else notices.

use r2o_proto::PROTOCOL;
use r2o_proto::v1::Hello;
use tonic::{Code, Status};

/// Bytes of one message of a worker: a checkpoint's part lists all tensors of its share, and a recovered step all lanes.
pub(crate) const FLEET_MESSAGE_BYTES: usize = 64 << 20;
/// Bytes of one request of a person: a job's spec.
pub(crate) const JOBS_MESSAGE_BYTES: usize = 4 << 20;
/// Bytes of one value of the rendezvous; groups exchange addresses and hashes.
pub(crate) const VALUE_BYTES: usize = 1 << 20;
/// Bytes of one key of the rendezvous.
pub(crate) const KEY_BYTES: usize = 1 << 10;
/// Bytes of one request of the rendezvous: a value, its key and, in a comparison, another value.
pub(crate) const RENDEZVOUS_MESSAGE_BYTES: usize = 4 << 20;
/// Bytes that the rendezvous keeps for one generation.
pub(crate) const ROOM_BYTES: usize = 256 << 20;
/// Streams that one connection may have open: a session, and what groups wait for at the rendezvous.
pub(crate) const STREAMS: u32 = 1_024;
/// Jobs that have not ended.
pub(crate) const JOBS: usize = 10_000;
/// Bytes of a name that a worker gives itself.
const NAME_BYTES: usize = 128;
/// Bytes of a sentence of a worker's that is kept or shown; what is longer is cut.
const SENTENCE_BYTES: usize = 4 << 10;

/// Why a worker that says this hello is not served; `None`: it is. Another version of the program is welcome as long as it
/// speaks the same protocol.
pub(crate) fn refusal(hello: &Hello) -> Option<String> {
    if hello.protocol != PROTOCOL {
        return Some(format!(
            "it speaks protocol {} (version {}), this coordinator speaks protocol {PROTOCOL} (version {}): run the same \
             version of both",
            hello.protocol,
            sentence(hello.version.clone()),
            env!("CARGO_PKG_VERSION")
        ));
    }
    let needed = [("worker", &hello.worker), ("incarnation", &hello.incarnation), ("device", &hello.device)];
    if let Some((field, _)) = needed.iter().find(|(_, value)| value.is_empty()) {
        return Some(format!("hello.{field}: is empty"));
    }
    let job = hello.held.as_ref().map(|held| &held.job);
    let others = [("version", Some(&hello.version)), ("address", Some(&hello.address)), ("held.job", job)];
    let needed = needed.map(|(field, value)| (field, Some(value)));
    needed.into_iter().chain(others).find_map(|(field, value)| Some(format!("hello.{field}: {}", unusable(value?)?)))
}

/// What is wrong with a name.
fn unusable(name: &str) -> Option<String> {
    if name.len() > NAME_BYTES {
        return Some(format!("has {} bytes, a name has at most {NAME_BYTES}", name.len()));
    }
    name.chars().any(char::is_control).then(|| "has characters that cannot be printed".to_owned())
}

/// A sentence of a worker's, cut where it is too long.
pub(crate) fn sentence(mut text: String) -> String {
    if text.len() > SENTENCE_BYTES {
        let end = (0..=SENTENCE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ... (cut)");
    }
    text
}

/// What a worker is told whose message is too large; `None`: its stream broke for another reason.
pub(crate) fn too_large(status: &Status) -> Option<String> {
    (status.code() == Code::OutOfRange).then(|| {
        format!("a message is larger than the {FLEET_MESSAGE_BYTES} bytes that are taken: {}", status.message())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        let word = || "w".to_owned();
        Hello { worker: word(), incarnation: word(), device: word(), protocol: PROTOCOL, ..Hello::default() }
    }

    #[test]
    fn what_is_odd_about_a_hello_is_named() {
        assert_eq!(refusal(&hello()), None);
        assert_eq!(refusal(&Hello { version: "99.1".into(), ..hello() }), None, "another build");
        let other = refusal(&Hello { protocol: 7, version: "99.1".into(), ..hello() }).unwrap();
        assert!(other.contains("protocol 7") && other.contains("protocol 1") && other.contains("99.1"), "{other}");
        assert_eq!(refusal(&Hello { device: String::new(), ..hello() }).unwrap(), "hello.device: is empty");
        let long = refusal(&Hello { worker: "é".repeat(65), ..hello() }).unwrap();
        assert!(long.starts_with("hello.worker: has 130 bytes"), "{long}");
        let bell = refusal(&Hello { address: "a\u{7}".into(), ..hello() }).unwrap();
        assert!(bell.starts_with("hello.address: has characters"), "{bell}");
    }

    #[test]
    fn long_sentences_are_cut_between_characters() {
        assert_eq!(sentence("short".into()), "short");
        let cut = sentence("é".repeat(3_000));
        assert!(cut.len() < SENTENCE_BYTES + 20 && cut.ends_with("é ... (cut)"), "{}", cut.len());
    }
}
