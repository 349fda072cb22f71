//! Numbers, times and sizes as people read them.

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

/// `1 shard`, `2 shards`.
pub(crate) fn count<N: TryInto<u64>>(n: N, noun: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `1.4 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Four significant digits; a dash for what is not a number.
pub(crate) fn number(x: f64) -> String {
    match x.abs() {
        _ if !x.is_finite() => "-".into(),
        0.0 => "0".into(),
        a if a >= 1000.0 => format!("{x:.0}"),
        a if a >= 100.0 => format!("{x:.1}"),
        a if a >= 10.0 => format!("{x:.2}"),
        a if a >= 1.0 => format!("{x:.3}"),
        a if a >= 0.001 => format!("{x:.4}"),
        _ => format!("{x:.2e}"),
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
    fn people_read_short_numbers() {
        let durations: Vec<_> = [0.4, 59.6, 192.0, 7500.0, 360_000.0, f64::NAN].map(duration).into();
        assert_eq!(durations, ["0s", "1m00s", "3m12s", "2h05m", "4d04h", "-"]);
        assert_eq!([0, 1023, 1536, 1 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "1.0 GiB"]);
        let numbers = [0.0, 3.20551, 0.012345, 1.0e-6, 12345.6, f64::NAN].map(number);
        assert_eq!(numbers, ["0", "3.206", "0.0123", "1.00e-6", "12346", "-"]);
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20Z");
        assert_eq!(time(0), "-");
        assert_eq!(age(1000, 62_000), "1m01s");
    }
}
