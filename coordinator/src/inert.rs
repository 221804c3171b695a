//! Strangers' text made harmless for a terminal. Owns which characters may
//! reach one; HTML is escaped by the page's templates, after this.
//!
//! Invariant: what comes out has no control character but line feed and tab,
//! no bidirectional override and nothing invisible, whatever went in and
//! however it was cut into pieces.

use std::borrow::Cow;

/// Bytes of an escape sequence that are held back to see whether it is only a
/// colour.
const COLOUR_MAX: usize = 32;

/// One line: names, reasons, addresses. Line feeds are shown as a symbol too.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| shown(c) == c) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.chars().map(shown).collect())
    }
}

/// Several lines at once: a script's output, the tail of a log.
#[must_use]
pub fn lines(bytes: &[u8]) -> String {
    let mut washer = Washer::default();
    let mut out = String::with_capacity(bytes.len());
    washer.push(bytes, &mut out);
    washer.finish(&mut out);
    out
}

/// A log that arrives in pieces. Colours are dropped, every other escape
/// sequence is shown instead of obeyed, broken UTF-8 becomes U+FFFD.
#[derive(Debug, Default)]
pub struct Washer {
    /// The beginning of a character or of an escape sequence.
    held: Vec<u8>,
}

impl Washer {
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        loop {
            let (piece, length) = first_piece(rest);
            match piece {
                Piece::Text => out.push_str(&wash(&rest[..length])),
                Piece::Dropped => {}
                Piece::Incomplete => break,
            }
            rest = &rest[length..];
        }
        self.held = rest.to_vec();
    }

    /// What was held back is all there is.
    pub fn finish(&mut self, out: &mut String) {
        let held = std::mem::take(&mut self.held);
        out.push_str(&wash(&held));
    }
}

#[derive(Clone, Copy)]
enum Piece {
    Text,
    /// A colour, or the carriage return of a line's end.
    Dropped,
    /// More bytes decide.
    Incomplete,
}

/// The first piece of the bytes and its length.
fn first_piece(bytes: &[u8]) -> (Piece, usize) {
    match bytes {
        [] | [0x1b | b'\r'] => (Piece::Incomplete, 0),
        [b'\r', b'\n', ..] => (Piece::Dropped, 1),
        [b'\r', ..] => (Piece::Text, 1),
        [0x1b, b'[', parameters @ ..] => match parameters
            .iter()
            .take(COLOUR_MAX)
            .position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))
        {
            Some(end) if parameters[end] == b'm' => (Piece::Dropped, end + 3),
            Some(_) => (Piece::Text, 1),
            None if parameters.len() < COLOUR_MAX => (Piece::Incomplete, 0),
            None => (Piece::Text, 1),
        },
        [0x1b, ..] => (Piece::Text, 1),
        [..] => {
            let plain = bytes
                .iter()
                .position(|byte| matches!(byte, 0x1b | b'\r'))
                .unwrap_or(bytes.len());
            match plain - cut_character(&bytes[..plain], plain == bytes.len()) {
                0 => (Piece::Incomplete, 0),
                length => (Piece::Text, length),
            }
        }
    }
}

/// Bytes at the end that may be the beginning of a character.
fn cut_character(bytes: &[u8], more_may_come: bool) -> usize {
    let length = |byte: u8| match byte {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 0,
    };
    if !more_may_come {
        return 0;
    }
    (1..=bytes.len().min(3))
        .find(|back| length(bytes[bytes.len() - back]) > *back)
        .unwrap_or(0)
}

fn wash(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| {
            if matches!(c, '\n' | '\t') {
                c
            } else {
                shown(c)
            }
        })
        .collect()
}

/// The character itself, or the harmless one that stands for it.
fn shown(c: char) -> char {
    match c {
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}' => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_stays_on_its_line_and_moves_nothing() {
        assert_eq!(line("hello_2.10-3"), "hello_2.10-3");
        assert_eq!(line("a\u{1b}]0;owned\u{7}b\nc\0"), "a␛]0;owned␇b␊c␀");
        assert_eq!(line("x\u{202e}cod.exe"), "x\u{fffd}cod.exe");
        assert_eq!(line("z\u{200b}w\u{9b}31m"), "z\u{fffd}w\u{fffd}31m");
    }

    #[test]
    fn colours_are_dropped_and_other_escapes_are_shown() {
        assert_eq!(
            lines(b"\x1b[1;31mred\x1b[0m\r\nnext\tend"),
            "red\nnext\tend"
        );
        assert_eq!(lines(b"\x1b]52;c;aGk=\x07\x1b[2J"), "␛]52;c;aGk=␇␛[2J");
        assert_eq!(lines(b"10%\r20%\r"), "10%␍20%␍");
        assert_eq!(lines(b"cut \xe2\x98"), "cut \u{fffd}");
    }

    #[test]
    fn a_log_is_washed_alike_however_it_is_cut() {
        let log = "plain ☃ é \u{1b}[32mgreen\u{1b}[0m \u{1b}[9999;1H \r\n\u{202e}end𝄞\u{1b}";
        let whole = lines(log.as_bytes());
        for size in 1..8 {
            let mut washer = Washer::default();
            let mut out = String::new();
            for piece in log.as_bytes().chunks(size) {
                washer.push(piece, &mut out);
            }
            washer.finish(&mut out);
            assert_eq!(out, whole, "in pieces of {size}");
        }
    }
}
