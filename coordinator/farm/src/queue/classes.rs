//! Classes of jobs and profiles of builders. Owns their numbers and the table
//! of which fits which, filled by placement when either is first seen. Never
//! looks at a job or a builder.

use std::collections::{BTreeMap, BTreeSet};

use farmbell_protocol::id::BuilderId;

use crate::bits::Bits;
use crate::placement::{Profile, misfits};
use crate::record::Needs;

/// Jobs that the same builders can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassId(u32);

/// Builders that make the same offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProfileId(u32);

impl ClassId {
    pub(crate) fn index(self) -> usize {
        index(self.0)
    }

    pub(crate) fn at(index: usize) -> Self {
        Self(number(index))
    }
}

impl ProfileId {
    fn index(self) -> usize {
        index(self.0)
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("a u32 fits a usize on every host of a coordinator")
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("classes and profiles are far fewer than 2^32")
}

/// Kinds of builders that are looked at to tell whether jobs compete: who comes
/// to the queue is let in by a glance, however many kinds there are.
const COMPARED_MAX: usize = 16;

#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) needs: Needs,
    /// Builders that are passed over for these jobs for a while, sorted.
    pub(crate) avoids: Vec<BuilderId>,
    /// Jobs that name this class, waiting or not.
    users: u64,
    pub(crate) waiting: u64,
    /// Builders that are being reset because a job of this class wants them.
    woken: BTreeSet<BuilderId>,
    profiles: Bits,
}

#[derive(Clone, Debug)]
struct ProfileEntry {
    profile: Profile,
    users: u64,
    classes: Bits,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Classes {
    classes: Vec<Option<Class>>,
    class_ids: BTreeMap<Needs, BTreeMap<Vec<BuilderId>, ClassId>>,
    class_holes: Vec<usize>,
    profiles: Vec<Option<ProfileEntry>>,
    profile_ids: BTreeMap<Profile, ProfileId>,
    profile_holes: Vec<usize>,
}

impl Classes {
    pub(crate) fn get(&self, class: ClassId) -> &Class {
        self.classes[class.index()]
            .as_ref()
            .expect("a class lives while a job names it")
    }

    fn get_mut(&mut self, class: ClassId) -> &mut Class {
        self.classes[class.index()]
            .as_mut()
            .expect("a class lives while a job names it")
    }

    pub(crate) fn fits(&self, class: ClassId, profile: ProfileId) -> bool {
        self.get(class).profiles.has(profile.index())
    }

    /// Whether jobs of the class want builders that one of these classes wants.
    pub(super) fn compete(&self, class: ClassId, with: &Bits) -> bool {
        let profiles = self.get(class).profiles.iter().take(COMPARED_MAX);
        let mut taken = profiles.filter_map(|at| self.profiles.get(at)?.as_ref());
        with.has(class.index()) || taken.any(|kind| kind.classes.common(with).next().is_some())
    }

    /// The classes that share a kind of builder with this one, and itself.
    pub(crate) fn related(&self, class: ClassId) -> Bits {
        let mine = &self.get(class).profiles;
        let mut related = Bits::default();
        related.set(class.index());
        for (at, other) in self.classes.iter().enumerate() {
            if let Some(other) = other
                && other.waiting > 0
                && other.profiles.common(mine).next().is_some()
            {
                related.set(at);
            }
        }
        related
    }

    /// The classes that builders of this profile can take.
    pub(crate) fn of_profile(&self, profile: ProfileId) -> &Bits {
        &self.entry(profile).classes
    }

    pub(crate) fn profile(&self, profile: ProfileId) -> &Profile {
        &self.entry(profile).profile
    }

    fn entry(&self, profile: ProfileId) -> &ProfileEntry {
        self.profiles[profile.index()]
            .as_ref()
            .expect("a profile lives while a builder has it")
    }

    pub(crate) fn waits(&mut self, class: ClassId) {
        self.get_mut(class).waiting += 1;
    }

    pub(crate) fn leaves(&mut self, class: ClassId) {
        self.get_mut(class).waiting -= 1;
    }

    fn find(&self, class: ClassId) -> Option<&Class> {
        self.classes.get(class.index()).and_then(Option::as_ref)
    }

    /// Whether a job of this class waits; a class nobody names does not.
    pub(crate) fn is_wanting(&self, class: ClassId) -> bool {
        self.find(class).is_some_and(|class| class.waiting > 0)
    }

    /// Whether more jobs of this class wait than builders are woken for them.
    pub(crate) fn is_short(&self, class: ClassId) -> bool {
        self.find(class).is_some_and(|class| {
            let woken = u64::try_from(class.woken.len()).unwrap_or(u64::MAX);
            class.waiting > woken
        })
    }

    /// This builder is made ready for a job of the class.
    pub(crate) fn wakes(&mut self, class: ClassId, builder: BuilderId) {
        self.get_mut(class).woken.insert(builder);
    }

    /// Whether it is still, and would take the job.
    pub(crate) fn is_woken(&self, class: ClassId, builder: BuilderId, profile: ProfileId) -> bool {
        self.find(class).is_some_and(|class| {
            class.woken.contains(&builder) && class.profiles.has(profile.index())
        })
    }

    /// It is ready, or will not be. The class may be gone.
    pub(crate) fn woke(&mut self, class: ClassId, builder: BuilderId) {
        if let Some(Some(class)) = self.classes.get_mut(class.index()) {
            class.woken.remove(&builder);
        }
    }

    /// The class's number, for one more job; given back with `release`.
    pub(crate) fn intern(&mut self, needs: &Needs, mut avoids: Vec<BuilderId>) -> ClassId {
        avoids.sort_unstable();
        avoids.dedup();
        let known = self.class_ids.get(needs);
        if let Some(id) = known.and_then(|of_needs| of_needs.get(&avoids)) {
            let id = *id;
            self.get_mut(id).users += 1;
            return id;
        }
        let at = self.class_holes.pop().unwrap_or_else(|| {
            self.classes.push(None);
            self.classes.len() - 1
        });
        let mut profiles = Bits::default();
        for (other, entry) in self.profiles.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            if misfits(needs, &entry.profile).is_empty() {
                profiles.set(other);
                entry.classes.set(at);
            }
        }
        self.classes[at] = Some(Class {
            needs: needs.clone(),
            avoids: avoids.clone(),
            users: 1,
            waiting: 0,
            woken: BTreeSet::new(),
            profiles,
        });
        let id = ClassId::at(at);
        let of_needs = self.class_ids.entry(needs.clone()).or_default();
        of_needs.insert(avoids, id);
        id
    }

    pub(crate) fn release(&mut self, class: ClassId) {
        let entry = self.get_mut(class);
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        let Some(gone) = self.classes[class.index()].take() else {
            return;
        };
        if let Some(of_needs) = self.class_ids.get_mut(&gone.needs) {
            of_needs.remove(&gone.avoids);
            if of_needs.is_empty() {
                self.class_ids.remove(&gone.needs);
            }
        }
        for profile in gone.profiles.iter() {
            if let Some(Some(entry)) = self.profiles.get_mut(profile) {
                entry.classes.clear(class.index());
            }
        }
        self.class_holes.push(class.index());
    }

    /// The profile's number, for one more builder; given back with
    /// `release_profile`.
    pub(crate) fn intern_profile(&mut self, profile: Profile) -> ProfileId {
        if let Some(id) = self.profile_ids.get(&profile) {
            let id = *id;
            if let Some(entry) = self.profiles[id.index()].as_mut() {
                entry.users += 1;
            }
            return id;
        }
        let at = self.profile_holes.pop().unwrap_or_else(|| {
            self.profiles.push(None);
            self.profiles.len() - 1
        });
        let mut classes = Bits::default();
        for (other, class) in self.classes.iter_mut().enumerate() {
            let Some(class) = class else { continue };
            if misfits(&class.needs, &profile).is_empty() {
                classes.set(other);
                class.profiles.set(at);
            }
        }
        let id = ProfileId(number(at));
        self.profile_ids.insert(profile.clone(), id);
        self.profiles[at] = Some(ProfileEntry {
            profile,
            users: 1,
            classes,
        });
        id
    }

    pub(crate) fn release_profile(&mut self, profile: ProfileId) {
        let Some(entry) = self.profiles[profile.index()].as_mut() else {
            return;
        };
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        let Some(gone) = self.profiles[profile.index()].take() else {
            return;
        };
        self.profile_ids.remove(&gone.profile);
        for class in gone.classes.iter() {
            if let Some(Some(class)) = self.classes.get_mut(class) {
                class.profiles.clear(profile.index());
            }
        }
        self.profile_holes.push(profile.index());
    }
}

#[cfg(test)]
mod tests {
    use farmbell_protocol::bounded::List;

    use super::*;
    use crate::builders::offer_of;
    use crate::placement::needs_of;
    use crate::stories::{builder, name, spec};

    fn needs(architecture: &str) -> Needs {
        Needs {
            architecture: name(architecture),
            ..needs_of(&spec("hello"))
        }
    }

    fn profile(architecture: &str) -> Profile {
        let mut hello = builder("b1");
        hello.architectures = List::new(vec![name(architecture)]).unwrap();
        Profile::from(&offer_of(&hello))
    }

    /// The classes that builders of a profile take, and that they agree with it.
    fn taken(classes: &Classes, profile: ProfileId, of: &[ClassId]) -> Vec<ClassId> {
        let taken: Vec<ClassId> = classes
            .of_profile(profile)
            .iter()
            .map(ClassId::at)
            .collect();
        for class in of {
            assert_eq!(classes.fits(*class, profile), taken.contains(class));
        }
        taken
    }

    #[test]
    fn a_class_is_wanting_while_a_job_waits_and_forgotten_with_its_last_job() {
        let mut classes = Classes::default();
        let needs = needs_of(&spec("hello"));
        let class = classes.intern(&needs, Vec::new());
        assert_eq!(classes.intern(&needs, Vec::new()), class, "known");
        classes.waits(class);
        classes.waits(class);
        classes.leaves(class);
        assert!(classes.is_wanting(class), "one more waits");
        classes.leaves(class);
        assert!(!classes.is_wanting(class));
        classes.release(class);
        assert_eq!(classes.get(class).needs, needs, "one job names it still");
        classes.release(class);
        let other = classes.intern(&needs, vec![BuilderId(1)]);
        assert_eq!(other, class, "its place is free again");
        assert_eq!(classes.get(other).avoids, [BuilderId(1)]);
    }

    #[test]
    fn profiles_and_classes_find_each_other_whichever_came_first() {
        let mut classes = Classes::default();
        let amd64 = classes.intern(&needs("amd64"), Vec::new());
        let riscv64 = classes.intern(&needs("riscv64"), Vec::new());
        let both = [amd64, riscv64];
        let first = classes.intern_profile(profile("amd64"));
        assert_eq!(taken(&classes, first, &both), [amd64]);
        let second = classes.intern_profile(profile("riscv64"));
        assert_eq!(taken(&classes, second, &both), [riscv64]);
        let avoiding = classes.intern(&needs("riscv64"), vec![BuilderId(2), BuilderId(1)]);
        let same = classes.intern(&needs("riscv64"), vec![BuilderId(1), BuilderId(2)]);
        assert_eq!(avoiding, same, "in whatever order they are avoided");
        let all = [amd64, riscv64, avoiding];
        assert_eq!(taken(&classes, second, &all), [riscv64, avoiding]);
        classes.release(riscv64);
        assert_eq!(taken(&classes, second, &[amd64, avoiding]), [avoiding]);
        assert!(!classes.is_wanting(riscv64), "nobody names it");
        let again = classes.intern(&needs("riscv64"), Vec::new());
        assert_eq!(again, riscv64, "its place is free again");
        assert_eq!(taken(&classes, second, &all), [riscv64, avoiding]);
        assert_eq!(taken(&classes, first, &all), [amd64]);
    }

    #[test]
    fn classes_that_share_a_kind_of_builder_compete() {
        let mut classes = Classes::default();
        let amd64 = classes.intern(&needs("amd64"), Vec::new());
        let large = Needs {
            memory_bytes: 1 << 20,
            ..needs("amd64")
        };
        let large = classes.intern(&large, Vec::new());
        let riscv64 = classes.intern(&needs("riscv64"), Vec::new());
        let all = [amd64, large, riscv64];
        let competing = |classes: &Classes, class: ClassId| -> Vec<ClassId> {
            let related: Vec<_> = classes.related(class).iter().map(ClassId::at).collect();
            for other in all {
                let mut wanting = Bits::default();
                wanting.set(other.index());
                assert_eq!(classes.compete(class, &wanting), related.contains(&other));
            }
            related
        };
        for class in all {
            classes.waits(class);
            assert_eq!(competing(&classes, class), [class], "no builders yet");
        }
        classes.intern_profile(profile("amd64"));
        classes.intern_profile(profile("riscv64"));
        assert_eq!(competing(&classes, amd64), [amd64, large]);
        assert_eq!(competing(&classes, large), [amd64, large]);
        assert_eq!(competing(&classes, riscv64), [riscv64]);
        classes.leaves(amd64);
        let related: Vec<_> = classes.related(large).iter().collect();
        assert_eq!(related, [large.index()], "nothing of the other waits");
    }

    #[test]
    fn a_profile_is_forgotten_with_its_last_builder() {
        let mut classes = Classes::default();
        let amd64 = classes.intern(&needs("amd64"), Vec::new());
        let riscv64 = classes.intern(&needs("riscv64"), Vec::new());
        let both = [amd64, riscv64];
        let gone = classes.intern_profile(profile("amd64"));
        assert_eq!(classes.intern_profile(profile("amd64")), gone, "known");
        let other = classes.intern_profile(profile("s390x"));
        assert_ne!(other, gone);
        classes.release_profile(gone);
        assert_eq!(taken(&classes, gone, &both), [amd64], "one has it still");
        assert_eq!(classes.profile(gone), &profile("amd64"));
        classes.release_profile(gone);
        assert!(!classes.fits(amd64, gone));
        let next = classes.intern_profile(profile("riscv64"));
        assert_eq!(next, gone, "its place is free again");
        assert_eq!(taken(&classes, next, &both), [riscv64]);
        let back = classes.intern_profile(profile("amd64"));
        assert_eq!(taken(&classes, back, &both), [amd64]);
    }
}
