//! Numbers, times and sizes as people read them.

use r2o_proto::v1::JobState;

/// `3 m 12 s`; a dash for what is not known.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".to_owned();
    }
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} m {:02} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {:02} m", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {:02} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// Four significant digits; a dash for what is not a number.
pub(super) fn number(x: f64) -> String {
    match x.abs() {
        _ if !x.is_finite() => "–".to_owned(),
        0.0 => "0".to_owned(),
        a if a >= 1_000.0 => format!("{x:.0}"),
        a if a >= 100.0 => format!("{x:.1}"),
        a if a >= 10.0 => format!("{x:.2}"),
        a if a >= 1.0 => format!("{x:.3}"),
        a if a >= 0.001 => format!("{x:.4}"),
        _ => format!("{x:.2e}"),
    }
}

/// `1.4 GiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1 worker`, `2 workers`.
pub(super) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

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
    fn people_read_short_numbers() {
        assert_eq!(
            [0.4, 192.0, 7500.0, 360_000.0, f64::NAN].map(duration),
            ["0 s", "3 m 12 s", "2 h 05 m", "4 d 04 h", "–"]
        );
        assert_eq!([0.0, 3.20551, 0.012345, 1.0e-6, f64::NAN].map(number), ["0", "3.206", "0.0123", "1.00e-6", "–"]);
        assert_eq!([1023, 1536].map(bytes), ["1023 B", "1.5 KiB"]);
        assert_eq!(time(1_700_000_000_123), "2023-11-14 22:13:20");
        assert_eq!(ranges(&[0, 1, 2, 5, u32::MAX]), "0–2, 5, 4294967295");
    }

    #[test]
    fn a_hostile_name_stays_inside_its_segment() {
        assert_eq!(segment("a/../b?c#d e\"<é"), "a%2F..%2Fb%3Fc%23d%20e%22%3C%C3%A9");
    }
}
