//! Durations as kubectl writes them.

/// `45s`, `3m20s`, `15m`, `2h5m`, `9h`, `3d4h`, `12d`, `1y30d`: two units while the first is small. Negative ones are `0s`.
pub fn age(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |large: i64, large_name: &str, small: i64, small_name: &str, small_matters_below: i64| {
        let (first, rest) = (seconds / large, seconds % large / small);
        if rest > 0 && first < small_matters_below {
            format!("{first}{large_name}{rest}{small_name}")
        } else {
            format!("{first}{large_name}")
        }
    };
    match seconds {
        ..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..10_800 => two(MINUTE, "m", 1, "s", 10),
        10_800..172_800 => two(HOUR, "h", MINUTE, "m", 8),
        172_800..63_072_000 => two(DAY, "d", HOUR, "h", 8),
        _ => two(YEAR, "y", DAY, "d", 8),
    }
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    fn as_kubectl_writes_them() {
        let written =
            [-5, 0, 119, 120, 200, 600, 900, 10_799, 10_800, 30_000, 172_799, 172_800, 31_536_000, 99_999_999].map(age);
        let expected =
            ["0s", "0s", "119s", "2m", "3m20s", "10m", "15m", "179m", "3h", "8h", "47h", "2d", "365d", "3y62d"];
        assert_eq!(written, expected);
    }
}
