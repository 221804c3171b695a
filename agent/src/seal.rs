//! Sealing outputs: what a build left in its outputs directory becomes files
//! that no build can reach, with names that are safe, bytes that are on the
//! disk and digests that will not change. Owns the walk and its refusals;
//! never sends anything (uploads do).
//!
//! The build's process tree is proved empty before this runs, so nothing
//! changes under the walk; what the build *left* is hostile all the same.
//! Every step goes through directory handles and never through a path or a
//! symlink. A refusal is the job's fault and names the file; nothing of a
//! refused result is kept.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use farmbell_protocol::bounded::{List, Text};
use farmbell_protocol::digest::{CHUNK_BYTES, ChunkList, ChunkListBuilder, Digest};
use farmbell_protocol::spec::{FileName, Manifest, Output};
use glob::{MatchOptions, Pattern};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::syncfs;

/// Directories within directories that are followed; deeper is no result.
const DEPTH_MAX: usize = 32;
/// From this many files on, one flush of the file system beats one each.
const FLUSH_ALL_FROM: usize = 16;

/// From here on the flush goes on beside the hashing. For less, a thread costs
/// as much as it gains.
const BESIDE_FROM_BYTES: u64 = 1 << 20;

/// How much one attempt may deliver.
#[derive(Clone, Copy, Debug)]
pub struct SealLimits {
    pub outputs: u32,
    pub output_bytes: u64,
}

impl Default for SealLimits {
    /// What a manifest can hold, and the largest result of one attempt.
    fn default() -> Self {
        Self {
            outputs: 65_536,
            output_bytes: 64 << 30,
        }
    }
}

/// Outputs out of the build's reach.
#[derive(Debug)]
pub struct SealedOutputs {
    pub files: Vec<SealedFile>,
    /// The encoded [`Manifest`] and its digest: a blob like the others.
    pub manifest: Vec<u8>,
    pub manifest_digest: Digest,
    pub output_bytes: u64,
}

/// One output in the sealed directory.
#[derive(Debug)]
pub struct SealedFile {
    pub path: PathBuf,
    pub output: Output,
    pub chunks: ChunkList,
}

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The job's own fault: what it left breaks a rule.
    #[error("{0}")]
    Job(String),
    /// The host's fault.
    #[error("outputs could not be sealed at {path}: {source}")]
    Host { path: PathBuf, source: io::Error },
}

/// Moves `outputs` to `sealed` and makes what lies there durable: only the
/// files that a pattern names, or all where there is none. The directory's own
/// name is durable with its manifest ([`keep_manifest`]). Done again after a
/// crash in the middle, it comes to the same end.
///
/// # Errors
/// [`SealError::Job`] for a missing output, a name that is no plain name,
/// anything but files and directories, or too much; [`SealError::Host`] if the
/// disk fails.
pub fn seal(
    outputs: &Path,
    sealed: &Path,
    patterns: &[Text<256>],
    limits: SealLimits,
) -> Result<SealedOutputs, SealError> {
    let patterns = compile(patterns)?;
    if !sealed.exists() {
        fs::rename(outputs, sealed).map_err(host(outputs))?;
    }
    let root =
        Dir::open(sealed, DIRECTORY, Mode::empty()).map_err(|errno| host(sealed)(errno.into()))?;
    let mut walk = Walk {
        sealed,
        patterns: &patterns,
        limits,
        found: Vec::new(),
        bytes: 0,
    };
    walk.directory(root, "", 0)?;
    let Walk {
        mut found, bytes, ..
    } = walk;
    found.sort();
    demand_all(&patterns, &found)?;
    let paths: Vec<PathBuf> = found
        .iter()
        .map(|name| sealed.join(name.as_str()))
        .collect();
    for path in &paths {
        detach(path).map_err(host(path))?;
    }
    let hash_all = || -> Result<Vec<_>, SealError> {
        found
            .into_iter()
            .map(|name| seal_file(sealed, name))
            .collect()
    };
    let (files, flushed) = if bytes < BESIDE_FROM_BYTES {
        (hash_all(), flush(sealed, &paths))
    } else {
        // The disk writes what the processor hashes.
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| flush(sealed, &paths));
            let files = hash_all();
            let flushed = flushing.join();
            (
                files,
                flushed.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            )
        })
    };
    flushed?;
    finish(files?, bytes)
}

/// Reads a sealed directory again, after a restart of the agent.
///
/// # Errors
/// As [`seal`]; a file that is gone is [`SealError::Host`].
pub fn reopen(sealed: &Path, manifest: &[u8]) -> Result<SealedOutputs, SealError> {
    let decoded: Manifest = postcard::from_bytes(manifest)
        .map_err(|error| host(sealed)(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let mut bytes = 0;
    let mut files = Vec::with_capacity(decoded.outputs.len());
    for output in decoded.outputs.into_vec() {
        let file = seal_file(sealed, output.name.clone())?;
        if file.output != output {
            let changed = io::Error::other("its bytes are not those that were sealed");
            return Err(host(&file.path)(changed));
        }
        bytes += output.length;
        files.push(file);
    }
    finish(files, bytes)
}

fn host(path: &Path) -> impl FnOnce(io::Error) -> SealError {
    let path = path.to_owned();
    move |source| SealError::Host { path, source }
}

fn job(text: impl Into<String>) -> SealError {
    SealError::Job(text.into())
}

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);
/// `O_NONBLOCK`: opening a FIFO must not wait for its other end.
const PLAIN_FILE: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_CLOEXEC);

fn compile(patterns: &[Text<256>]) -> Result<Vec<Pattern>, SealError> {
    patterns
        .iter()
        .map(|pattern| {
            Pattern::new(pattern).map_err(|error| {
                job(format!(
                    "the output pattern '{pattern}' cannot be read: {error}"
                ))
            })
        })
        .collect()
}

const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

struct Walk<'a> {
    sealed: &'a Path,
    patterns: &'a [Pattern],
    limits: SealLimits,
    found: Vec<FileName>,
    bytes: u64,
}

impl Walk<'_> {
    fn directory(&mut self, mut dir: Dir, prefix: &str, depth: usize) -> Result<(), SealError> {
        if depth > DEPTH_MAX {
            return Err(job(format!(
                "'{prefix}' lies more than {DEPTH_MAX} directories deep"
            )));
        }
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(|errno| host(self.sealed)(errno.into()))?;
            let name = entry.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        for name in names {
            let shown = name.to_str().map_err(|_| {
                job(format!(
                    "an output's name is not UTF-8: {:?}",
                    name.to_string_lossy()
                ))
            })?;
            let whole = if prefix.is_empty() {
                shown.to_owned()
            } else {
                format!("{prefix}/{shown}")
            };
            self.entry(dir.as_fd(), shown, whole, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: impl AsFd,
        name: &str,
        whole: String,
        depth: usize,
    ) -> Result<(), SealError> {
        let path = self.sealed.join(&whole);
        let stat = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| host(&path)(errno.into()))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFDIR {
            let inner = Dir::openat(&dir, name, DIRECTORY, Mode::empty())
                .map_err(|errno| host(&path)(errno.into()))?;
            return self.directory(inner, &whole, depth + 1);
        }
        if !self.wanted(&whole) {
            return Ok(());
        }
        if kind != SFlag::S_IFREG {
            return Err(job(format!(
                "the output '{whole}' is {}, not a file",
                word_for(kind)
            )));
        }
        let file = FileName::new(whole).map_err(|error| job(error.to_string()))?;
        self.bytes += u64::try_from(stat.st_size).unwrap_or(0);
        self.found.push(file);
        if self.found.len() > self.limits.outputs as usize {
            return Err(job(format!(
                "there are more than {} outputs",
                self.limits.outputs
            )));
        }
        if self.bytes > self.limits.output_bytes {
            let most = self.limits.output_bytes;
            return Err(job(format!("the outputs have more than {most} bytes")));
        }
        // Whoever the build made the owner's rights for: the agent must read it.
        let opened: OwnedFd = openat(&dir, name, PLAIN_FILE, Mode::empty())
            .map_err(|errno| job(format!("the output '{name}' cannot be read: {errno}")))?;
        drop(opened);
        Ok(())
    }

    fn wanted(&self, name: &str) -> bool {
        self.patterns.is_empty()
            || self
                .patterns
                .iter()
                .any(|pattern| pattern.matches_with(name, MATCHING))
    }
}

fn word_for(kind: SFlag) -> &'static str {
    if kind == SFlag::S_IFLNK {
        "a symbolic link"
    } else if kind == SFlag::S_IFIFO {
        "a FIFO"
    } else if kind == SFlag::S_IFSOCK {
        "a socket"
    } else {
        "a device"
    }
}

/// A pattern that names nothing is a declared output that is not there.
fn demand_all(patterns: &[Pattern], found: &[FileName]) -> Result<(), SealError> {
    let missing = patterns.iter().find(|pattern| {
        !found
            .iter()
            .any(|name| pattern.matches_with(name.as_str(), MATCHING))
    });
    match missing {
        None => Ok(()),
        Some(pattern) => Err(job(format!("no output matches the declared '{pattern}'"))),
    }
}

fn seal_file(sealed: &Path, name: FileName) -> Result<SealedFile, SealError> {
    let path = sealed.join(name.as_str());
    let (chunks, executable) = hash(&path).map_err(host(&path))?;
    let (digest, length) = (chunks.root(), chunks.length());
    Ok(SealedFile {
        path,
        output: Output {
            name,
            digest,
            length,
            executable,
        },
        chunks,
    })
}

/// Hashes a file that only this process can reach from now on.
fn hash(path: &Path) -> io::Result<(ChunkList, bool)> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    let mut builder = ChunkListBuilder::new();
    let mut chunk = vec![0; usize::try_from(CHUNK_BYTES.min(meta.len().max(1))).unwrap_or(1)];
    loop {
        let filled = fill(&mut file, &mut chunk)?;
        if filled == 0 {
            break;
        }
        builder.push(&chunk[..filled]);
        if filled < chunk.len() {
            break;
        }
    }
    Ok((builder.finish(), meta.permissions().mode() & 0o100 != 0))
}

fn fill(file: &mut File, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match file.read(&mut chunk[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// A hard link leaves the bytes within reach of another name: copied, so that
/// this name has bytes of its own.
fn detach(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.nlink() < 2 {
        return Ok(());
    }
    let mut copy = path.as_os_str().to_owned();
    copy.push(".sealing");
    let copy = PathBuf::from(copy);
    fs::copy(path, &copy)?;
    fs::rename(copy, path)
}

fn flush(sealed: &Path, files: &[PathBuf]) -> Result<(), SealError> {
    if files.len() >= FLUSH_ALL_FROM {
        let root = File::open(sealed).map_err(host(sealed))?;
        return syncfs(&root).map_err(|errno| host(sealed)(errno.into()));
    }
    let directories = files
        .iter()
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|path| path.starts_with(sealed));
    let directories: BTreeSet<&Path> = directories.collect();
    let all = files.iter().map(PathBuf::as_path);
    for path in all.chain(directories) {
        File::open(path)
            .and_then(|opened| opened.sync_all())
            .map_err(host(path))?;
    }
    Ok(())
}

fn finish(files: Vec<SealedFile>, output_bytes: u64) -> Result<SealedOutputs, SealError> {
    let outputs: Vec<Output> = files.iter().map(|file| file.output.clone()).collect();
    let count = outputs.len();
    let outputs = List::new(outputs).map_err(|_| job(format!("{count} outputs are too many")))?;
    let manifest = postcard::to_stdvec(&Manifest { outputs })
        .map_err(|error| job(format!("the manifest cannot be written: {error}")))?;
    let manifest_digest = Digest::of(&manifest);
    Ok(SealedOutputs {
        files,
        manifest,
        manifest_digest,
        output_bytes,
    })
}

/// Writes a manifest beside its outputs, so that a restart finds both.
///
/// # Errors
/// If the disk fails.
pub fn keep_manifest(path: &Path, manifest: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(manifest)?;
    file.sync_all()?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("outputs")).unwrap();
            Self { dir }
        }

        fn out(&self, name: &str) -> PathBuf {
            self.dir.path().join("outputs").join(name)
        }

        fn seal(&self, patterns: &[&str]) -> Result<SealedOutputs, SealError> {
            let patterns: Vec<_> = patterns
                .iter()
                .map(|text| Text::new(*text).unwrap())
                .collect();
            let path = self.dir.path();
            seal(
                &path.join("outputs"),
                &path.join("sealed"),
                &patterns,
                SealLimits::default(),
            )
        }

        fn refusal(&self, patterns: &[&str]) -> String {
            match self.seal(patterns) {
                Err(SealError::Job(why)) => why,
                other => panic!("not refused: {other:?}"),
            }
        }
    }

    fn names(sealed: &SealedOutputs) -> Vec<String> {
        sealed
            .files
            .iter()
            .map(|file| file.output.name.to_string())
            .collect()
    }

    #[test]
    fn outputs_are_moved_hashed_and_listed_in_order() {
        let place = Place::new();
        fs::create_dir(place.out("sub")).unwrap();
        fs::write(place.out("sub/b"), b"bee").unwrap();
        fs::write(place.out("a"), vec![7; 2_500_000]).unwrap();
        fs::write(place.out("empty"), b"").unwrap();
        fs::set_permissions(place.out("a"), fs::Permissions::from_mode(0o755)).unwrap();
        let sealed = place.seal(&[]).unwrap();
        assert_eq!(names(&sealed), ["a", "empty", "sub/b"]);
        assert_eq!(sealed.output_bytes, 2_500_003);
        assert!(!place.out("a").exists(), "the build's own path is gone");
        assert_eq!(
            sealed.files[0].output.digest,
            Digest::of(&vec![7; 2_500_000])
        );
        assert!(sealed.files[0].output.executable && !sealed.files[2].output.executable);
        let again = reopen(&place.dir.path().join("sealed"), &sealed.manifest).unwrap();
        assert_eq!(again.manifest_digest, sealed.manifest_digest);
    }

    #[test]
    fn only_declared_outputs_are_kept_and_all_of_them_are_demanded() {
        let place = Place::new();
        fs::write(place.out("hello.deb"), b"deb").unwrap();
        fs::write(place.out("scratch"), b"x").unwrap();
        assert_eq!(names(&place.seal(&["*.deb"]).unwrap()), ["hello.deb"]);
        let place = Place::new();
        fs::write(place.out("hello.deb"), b"deb").unwrap();
        assert!(
            place
                .refusal(&["*.deb", "*.changes"])
                .contains("'*.changes'")
        );
    }

    #[test]
    fn what_is_no_plain_file_is_refused_by_name() {
        let place = Place::new();
        symlink("/etc/shadow", place.out("link")).unwrap();
        assert!(place.refusal(&[]).contains("'link' is a symbolic link"));
        let place = Place::new();
        nix::unistd::mkfifo(&place.out("pipe"), Mode::S_IRWXU).unwrap();
        assert!(place.refusal(&[]).contains("'pipe' is a FIFO"));
        let place = Place::new();
        fs::write(place.out("two\nlines"), b"x").unwrap();
        assert!(place.refusal(&[]).contains("control character"));
    }

    #[test]
    fn a_symlinked_directory_is_not_followed() {
        let place = Place::new();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("secret"), b"x").unwrap();
        symlink(elsewhere.path(), place.out("dir")).unwrap();
        assert!(place.refusal(&["dir/*"]).contains("no output matches"));
    }

    #[test]
    fn a_hard_link_gets_bytes_of_its_own() {
        let place = Place::new();
        let outside = place.dir.path().join("outside");
        fs::write(&outside, b"first").unwrap();
        fs::hard_link(&outside, place.out("linked")).unwrap();
        let sealed = place.seal(&[]).unwrap();
        fs::write(&outside, b"later").unwrap();
        assert_eq!(fs::read(&sealed.files[0].path).unwrap(), b"first");
    }

    #[test]
    fn sealing_again_after_a_crash_gives_the_same() {
        let place = Place::new();
        fs::write(place.out("a"), b"a").unwrap();
        let first = place.seal(&[]).unwrap();
        let second = place.seal(&[]).unwrap();
        assert_eq!(first.manifest, second.manifest);
    }
}
