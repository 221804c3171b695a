//! Owners of jobs. Owns each one's waiting jobs by class, and whose turn it
//! is: the owner with the least virtual time, which grows by what the farm
//! gives it, divided by its weight. Never looks at a builder.
//!
//! Who comes to builders that it has not been waiting for begins level with
//! whoever waits for them or, where nobody does, with whoever has had most by
//! attempts that are over: while nobody had to wait, nobody took anything from
//! another. (Start-time fair queueing: its system time is the least start of
//! those that wait, and after a busy time the greatest end.) So nobody saves up
//! turns by staying away; and time only goes forward, so nobody is forgiven.
//! One that waits at its limit has not been away: what it is owed it can only
//! take on so many builders. An attempt under way counts for a minute, so that
//! who has more of them is later. Nothing of this is stored: after a restart
//! all begin level.

mod outlook;

use std::collections::{BTreeMap, BTreeSet};

use farmbell_protocol::bounded::Name;
use farmbell_protocol::id::JobId;

use super::{ClassId, Rank};
use crate::bits::Bits;
use crate::settings::Share;

pub(crate) use outlook::{Place, TURN};

/// An owner, by number. Owners are few and are never forgotten by a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnerId(u32);

/// What an owner of weight 1 pays for a second of a builder.
const COST_PER_SECOND: u64 = 1 << 20;

#[derive(Clone, Debug)]
struct Owner {
    name: Name,
    share: Share,
    /// Attempts under way.
    running: u64,
    virtual_time: u64,
    /// Classes in which it has waiting jobs.
    wanting: Bits,
    queues: BTreeMap<ClassId, BTreeSet<(Rank, JobId)>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Owners {
    owners: Vec<Owner>,
    ids: BTreeMap<Name, OwnerId>,
    shares: BTreeMap<Name, Share>,
    /// Those with a waiting job and below their limit, the next in turn first.
    turn: BTreeSet<(u64, OwnerId)>,
    /// The greatest virtual time that anyone has had by attempts that are over.
    reached: u64,
}

impl OwnerId {
    fn index(self) -> usize {
        usize::try_from(self.0).expect("a u32 fits a usize on every host of a coordinator")
    }
}

impl Owner {
    fn below_limit(&self) -> bool {
        self.has_room_beside(0)
    }

    /// Whether it may start one more when it has started so many.
    fn has_room_beside(&self, started: u64) -> bool {
        self.share
            .running_max
            .is_none_or(|most| self.running.saturating_add(started) < u64::from(most))
    }

    /// By how much so many seconds of a builder move its time.
    fn cost(&self, seconds: u64) -> u64 {
        seconds.saturating_mul(COST_PER_SECOND) / self.share.weight()
    }
}

impl Owners {
    /// Owners whose share is not everybody's.
    pub(crate) fn with_shares(shares: BTreeMap<Name, Share>) -> Self {
        Self {
            shares,
            ..Self::default()
        }
    }

    pub(crate) fn intern(&mut self, name: &Name) -> OwnerId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = OwnerId(u32::try_from(self.owners.len()).expect("owners are people: few"));
        self.owners.push(Owner {
            name: name.clone(),
            share: self.shares.get(name).copied().unwrap_or_default(),
            running: 0,
            virtual_time: 0,
            wanting: Bits::default(),
            queues: BTreeMap::new(),
        });
        self.ids.insert(name.clone(), id);
        id
    }

    pub(crate) fn name(&self, owner: OwnerId) -> &Name {
        &self.owners[owner.index()].name
    }

    /// `competes`: whether one who wants these classes wants builders that
    /// this class could have.
    pub(super) fn push(
        &mut self,
        id: OwnerId,
        class: ClassId,
        (rank, job): (Rank, JobId),
        competes: impl Fn(&Bits) -> bool,
    ) -> bool {
        let wanting = &self.owners[id.index()].wanting;
        if !wanting.has(class.index()) && !competes(wanting) {
            self.comes(id, competes);
        }
        let owner = &mut self.owners[id.index()];
        if owner.queues.is_empty() && owner.below_limit() {
            self.turn.insert((owner.virtual_time, id));
        }
        owner.wanting.set(class.index());
        owner.queues.entry(class).or_default().insert((rank, job))
    }

    /// The owner has not been waiting for these builders: whatever it has had
    /// less than the others, it has not saved up.
    fn comes(&mut self, id: OwnerId, competes: impl Fn(&Bits) -> bool) {
        let mut rivals = self.turn.iter();
        let rival = rivals.find(|(_, other)| competes(&self.owners[other.index()].wanting));
        let level = rival.map_or(self.reached, |(time, _)| *time);
        let owner = &mut self.owners[id.index()];
        if owner.virtual_time >= level {
            return;
        }
        if self.turn.remove(&(owner.virtual_time, id)) {
            self.turn.insert((level, id));
        }
        owner.virtual_time = level;
    }

    pub(super) fn remove(&mut self, id: OwnerId, class: ClassId, rank: Rank, job: JobId) -> bool {
        let owner = &mut self.owners[id.index()];
        let Some(queue) = owner.queues.get_mut(&class) else {
            return false;
        };
        let was = queue.remove(&(rank, job));
        if queue.is_empty() {
            owner.queues.remove(&class);
            owner.wanting.clear(class.index());
            if owner.queues.is_empty() {
                self.turn.remove(&(owner.virtual_time, id));
            }
        }
        was
    }

    pub(super) fn contains(&self, id: OwnerId, class: ClassId, rank: Rank, job: JobId) -> bool {
        self.owners[id.index()]
            .queues
            .get(&class)
            .is_some_and(|queue| queue.contains(&(rank, job)))
    }

    /// The owner has been given so many seconds of a builder, or gets back
    /// what it paid for and did not use.
    pub(crate) fn charge(&mut self, id: OwnerId, seconds: i64) {
        let owner = &mut self.owners[id.index()];
        let turn = self.turn.remove(&(owner.virtual_time, id));
        let cost = owner.cost(seconds.unsigned_abs());
        owner.virtual_time = if seconds < 0 {
            owner.virtual_time.saturating_sub(cost)
        } else {
            owner.virtual_time.saturating_add(cost)
        };
        if turn {
            self.turn.insert((owner.virtual_time, id));
        }
    }

    /// One more attempt of the owner's is under way.
    pub(crate) fn starts(&mut self, id: OwnerId) {
        let owner = &mut self.owners[id.index()];
        owner.running += 1;
        if !owner.below_limit() {
            self.turn.remove(&(owner.virtual_time, id));
        }
    }

    /// One is over. Classes that may start now since the owner is below its
    /// limit again come back.
    pub(crate) fn ends(&mut self, id: OwnerId) -> Vec<ClassId> {
        let owner = &mut self.owners[id.index()];
        let was_at_limit = !owner.below_limit();
        owner.running = owner.running.saturating_sub(1);
        let under_way = owner.cost(TURN.as_secs()).saturating_mul(owner.running);
        let over = owner.virtual_time.saturating_sub(under_way);
        self.reached = self.reached.max(over);
        if !was_at_limit || !owner.below_limit() || owner.queues.is_empty() {
            return Vec::new();
        }
        self.turn.insert((owner.virtual_time, id));
        owner.queues.keys().copied().collect()
    }

    /// Attempts under way and their limit, where it is reached.
    pub(crate) fn at_limit(&self, id: OwnerId) -> Option<(u64, u64)> {
        let owner = &self.owners[id.index()];
        let most = u64::from(owner.share.running_max?);
        (owner.running >= most).then_some((owner.running, most))
    }

    /// The first job of the first owner in turn that has one in an acceptable
    /// class; `among` is a superset of the acceptable ones.
    pub(super) fn best(&self, acceptable: impl Fn(ClassId) -> bool, among: &Bits) -> Option<JobId> {
        self.turn.iter().find_map(|(_, id)| {
            let owner = &self.owners[id.index()];
            owner
                .wanting
                .common(among)
                .map(ClassId::at)
                .filter(|class| acceptable(*class))
                .filter_map(|class| owner.queues.get(&class)?.first())
                .min()
                .map(|(_, job)| *job)
        })
    }

    fn numbered(&self) -> impl Iterator<Item = (OwnerId, &Owner)> {
        (0..).map(OwnerId).zip(&self.owners)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Owners of these weights and limits, by number.
    pub(super) fn owners<const N: usize>(
        shares: [(u32, Option<u32>); N],
    ) -> (Owners, [OwnerId; N]) {
        let names: [Name; N] =
            std::array::from_fn(|place| Name::new(format!("owner{place}")).unwrap());
        let shares = shares.map(|(weight, running_max)| Share {
            weight,
            running_max,
            bonus: 0,
        });
        let mut owners = Owners::with_shares(names.iter().cloned().zip(shares).collect());
        let ids = names.map(|name| owners.intern(&name));
        (owners, ids)
    }

    pub(super) const CLASS: usize = 3;

    pub(super) fn push(owners: &mut Owners, owner: OwnerId, job: u64) -> bool {
        push_to(owners, owner, CLASS, job)
    }

    /// The classes up to the next one's are for the same builders, all others
    /// for others.
    pub(super) fn push_to(owners: &mut Owners, owner: OwnerId, class: usize, job: u64) -> bool {
        let rank = Rank(i64::try_from(job).unwrap());
        let ours = |class| class <= CLASS + 1;
        let related = |with: &Bits| with.iter().any(|other| ours(other) == ours(class));
        owners.push(owner, ClassId::at(class), (rank, JobId(job)), related)
    }

    fn remove(owners: &mut Owners, owner: OwnerId, job: u64) -> bool {
        let rank = Rank(i64::try_from(job).unwrap());
        owners.remove(owner, ClassId::at(CLASS), rank, JobId(job))
    }

    fn best(owners: &Owners) -> Option<u64> {
        let mut all = Bits::default();
        all.set(CLASS);
        all.set(CLASS + 1);
        owners.best(|_| true, &all).map(|job| job.0)
    }

    #[test]
    fn who_had_the_least_for_its_weight_is_next() {
        let (mut owners, [big, small]) = owners([(2, None), (0, None)]);
        push(&mut owners, big, 1);
        push(&mut owners, small, 2);
        owners.charge(big, 10);
        owners.charge(small, 6);
        assert_eq!(best(&owners), Some(1), "half of 10 is less than 6");
        owners.charge(big, 4);
        assert_eq!(best(&owners), Some(2), "half of 14 is more");
        owners.charge(big, -4);
        assert_eq!(best(&owners), Some(1), "it was given back");
        owners.charge(small, -100);
        assert_eq!(best(&owners), Some(2), "down to nothing");
        remove(&mut owners, small, 2);
        owners.charge(small, 1);
        assert_eq!(best(&owners), Some(1), "without a job nobody has a turn");
    }

    #[test]
    fn who_was_away_has_neither_saved_up_nor_is_forgiven() {
        let (mut owners, [here, away, spent]) = owners([(1, None); 3]);
        push(&mut owners, here, 1);
        owners.charge(here, 50);
        owners.charge(spent, 60);
        push(&mut owners, away, 2);
        push(&mut owners, spent, 3);
        assert_eq!(best(&owners), Some(1), "the one that came is not before it");
        owners.charge(here, 1);
        assert_eq!(best(&owners), Some(2));
        owners.charge(away, 9);
        owners.charge(here, 9);
        assert_eq!(best(&owners), Some(2), "59 is less than 60");
        owners.charge(away, 2);
        assert_eq!(owners.first(3).last(), Some(&JobId(2)));
    }

    /// An attempt that takes so long.
    fn serve(owners: &mut Owners, owner: OwnerId, seconds: i64) {
        let turn = i64::try_from(TURN.as_secs()).unwrap();
        owners.charge(owner, turn);
        owners.starts(owner);
        owners.charge(owner, seconds - turn);
        owners.ends(owner);
    }

    #[test]
    fn who_meets_an_empty_queue_is_level_with_who_has_had_most() {
        let (mut owners, [busy, new, other]) = owners([(1, None); 3]);
        for _ in 0..20 {
            serve(&mut owners, busy, 50_000);
        }
        serve(&mut owners, other, 70);
        push(&mut owners, new, 1);
        push(&mut owners, new, 2);
        push(&mut owners, busy, 3);
        assert_eq!(owners.first(3), [3, 1, 2].map(JobId));
    }

    #[test]
    fn who_has_more_under_way_is_later_though_nobody_waited() {
        let (mut owners, [busy, done]) = owners([(1, None); 2]);
        for _ in 0..3 {
            owners.charge(busy, 60);
            owners.starts(busy);
        }
        serve(&mut owners, done, 100);
        let told = |owners: &mut Owners| {
            push(owners, done, 2);
            push(owners, busy, 1);
            let told = best(owners);
            remove(owners, done, 2);
            remove(owners, busy, 1);
            told
        };
        assert_eq!(told(&mut owners), Some(2), "100 are less than 3 minutes");
        owners.charge(busy, -60);
        owners.ends(busy);
        assert_eq!(told(&mut owners), Some(2), "and than 2");
    }

    #[test]
    fn who_comes_to_other_builders_is_level_with_who_waits_there() {
        const OTHER: usize = CLASS + 2;
        let (mut owners, [busy, scarce, new]) = owners([(1, None); 3]);
        push_to(&mut owners, scarce, OTHER, 1);
        serve(&mut owners, busy, 1000);
        push(&mut owners, busy, 2);
        let time =
            |owners: &Owners, id: OwnerId| owners.owners[id.index()].virtual_time / COST_PER_SECOND;
        push_to(&mut owners, new, OTHER, 3);
        assert_eq!(time(&owners, new), 0, "no more than who waits there");
        push_to(&mut owners, new, CLASS + 1, 4);
        assert_eq!(time(&owners, new), 1000, "nor less than who waits here");
        assert_eq!(owners.turn.len(), 3, "each has one turn");
        assert_eq!(time(&owners, scarce), 0, "who waited keeps its time");
        push_to(&mut owners, scarce, OTHER, 5);
        assert_eq!(time(&owners, scarce), 0);
    }

    #[test]
    fn who_waits_at_its_limit_has_not_been_away() {
        let (mut owners, [limited, other]) = owners([(1, Some(1)), (1, None)]);
        push(&mut owners, limited, 1);
        owners.starts(limited);
        push(&mut owners, other, 2);
        owners.charge(other, 1000);
        push(&mut owners, limited, 3);
        owners.ends(limited);
        assert_eq!(best(&owners), Some(1), "it waited all along");
    }

    #[test]
    fn an_owner_at_its_limit_has_no_turn_until_an_attempt_ends() {
        let (mut owners, [owner]) = owners([(1, Some(2))]);
        push(&mut owners, owner, 1);
        owners.starts(owner);
        assert_eq!(best(&owners), Some(1));
        assert_eq!(owners.at_limit(owner), None);
        assert!(owners.ends(owner).is_empty(), "it was not held back");
        owners.starts(owner);
        owners.starts(owner);
        assert_eq!(best(&owners), None);
        assert_eq!(owners.at_limit(owner), Some((2, 2)));
        push(&mut owners, owner, 2);
        remove(&mut owners, owner, 1);
        remove(&mut owners, owner, 2);
        push(&mut owners, owner, 3);
        assert_eq!(best(&owners), None, "neither what comes then");
        owners.starts(owner);
        assert!(owners.ends(owner).is_empty(), "it had one more");
        assert_eq!(owners.ends(owner), [ClassId::at(CLASS)]);
        assert_eq!(best(&owners), Some(3));
        owners.starts(owner);
        remove(&mut owners, owner, 3);
        assert!(owners.ends(owner).is_empty(), "it wants nothing");
        assert_eq!(best(&owners), None);
    }

    #[test]
    fn a_job_is_in_the_queue_once_and_gone_when_it_is_taken() {
        let (mut owners, [owner]) = owners([(1, None)]);
        assert!(push(&mut owners, owner, 7));
        assert!(!push(&mut owners, owner, 7));
        assert!(push(&mut owners, owner, 5));
        let class = ClassId::at(CLASS);
        assert!(owners.contains(owner, class, Rank(7), JobId(7)));
        assert!(!owners.contains(owner, class, Rank(8), JobId(7)));
        assert_eq!(best(&owners), Some(5), "by rank");
        assert!(remove(&mut owners, owner, 5));
        assert!(!remove(&mut owners, owner, 5));
        assert_eq!(best(&owners), Some(7));
        let mut another = Bits::default();
        another.set(CLASS + 1);
        assert_eq!(owners.best(|_| true, &another), None);
        let mut all = Bits::default();
        all.set(CLASS);
        assert_eq!(owners.best(|other| other != class, &all), None);
        assert!(remove(&mut owners, owner, 7));
        assert_eq!(best(&owners), None);
    }
}
