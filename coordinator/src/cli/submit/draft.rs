//! A job on its way to being submitted: what a source, a job file or a command
//! line said, before its files are hashed and its architectures told apart.

use std::io;
use std::path::{Path, PathBuf};

use farmbell_protocol::digest::Digest;

use super::dsc;
use crate::cli::exit::{Failure, Result};
use crate::http::wire::{InputSpec, ParameterSpec, Spec};

/// One thing to build, for some architectures.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) spec: Spec,
    /// Empty: to be chosen.
    pub(super) architectures: Vec<String>,
    /// Architecture-independent packages come out too: exactly one job of the
    /// submission builds them.
    pub(super) independent: bool,
    pub(super) inputs: Vec<DraftInput>,
    pub(super) key: Option<String>,
    /// What a Debian source says it builds for.
    pub(super) builds_for: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DraftInput {
    pub(super) path: PathBuf,
    pub(super) name: Option<String>,
    pub(super) private: bool,
}

/// A file of this host and the bytes it had when it was hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HashedFile {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    pub(super) length: u64,
}

impl Draft {
    /// A job that runs a program.
    pub(super) fn of_command(argv: &[String]) -> Self {
        let program = argv.first().map_or("command", String::as_str);
        let name = program.rsplit('/').next().unwrap_or(program);
        let mut spec = Spec::new(name, "command", "");
        spec.parameters = argv
            .iter()
            .map(|argument| ParameterSpec {
                key: "argv".to_owned(),
                value: argument.clone(),
            })
            .collect();
        Self::plain(spec)
    }

    /// A job that builds a Debian source package.
    pub(super) fn of_source(path: &Path) -> Result<Self> {
        let source = dsc::read(path)?;
        let mut spec = Spec::new(&source.name, "debian-binary", "");
        spec.version = source.version;
        let mut draft = Self::plain(spec);
        draft.independent = source.architectures.iter().any(|word| word == "all");
        if draft.independent && source.architectures.len() == 1 {
            draft.spec.arch_scope = "indep-only".to_owned();
        }
        draft.inputs = source
            .files
            .iter()
            .map(|path| DraftInput::of(path))
            .collect();
        draft.builds_for = Some(source.architectures);
        Ok(draft)
    }

    /// Whether the source has anything to build for the chosen architectures.
    pub(super) fn check_architectures(&self) -> Result<()> {
        let Some(offered) = self.builds_for.as_ref().filter(|_| !self.independent) else {
            return Ok(());
        };
        let wrong = |architecture: &&String| !dsc::builds_for(offered, architecture);
        match self.architectures.iter().find(wrong) {
            None => Ok(()),
            Some(architecture) => Err(Failure::usage(
                format!(
                    "{} builds nothing for {architecture}: its architectures are {}",
                    self.spec.name,
                    offered.join(" ")
                ),
                "Choose another with --arch.",
            )),
        }
    }

    fn plain(spec: Spec) -> Self {
        Self {
            spec,
            architectures: Vec::new(),
            independent: false,
            inputs: Vec::new(),
            key: None,
            builds_for: None,
        }
    }

    /// Hashes the inputs into the spec; what was hashed comes back for the upload.
    pub(super) fn hash_inputs(&mut self) -> Result<Vec<HashedFile>> {
        let mut files = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let file = HashedFile::of(&input.path)?;
            self.spec.inputs.push(InputSpec {
                name: input.shown_name()?,
                digest: file.digest.to_string(),
                length: file.length,
                private: input.private,
            });
            files.push(file);
        }
        Ok(files)
    }

    /// One job per architecture.
    pub(super) fn jobs(&self) -> Vec<Spec> {
        let first = self.architectures.first();
        self.architectures
            .iter()
            .map(|architecture| {
                let mut spec = self.spec.clone();
                spec.architecture.clone_from(architecture);
                if self.independent && Some(architecture) != first {
                    spec.arch_scope = "arch-only".to_owned();
                }
                spec
            })
            .collect()
    }
}

impl DraftInput {
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            name: None,
            private: false,
        }
    }

    fn shown_name(&self) -> Result<String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.map(str::to_owned).ok_or_else(|| {
            Failure::usage(
                format!("{} has no name that can be sent", self.path.display()),
                "Give a file whose name is UTF-8.",
            )
        })
    }
}

impl HashedFile {
    fn of(path: &Path) -> Result<Self> {
        let wrong = |e: io::Error| Failure::file(path, &e);
        let file = std::fs::File::open(path).map_err(wrong)?;
        if file.metadata().map_err(wrong)?.is_dir() {
            return Err(Failure::usage(
                format!("{} is a directory", path.display()),
                "An input is a file; pack the directory first.",
            )
            .try_this(format!("tar -caf input.tar.xz {}", path.display())));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file).map_err(wrong)?;
        Ok(Self {
            path: path.to_owned(),
            digest: Digest(*hasher.finalize().as_bytes()),
            length: hasher.count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn independent_packages_are_built_by_exactly_one_job() {
        let mut draft = Draft::of_command(&["/bin/true".into()]);
        draft.independent = true;
        draft.architectures = vec!["amd64".into(), "arm64".into(), "riscv64".into()];
        let scopes: Vec<_> = draft.jobs().into_iter().map(|job| job.arch_scope).collect();
        assert_eq!(scopes, ["all", "arch-only", "arch-only"]);
        assert_eq!(draft.spec.name, "true");
    }
}
