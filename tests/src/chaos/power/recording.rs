//! From a recorder's lines to acts on a disk. Owns the reading of `strace -y
//! -xx -ttt`; an operation counts when the kernel has finished it, and one that
//! failed never was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::disk::Act;

/// One act and when it was recorded, in microseconds of the wall clock.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) at: u64,
    pub(super) act: Act,
}

/// All acts of all recordings, in order.
///
/// # Errors
/// If a line is not understood: what is not modelled must not happen below
/// `root`.
pub(super) fn read(recordings: &[String], root: &Path) -> anyhow::Result<Vec<Recorded>> {
    let mut all = Vec::new();
    for recording in recordings {
        let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
        for line in recording.lines() {
            let (thread, rest) = line
                .split_once(' ')
                .context("a line begins with a thread")?;
            let (time, call) = rest.trim_start().split_once(' ').context("then a time")?;
            let at = time.replace('.', "").parse().context("a time in seconds")?;
            if call.starts_with("+++") || call.starts_with("---") {
                continue;
            }
            if let Some(begin) = call.strip_suffix(" <unfinished ...>") {
                begun.insert(thread, begin);
                continue;
            }
            let whole = match call.strip_prefix("<... ") {
                Some(resumed) => {
                    let (_, end) = resumed.split_once(" resumed>").context("what is resumed")?;
                    let begin = begun.remove(thread).context("it was begun")?;
                    format!("{begin}{end}")
                }
                None => call.to_owned(),
            };
            if let Some(act) = act(&whole, root).with_context(|| cut(&whole))? {
                all.push(Recorded { at, act });
            }
        }
    }
    all.sort_by_key(|recorded| recorded.at);
    Ok(all)
}

fn cut(line: &str) -> String {
    line.chars().take(300).collect()
}

fn act(call: &str, root: &Path) -> anyhow::Result<Option<Act>> {
    // What a killed process had begun, nobody saw the end of.
    let Some((front, result)) = call.rsplit_once(" = ") else {
        return Ok(None);
    };
    if result.starts_with('-') || result.starts_with('?') {
        return Ok(None);
    }
    let (name, arguments) = front.split_once('(').context("a call has arguments")?;
    let arguments = arguments.trim_end().strip_suffix(')').context("they end")?;
    let words = split(arguments);
    let word = |number: usize| words.get(number).copied().context("an argument");
    Ok(Some(match name {
        "openat" => opened(resolved(word(0)?, word(1)?)?, word(2)?, result)?,
        "open" => opened(quoted(word(0)?)?, word(1)?, result)?,
        "creat" => opened(quoted(word(0)?)?, "O_CREAT|O_TRUNC|O_WRONLY", result)?,
        "lseek" => {
            let (path, fd) = described(word(0)?)?;
            Act::Seek {
                path,
                fd,
                to: result.parse()?,
            }
        }
        "write" => written(word(0)?, word(1)?, None, result)?,
        "pwrite64" => written(word(0)?, word(1)?, Some(word(3)?.parse()?), result)?,
        "ftruncate" => Act::SetLength {
            path: described(word(0)?)?.0,
            length: word(1)?.parse()?,
        },
        "fsync" | "fdatasync" => Act::Flush(described(word(0)?)?.0),
        "syncfs" | "sync" => Act::FlushAll,
        "rename" => Act::Rename {
            from: quoted(word(0)?)?,
            to: quoted(word(1)?)?,
        },
        "renameat" | "renameat2" => Act::Rename {
            from: resolved(word(0)?, word(1)?)?,
            to: resolved(word(2)?, word(3)?)?,
        },
        "unlink" | "rmdir" => Act::Remove(quoted(word(0)?)?),
        "unlinkat" => Act::Remove(resolved(word(0)?, word(1)?)?),
        "mkdir" => Act::MakeDirectory(quoted(word(0)?)?),
        "mkdirat" => Act::MakeDirectory(resolved(word(0)?, word(1)?)?),
        other if words.iter().any(|word| is_below(word, root)) => {
            bail!("{other} is not modelled")
        }
        // Sockets and other people's files.
        _ => return Ok(None),
    }))
}

fn opened(path: PathBuf, flags: &str, result: &str) -> anyhow::Result<Act> {
    let has = |flag: &str| flags.split('|').any(|one| one == flag);
    let (_, fd) = described(result)?;
    Ok(Act::Open {
        path,
        fd,
        create: has("O_CREAT"),
        truncate: has("O_TRUNC"),
        append: has("O_APPEND"),
    })
}

fn written(file: &str, bytes: &str, at: Option<u64>, result: &str) -> anyhow::Result<Act> {
    let (path, fd) = described(file)?;
    let mut bytes = unquoted(bytes)?;
    bytes.truncate(result.parse()?);
    Ok(Act::Write {
        path,
        fd,
        at,
        bytes,
    })
}

/// Whether an argument is a path, or a descriptor of one, below `root`.
fn is_below(word: &str, root: &Path) -> bool {
    let described = described(word).map(|(path, _)| path);
    described
        .or_else(|_| quoted(word))
        .is_ok_and(|path| path.starts_with(root))
}

/// Arguments: bytes are in hexadecimal, so no comma stands in one.
fn split(arguments: &str) -> Vec<&str> {
    arguments.split(", ").collect()
}

/// `3<\x2f…>`: the descriptor and the path it stands for now.
fn described(word: &str) -> anyhow::Result<(PathBuf, u32)> {
    let (fd, rest) = word.split_once('<').context("a descriptor with its path")?;
    let path = rest.split('>').next().context("a path that ends")?;
    Ok((path_of(&bytes_of(path)?), fd.parse()?))
}

/// A path by way of a directory's descriptor.
fn resolved(directory: &str, path: &str) -> anyhow::Result<PathBuf> {
    let path = quoted(path)?;
    if path.is_absolute() {
        return Ok(path);
    }
    let (_, rest) = directory
        .split_once('<')
        .context("a directory with its path")?;
    let base = rest.split('>').next().context("a path that ends")?;
    Ok(path_of(&bytes_of(base)?).join(path))
}

fn quoted(word: &str) -> anyhow::Result<PathBuf> {
    Ok(path_of(&unquoted(word)?))
}

fn unquoted(word: &str) -> anyhow::Result<Vec<u8>> {
    let inner = word
        .strip_prefix('"')
        .and_then(|word| word.strip_suffix('"'));
    bytes_of(inner.with_context(|| format!("bytes in quotes, whole: {}", cut(word)))?)
}

/// `\x61\x62…`; what strace puts in words, such as a socket, is no path of ours.
fn bytes_of(text: &str) -> anyhow::Result<Vec<u8>> {
    if !text.starts_with("\\x") {
        return Ok(text.as_bytes().to_vec());
    }
    text.split("\\x")
        .skip(1)
        .map(|byte| u8::from_str_radix(&byte[..2], 16).context("a byte in hexadecimal"))
        .collect()
}

fn path_of(bytes: &[u8]) -> PathBuf {
    Path::new(&*String::from_utf8_lossy(bytes)).to_owned()
}
