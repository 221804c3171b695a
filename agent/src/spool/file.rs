//! One spool file: checked records, appended. Survives a crash at any byte.
//!
//! ```text
//! record = mark u32 | length u32 | seq u64 | check | postcard(Record)
//! ```
//!
//! `check` covers length, seq and payload. A file is of one format, which its
//! first mark tells: an older one is rewritten when it is restored, a newer
//! one is refused and left as it is. What is torn at the end is dropped:
//! it was never answered. Damage in the middle is kept aside for a person and
//! reported, and what stands behind it is still read.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use farmbell_protocol::builder::Record;

use crate::failpoint::{self, Failpoint};

/// How a record is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    mark: [u8; 4],
    check_bytes: usize,
}

/// Every format that is understood; the last is the one that is written.
const FORMATS: &[Format] = &[
    Format {
        mark: *b"FBr1",
        check_bytes: 8,
    },
    // Builds that show what an upgrade to another format does.
    #[cfg(feature = "next-spool-format")]
    Format {
        mark: *b"FBr2",
        check_bytes: 16,
    },
];
const WRITTEN: Format = FORMATS[FORMATS.len() - 1];
/// What the marks of all formats begin with; a digit follows.
const ANY_MARK: &[u8] = b"FBr";
/// Mark, length and seq.
const FRONT_BYTES: usize = 16;
/// No record is larger: a job spec is below a control frame's body.
const RECORD_MAX: usize = 1 << 20;

/// What a spool file held.
#[derive(Debug, Default)]
pub struct Restored {
    pub records: Vec<Record>,
    pub damage: Option<Damage>,
}

/// Bytes that were no records although records follow them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub places: usize,
    /// A copy of the file as it was found.
    pub kept_at: PathBuf,
}

/// Reads a spool file and leaves it so that records can be appended.
///
/// # Errors
/// If the file cannot be read or mended, or a newer agent wrote it.
pub fn restore(path: &Path) -> io::Result<Restored> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Restored::default()),
        Err(error) => return Err(error),
    };
    let format = format_of(&bytes)?;
    let Scan {
        records,
        end,
        damaged,
    } = scan(&bytes, format);
    let damage = if damaged == 0 {
        if format != WRITTEN {
            replace(path, &records)?;
        } else if end < bytes.len() {
            let file = File::options().write(true).open(path)?;
            file.set_len(end as u64)?;
            file.sync_all()?;
        }
        None
    } else {
        let kept_at = set_aside(path, &bytes)?;
        replace(path, &records)?;
        Some(Damage {
            places: damaged,
            kept_at,
        })
    };
    Ok(Restored { records, damage })
}

/// The format of a file that begins so.
fn format_of(bytes: &[u8]) -> io::Result<Format> {
    let known = |mark: &[u8]| FORMATS.iter().find(|format| format.mark == mark);
    match bytes.first_chunk::<4>() {
        Some(mark) if mark.starts_with(ANY_MARK) && mark[3].is_ascii_digit() => {
            known(mark).copied().ok_or_else(|| {
                io::Error::other(format!(
                    "it is of format {}, and this agent understands formats up to {}: install the \
                     newer agent again; nothing was changed",
                    char::from(mark[3]),
                    char::from(WRITTEN.mark[3]),
                ))
            })
        }
        // Nothing whole stands here, or its beginning is damaged.
        Some(_) | None => Ok(WRITTEN),
    }
}

struct Scan {
    records: Vec<Record>,
    /// Behind the last whole record.
    end: usize,
    /// Places where bytes had to be passed over to find the next record.
    damaged: usize,
}

fn scan(bytes: &[u8], format: Format) -> Scan {
    let mut found = Scan {
        records: Vec::new(),
        end: 0,
        damaged: 0,
    };
    let mut at = 0;
    while at < bytes.len() {
        if let Some((record, length)) = read_record(&bytes[at..], format) {
            if at > found.end {
                found.damaged += 1;
            }
            found.records.push(record);
            at += length;
            found.end = at;
        } else {
            at += 1;
        }
    }
    found
}

fn read_record(bytes: &[u8], format: Format) -> Option<(Record, usize)> {
    let (front, behind) = bytes.split_at_checked(FRONT_BYTES)?;
    if front[..4] != format.mark {
        return None;
    }
    let length = u32::from_le_bytes(*front[4..].first_chunk()?);
    let length = usize::try_from(length).ok().filter(|l| *l <= RECORD_MAX)?;
    let (check, behind) = behind.split_at_checked(format.check_bytes)?;
    let payload = behind.get(..length)?;
    if check != &check_of(&front[4..], payload)[..format.check_bytes] {
        return None;
    }
    let record = postcard::from_bytes(payload).ok()?;
    Some((record, FRONT_BYTES + format.check_bytes + length))
}

fn check_of(front: &[u8], payload: &[u8]) -> [u8; blake3::OUT_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(front).update(payload);
    hasher.finalize().into()
}

fn encode(seq: u64, record: &Record, out: &mut Vec<u8>) -> io::Result<()> {
    let payload = postcard::to_stdvec(record).map_err(io::Error::other)?;
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut front = length.to_le_bytes().to_vec();
    front.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&WRITTEN.mark);
    out.extend_from_slice(&front);
    out.extend_from_slice(&check_of(&front, &payload)[..WRITTEN.check_bytes]);
    out.extend_from_slice(&payload);
    Ok(())
}

fn encode_all(from: u64, records: &[Record]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (seq, record) in (from..).zip(records) {
        encode(seq, record, &mut bytes)?;
    }
    Ok(bytes)
}

/// Keeps a damaged file for a person to look at.
fn set_aside(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    for number in 1..=u32::MAX {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        let aside = PathBuf::from(name);
        match File::options().write(true).create_new(true).open(&aside) {
            Ok(mut file) => {
                file.write_all(bytes)?;
                file.sync_all()?;
                return Ok(aside);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many damaged spools lie here"))
}

/// Puts these records in the place of the whole file, all or nothing.
fn replace(path: &Path, records: &[Record]) -> io::Result<u64> {
    let bytes = encode_all(0, records)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::create(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    failpoint::pass(Failpoint::SpoolRewritten);
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()?;
    Ok(bytes.len() as u64)
}

/// An open spool file that records are appended to.
#[derive(Debug)]
pub(super) struct SpoolFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole, flushed records: where the next append begins.
    size: u64,
    written: u64,
    seq: u64,
    dirty: bool,
}

impl SpoolFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        let size = file.metadata()?.len();
        if size == 0 {
            file.sync_all()?;
            File::open(path.parent().unwrap_or(path))?.sync_all()?;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            written: size,
            seq: 0,
            dirty: false,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let bytes = encode_all(self.seq, records)?;
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a record must not stand before the next one.
            self.file.set_len(self.size)?;
            self.written = self.size;
            return Err(error);
        }
        self.seq += records.len() as u64;
        self.written += bytes.len() as u64;
        self.dirty = true;
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<u64> {
        if self.dirty {
            self.dirty = false;
            if let Err(error) = self.file.sync_data() {
                // A second flush may succeed without these bytes: they go, and
                // whoever was not answered brings them again.
                self.file.set_len(self.size)?;
                self.written = self.size;
                return Err(error);
            }
            self.size = self.written;
        }
        Ok(self.size)
    }

    /// What the file holds now; it is opened anew, since mending may replace it.
    pub(super) fn restore(&mut self) -> io::Result<Restored> {
        self.flush()?;
        let restored = restore(&self.path)?;
        *self = Self::open(&self.path)?;
        Ok(restored)
    }

    pub(super) fn rewrite(&mut self, records: &[Record]) -> io::Result<u64> {
        replace(&self.path, records)?;
        *self = Self::open(&self.path)?;
        Ok(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farmbell_protocol::bounded::Reason;
    use farmbell_protocol::id::{AttemptId, JobId, Seq};

    fn record(number: u64) -> Record {
        if number.is_multiple_of(2) {
            let attempt = AttemptId {
                job: JobId(number),
                generation: 1,
                number: 1,
                nonce: number * 7,
            };
            Record::Started { attempt }
        } else if number.is_multiple_of(3) {
            let seq = Seq(number);
            Record::BuilderAcked { seq }
        } else {
            let why = Reason::cut("x".repeat(usize::try_from(number % 50).unwrap()));
            Record::OutOfService { why }
        }
    }

    fn records(count: u64) -> Vec<Record> {
        (0..count).map(record).collect()
    }

    #[test]
    fn records_are_read_back_in_order_over_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.spool");
        for number in 0..20 {
            let mut file = SpoolFile::open(&path).unwrap();
            file.append(&[record(number)]).unwrap();
            file.flush().unwrap();
        }
        assert_eq!(restore(&path).unwrap().records, records(20));
    }

    /// Every image that a crash may leave: any length, and any bytes where the
    /// unflushed tail was.
    #[test]
    fn a_torn_tail_is_dropped_at_any_byte_and_nothing_flushed_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.spool");
        let kept = encode_all(0, &records(6)).unwrap();
        let torn = encode_all(6, &records(3)).unwrap();
        for end in 0..=torn.len() {
            for fill in [None, Some(0), Some(0xff), Some(b'F')] {
                let mut image = kept.clone();
                image.extend_from_slice(&torn[..end]);
                if let Some(fill) = fill {
                    image.resize(kept.len() + torn.len(), fill);
                }
                fs::write(&path, &image).unwrap();
                let restored = restore(&path).unwrap();
                assert!(restored.records.len() >= 6, "{end} {fill:?}");
                assert_eq!(restored.records[..6], records(6), "{end} {fill:?}");
                assert_eq!(restored.damage, None, "{end} {fill:?}");
                let mut file = SpoolFile::open(&path).unwrap();
                file.append(&[record(99)]).unwrap();
                file.flush().unwrap();
                let again = restore(&path).unwrap();
                assert_eq!(again.records.last(), Some(&record(99)), "{end} {fill:?}");
                assert_eq!(again.records.len(), restored.records.len() + 1);
            }
        }
    }

    #[test]
    fn a_spool_of_a_newer_agent_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.spool");
        let mut newer = encode_all(0, &records(3)).unwrap();
        newer[3] = b'9';
        fs::write(&path, &newer).unwrap();
        let refused = restore(&path).unwrap_err().to_string();
        assert!(refused.contains("format 9"), "{refused}");
        assert!(refused.contains("install the newer agent"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), newer);
    }

    /// A spool of format 1, byte by byte as agents of this version write it.
    #[test]
    fn a_spool_of_format_1_is_read_by_every_agent() {
        let old = include_bytes!("format-1.spool");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.spool");
        fs::write(&path, old).unwrap();
        assert_eq!(restore(&path).unwrap().records, records(9));
        let kept = fs::read(&path).unwrap();
        assert_eq!(kept[..4], WRITTEN.mark);
        assert_eq!(kept == old, FORMATS.len() == 1);
        let mut file = SpoolFile::open(&path).unwrap();
        file.append(&[record(9)]).unwrap();
        file.flush().unwrap();
        assert_eq!(restore(&path).unwrap().records, records(10));
    }

    #[test]
    fn damage_in_the_middle_is_set_aside_and_the_rest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.spool");
        let first = encode_all(0, &records(1)).unwrap().len();
        let mut damaged = encode_all(0, &records(9)).unwrap();
        damaged[first + FRONT_BYTES + WRITTEN.check_bytes] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let restored = restore(&path).unwrap();
        assert_eq!(restored.records[0], record(0));
        assert_eq!(restored.records[1..], records(9)[2..]);
        let damage = restored.damage.unwrap();
        assert_eq!(fs::read(damage.kept_at).unwrap(), damaged);
        assert_eq!(restore(&path).unwrap().damage, None, "mended");
    }
}
