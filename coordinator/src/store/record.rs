//! How one record lies in the store: `format u8 | checksum 4 bytes | body`,
//! the body in postcard, the checksum the beginning of its BLAKE3 hash. The
//! disk's own mistakes are found when a record is read, not believed.
//!
//! A record's struct never changes under a format: a change is a new format
//! here, with the old struct frozen and turned into the new one at reading.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// What this program writes.
const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
const HEADER_BYTES: usize = 1 + CHECKSUM_BYTES;

/// Replaces what is in `out` by the record.
pub(super) fn encode<T: Serialize + ?Sized>(record: &T, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[FORMAT, 0, 0, 0, 0]);
    *out = postcard::to_extend(record, std::mem::take(out))
        .expect("plain structs of numbers, text and lists always encode");
    let sum = checksum(&out[HEADER_BYTES..]);
    out[1..HEADER_BYTES].copy_from_slice(&sum);
}

pub(super) fn decode<T: DeserializeOwned>(
    record: &'static str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    let damaged = |why: String| StoreError::Damaged { record, why };
    let Some((&[format, ref sum @ ..], body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(damaged(format!("it has only {} bytes", bytes.len())));
    };
    if format != FORMAT {
        return Err(damaged(format!(
            "its format is {format}, this program knows {FORMAT}"
        )));
    }
    if *sum != checksum(body) {
        return Err(damaged("its checksum is wrong".to_owned()));
    }
    let (value, rest) =
        postcard::take_from_bytes(body).map_err(|error| damaged(error.to_string()))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(damaged(format!("{} bytes behind its end", rest.len())))
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::hash(body);
    *hash
        .as_bytes()
        .first_chunk()
        .expect("a hash is longer than a checksum")
}

#[cfg(test)]
mod tests {
    use super::*;
    use farmbell_farm::record::Meta;

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let mut bytes = Vec::new();
        encode(
            &Meta {
                job_floor: 7,
                ..Meta::default()
            },
            &mut bytes,
        );
        assert_eq!(decode::<Meta>("meta", &bytes).unwrap().job_floor, 7);
        for place in 0..bytes.len() {
            for bit in 0..8 {
                bytes[place] ^= 1 << bit;
                assert!(
                    decode::<Meta>("meta", &bytes).is_err(),
                    "byte {place} bit {bit}"
                );
                bytes[place] ^= 1 << bit;
            }
        }
        for length in 0..bytes.len() {
            assert!(decode::<Meta>("meta", &bytes[..length]).is_err());
        }
    }
}
