//! Numbers, sizes and times as people read them, on pages and in terminals.

/// Four significant digits, and none after a whole number of some size; a dash for what is not a number.
#[must_use]
pub fn number(x: f64) -> String {
    match x.abs() {
        _ if !x.is_finite() => "–".to_owned(),
        0.0 => "0".to_owned(),
        a if a >= 1.0 && a.fract() == 0.0 => format!("{x:.0}"),
        a if a >= 1_000.0 => format!("{x:.0}"),
        a if a >= 100.0 => format!("{x:.1}"),
        a if a >= 10.0 => format!("{x:.2}"),
        a if a >= 1.0 => format!("{x:.3}"),
        a if a >= 0.001 => format!("{x:.4}"),
        _ => format!("{x:.2e}"),
    }
}

/// Bytes in units of 1,024: `1.4 GiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1 worker`, `2 workers`.
#[must_use]
pub fn count<N: TryInto<u64>>(n: N, noun: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Seconds as `3 m 12 s`; a dash for what is not known.
#[must_use]
pub fn duration(seconds: f64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_short_numbers() {
        assert_eq!(
            [0.4, 192.0, 7500.0, 360_000.0, f64::NAN].map(duration),
            ["0 s", "3 m 12 s", "2 h 05 m", "4 d 04 h", "–"]
        );
        assert_eq!(
            [0.0, 29.0, 3.20551, 0.012345, 1.0e-6, 12345.6, f64::NAN].map(number),
            ["0", "29", "3.206", "0.0123", "1.00e-6", "12346", "–"]
        );
        assert_eq!([0, 1023, 1536, 1 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "1.0 GiB"]);
        assert_eq!((count(1, "worker"), count(2_usize, "worker")), ("1 worker".to_owned(), "2 workers".to_owned()));
    }
}
