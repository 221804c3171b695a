//! Relations between Debian packages, as a recipe reports the ones that no
//! archive can satisfy now: `baz (>= 1.0.1), qux | quux`. Owns reading them
//! and the names of package files. Never decides who waits (dependencies.rs).

use std::cmp::Ordering;

use farmbell_protocol::bounded::{Name, Text};
use farmbell_protocol::spec::{ANY_ARCHITECTURE, Output};

use crate::versions::{compare, is_version, split_epoch};

/// All of these have to be there, of each any one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation(Vec<Vec<Wanted>>);

/// A package, of some versions where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    bound: Option<(Bound, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Earlier,
    AtMost,
    Exactly,
    AtLeast,
    Later,
}

/// A package as its file's name tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackageFile {
    pub(crate) name: Text<128>,
    pub(crate) version: Text<128>,
    pub(crate) architecture: Name,
}

impl Relation {
    /// Reads a relation; commas between its parts may be missing, as in the
    /// words of dpkg-checkbuilddeps. None if it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut clauses: Vec<Vec<Wanted>> = Vec::new();
        let mut rest = text.trim_start();
        let mut alternative = false;
        while let Some(first) = rest.chars().next() {
            rest = match first {
                ',' => &rest[1..],
                '|' => {
                    alternative = true;
                    &rest[1..]
                }
                '(' => {
                    let (inside, after) = rest[1..].split_once(')')?;
                    clauses.last_mut()?.last_mut()?.bound = Some(bound(inside)?);
                    after
                }
                // Architectures and profiles: what reached us applies here.
                '[' => rest.split_once(']')?.1,
                '<' => rest.split_once('>')?.1,
                _ => {
                    let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
                    let (name, after) = rest.split_at(end);
                    let name = name.split(':').next().unwrap_or(name);
                    if name.is_empty() {
                        return None;
                    }
                    let wanted = Wanted {
                        name: name.to_owned(),
                        bound: None,
                    };
                    match clauses.last_mut().filter(|_| alternative) {
                        Some(clause) => clause.push(wanted),
                        None => clauses.push(vec![wanted]),
                    }
                    alternative = false;
                    after
                }
            }
            .trim_start();
        }
        (!clauses.is_empty()).then_some(Self(clauses))
    }

    /// Whether something that is there fits in each of its parts.
    pub(crate) fn is_met(&self, there: impl Fn(&Wanted) -> bool) -> bool {
        self.0.iter().all(|clause| clause.iter().any(&there))
    }

    /// Every package that could help.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.0.iter().flatten().map(|wanted| wanted.name.as_str())
    }
}

impl Wanted {
    pub(crate) fn takes(&self, version: &str) -> bool {
        let Some((bound, limit)) = &self.bound else {
            return true;
        };
        let order = compare(version, limit);
        match bound {
            Bound::Earlier => order == Ordering::Less,
            Bound::AtMost => order != Ordering::Greater,
            Bound::Exactly => order == Ordering::Equal,
            Bound::AtLeast => order != Ordering::Less,
            Bound::Later => order == Ordering::Greater,
        }
    }
}

impl PackageFile {
    /// The package in this output, if it is one. File names leave the epoch
    /// out; the source's is taken where the rest agrees with its version.
    pub(crate) fn of(output: &Output, source_version: &str) -> Option<Self> {
        let path = output.name.as_str();
        let file = path.rsplit('/').next().unwrap_or(path);
        let stem = file
            .strip_suffix(".deb")
            .or_else(|| file.strip_suffix(".udeb"))?;
        let mut fields = stem.split('_');
        let (name, version, architecture) = (fields.next()?, fields.next()?, fields.next()?);
        if fields.next().is_some() || !is_version(version) || !name.chars().all(is_of_name) {
            return None;
        }
        let (epoch, source) = split_epoch(source_version);
        let version = if !source.is_empty() && version.starts_with(source) {
            [epoch, version].concat()
        } else {
            version.to_owned()
        };
        Some(Self {
            name: Text::new(name).ok()?,
            version: Text::new(version).ok()?,
            architecture: Name::new(architecture).ok()?,
        })
    }

    /// Whether a job for this architecture can use it.
    pub(crate) fn is_for(architecture: &Name, wanted: &Name) -> bool {
        architecture == wanted
            || architecture.as_str() == ANY_ARCHITECTURE
            || wanted.as_str() == ANY_ARCHITECTURE
    }
}

/// What names of packages and their qualifiers (`python3:any`) are spelled with.
fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-.:".contains(c)
}

fn bound(text: &str) -> Option<(Bound, String)> {
    let text = text.trim();
    let end = text.find(|c| !"<>=".contains(c))?;
    let (sign, version) = text.split_at(end);
    let bound = match sign {
        "<<" => Bound::Earlier,
        "<=" | "<" => Bound::AtMost,
        "=" => Bound::Exactly,
        ">=" | ">" => Bound::AtLeast,
        ">>" => Bound::Later,
        _ => return None,
    };
    let version = version.trim();
    is_version(version).then(|| (bound, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use farmbell_protocol::digest::Digest;
    use farmbell_protocol::spec::FileName;

    use super::*;

    fn met(relation: &str, there: &[(&str, &str)]) -> bool {
        Relation::parse(relation).unwrap().is_met(|wanted| {
            there
                .iter()
                .any(|(name, version)| *name == wanted.name && wanted.takes(version))
        })
    }

    #[test]
    fn a_relation_is_met_when_each_part_is() {
        assert!(met("baz (>= 1.0.1)", &[("baz", "1.0.1")]));
        assert!(!met(
            "baz (>= 1.0.1)",
            &[("baz", "1.0.1~rc1"), ("qux", "2")]
        ));
        let two = "baz (>= 1.0.1), qux:any | quux (<< 3) [amd64] <!nocheck>";
        assert!(!met(two, &[("baz", "2")]));
        assert!(!met(two, &[("baz", "2"), ("quux", "3")]));
        assert!(met(two, &[("baz", "2"), ("quux", "2.9")]));
        assert!(met(two, &[("baz", "2"), ("qux", "9")]));
    }

    #[test]
    fn commas_may_be_missing() {
        let told = "debhelper-compat (= 13) libfoo-dev (>= 2) bar";
        assert!(!met(
            told,
            &[("debhelper-compat", "13"), ("libfoo-dev", "2")]
        ));
        let there = [
            ("debhelper-compat", "13"),
            ("libfoo-dev", "2"),
            ("bar", "1"),
        ];
        assert!(met(told, &there));
    }

    #[test]
    fn prose_is_no_relation() {
        for prose in [
            "",
            "it failed; see the log",
            "baz (>= 1.0",
            "(>= 1)",
            "baz (~ 1)",
            "é",
        ] {
            assert_eq!(Relation::parse(prose), None, "{prose}");
        }
    }

    #[test]
    fn a_package_is_known_by_its_files_name() {
        let of = |name: &str, source: &str| {
            let output = Output {
                name: FileName::new(name).unwrap(),
                digest: Digest::of(b""),
                length: 0,
                executable: false,
            };
            PackageFile::of(&output, source).map(|file| file.version.to_string())
        };
        assert_eq!(of("baz_1.0-1_amd64.deb", "").as_deref(), Some("1.0-1"));
        assert_eq!(
            of("out/baz_1.0-1+b1_all.deb", "2:1.0-1").as_deref(),
            Some("2:1.0-1+b1")
        );
        assert_eq!(of("other_7_all.deb", "2:1.0-1").as_deref(), Some("7"));
        for no in [
            "baz_1.0-1.dsc",
            "baz_1.0-1_amd64.changes",
            "baz.deb",
            "b_ä_c.deb",
            "a_1_b_c.deb",
        ] {
            assert_eq!(of(no, ""), None, "{no}");
        }
    }

    #[test]
    fn each_sign_takes_what_dpkg_takes() {
        for (sign, takes) in [
            ("<<", [true, false, false]),
            ("<=", [true, true, false]),
            ("<", [true, true, false]),
            ("=", [false, true, false]),
            (">=", [false, true, true]),
            (">", [false, true, true]),
            (">>", [false, false, true]),
        ] {
            let relation = format!("baz ({sign} 2)");
            let taken = ["1", "2", "3"].map(|version| met(&relation, &[("baz", version)]));
            assert_eq!(taken, takes, "{sign}");
        }
    }

    #[test]
    fn whoever_could_help_is_named() {
        let relation = Relation::parse("lib-a+.1:any (>= 1) | b [amd64], c <!x> | d e").unwrap();
        assert_eq!(
            relation.names().collect::<Vec<_>>(),
            ["lib-a+.1", "b", "c", "d", "e"]
        );
        let only = |names: &[&str]| relation.is_met(|wanted| names.contains(&wanted.name.as_str()));
        assert!(only(&["b", "d", "e"]));
        assert!(!only(&["b", "d"]), "an alternative ends with its word");
        assert!(!only(&["lib-a+.1", "b", "e"]));
    }

    #[test]
    fn a_file_tells_name_and_architecture_and_the_epoch_comes_from_its_source() {
        let of = |name: &str, source: &str| {
            let output = Output {
                name: FileName::new(name).unwrap(),
                digest: Digest::of(b""),
                length: 0,
                executable: false,
            };
            let file = PackageFile::of(&output, source)?;
            Some([
                file.name.to_string(),
                file.version.to_string(),
                file.architecture.to_string(),
            ])
        };
        let known = |texts: [&str; 3]| Some(texts.map(str::to_owned));
        assert_eq!(
            of("d-i/baz_2_riscv64.udeb", "1:2"),
            known(["baz", "1:2", "riscv64"])
        );
        assert_eq!(of("baz_2_all.deb", "1:"), known(["baz", "2", "all"]));
        assert_eq!(of("baz_2_all.deb", "2"), known(["baz", "2", "all"]));
        assert_eq!(of("baz_2.deb", "2"), None);
    }

    #[test]
    fn what_is_for_all_fits_everywhere() {
        let name = |text: &str| Name::new(text).unwrap();
        let (all, amd64, arm64) = (name("all"), name("amd64"), name("arm64"));
        assert!(PackageFile::is_for(&amd64, &amd64));
        assert!(PackageFile::is_for(&all, &amd64));
        assert!(PackageFile::is_for(&amd64, &all));
        assert!(!PackageFile::is_for(&amd64, &arm64));
    }
}
