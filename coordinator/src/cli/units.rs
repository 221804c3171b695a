//! Spans of time and sizes as people write them: `90s`, `1h30m`, `512M`.

const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
/// As memory and disks are counted by the kernel's own limits.
const SIZES: [(&str, u64); 5] = [
    ("", 1),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
];

/// Milliseconds of a text such as `90s`, `45m`, `1h30m` or `500ms`.
///
/// # Errors
/// With the reason, for the person who wrote it.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a span of time such as 90s, 45m or 1h30m");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut sum = 0u64;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(wrong)?;
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let scale = scale(&TIMES, &after[..letters]).ok_or_else(wrong)?;
        sum = number
            .checked_mul(scale)
            .and_then(|ms| sum.checked_add(ms))
            .ok_or_else(wrong)?;
        rest = &after[letters..];
    }
    Ok(sum)
}

/// Bytes of a text such as `4096`, `512M` or `2GiB`.
///
/// # Errors
/// With the reason, for the person who wrote it.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size such as 4096, 512M or 2G");
    let (number, unit) = leading_number(text.trim()).ok_or_else(wrong)?;
    let unit = unit.trim_end_matches("iB").trim_end_matches('B');
    let scale = scale(&SIZES, &unit.to_ascii_uppercase()).ok_or_else(wrong)?;
    number.checked_mul(scale).ok_or_else(wrong)
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

fn scale(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_read() {
        assert_eq!(milliseconds("1h30m"), Ok(5_400_000));
        assert_eq!(milliseconds("500ms"), Ok(500));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("2G"), Ok(2 << 30));
        assert_eq!(bytes("3MiB"), Ok(3 << 20));
        for wrong in ["", "5", "h", "1x", "-1s", "99999999999999999999d"] {
            assert!(milliseconds(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "G", "1Q", "99999999999999999999"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
