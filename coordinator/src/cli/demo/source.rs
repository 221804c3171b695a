//! Where the demo's source package comes from: Debian's archive through apt,
//! with a private configuration so that nothing of the machine's is changed;
//! or, where no archive can be reached, a small one that this program carries.

use std::path::{Path, PathBuf};

use anstream::println;
use anyhow::Context as _;
use tokio::process::Command;

use super::succeed;

/// A source package on disk.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) dsc: PathBuf,
}

/// Long enough for a slow mirror, short enough for a person who watches.
const ARCHIVE_TIMEOUT_SECONDS: u8 = 20;

/// Fetches the newest source of `package` that the machine's archives have.
pub(super) async fn fetch(package: &str, directory: &Path) -> anyhow::Result<Source> {
    std::fs::create_dir_all(directory)?;
    if let Some(dsc) = newest_dsc(directory, package)? {
        return Ok(Source { dsc });
    }
    println!("fetching the source of {package} with apt");
    match from_archive(package, directory).await {
        Ok(source) => Ok(source),
        Err(error) => {
            println!("no source of {package} from the archive:");
            let said = format!("{error:#}");
            for line in said.lines().filter(|line| line.starts_with("E: ")) {
                println!("    {line}");
            }
            println!("building the small package that ships with Farmbell instead");
            carried(directory).await
        }
    }
}

impl Source {
    /// A control file with what the source needs to be built.
    pub(super) fn control(&self) -> anyhow::Result<String> {
        let dsc = std::fs::read_to_string(&self.dsc)
            .with_context(|| format!("cannot read {}", self.dsc.display()))?;
        let mut control = String::new();
        let mut wanted = false;
        for line in dsc.lines() {
            if !line.starts_with([' ', '\t']) {
                wanted = line.starts_with("Source:") || line.starts_with("Build-");
            }
            if wanted {
                control.push_str(line);
                control.push('\n');
            }
        }
        control.push_str("\nPackage: any\nArchitecture: any\n");
        Ok(control)
    }
}

async fn from_archive(package: &str, directory: &Path) -> anyhow::Result<Source> {
    let apt = PrivateApt::beside(directory)?;
    // One archive out of many may fail; what counts is whether the source comes.
    let updated = succeed(apt.get().arg("update")).await;
    let fetched = succeed(
        apt.get()
            .args(["source", "--download-only", package])
            .current_dir(directory),
    )
    .await;
    match (updated, fetched) {
        // What went wrong first says more.
        (Err(error), Err(_)) => return Err(error),
        (Ok(()), fetched) | (Err(_), fetched @ Ok(())) => fetched?,
    }
    let dsc = newest_dsc(directory, package)?;
    let dsc = dsc.with_context(|| format!("apt fetched no {package}_*.dsc"))?;
    Ok(Source { dsc })
}

fn newest_dsc(directory: &Path, package: &str) -> anyhow::Result<Option<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name
            .is_some_and(|name| name.starts_with(&format!("{package}_")) && name.ends_with(".dsc"))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found.pop())
}

/// apt with its lists and its sources in a directory of ours: the machine's
/// sources, read as sources of source packages.
struct PrivateApt {
    directory: PathBuf,
}

impl PrivateApt {
    fn beside(directory: &Path) -> anyhow::Result<Self> {
        let directory = directory.with_file_name("apt");
        for part in ["lists/partial", "cache/archives/partial", "sources"] {
            std::fs::create_dir_all(directory.join(part))?;
        }
        let apt = Self { directory };
        apt.take_source_list(Path::new("/etc/apt/sources.list"), "list")?;
        for entry in std::fs::read_dir("/etc/apt/sources.list.d")? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("list") => apt.take_source_list(&path, "list")?,
                Some("sources") => apt.take_source_list(&path, "sources")?,
                Some(_) | None => {}
            }
        }
        Ok(apt)
    }

    fn take_source_list(&self, path: &Path, format: &str) -> anyhow::Result<()> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let mut sources = String::new();
        for line in text.lines() {
            if let Some(rest) = line
                .strip_prefix("deb ")
                .or_else(|| line.strip_prefix("deb\t"))
            {
                sources.push_str("deb-src ");
                sources.push_str(rest);
            } else if line.starts_with("Types:") {
                sources.push_str("Types: deb-src");
            } else {
                sources.push_str(line);
            }
            sources.push('\n');
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        std::fs::write(
            self.directory
                .join("sources")
                .join(format!("{stem}.{format}")),
            sources,
        )?;
        Ok(())
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        let set = |name: &str, path: PathBuf| format!("{name}={}", path.display());
        for option in [
            set("Dir::State::Lists", self.directory.join("lists")),
            set("Dir::Cache", self.directory.join("cache")),
            set("Dir::Etc::SourceList", self.directory.join("none")),
            set("Dir::Etc::SourceParts", self.directory.join("sources")),
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // Else an archive that cannot be reached is a warning.
            "APT::Update::Error-Mode=any".to_owned(),
            "Acquire::Retries=1".to_owned(),
            format!("Acquire::http::Timeout={ARCHIVE_TIMEOUT_SECONDS}"),
            format!("Acquire::https::Timeout={ARCHIVE_TIMEOUT_SECONDS}"),
        ] {
            command.arg("-o").arg(option);
        }
        command.arg("-q");
        command
    }
}

macro_rules! carried_file {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../packaging/demo/farmbell-hello/",
                $name
            )),
        )
    };
}

const CARRIED: &[(&str, &str)] = &[
    carried_file!("hello.c"),
    carried_file!("debian/changelog"),
    carried_file!("debian/control"),
    carried_file!("debian/copyright"),
    carried_file!("debian/rules"),
    carried_file!("debian/source/format"),
];

/// Writes and packs the source package that this program carries.
async fn carried(directory: &Path) -> anyhow::Result<Source> {
    let tree = directory.join("farmbell-hello");
    std::fs::create_dir_all(tree.join("debian/source"))?;
    for (name, text) in CARRIED {
        std::fs::write(tree.join(name), text)?;
    }
    succeed(
        Command::new("dpkg-source")
            .args(["--build", "farmbell-hello"])
            .current_dir(directory),
    )
    .await?;
    let dsc = newest_dsc(directory, "farmbell-hello")?;
    let dsc = dsc.context("dpkg-source made no .dsc")?;
    Ok(Source { dsc })
}
