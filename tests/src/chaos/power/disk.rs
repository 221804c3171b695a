//! A disk as a power cut finds it: what was flushed is there; of the rest any
//! part may be, in any order within the barriers, and writes may be torn.
//! Owns that model, nothing of what the files mean.
//!
//! - A file's bytes are durable once the file is flushed; before that each
//!   write may be there, be missing, or be there in some of its sectors.
//! - A name is durable once its directory (or the whole file system) is
//!   flushed; flushing the file alone makes no name durable. Changes of names
//!   that are not flushed are there up to some moment (journals keep order).
//! - Where [`Disk::ordered`] says so, a length is never there before its bytes.
//!   Stored logs rely on that, and say so.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::chaos::Dice;

const SECTOR: usize = 512;
/// Keys that others may read are refused; of the rest nobody minds.
const MODE: u32 = 0o600;

pub(super) type NodeId = usize;

/// One operation, in the order in which the kernel finished them.
#[derive(Clone, Debug)]
pub(super) enum Act {
    MakeDirectory(PathBuf),
    /// Opened for writing: made where it is not there.
    Open {
        path: PathBuf,
        fd: u32,
        create: bool,
        truncate: bool,
        append: bool,
    },
    Seek {
        path: PathBuf,
        fd: u32,
        to: u64,
    },
    /// Without a place where the descriptor stands.
    Write {
        path: PathBuf,
        fd: u32,
        at: Option<u64>,
        bytes: Vec<u8>,
    },
    SetLength {
        path: PathBuf,
        length: u64,
    },
    Flush(PathBuf),
    FlushAll,
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
}

#[derive(Debug)]
enum Node {
    File(Contents),
    Directory(BTreeMap<String, NodeId>),
}

#[derive(Debug, Default)]
struct Contents {
    durable: Vec<u8>,
    live: Vec<u8>,
    pending: Vec<Change>,
    /// A length is not there before its bytes.
    ordered: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

/// A change of names, and which directories hold them.
#[derive(Clone, Debug)]
struct Naming {
    puts: Option<(NodeId, String, NodeId)>,
    takes: Option<(NodeId, String)>,
    durable: bool,
}

/// See the module. Only what lies below its root is known.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    /// Names as programs see them, and as they are durable up to `namings`.
    live: BTreeMap<NodeId, BTreeMap<String, NodeId>>,
    namings: Vec<Naming>,
    /// Where descriptors stand; none appends.
    places: BTreeMap<(NodeId, u32), Option<u64>>,
}

const ROOT: NodeId = 0;

impl Disk {
    pub(super) fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            nodes: vec![Node::Directory(BTreeMap::new())],
            live: BTreeMap::new(),
            namings: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    pub(super) fn perform(&mut self, act: &Act) {
        match act {
            Act::MakeDirectory(path) => self.make(path, Node::Directory(BTreeMap::new())),
            Act::Open {
                path,
                fd,
                create,
                truncate,
                append,
            } => {
                if *create && self.find(path).is_none() {
                    let ordered = Self::ordered(path);
                    self.make(
                        path,
                        Node::File(Contents {
                            ordered,
                            ..Contents::default()
                        }),
                    );
                }
                let Some(node) = self.find(path) else { return };
                self.places.insert((node, *fd), (!append).then_some(0));
                if *truncate {
                    self.set_length(node, 0);
                }
            }
            Act::Seek { path, fd, to } => {
                if let Some(node) = self.find(path)
                    && let Some(place) = self.places.get_mut(&(node, *fd))
                    && place.is_some()
                {
                    *place = Some(*to);
                }
            }
            Act::Write {
                path,
                fd,
                at,
                bytes,
            } => self.write(path, *fd, *at, bytes),
            Act::SetLength { path, length } => {
                if let Some(node) = self.find(path) {
                    self.set_length(node, usize::try_from(*length).expect("files are small"));
                }
            }
            Act::Flush(path) => self.flush(path),
            Act::FlushAll => {
                (0..self.nodes.len()).for_each(|node| self.flush_file(node));
                self.namings
                    .iter_mut()
                    .for_each(|naming| naming.durable = true);
            }
            Act::Rename { from, to } => self.rename(from, to),
            Act::Remove(path) => {
                if let Some((directory, name)) = self.parent(path) {
                    self.name(None, Some((directory, name)));
                }
            }
        }
        self.settle();
    }

    /// Whether the files here rely on lengths that do not come before bytes.
    fn ordered(path: &Path) -> bool {
        path.components().any(|part| part.as_os_str() == "logs")
    }

    fn make(&mut self, path: &Path, node: Node) {
        if let Some((directory, name)) = self.parent(path) {
            let id = self.nodes.len();
            self.nodes.push(node);
            self.name(Some((directory, name, id)), None);
        }
    }

    fn write(&mut self, path: &Path, fd: u32, at: Option<u64>, bytes: &[u8]) {
        let Some(node) = self.find(path) else { return };
        let place = self.places.get(&(node, fd)).copied().flatten();
        let Node::File(file) = &mut self.nodes[node] else {
            return;
        };
        let at = match at.or(place) {
            Some(at) => usize::try_from(at).expect("files are small"),
            None => file.live.len(),
        };
        let change = Change::Write {
            at,
            bytes: bytes.to_vec(),
        };
        change.apply(&mut file.live, &mut |_| true);
        file.pending.push(change);
        if let Some(Some(place)) = self.places.get_mut(&(node, fd)) {
            *place = (at + bytes.len()) as u64;
        }
    }

    fn set_length(&mut self, node: NodeId, length: usize) {
        if let Node::File(file) = &mut self.nodes[node]
            && file.live.len() != length
        {
            file.live.resize(length, 0);
            file.pending.push(Change::Length(length));
        }
    }

    fn flush(&mut self, path: &Path) {
        let Some(flushed) = self.find(path) else {
            return;
        };
        self.flush_file(flushed);
        for naming in &mut self.namings {
            let puts = naming.puts.as_ref().map(|(directory, _, _)| *directory);
            let takes = naming.takes.as_ref().map(|(directory, _)| *directory);
            naming.durable |= puts == Some(flushed) || takes == Some(flushed);
        }
    }

    fn flush_file(&mut self, node: NodeId) {
        if let Node::File(file) = &mut self.nodes[node] {
            file.pending.clear();
            file.durable.clone_from(&file.live);
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let (source, target) = (self.parent(from), self.parent(to));
        match (self.find(from), source, target) {
            (Some(node), Some(source), Some((directory, name))) => {
                self.name(Some((directory, name, node)), Some(source));
            }
            // It leaves what is known here, or comes from outside.
            (None, _, _) | (_, None, _) => {}
            (Some(_), Some(source), None) => self.name(None, Some(source)),
        }
    }

    fn name(&mut self, puts: Option<(NodeId, String, NodeId)>, takes: Option<(NodeId, String)>) {
        let naming = Naming {
            puts,
            takes,
            durable: false,
        };
        naming.apply(&mut self.live);
        self.namings.push(naming);
    }

    /// What is durable from the beginning on needs no list.
    fn settle(&mut self) {
        let settled = self
            .namings
            .iter()
            .take_while(|naming| naming.durable)
            .count();
        for naming in self.namings.drain(..settled) {
            let takes = naming
                .takes
                .map(|(directory, name)| (directory, name, None));
            let puts = naming
                .puts
                .map(|(directory, name, node)| (directory, name, Some(node)));
            for (directory, name, node) in takes.into_iter().chain(puts) {
                if let Node::Directory(durable) = &mut self.nodes[directory] {
                    match node {
                        Some(node) => durable.insert(name, node),
                        None => durable.remove(&name),
                    };
                }
            }
        }
    }

    fn find(&self, path: &Path) -> Option<NodeId> {
        let below = path.strip_prefix(&self.root).ok()?;
        let mut node = ROOT;
        for part in below.components() {
            node = *self.live.get(&node)?.get(part.as_os_str().to_str()?)?;
        }
        Some(node)
    }

    fn parent(&self, path: &Path) -> Option<(NodeId, String)> {
        let name = path.file_name()?.to_str()?.to_owned();
        Some((self.find(path.parent()?)?, name))
    }

    /// The bytes that programs see in a file below the root now.
    pub(super) fn live_below(&self, path: &Path) -> Option<&[u8]> {
        match &self.nodes[self.find(&self.root.join(path))?] {
            Node::File(file) => Some(&file.live),
            Node::Directory(_) => None,
        }
    }

    /// Whether a power cut now may leave more than one state.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.namings.is_empty()
            || self.nodes.iter().any(|node| match node {
                Node::File(file) => !file.pending.is_empty(),
                Node::Directory(_) => false,
            })
    }

    /// Writes one state that a power cut now may leave into `target`.
    pub(super) fn leave(&self, target: &Path, luck: &mut Luck<'_>) -> io::Result<()> {
        let mut names: BTreeMap<NodeId, BTreeMap<String, NodeId>> = BTreeMap::new();
        for (id, node) in self.nodes.iter().enumerate() {
            if let Node::Directory(durable) = node {
                names.insert(id, durable.clone());
            }
        }
        let until = luck.moment(self.namings.len());
        for (number, naming) in self.namings.iter().enumerate() {
            if naming.durable || number < until {
                naming.apply(&mut names);
            }
        }
        self.leave_directory(ROOT, &names, target, luck)
    }

    fn leave_directory(
        &self,
        directory: NodeId,
        names: &BTreeMap<NodeId, BTreeMap<String, NodeId>>,
        target: &Path,
        luck: &mut Luck<'_>,
    ) -> io::Result<()> {
        fs::create_dir_all(target)?;
        for (name, node) in &names[&directory] {
            let path = target.join(name);
            match &self.nodes[*node] {
                Node::File(file) => {
                    fs::write(&path, file.left(luck))?;
                    fs::set_permissions(&path, Permissions::from_mode(MODE))?;
                }
                Node::Directory(_) => self.leave_directory(*node, names, &path, luck)?,
            }
        }
        Ok(())
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<NodeId, BTreeMap<String, NodeId>>) {
        if let Some((directory, name)) = &self.takes {
            names.entry(*directory).or_default().remove(name);
        }
        if let Some((directory, name, node)) = &self.puts {
            let names = names.entry(*directory).or_default();
            names.insert(name.clone(), *node);
        }
    }
}

impl Change {
    /// Applies those sectors of it that `kept` says.
    fn apply(&self, to: &mut Vec<u8>, kept: &mut impl FnMut(usize) -> bool) {
        match self {
            Self::Length(length) => to.resize(*length, 0),
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                for sector in at / SECTOR..end.div_ceil(SECTOR) {
                    if kept(sector) {
                        let from = (sector * SECTOR).max(*at);
                        let until = ((sector + 1) * SECTOR).min(end);
                        if to.len() < until {
                            to.resize(until, 0);
                        }
                        to[from..until].copy_from_slice(&bytes[from - at..until - at]);
                    }
                }
            }
        }
    }
}

impl Contents {
    /// One content that a power cut now may leave.
    fn left(&self, luck: &mut Luck<'_>) -> Vec<u8> {
        if self.pending.is_empty() {
            return self.durable.clone();
        }
        let mut left = self.durable.clone();
        if self.ordered {
            for change in &self.pending[..luck.moment(self.pending.len())] {
                change.apply(&mut left, &mut |_| true);
            }
            return left;
        }
        for change in &self.pending {
            match luck.of_change() {
                Fate::Kept => change.apply(&mut left, &mut |_| true),
                Fate::Lost => {}
                Fate::Torn => change.apply(&mut left, &mut |_| luck.coin()),
            }
        }
        // The length may be there although bytes are not.
        if luck.coin() {
            left.resize(left.len().max(self.live.len()), 0);
        }
        left
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

/// How lucky a power cut is with what was not flushed.
#[derive(Debug)]
pub(super) enum Luck<'a> {
    /// Nothing of it is there.
    None,
    /// All of it is there, as after the end of the process alone.
    All,
    Dice(&'a mut Dice),
}

impl Luck<'_> {
    /// Up to which of so many steps things got.
    fn moment(&mut self, steps: usize) -> usize {
        match self {
            Self::None => 0,
            Self::All => steps,
            Self::Dice(dice) => dice.below(steps + 1),
        }
    }

    fn of_change(&mut self) -> Fate {
        match self {
            Self::None => Fate::Lost,
            Self::All => Fate::Kept,
            Self::Dice(dice) => match dice.roll(3) {
                0 => Fate::Kept,
                1 => Fate::Lost,
                _ => Fate::Torn,
            },
        }
    }

    fn coin(&mut self) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Dice(dice) => dice.roll(2) == 0,
        }
    }
}
