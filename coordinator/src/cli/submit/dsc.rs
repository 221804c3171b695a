//! Debian source packages: reading a `.dsc` and checking that its files are
//! there and are the ones it names. Signatures are not checked: who may submit
//! is the coordinator's question, and `dscverify` answers the other one.

use std::io::Read;
use std::path::{Path, PathBuf};

use farmbell_protocol::spec::FileName;
use sha2::{Digest, Sha256};

use crate::cli::exit::{Failure, Result};

/// A `.dsc` is a page of text; anything larger is something else.
const DSC_MAX: u64 = 4 << 20;

/// What the farm needs to know of a source package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) version: String,
    /// What the source builds for: `any`, `all`, names and wildcards.
    pub(super) architectures: Vec<String>,
    /// The `.dsc` itself first, then the files it names.
    pub(super) files: Vec<PathBuf>,
}

/// Reads a `.dsc` and checks every file beside it.
pub(super) fn read(path: &Path) -> Result<Source> {
    let text = read_text(path)?;
    let dsc = Dsc::parse(&text).map_err(|why| broken(path, &why))?;
    let directory = path.parent().unwrap_or_else(|| Path::new(""));
    let mut files = vec![path.to_owned()];
    for file in &dsc.files {
        files.push(check(path, directory, file)?);
    }
    Ok(Source {
        name: dsc.name,
        version: dsc.version,
        architectures: dsc.architectures,
        files,
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Dsc {
    name: String,
    version: String,
    architectures: Vec<String>,
    files: Vec<NamedFile>,
}

#[derive(Debug, PartialEq, Eq)]
struct NamedFile {
    name: String,
    length: u64,
    sha256: String,
}

impl Dsc {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let paragraphs: deb822_fast::Deb822 = unsigned(text)
            .parse()
            .map_err(|e| format!("it is no control file: {e}"))?;
        let fields = paragraphs
            .iter()
            .find(|paragraph| !paragraph.is_empty())
            .ok_or("it is empty")?;
        let field = |name: &str| {
            fields
                .get(name)
                .map(str::trim)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("it has no field {name}"))
        };
        let files = field("Checksums-Sha256")?
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(named_file)
            .collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Self {
            name: field("Source")?.to_owned(),
            version: field("Version")?.to_owned(),
            architectures: field("Architecture")?
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            files,
        })
    }
}

/// The text within a clear-signed message, or all of it.
fn unsigned(text: &str) -> &str {
    let Some(body) = text
        .strip_prefix("-----BEGIN PGP SIGNED MESSAGE-----")
        .and_then(|rest| rest.split_once("\n\n"))
    else {
        return text;
    };
    match body.1.split_once("-----BEGIN PGP SIGNATURE-----") {
        Some((signed, _)) => signed,
        None => body.1,
    }
}

fn named_file(line: &str) -> std::result::Result<NamedFile, String> {
    let wrong = || format!("Checksums-Sha256 has the line '{}'", line.trim());
    let mut words = line.split_whitespace();
    let (Some(sha256), Some(length), Some(name), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong());
    };
    if name.contains('/') || FileName::new(name).is_err() {
        return Err(format!(
            "it names the file '{name}', which is no plain file name"
        ));
    }
    Ok(NamedFile {
        name: name.to_owned(),
        length: length.parse().map_err(|_| wrong())?,
        sha256: sha256.to_ascii_lowercase(),
    })
}

fn read_text(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).map_err(|e| Failure::file(path, &e))?;
    let mut text = String::new();
    file.take(DSC_MAX)
        .read_to_string(&mut text)
        .map_err(|e| Failure::file(path, &e))?;
    Ok(text.replace("\r\n", "\n"))
}

fn check(dsc: &Path, directory: &Path, file: &NamedFile) -> Result<PathBuf> {
    let path = directory.join(&file.name);
    let wrong = |why: String| broken(dsc, &format!("it names {}, but {why}", file.name));
    let mut content = match std::fs::File::open(&path) {
        Ok(content) => content,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(wrong(format!("{} is not there", path.display())));
        }
        Err(e) => return Err(Failure::file(&path, &e)),
    };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0u64;
    loop {
        let read = content
            .read(&mut buffer)
            .map_err(|e| Failure::file(&path, &e))?;
        if read == 0 {
            break;
        }
        length += read as u64;
        hasher.update(&buffer[..read]);
    }
    if length != file.length {
        return Err(wrong(format!(
            "that has {length} bytes instead of {}",
            file.length
        )));
    }
    let found: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found != file.sha256 {
        return Err(wrong("its SHA-256 is another one".to_owned()));
    }
    Ok(path)
}

fn broken(path: &Path, why: &str) -> Failure {
    Failure::usage(
        format!("{} cannot be submitted: {why}.", path.display()),
        "Fetch the whole source package again.",
    )
    .try_this("apt-get source --download-only PACKAGE")
}

/// Whether a source that says it builds for `offered` has packages of
/// `architecture`.
pub(super) fn builds_for(offered: &[String], architecture: &str) -> bool {
    offered.iter().any(|word| {
        matches!(word.as_str(), "any" | "linux-any")
            || word == architecture
            || word.strip_prefix("any-") == Some(architecture)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DSC: &str = "Format: 3.0 (quilt)\nSource: hello\nBinary: hello\nArchitecture: any all\n\
        Version: 2.10-3\nChecksums-Sha256:\n \
        2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 5 hello.tar\n";

    fn failure(files: &[(&str, &str)]) -> String {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        match read(&directory.path().join("hello.dsc")) {
            Ok(source) => format!("{}_{} {}", source.name, source.version, source.files.len()),
            Err(failure) => failure.cause,
        }
    }

    #[test]
    fn a_source_is_read_with_its_files() {
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{DSC}\n-----BEGIN PGP SIGNATURE-----\n\nabc\n"
        );
        for dsc in [DSC, &signed] {
            let files = [("hello.dsc", dsc), ("hello.tar", "hello")];
            assert_eq!(failure(&files), "hello_2.10-3 2");
        }
    }

    #[test]
    fn a_missing_short_or_changed_file_is_named() {
        assert!(failure(&[("hello.dsc", DSC)]).contains("is not there"));
        let short = [("hello.dsc", DSC), ("hello.tar", "hell")];
        assert!(failure(&short).contains("4 bytes instead of 5"));
        let changed = [("hello.dsc", DSC), ("hello.tar", "jello")];
        assert!(failure(&changed).contains("SHA-256"));
    }

    #[test]
    fn what_is_no_source_is_refused() {
        assert!(failure(&[("hello.dsc", "Source: hello\n")]).contains("Checksums-Sha256"));
        let outside = DSC.replace("hello.tar", "../hello.tar");
        assert!(failure(&[("hello.dsc", &outside)]).contains("no plain file name"));
    }

    #[test]
    fn wildcards_match_as_debian_means_them() {
        let offered = |text: &str| vec![text.to_owned()];
        assert!(builds_for(&offered("any"), "riscv64"));
        assert!(builds_for(&offered("any-amd64"), "amd64"));
        assert!(builds_for(&offered("armhf"), "armhf"));
        assert!(!builds_for(&offered("all"), "amd64"));
        assert!(!builds_for(&offered("armhf"), "amd64"));
    }
}
