//! Golden bytes: `wire/KIND-NAME.hex` holds frames of one kind, one after the
//! other, as they travel: every variant that the kind can carry. The files are
//! for any language: drop what follows a `#`, read the rest as hexadecimal.
//!
//! They freeze with the first release. A file that is missing is written by
//! `FARMBELL_WRITE_WIRE=1 cargo test -p farmbell-protocol --test wire`; one
//! that is there is never written over.
#![expect(clippy::unwrap_used, reason = "helpers of a test")]

#[path = "wire/samples.rs"]
mod samples;

use std::fmt::Debug;
use std::path::PathBuf;

use farmbell_protocol::agent_to_coordinator::AgentFrame;
use farmbell_protocol::bulk::{BulkReply, BulkRequest};
use farmbell_protocol::codec::{self, FrameSet, HEADER_BYTES};
use farmbell_protocol::coordinator_to_agent::CoordinatorFrame;
use proptest::prelude::*;

fn file(kind: u16, name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    directory.join(format!("{kind:04x}-{name}.hex"))
}

fn to_hex<F: FrameSet + Debug>(frames: &[&F]) -> String {
    let mut text = String::new();
    for frame in frames {
        text.push_str(&format!("# {frame:?}\n"));
        for line in frame.encode().chunks(32) {
            let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&digits.join(" "));
            text.push('\n');
        }
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::split_whitespace)
        .map(|digits| u8::from_str_radix(digits, 16).unwrap())
        .collect()
}

fn read_all<F: FrameSet>(mut bytes: Vec<u8>) -> Vec<F> {
    let mut frames = Vec::new();
    while let Some(frame) = codec::take::<F>(&mut bytes).unwrap() {
        frames.push(frame);
    }
    assert!(bytes.is_empty(), "bytes behind the last frame");
    frames
}

fn every_kind_has_its_bytes<F: FrameSet + Debug + PartialEq>(samples: &[F]) {
    for &(kind, name) in F::KINDS {
        let frames: Vec<&F> = samples.iter().filter(|f| f.kind() == kind).collect();
        assert!(!frames.is_empty(), "no sample of {name} in samples.rs");
        let path = file(kind, name);
        if !path.exists() && std::env::var_os("FARMBELL_WRITE_WIRE").is_some() {
            std::fs::write(&path, to_hex(&frames)).unwrap();
        }
        let golden = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let golden = from_hex(&golden);
        let written: Vec<u8> = frames.iter().flat_map(|frame| frame.encode()).collect();
        assert_eq!(golden, written, "{name} is not written as it was");
        let read: Vec<F> = read_all(golden);
        assert_eq!(read.iter().collect::<Vec<_>>(), frames, "{name}");
    }
}

#[test]
fn every_kind_is_read_and_written_as_its_golden_bytes() {
    every_kind_has_its_bytes(&samples::agent());
    every_kind_has_its_bytes(&samples::coordinator());
    every_kind_has_its_bytes(&samples::bulk_requests());
    every_kind_has_its_bytes(&samples::bulk_replies());
}

#[test]
fn no_file_is_left_over() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let kinds = [
        AgentFrame::KINDS,
        CoordinatorFrame::KINDS,
        BulkRequest::KINDS,
        BulkReply::KINDS,
    ]
    .concat();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let known = kinds.iter().any(|&(kind, name)| path == file(kind, name));
        let hex = path.extension().is_some_and(|extension| extension == "hex");
        assert!(known || !hex, "{} belongs to no kind", path.display());
    }
}

/// Whatever the bytes: a frame or a named error, and what is read as a frame
/// is the same frame when it is written and read again.
fn survives<F: FrameSet + Debug + PartialEq>(bytes: &[u8]) {
    let mut buffer = bytes.to_vec();
    while let Ok(Some(frame)) = codec::take::<F>(&mut buffer) {
        assert_eq!(read_all::<F>(frame.encode()), [frame]);
    }
    if let Some((kind, body)) = bytes.split_first_chunk::<2>() {
        let kind = u16::from_le_bytes(*kind);
        if let Ok(frame) = F::decode(kind, body) {
            assert_eq!(read_all::<F>(frame.encode()), [frame]);
        }
    }
}

fn survives_everywhere(bytes: &[u8]) {
    survives::<AgentFrame>(bytes);
    survives::<CoordinatorFrame>(bytes);
    survives::<BulkRequest>(bytes);
    survives::<BulkReply>(bytes);
}

fn all_frames() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = samples::agent().iter().map(FrameSet::encode).collect();
    all.extend(samples::coordinator().iter().map(FrameSet::encode));
    all.extend(samples::bulk_requests().iter().map(FrameSet::encode));
    all.extend(samples::bulk_replies().iter().map(FrameSet::encode));
    all
}

#[test]
fn a_frame_cut_short_is_waited_for_and_a_body_cut_short_is_refused() {
    fn cut<F: FrameSet + Debug>(samples: &[F]) {
        for frame in samples {
            let bytes = frame.encode();
            for length in 0..bytes.len() {
                let mut part = bytes[..length].to_vec();
                assert!(matches!(codec::take::<F>(&mut part), Ok(None)));
            }
            let body = &bytes[HEADER_BYTES..];
            for length in 0..body.len() {
                let read = F::decode(frame.kind(), &body[..length]);
                assert!(read.is_err(), "{frame:?} read from {length} bytes");
            }
            assert!(F::decode(frame.kind(), &[body, &[0]].concat()).is_err());
        }
    }
    cut(&samples::agent());
    cut(&samples::coordinator());
    cut(&samples::bulk_requests());
    cut(&samples::bulk_replies());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn garbage_is_a_named_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survives_everywhere(&bytes);
    }

    #[test]
    fn garbage_in_the_body_of_a_known_kind_is_a_named_error(
        which in any::<proptest::sample::Index>(),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let frames = all_frames();
        let header = &frames[which.index(frames.len())][4..HEADER_BYTES];
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        survives_everywhere(&[&length[..], header, &body].concat());
    }

    #[test]
    fn a_flipped_byte_is_never_more_than_another_frame(
        which in any::<proptest::sample::Index>(),
        at in any::<proptest::sample::Index>(),
        flip in 1u8..,
    ) {
        let frames = all_frames();
        let mut bytes = frames[which.index(frames.len())].clone();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        survives_everywhere(&bytes);
    }
}
