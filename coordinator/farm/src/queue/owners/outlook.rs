//! The outlook: what the turns will bring, for people who ask. Owns the order
//! in which waiting jobs would start and how many start before one. Changes
//! nothing, and looks at no more jobs than it tells of.

use std::cmp::Reverse;
use std::collections::btree_set::Iter;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use farmbell_protocol::id::JobId;

use super::{Owner, OwnerId, Owners};
use crate::bits::Bits;
use crate::queue::{ClassId, Rank};

/// What a turn costs while nobody knows how long it takes: the charge for an
/// assignment (leases.rs).
pub(crate) const TURN: Duration = Duration::from_secs(60);

/// What is known of a waiting job's place, to count what starts before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) job: JobId,
    pub(crate) owner: OwnerId,
    pub(crate) rank: Rank,
    /// The classes that count.
    pub(crate) among: &'a Bits,
    /// What a job takes.
    pub(crate) turn: Duration,
    /// Builders that work on such jobs.
    pub(crate) serving: u64,
}

impl Owners {
    /// The first jobs in the order their owners' turns bring; behind them
    /// those of owners at their limits.
    pub(in crate::queue) fn first(&self, limit: usize) -> Vec<JobId> {
        let mut jobs = Vec::new();
        let mut owners: BTreeMap<OwnerId, (u64, Upcoming<'_>)> = BTreeMap::new();
        let mut in_turn: BinaryHeap<_> = self.turn.iter().copied().map(Reverse).collect();
        let mut at_limit: BinaryHeap<_> = self
            .numbered()
            .filter(|(_, owner)| !owner.below_limit())
            .map(|(id, owner)| Reverse((owner.virtual_time, id)))
            .collect();
        while jobs.len() < limit {
            let Some(Reverse((time, id))) = in_turn.pop().or_else(|| at_limit.pop()) else {
                break;
            };
            let owner = &self.owners[id.index()];
            let (started, upcoming) = owners
                .entry(id)
                .or_insert_with(|| (0, Upcoming::of(owner, |_| true)));
            let Some((_, job, _)) = upcoming.next() else {
                continue;
            };
            jobs.push(job);
            *started += 1;
            let next = Reverse((time.saturating_add(owner.cost(TURN.as_secs())), id));
            if owner.has_room_beside(*started) {
                in_turn.push(next);
            } else {
                at_limit.push(next);
            }
        }
        jobs
    }

    /// How many jobs of each class start before this one: those before it
    /// among its owner's, and of each other owner as many as it has turns
    /// meanwhile. Counts to about `most`.
    pub(in crate::queue) fn ahead(
        &self,
        place: Place<'_>,
        most: usize,
    ) -> BTreeMap<ClassId, usize> {
        let seconds = place.turn.as_secs().max(1);
        let counts = |class: ClassId| place.among.has(class.index());
        let mut ahead = Counted::up_to(most);
        let mine = &self.owners[place.owner.index()];
        let before = Upcoming::of(mine, counts)
            .take_while(|(rank, job, _)| (*rank, *job) < (place.rank, place.job));
        ahead.add(before);
        let own = u64::try_from(ahead.sum).unwrap_or(u64::MAX);
        let start = mine
            .virtual_time
            .saturating_add(mine.cost(seconds).saturating_mul(own));
        let turns = |id: OwnerId, owner: &Owner| {
            let (cost, time) = (owner.cost(seconds).max(1), owner.virtual_time);
            let gap = start.saturating_sub(time);
            // Of two with the same time the one with the lower number is first.
            let at_once = time <= start && gap % cost == 0 && id < place.owner;
            gap.div_ceil(cost) + u64::from(at_once)
        };
        let others = self.numbered().filter(|(id, _)| *id != place.owner);
        let (limited, free): (Vec<_>, Vec<_>) =
            others.partition(|(_, owner)| owner.share.running_max.is_some());
        for (id, owner) in free {
            ahead.add_first(turns(id, owner), || Upcoming::of(owner, counts));
        }
        let rounds = 1 + u64::try_from(ahead.sum).unwrap_or(u64::MAX) / place.serving.max(1);
        for (id, owner) in limited {
            // It never has more builders at once than its limit.
            let most = u64::from(owner.share.running_max.unwrap_or(u32::MAX));
            let turns = turns(id, owner).min(most.saturating_mul(rounds));
            ahead.add_first(turns, || Upcoming::of(owner, counts));
        }
        ahead.by_class
    }
}

type Jobs<'a> = Iter<'a, (Rank, JobId)>;

/// Jobs of some classes, of one owner, in the order they start.
struct Upcoming<'a> {
    /// The first of each class, and those behind it.
    heads: BTreeMap<(Rank, JobId), (ClassId, Jobs<'a>)>,
}

impl<'a> Upcoming<'a> {
    fn of(owner: &'a Owner, counts: impl Fn(ClassId) -> bool) -> Self {
        let classes = owner.queues.iter().filter(|(class, _)| counts(**class));
        let heads = classes.filter_map(|(class, queue)| {
            let mut jobs = queue.iter();
            Some((*jobs.next()?, (*class, jobs)))
        });
        Self {
            heads: heads.collect(),
        }
    }
}

impl Iterator for Upcoming<'_> {
    type Item = (Rank, JobId, ClassId);

    fn next(&mut self) -> Option<Self::Item> {
        let ((rank, job), (class, mut behind)) = self.heads.pop_first()?;
        if let Some(next) = behind.next() {
            self.heads.insert(*next, (class, behind));
        }
        Some((rank, job, class))
    }
}

/// Jobs by class, to a limit.
struct Counted {
    by_class: BTreeMap<ClassId, usize>,
    sum: usize,
    most: usize,
}

impl Counted {
    const fn up_to(most: usize) -> Self {
        Self {
            by_class: BTreeMap::new(),
            sum: 0,
            most,
        }
    }

    fn add(&mut self, jobs: impl Iterator<Item = (Rank, JobId, ClassId)>) {
        for (_, _, class) in jobs.take(self.most - self.sum) {
            *self.by_class.entry(class).or_default() += 1;
            self.sum += 1;
        }
    }

    fn add_first<'a>(&mut self, turns: u64, jobs: impl FnOnce() -> Upcoming<'a>) {
        if turns > 0 && self.sum < self.most {
            self.add(jobs().take(usize::try_from(turns).unwrap_or(usize::MAX)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{CLASS, owners, push, push_to};
    use super::*;

    fn first(owners: &Owners, most: usize) -> Vec<u64> {
        owners.first(most).iter().map(|job| job.0).collect()
    }

    // Until 0.1 each owner's jobs stood together, and a hundred of one hid all
    // others; they start in turns.
    #[test]
    fn the_first_are_told_in_turns_and_no_more_than_asked() {
        let (mut owners, [one, two]) = owners([(1, None); 2]);
        for job in [4, 2, 6] {
            push(&mut owners, one, job);
        }
        push_to(&mut owners, one, CLASS + 1, 3);
        for job in [1, 5] {
            push(&mut owners, two, job);
        }
        assert_eq!(first(&owners, 9), [2, 1, 3, 5, 4, 6]);
        assert_eq!(first(&owners, 3), [2, 1, 3]);
        assert_eq!(first(&owners, 0), [0; 0]);
        owners.charge(one, 100);
        assert_eq!(first(&owners, 9), [1, 5, 2, 3, 4, 6], "a turn is a minute");
    }

    #[test]
    fn a_weight_is_so_many_turns_and_at_a_limit_there_is_none() {
        let (mut owners, [double, one, limited, full]) =
            owners([(2, None), (1, None), (1, Some(2)), (1, Some(1))]);
        for job in 0..4 {
            push(&mut owners, double, 10 + job);
            push(&mut owners, limited, 30 + job);
            push(&mut owners, full, 40 + job);
        }
        push(&mut owners, one, 20);
        owners.starts(limited);
        owners.starts(full);
        let in_turn = [10, 20, 30, 11, 12, 13];
        let then = [40, 31, 41, 32, 42, 33, 43];
        assert_eq!(first(&owners, 99), [&in_turn[..], &then[..]].concat());
    }

    /// How many start before a job, with so many builders at work.
    fn ahead(owners: &Owners, owner: OwnerId, job: u64, serving: u64, most: usize) -> Vec<usize> {
        let mut among = Bits::default();
        among.set(CLASS);
        among.set(CLASS + 1);
        let place = Place {
            job: JobId(job),
            owner,
            rank: Rank(i64::try_from(job).unwrap()),
            among: &among,
            turn: Duration::from_secs(10),
            serving,
        };
        let counts = owners.ahead(place, most);
        let classes = [CLASS, CLASS + 1, CLASS + 2].map(ClassId::at);
        let of = |class| counts.get(&class).copied().unwrap_or_default();
        classes.map(of).to_vec()
    }

    #[test]
    fn before_a_job_are_its_owners_and_the_turns_of_the_others() {
        let (mut owners, [mine, double, short]) = owners([(2, None), (4, None), (2, None)]);
        for job in 1..=4 {
            push(&mut owners, mine, job);
        }
        for job in 11..=19 {
            push(&mut owners, double, job);
        }
        push(&mut owners, short, 21);
        let count = |owner, job, most| ahead(&owners, owner, job, 1, most)[0];
        assert_eq!(count(mine, 1, 100), 0);
        assert_eq!(count(mine, 4, 100), 3 + 6 + 1);
        assert_eq!(count(mine, 4, 5), 5, "counted so far");
        // The turns are: 1, 11, 21, 12, 2, 13.
        assert_eq!(count(double, 13, 100), 2 + 2 + 1);
    }

    #[test]
    fn who_has_had_less_has_more_turns_before() {
        let (mut owners, [mine, other]) = owners([(1, None); 2]);
        push(&mut owners, mine, 9);
        for job in 1..=8 {
            push(&mut owners, other, job);
        }
        owners.charge(mine, 25);
        assert_eq!(ahead(&owners, mine, 9, 1, 100)[0], 3, "at 0, 10 and 20");
        owners.charge(other, 25);
        assert_eq!(ahead(&owners, mine, 9, 1, 100)[0], 0, "it comes second");
        assert_eq!(ahead(&owners, other, 1, 1, 100)[0], 1);
    }

    #[test]
    fn before_a_job_are_those_of_all_classes_that_count() {
        let (mut owners, [mine, other]) = owners([(1, None); 2]);
        for class in [CLASS, CLASS + 1, CLASS + 2] {
            for place in 0..3 {
                let job = u64::try_from(10 * class + place).unwrap();
                push_to(&mut owners, mine, class, job);
                push_to(&mut owners, other, class, 100 + job);
            }
        }
        push(&mut owners, mine, 99);
        assert_eq!(ahead(&owners, mine, 99, 1, 100), [6, 6, 0]);
        // Four of its own, and so many of the other's.
        assert_eq!(ahead(&owners, mine, 41, 1, 100), [6, 2, 0]);
    }

    #[test]
    fn an_owner_at_its_limit_never_has_more_builders_before_a_job_than_that() {
        let (mut owners, [mine, limited]) = owners([(1, None), (1, Some(2))]);
        for job in 1..=9 {
            push(&mut owners, mine, job);
            push(&mut owners, limited, 10 + job);
        }
        owners.starts(limited);
        owners.starts(limited);
        assert_eq!(ahead(&owners, mine, 9, 4, 100)[0], 8 + 2 * 3);
        assert_eq!(ahead(&owners, mine, 9, 1, 100)[0], 8 + 8);
    }
}
