//! Text and lists that cannot be larger than their type says. The bound is
//! checked while decoding, before anything of that size is allocated, so a
//! hostile length prefix costs nothing.

use std::fmt;
use std::ops::Deref;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value was larger than its place on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} is more than the {max} that fit here")]
pub struct TooLong {
    pub length: usize,
    pub max: usize,
}

/// UTF-8 of at most `MAX` bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const MAX: usize>(String);

/// At most `MAX` elements.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct List<T, const MAX: usize>(Vec<T>);

/// At most `MAX` bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob<const MAX: usize>(Vec<u8>);

/// A short name: a recipe, an architecture, a tag, an owner, a builder.
pub type Name = Text<64>;
/// One line for a person: why something was refused or failed.
pub type Reason = Text<1024>;

impl<const MAX: usize> Text<MAX> {
    /// # Errors
    /// If the text has more than `MAX` bytes.
    pub fn new(text: impl Into<String>) -> Result<Self, TooLong> {
        let text = text.into();
        if text.len() > MAX {
            return Err(TooLong {
                length: text.len(),
                max: MAX,
            });
        }
        Ok(Self(text))
    }

    /// As much of the text as fits, cut at a character, for words that are
    /// only read by people.
    #[must_use]
    pub fn cut(text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > MAX {
            let mut end = MAX;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        Self(text)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<T, const MAX: usize> List<T, MAX> {
    /// # Errors
    /// If there are more than `MAX` items.
    pub fn new(items: Vec<T>) -> Result<Self, TooLong> {
        if items.len() > MAX {
            return Err(TooLong {
                length: items.len(),
                max: MAX,
            });
        }
        Ok(Self(items))
    }

    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<const MAX: usize> Blob<MAX> {
    /// # Errors
    /// If there are more than `MAX` bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, TooLong> {
        if bytes.len() > MAX {
            return Err(TooLong {
                length: bytes.len(),
                max: MAX,
            });
        }
        Ok(Self(bytes))
    }

    /// The last `MAX` bytes: of a script's output, the end tells most.
    #[must_use]
    pub fn tail(bytes: &[u8]) -> Self {
        Self(bytes[bytes.len().saturating_sub(MAX)..].to_vec())
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<const MAX: usize> Deref for Blob<MAX> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<T: fmt::Debug, const MAX: usize> fmt::Debug for List<T, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MAX: usize> fmt::Debug for Blob<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<const MAX: usize> TryFrom<&str> for Text<MAX> {
    type Error = TooLong;
    fn try_from(text: &str) -> Result<Self, TooLong> {
        Self::new(text)
    }
}

impl<T, const MAX: usize> TryFrom<Vec<T>> for List<T, MAX> {
    type Error = TooLong;
    fn try_from(items: Vec<T>) -> Result<Self, TooLong> {
        Self::new(items)
    }
}

impl<const MAX: usize> PartialEq<str> for Text<MAX> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<T: Serialize, const MAX: usize> Serialize for List<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<const MAX: usize> Serialize for Blob<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<const MAX: usize>;
        impl<const MAX: usize> Visitor<'_> for Read<MAX> {
            type Value = Text<MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "UTF-8 of at most {MAX} bytes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Text::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Read)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<T, const MAX: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Read<T, MAX> {
            type Value = List<T, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} items")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                const {
                    assert!(
                        size_of::<T>() > 0,
                        "items without a size would be free to send"
                    )
                };
                let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(MAX).min(64));
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX {
                        return Err(A::Error::custom(TooLong {
                            length: MAX + 1,
                            max: MAX,
                        }));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        deserializer.deserialize_seq(Read(std::marker::PhantomData))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Blob<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<const MAX: usize>;
        impl<const MAX: usize> Visitor<'_> for Read<MAX> {
            type Value = Blob<MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                if bytes.len() > MAX {
                    return Err(E::custom(TooLong {
                        length: bytes.len(),
                        max: MAX,
                    }));
                }
                Ok(Blob(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_refused_while_decoding() {
        let bytes = postcard::to_stdvec(&"four").unwrap();
        assert!(postcard::from_bytes::<Text<4>>(&bytes).is_ok());
        assert!(postcard::from_bytes::<Text<3>>(&bytes).is_err());
        let bytes = postcard::to_stdvec(&vec![1u8, 2, 3]).unwrap();
        assert!(postcard::from_bytes::<List<u8, 3>>(&bytes).is_ok());
        assert!(postcard::from_bytes::<List<u8, 2>>(&bytes).is_err());
        // A length prefix of 2^35 with nothing behind it.
        let hostile = [0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        assert!(postcard::from_bytes::<List<u64, 1024>>(&hostile).is_err());
        assert!(postcard::from_bytes::<Text<1024>>(&hostile).is_err());
    }

    #[test]
    fn words_for_people_are_cut_at_a_character() {
        assert_eq!(Text::<4>::cut("abcé").as_str(), "abc");
        assert_eq!(Text::<5>::cut("abcé").as_str(), "abcé");
    }
}
