use std::io::Read;

use farmbell_protocol::digest::{CHUNK_BYTES, ChunkListBuilder};

use super::*;

const MIB: usize = 1 << 20;

fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|place| u8::try_from((place / 977 + place * 31) % 251).unwrap())
        .collect()
}

fn nodes(content: &[u8]) -> Vec<[u8; 32]> {
    let mut builder = ChunkListBuilder::new();
    for chunk in content.chunks(MIB) {
        builder.push(chunk);
    }
    builder.finish().nodes().to_vec()
}

fn stored_bytes(blobs: &Blobs, digest: Digest) -> Vec<u8> {
    let mut bytes = Vec::new();
    blobs.read(digest).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_blob_is_stored_under_its_digest_whatever_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    for length in [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB] {
        let content = content(length);
        let digest = Digest::of(&content);
        let mut upload = blobs.begin(digest, length as u64).unwrap();
        assert_eq!(upload.wants_nodes(), length > MIB, "{length}");
        if upload.wants_nodes() {
            upload.nodes(nodes(&content)).unwrap();
        }
        if length == 0 {
            upload.chunk(&[]).unwrap();
        }
        for chunk in content.chunks(MIB) {
            assert_eq!(upload.next_chunk_bytes(), chunk.len() as u64);
            upload.chunk(chunk).unwrap();
        }
        assert!(
            blobs.contains(digest).unwrap().is_none(),
            "not before it is whole"
        );
        upload.finish_blocking().unwrap();
        assert_eq!(blobs.contains(digest).unwrap(), Some(length as u64));
        assert_eq!(stored_bytes(&blobs, digest), content);
    }
    assert_eq!(fs::read_dir(blobs.staging()).unwrap().count(), 0);
}

#[test]
fn an_upload_goes_on_behind_the_last_verified_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let content = content(4 * MIB + 9);
    let digest = Digest::of(&content);
    let chunks: Vec<_> = content.chunks(MIB).collect();
    let length = content.len() as u64;
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut upload = blobs.begin(digest, length).unwrap();
    upload.nodes(nodes(&content)).unwrap();
    upload.chunk(chunks[0]).unwrap();
    upload.chunk(chunks[1]).unwrap();
    drop(upload);

    let mut cut = blobs.begin(digest, length).unwrap();
    assert_eq!((cut.verified_chunks(), cut.wants_nodes()), (2, false));
    cut.chunk(chunks[2]).unwrap();
    drop(cut);

    // The next process knows nothing and reads again; the third chunk rotted.
    let part = blobs.staging().join(format!("{digest}.part"));
    let mut staged = fs::read(&part).unwrap();
    staged[2 * MIB + 77] ^= 1;
    fs::write(&part, staged).unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut upload = blobs.begin(digest, length).unwrap();
    assert_eq!(upload.verified_chunks(), 2);
    for chunk in &chunks[2..] {
        upload.chunk(chunk).unwrap();
    }
    upload.finish_blocking().unwrap();
    assert_eq!(stored_bytes(&blobs, digest), content);
}

#[test]
fn a_long_upload_is_flushed_while_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let content = content(70 * MIB);
    let digest = Digest::of(&content);
    let mut upload = blobs.begin(digest, content.len() as u64).unwrap();
    upload.nodes(nodes(&content)).unwrap();
    let mut flushed_after = Vec::new();
    for (index, chunk) in content.chunks(MIB).enumerate() {
        upload.chunk(chunk).unwrap();
        if let Some(flush) = upload.flush_due() {
            flush.run().unwrap();
            flushed_after.push(index + 1);
        }
    }
    assert_eq!(flushed_after, [32, 64]);
    upload.finish_blocking().unwrap();
    assert_eq!(stored_bytes(&blobs, digest), content);
}

/// What a failed flush lost can be read until the next power cut: no later
/// upload may build on it.
#[test]
fn an_upload_that_the_disk_did_not_take_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let content = content(2 * MIB);
    let digest = Digest::of(&content);
    let shard = blobs.path(digest).parent().unwrap().to_owned();
    fs::remove_dir(&shard).unwrap();
    let whole = || {
        let mut upload = blobs.begin(digest, content.len() as u64).unwrap();
        assert_eq!((upload.verified_chunks(), upload.wants_nodes()), (0, true));
        upload.nodes(nodes(&content)).unwrap();
        content.chunks(MIB).for_each(|c| upload.chunk(c).unwrap());
        upload
    };
    let refused = whole().finish_blocking();
    assert!(matches!(refused, Err(BlobError::Disk(_))), "{refused:?}");
    assert_eq!(fs::read_dir(blobs.staging()).unwrap().count(), 0);
    fs::create_dir(&shard).unwrap();
    whole().finish_blocking().unwrap();
    assert_eq!(stored_bytes(&blobs, digest), content);
}

#[test]
fn a_wrong_chunk_is_neither_written_nor_counted() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let content = content(2 * MIB);
    let digest = Digest::of(&content);
    let mut upload = blobs.begin(digest, content.len() as u64).unwrap();
    assert!(
        upload.chunk(&content[..MIB]).is_err(),
        "the list comes first"
    );
    assert!(upload.nodes(vec![[0; 32], [1; 32]]).is_err());
    upload.nodes(nodes(&content)).unwrap();
    assert!(upload.chunk(&content[MIB..]).is_err(), "out of order");
    upload.chunk(&content[..MIB]).unwrap();
    assert_eq!(upload.verified_chunks(), 1);
    assert!(matches!(
        upload.finish_blocking(),
        Err(BlobError::NotWhole {
            verified: 1,
            wanted: 2,
            ..
        })
    ));
    assert!(blobs.contains(digest).unwrap().is_none());
}

#[test]
fn two_uploads_of_one_digest_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let content = content(100);
    let digest = Digest::of(&content);
    let mut first = blobs.begin(digest, 100).unwrap();
    let mut second = blobs.begin(digest, 100).unwrap();
    second.chunk(&content).unwrap();
    first.chunk(&content).unwrap();
    second.finish_blocking().unwrap();
    first.finish_blocking().unwrap();
    assert_eq!(stored_bytes(&blobs, digest), content);
    assert_eq!(fs::read_dir(blobs.staging()).unwrap().count(), 0);
}

#[test]
fn a_start_sweeps_what_nobody_can_resume() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let content = content(3 * MIB);
    let digest = Digest::of(&content);
    let mut upload = blobs.begin(digest, content.len() as u64).unwrap();
    upload.nodes(nodes(&content)).unwrap();
    drop(upload);
    fs::write(blobs.staging().join("7.private"), b"x").unwrap();
    fs::write(
        blobs
            .staging()
            .join(format!("{}.part", Digest::of(b"other"))),
        b"x",
    )
    .unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut left: Vec<_> = fs::read_dir(blobs.staging())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [format!("{digest}.nodes"), format!("{digest}.part")]);
}

#[test]
fn what_a_submitter_sends_is_named_by_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let content = content(MIB + 5);
    let stored = blobs.put_reader(&content[..], CHUNK_BYTES * 2).unwrap();
    assert_eq!(stored.digest, Digest::of(&content));
    assert_eq!(stored_bytes(&blobs, stored.digest), content);
    assert!(matches!(
        blobs.put_reader(&content[..], 9),
        Err(BlobError::TooLong(9))
    ));
    assert_eq!(fs::read_dir(blobs.staging()).unwrap().count(), 0);
    assert_eq!(blobs.list().unwrap(), [stored]);
}
