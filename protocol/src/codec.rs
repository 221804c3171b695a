//! Frames: `length u32 LE | kind u16 LE | flags u8 | body`, the body one
//! postcard-encoded struct. Pure: bytes in, frames out, no sockets.
//!
//! One kind is one frozen struct. A change is a new kind and a feature bit. A
//! kind that is not known is skipped and counted, unless the sender set the
//! *critical* flag: then the connection ends with a named error. The length is
//! capped per kind before anything is allocated.

use serde::{Deserialize, Serialize};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 7;
/// The largest body of any control frame. Large enough for a job spec, small
/// enough that a hostile peer cannot make anyone hold much.
pub const CONTROL_BODY_MAX: u32 = 64 << 10;
/// The largest body of a bulk frame: one chunk, or the chunk list of 32 GiB.
pub const BULK_BODY_MAX: u32 = 1 << 20;

/// Flag bit: who does not know this kind must not go on.
pub const FLAG_CRITICAL: u8 = 1;

/// What makes a frame unreadable. Each ends the connection under this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("a frame of kind {kind:#06x} announces {length} bytes, more than the {max} allowed")]
    TooLong { kind: u16, length: u32, max: u32 },
    #[error("a frame of unknown kind {kind:#06x} is marked critical; one of the two is too old")]
    UnknownCritical { kind: u16 },
    #[error("a frame of kind {kind:#06x} could not be read: {why}")]
    Malformed { kind: u16, why: String },
    #[error("a frame of kind {kind:#06x} has {extra} bytes behind its end")]
    Trailing { kind: u16, extra: usize },
    #[error("a frame of kind {kind:#06x} has no place here")]
    OutOfPlace { kind: u16 },
}

/// The seven bytes before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub length: u32,
    pub kind: u16,
    pub flags: u8,
}

impl Header {
    #[must_use]
    pub fn read(bytes: [u8; HEADER_BYTES]) -> Self {
        let [l0, l1, l2, l3, k0, k1, flags] = bytes;
        Self {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            kind: u16::from_le_bytes([k0, k1]),
            flags,
        }
    }

    #[must_use]
    pub fn write(self) -> [u8; HEADER_BYTES] {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [k0, k1] = self.kind.to_le_bytes();
        [l0, l1, l2, l3, k0, k1, self.flags]
    }

    #[must_use]
    pub const fn critical(self) -> bool {
        self.flags & FLAG_CRITICAL != 0
    }
}

/// A set of frames that travel in one direction on one kind of stream. Made by
/// [`frames!`](crate::frames); a reader asks it how long a body may be before
/// it reads one.
pub trait FrameSet: Sized {
    /// Every kind of the set: its number and its name.
    const KINDS: &'static [(u16, &'static str)];
    /// The cap of a kind's body, or `None` where the kind is not known here.
    fn body_max(kind: u16) -> Option<u32>;
    /// Reads a body of a known kind.
    ///
    /// # Errors
    /// If the body is not exactly one value of the kind.
    fn decode(kind: u16, body: &[u8]) -> Result<Self, CodecError>;
    fn kind(&self) -> u16;
    fn flags(&self) -> u8;
    /// Appends header and body.
    fn encode_into(&self, out: &mut Vec<u8>);

    #[must_use]
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.encode_into(&mut out);
        out
    }
}

/// What a header asks of its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Read this many bytes and decode them.
    Body(usize),
    /// Read and drop this many bytes, and count it: a newer peer's kind.
    Skip(usize),
}

/// Decides about a header before a byte of its body is read.
///
/// # Errors
/// If the length is over the kind's cap (over [`CONTROL_BODY_MAX`] for an
/// unknown one), or an unknown kind is critical.
pub fn expect<F: FrameSet>(header: Header) -> Result<Expect, CodecError> {
    let (kind, length) = (header.kind, header.length);
    let max = F::body_max(kind);
    if max.is_none() && header.critical() {
        return Err(CodecError::UnknownCritical { kind });
    }
    let cap = max.unwrap_or(CONTROL_BODY_MAX);
    if length > cap {
        return Err(CodecError::TooLong {
            kind,
            length,
            max: cap,
        });
    }
    let length = length as usize;
    Ok(if max.is_some() {
        Expect::Body(length)
    } else {
        Expect::Skip(length)
    })
}

/// Takes whole frames from the front of a buffer, for readers that have one
/// (tests, the simulation, captured bytes).
///
/// # Errors
/// As [`expect`] and [`FrameSet::decode`].
pub fn take<F: FrameSet>(buffer: &mut Vec<u8>) -> Result<Option<F>, CodecError> {
    loop {
        let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::read(*header);
        let wanted = expect::<F>(header)?;
        let (Expect::Body(length) | Expect::Skip(length)) = wanted;
        if buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        let body: Vec<u8> = buffer
            .drain(..HEADER_BYTES + length)
            .skip(HEADER_BYTES)
            .collect();
        if let Expect::Body(_) = wanted {
            return F::decode(header.kind, &body).map(Some);
        }
    }
}

/// Decodes one value that must fill its bytes.
///
/// # Errors
/// [`CodecError::Malformed`] or [`CodecError::Trailing`].
pub fn decode_exact<'a, T: Deserialize<'a>>(kind: u16, body: &'a [u8]) -> Result<T, CodecError> {
    let (value, rest) = postcard::take_from_bytes(body).map_err(|error| CodecError::Malformed {
        kind,
        why: error.to_string(),
    })?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(CodecError::Trailing {
            kind,
            extra: rest.len(),
        })
    }
}

/// Appends one frame.
pub fn encode_frame<T: Serialize>(kind: u16, flags: u8, body: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(
        &Header {
            length: 0,
            kind,
            flags,
        }
        .write(),
    );
    let buffer = postcard::to_extend(body, std::mem::take(out))
        .expect("plain structs of numbers, text and lists always encode");
    *out = buffer;
    let length = u32::try_from(out.len() - start - HEADER_BYTES)
        .expect("every bounded body is far below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Declares a [`FrameSet`]: an enum over frozen structs, each with its number
/// on the wire, its cap in bytes, and whether it may be skipped.
#[macro_export]
macro_rules! frames {
    ($(#[$doc:meta])* pub enum $set:ident {
        $($number:literal $kind:ident max $max:expr, $flag:ident;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $set { $($kind($kind),)* }

        impl $crate::codec::FrameSet for $set {
            const KINDS: &'static [(u16, &'static str)] =
                &[$(($number, stringify!($kind)),)*];

            fn body_max(kind: u16) -> Option<u32> {
                match kind { $($number => Some($max),)* _ => None }
            }
            fn decode(kind: u16, body: &[u8]) -> Result<Self, $crate::codec::CodecError> {
                match kind {
                    $($number => $crate::codec::decode_exact(kind, body).map(Self::$kind),)*
                    _ => Err($crate::codec::CodecError::OutOfPlace { kind }),
                }
            }
            fn kind(&self) -> u16 {
                match self { $(Self::$kind(_) => $number,)* }
            }
            fn flags(&self) -> u8 {
                match self { $(Self::$kind(_) => $crate::frames!(@flag $flag),)* }
            }
            fn encode_into(&self, out: &mut Vec<u8>) {
                match self { $(Self::$kind(body) =>
                    $crate::codec::encode_frame($number, $crate::frames!(@flag $flag), body, out),)* }
            }
        }

        $(impl From<$kind> for $set {
            fn from(body: $kind) -> Self { Self::$kind(body) }
        })*
    };
    (@flag critical) => { $crate::codec::FLAG_CRITICAL };
    (@flag skippable) => { 0 };
}
