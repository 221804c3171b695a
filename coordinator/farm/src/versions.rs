//! Versions of Debian packages. Owns their order, deb-version(7): epoch,
//! upstream version, revision, each by turns of text and numbers. Here and not
//! from a crate: the kept one brings a regex engine and a calendar into the
//! core, the small one panics on text that is not ASCII.

use std::cmp::Ordering;

/// Which of two versions is the newer; any two texts have an order.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, upstream_a, revision_a) = parts(a);
    let (epoch_b, upstream_b, revision_b) = parts(b);
    compare_part(epoch_a, epoch_b)
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

/// Whether a version is spelled as one: nothing else gets into the books.
pub(crate) fn is_version(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".+-:~".contains(&byte))
}

/// The version without its epoch, and the epoch with its colon.
pub(crate) fn split_epoch(version: &str) -> (&str, &str) {
    version
        .find(':')
        .map_or(("", version), |colon| version.split_at(colon + 1))
}

fn parts(version: &str) -> (&[u8], &[u8], &[u8]) {
    let (epoch, rest) = split_epoch(version);
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    let epoch = epoch.strip_suffix(':').unwrap_or(epoch);
    (epoch.as_bytes(), upstream.as_bytes(), revision.as_bytes())
}

fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, text_b) = (take(&mut a, false), take(&mut b, false));
        let (number_a, number_b) = (take(&mut a, true), take(&mut b, true));
        let order = compare_text(text_a, text_b).then_with(|| compare_number(number_a, number_b));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Cuts off the digits, or what comes before the next digit.
fn take<'a>(from: &mut &'a [u8], digits: bool) -> &'a [u8] {
    let end = from
        .iter()
        .position(|byte| byte.is_ascii_digit() != digits)
        .unwrap_or(from.len());
    let (taken, rest) = from.split_at(end);
    *from = rest;
    taken
}

fn compare_text(a: &[u8], b: &[u8]) -> Ordering {
    (0..a.len().max(b.len()))
        .map(|at| weight(a.get(at)).cmp(&weight(b.get(at))))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// A tilde sorts before the end, letters before everything else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

fn compare_number(a: &[u8], b: &[u8]) -> Ordering {
    let (a, b) = (significant(a), significant(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn significant(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_debians_order() {
        // Each newer than the one before it.
        let rising = [
            "0~~",
            "0~~a",
            "0~",
            "0",
            "0a",
            "0+",
            "1.0~rc1-1",
            "1.0",
            "1.0-0.1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1.1",
            "1.0-2",
            "1.0-10",
            "1.0a",
            "1.0+dfsg",
            "1.0.1",
            "1.9",
            "1.10",
            "2024.01",
            "0:99999999999999999999999",
            "1:0.1",
            "1:0.1-1-1",
            "2:0",
        ];
        for (at, a) in rising.iter().enumerate() {
            for (other, b) in rising.iter().enumerate() {
                assert_eq!(compare(a, b), at.cmp(&other), "{a} and {b}");
            }
        }
        for (a, b) in [("1.0", "1.00"), ("0:1", "1"), ("1.0-0", "1.0"), ("", "0")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} and {b}");
        }
    }

    #[test]
    fn what_is_no_version_is_told_apart() {
        assert!(is_version("1:2.0~rc1+dfsg-1+b2"));
        for wrong in ["", "1 0", "1_0", "1.0)", "ä"] {
            assert!(!is_version(wrong), "{wrong}");
        }
        assert_eq!(split_epoch("1:2.0-1"), ("1:", "2.0-1"));
    }
}
