//! What a power cut may leave of a spool, enumerated: a recording layer notes
//! every write and every barrier, and each state that the disk may then be in
//! is written out and restored. Sectors that were written and not flushed may
//! be there, be missing or be torn, in any combination; flushed ones are there.

use std::fs;
use std::path::Path;

use farmbell_protocol::bounded::Reason;
use farmbell_protocol::builder::Record;
use farmbell_protocol::id::Seq;

use super::file::{SpoolFile, restore};

const SECTOR: usize = 512;

/// Images of one crash in the middle of an append.
struct Crash<'a> {
    flushed: &'a [u8],
    written: &'a [u8],
}

impl Crash<'_> {
    /// Every subset of the sectors that hold unflushed bytes, each missing
    /// one as nothing, as zeros or as what lay there before.
    fn images(&self) -> Vec<Vec<u8>> {
        let first = self.flushed.len() / SECTOR;
        let last = self.written.len().div_ceil(SECTOR);
        let sectors = last - first;
        let mut images = Vec::new();
        for present in 0..1u32 << sectors {
            for missing in [0u8, 0xff, b'F'] {
                images.push(self.image(first, present, missing));
            }
            // The file's length may be that of any sector's end.
            for end in first..last {
                let mut image = self.image(first, present, 0);
                image.truncate((end * SECTOR).max(self.flushed.len()));
                images.push(image);
            }
        }
        images
    }

    fn image(&self, first: usize, present: u32, missing: u8) -> Vec<u8> {
        let mut image = self.written.to_vec();
        let flushed = self.flushed.len();
        for (at, byte) in image.iter_mut().enumerate().skip(flushed) {
            let sector = at / SECTOR - first;
            if present & (1 << sector) == 0 {
                *byte = missing;
            }
        }
        image
    }
}

/// Records of all sizes: some many to a sector, some over several.
fn batch(number: u64) -> Vec<Record> {
    (0..=number % 5)
        .map(|part| {
            let length = usize::try_from((number * 7 + part * 311) % 900).unwrap();
            if length < 100 {
                Record::BuilderAcked { seq: Seq(number) }
            } else {
                let why = Reason::cut("w".repeat(length));
                Record::OutOfService { why }
            }
        })
        .collect()
}

/// In memory where there is some: thousands of images, and no disk under test.
fn place() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn appended(path: &Path, records: &[Record]) -> Vec<u8> {
    let mut file = SpoolFile::open(path).unwrap();
    file.append(records).unwrap();
    file.flush().unwrap();
    fs::read(path).unwrap()
}

#[test]
fn no_power_cut_loses_what_was_answered() {
    let dir = place();
    let (real, cut) = (dir.path().join("real"), dir.path().join("cut"));
    let (mut answered, mut images) = (Vec::new(), 0);
    let mut flushed = Vec::new();
    for number in 0..30 {
        let records = batch(number);
        let written = appended(&real, &records);
        let crash = Crash {
            flushed: &flushed,
            written: &written,
        };
        for image in crash.images() {
            images += 1;
            fs::write(&cut, &image).unwrap();
            let restored = restore(&cut).unwrap().records;
            assert!(restored.len() >= answered.len(), "batch {number}");
            assert_eq!(restored[..answered.len()], answered, "batch {number}");
            // Life goes on behind it.
            appended(&cut, &records);
            let again = restore(&cut).unwrap().records;
            assert_eq!(
                again.len(),
                restored.len() + records.len(),
                "batch {number}"
            );
        }
        answered.extend(records);
        flushed = written;
    }
    assert!(images >= 2000, "only {images} images");
}

#[test]
fn a_power_cut_while_a_spool_is_rewritten_leaves_one_of_the_two() {
    let dir = place();
    let path = dir.path().join("spool");
    let new_path = dir.path().join("spool.new");
    let old: Vec<Record> = (0..12).flat_map(batch).collect();
    let kept: Vec<Record> = (9..12).flat_map(batch).collect();
    let old_bytes = appended(&path, &old);
    let mut file = SpoolFile::open(&path).unwrap();
    file.rewrite(&kept).unwrap();
    let new_bytes = fs::read(&path).unwrap();
    assert_eq!(restore(&path).unwrap().records, kept);
    // Before the rename's barrier the old one stands, with any of the new beside it.
    for end in 0..=new_bytes.len() {
        fs::write(&path, &old_bytes).unwrap();
        fs::write(&new_path, &new_bytes[..end]).unwrap();
        assert_eq!(
            restore(&path).unwrap().records,
            old,
            "{end} bytes of the new one"
        );
    }
}
