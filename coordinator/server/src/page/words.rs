//! Numbers, times and sizes as people read them.

use r2o_proto::v1::JobState;
pub(super) use r2o_report::words::{bytes, count, duration, number};

/// RFC 3339 in UTC, to the second, for programs; empty for never.
pub(super) fn instant(unix_ms: i64) -> String {
    jiff::Timestamp::from_second(unix_ms.div_euclid(1_000)).map(|t| t.to_string()).unwrap_or_default()
}

/// `2026-11-26 08:15:00`, in UTC, for people.
pub(super) fn time(unix_ms: i64) -> String {
    instant(unix_ms).replace('T', " ").trim_end_matches('Z').to_owned()
}

/// `0–3, 8` for 0, 1, 2, 3, 8; a dash for none.
pub(super) fn ranges(lanes: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &lane in lanes {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(lane) => *last = lane,
            _ => parts.push((lane, lane)),
        }
    }
    let text = |(a, b): (u32, u32)| if a == b { a.to_string() } else { format!("{a}–{b}") };
    let parts: Vec<_> = parts.into_iter().map(text).collect();
    if parts.is_empty() { "–".to_owned() } else { parts.join(", ") }
}

/// A job's state in one word.
pub(super) fn state(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "Unknown",
        JobState::Queued => "Queued",
        JobState::Paused => "Paused",
        JobState::Starting => "Starting",
        JobState::Running => "Running",
        JobState::Succeeded => "Succeeded",
        JobState::Failed => "Failed",
        JobState::Cancelled => "Cancelled",
    }
}

pub(super) fn has_ended(state: JobState) -> bool {
    matches!(state, JobState::Succeeded | JobState::Failed | JobState::Cancelled)
}

/// A name as one segment of a path: what is not a letter, a digit or one of `-._~` is encoded.
pub(super) fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_times_and_ranges() {
        assert_eq!(time(1_700_000_000_123), "2023-11-14 22:13:20");
        assert_eq!(ranges(&[0, 1, 2, 5, u32::MAX]), "0–2, 5, 4294967295");
    }

    #[test]
    fn a_hostile_name_stays_inside_its_segment() {
        assert_eq!(segment("a/../b?c#d e\"<é"), "a%2F..%2Fb%3Fc%23d%20e%22%3C%C3%A9");
    }
}
