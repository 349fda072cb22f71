//! Numbers, times and sizes as people read them; durations without spaces, because columns are narrow.

pub(crate) use r2o_report::words::{bytes, count, number};

/// `3m12s`, `2h05m`, `4d03h`; a dash for what is not known.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".into();
    }
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86400, s % 86400 / 3600),
    }
}

/// The momentum: close to 1, so all its digits are at the end.
pub(crate) fn tau(x: f64) -> String {
    format!("{x:.5}")
}

/// RFC 3339 in UTC, to the second; a dash for never.
pub(crate) fn time(unix_ms: i64) -> String {
    match jiff::Timestamp::from_second(unix_ms.div_euclid(1000)) {
        Ok(t) if unix_ms != 0 => t.to_string(),
        _ => "-".into(),
    }
}

/// How long ago.
pub(crate) fn age(unix_ms: i64, now_unix_ms: i64) -> String {
    if unix_ms == 0 { "-".into() } else { duration((now_unix_ms - unix_ms).max(0) as f64 / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_short_times() {
        let durations: Vec<_> = [0.4, 59.6, 192.0, 7500.0, 360_000.0, f64::NAN].map(duration).into();
        assert_eq!(durations, ["0s", "1m00s", "3m12s", "2h05m", "4d04h", "-"]);
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20Z");
        assert_eq!(time(0), "-");
        assert_eq!(age(1000, 62_000), "1m01s");
    }
}
