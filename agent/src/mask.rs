//! Secrets leave no trace: what a build writes is masked before the first byte
//! of it is spooled. Owns the matching; the supervisor feeds it.
//!
//! Masked are the declared values, wherever they stand, and the credentials in
//! URLs: `scheme://user:pass@host` and `scheme://token@host`. A match may be
//! split over any number of writes: what could still become one is held back
//! until it is decided. Invariant: the output does not depend on how the input
//! was split.

/// What stands in place of a secret.
pub const MASK: &[u8] = b"***";
/// A declared value shorter than this is not masked: it would hit by chance
/// everywhere and tell more than it hides.
pub const VALUE_MIN: usize = 4;
/// Longest user part of a URL that is looked at; a longer one is no credential.
const CREDENTIALS_MAX: usize = 1024;

/// A streaming filter over one build's output.
#[derive(Debug)]
pub struct Masker {
    /// Longest first, so that of two that start alike the longer one is hidden.
    values: Vec<Vec<u8>>,
    /// The bytes that something to be masked may start with.
    starts: Vec<u8>,
    /// Not decided yet.
    held: Vec<u8>,
}

/// What the beginning of some bytes is.
enum Verdict {
    /// A secret of this many bytes.
    Secret(usize),
    /// A URL's `://` of which the next `n` bytes are credentials.
    Credentials(usize),
    /// No secret starts here.
    Plain,
    /// More bytes have to come before it can be told.
    Open,
}

impl Masker {
    /// Masks these values and all URL credentials.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut values: Vec<_> = values
            .into_iter()
            .filter(|value| value.len() >= VALUE_MIN)
            .collect();
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        let mut starts = vec![SCHEME_END[0]];
        starts.extend(values.iter().map(|value| value[0]));
        starts.sort_unstable();
        starts.dedup();
        Self {
            values,
            starts,
            held: Vec::new(),
        }
    }

    /// Takes the next bytes; appends to `out` what is decided.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let plain = if self.held.is_empty() {
            self.plain_bytes(bytes)
        } else {
            0
        };
        let (plain, rest) = bytes.split_at(plain);
        out.extend_from_slice(plain);
        if rest.is_empty() {
            return;
        }
        self.held.extend_from_slice(rest);
        self.drain(false, out);
    }

    /// The input is over: what is held back is decided as it stands.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.drain(true, out);
    }

    /// Bytes that are held back at present.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Bytes at the front in which nothing starts: all that most of a flood is
    /// looked at.
    fn plain_bytes(&self, bytes: &[u8]) -> usize {
        let found = match *self.starts {
            // A colon stands in every line of a compiler, a URL in few.
            [_] => return bytes_before_a_scheme_end(bytes),
            [one, two] => memchr::memchr2(one, two, bytes),
            [one, two, three] => memchr::memchr3(one, two, three, bytes),
            _ => bytes.iter().position(|byte| self.starts.contains(byte)),
        };
        found.unwrap_or(bytes.len())
    }

    fn drain(&mut self, last: bool, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let mut at = 0;
        while at < held.len() {
            let rest = &held[at..];
            match self.look(rest, last) {
                Verdict::Secret(length) => {
                    out.extend_from_slice(MASK);
                    at += length;
                }
                Verdict::Credentials(length) => {
                    out.extend_from_slice(b"://");
                    out.extend_from_slice(MASK);
                    at += SCHEME_END.len() + length;
                }
                Verdict::Plain => {
                    let plain = 1 + self.plain_bytes(&rest[1..]);
                    out.extend_from_slice(&rest[..plain]);
                    at += plain;
                }
                Verdict::Open => {
                    self.held = rest.to_vec();
                    return;
                }
            }
        }
    }

    fn look(&self, rest: &[u8], last: bool) -> Verdict {
        let mut open = false;
        for value in &self.values {
            if rest.starts_with(value) {
                // A longer value that could still match was looked at before.
                return if open {
                    Verdict::Open
                } else {
                    Verdict::Secret(value.len())
                };
            }
            open |= !last && value.starts_with(rest);
        }
        let found = credentials(rest, last);
        if open && matches!(found, Verdict::Plain) {
            Verdict::Open
        } else {
            found
        }
    }
}

const SCHEME_END: &[u8] = b"://";

/// Bytes before a `://`, or before what may become one at the end.
fn bytes_before_a_scheme_end(bytes: &[u8]) -> usize {
    memchr::memmem::find(bytes, SCHEME_END).unwrap_or_else(|| {
        let begun = (1..SCHEME_END.len())
            .rev()
            .find(|&length| bytes.ends_with(&SCHEME_END[..length]));
        bytes.len() - begun.unwrap_or(0)
    })
}

/// Looks for credentials at a URL's `://`.
fn credentials(rest: &[u8], last: bool) -> Verdict {
    if !rest.starts_with(SCHEME_END) {
        let open = !last && SCHEME_END.starts_with(rest);
        return if open { Verdict::Open } else { Verdict::Plain };
    }
    let authority = &rest[SCHEME_END.len()..];
    // A password may hold a '/': only what can stand in no URL ends the search,
    // and the host's own end ends it where no '@' came before.
    let mut slash_seen = false;
    for (length, byte) in authority.iter().take(CREDENTIALS_MAX).enumerate() {
        match byte {
            b'@' if length == 0 => return Verdict::Plain,
            b'@' if !slash_seen || authority[..length].contains(&b':') => {
                return Verdict::Credentials(length);
            }
            b'/' => slash_seen = true,
            b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'@' => return Verdict::Plain,
            byte if byte.is_ascii_whitespace() || byte.is_ascii_control() => return Verdict::Plain,
            _ => {}
        }
        if slash_seen && !authority[..length].contains(&b':') {
            return Verdict::Plain;
        }
    }
    if last || authority.len() >= CREDENTIALS_MAX {
        Verdict::Plain
    } else {
        Verdict::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(values: &[&str], text: &str, piece: usize) -> String {
        let mut masker = Masker::new(values.iter().map(|value| value.as_bytes().to_vec()));
        let mut out = Vec::new();
        for bytes in text.as_bytes().chunks(piece) {
            masker.feed(bytes, &mut out);
        }
        masker.finish(&mut out);
        assert_eq!(masker.held_bytes(), 0);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_secret_is_masked_however_it_is_split() {
        let text = "login hunter2hunter2 and hunter2! https://kim:s3/cret@host/x \
                    http://token@host http://plain:80/a ftp://u:p@h see a@b http://x/@y \
                    http://squid:3128/ ends https://half:way";
        let wanted = "login ****** and ***! https://***@host/x \
                      http://***@host http://plain:80/a ftp://***@h see a@b http://x/@y \
                      http://squid:3128/ ends https://half:way";
        for piece in 1..text.len() {
            assert_eq!(
                masked(&["hunter2", "hunt"], text, piece),
                wanted,
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn credentials_are_masked_however_they_are_split() {
        let text = "a:7: b:/c http://token@host :// x: https://kim:s3/cret@host/x:";
        let wanted = "a:7: b:/c http://***@host :// x: https://***@host/x:";
        for piece in 1..text.len() {
            assert_eq!(masked(&[], text, piece), wanted, "pieces of {piece}");
        }
    }

    #[test]
    fn of_two_values_that_start_alike_the_longer_is_hidden() {
        for piece in 1..12 {
            assert_eq!(
                masked(&["abcd", "abcdefgh"], "abcdefgh abcdxyz", piece),
                "*** ***xyz"
            );
        }
    }

    #[test]
    fn ordinary_output_passes_at_once() {
        let mut masker = Masker::new([b"secret".to_vec()]);
        let mut out = Vec::new();
        masker.feed(b"make[1] -> built\n", &mut out);
        assert_eq!(
            (out.as_slice(), masker.held_bytes()),
            (&b"make[1] -> built\n"[..], 0)
        );
    }

    #[test]
    fn a_flood_without_an_end_is_not_held_back_for_ever() {
        let mut masker = Masker::new([]);
        let mut out = Vec::new();
        masker.feed(b"http://", &mut out);
        for _ in 0..100 {
            masker.feed(&[b'x'; 100], &mut out);
        }
        assert!(masker.held_bytes() <= CREDENTIALS_MAX + 100);
    }
}
