//! The page sets of a connection: user buffers whose pages are held, kept for reuse.
//!
//! One slot holds one buffer, in either direction. A set is found again for the same bytes of the
//! same address space, if its pages are those that the program would touch at that moment:
//!
//! - A set held for reading, the source of a write, if the pmap maps each page where it was held
//!   ([`Pages::shown`]). A load by the program would find the same bytes. Nothing else would do: a
//!   write fault in an entry that has its shadow object puts a copy in place of the page, and the
//!   map's generation stays.
//! - A set held for writing, the target of a read, if the generation is the same. Its pages are in
//!   the entry's front object then. Only a holder of the map's write lock can put another object
//!   in front of it, or make the entry copy on write, and that moves the generation; `hold` waits
//!   for such a holder, so that no change can be half done.
//! - Either, if no page was truncated away ([`Pages::intact`]).
//!
//! toehold(9) has the proof. Users of a slot (posted buffers, staged jobs, mbufs in so_snd) are
//! counted by [`Os::slot_use`] outside of this type, because mbufs are freed in any context; a
//! set in use is never evicted, and its pages are never unwired (I3).
//!
//! Context: inpcb write lock held; nothing sleeps. Dropping [`Os::Pages`] unwires them.

use crate::errno::Errno;
use crate::os::{Counter, Os, PageKey, Pages};
use crate::ppod::{self, Ppods};

/// Slots that sets in use may always take, whatever the limit: with fewer, two posted buffers,
/// staged jobs and a write could not be served at once.
pub const MIN_SLOTS: usize = 8;

/// Page pods of a set.
#[derive(Debug)]
pub(crate) struct SetPods {
    /// The reservation in the adapter's region.
    pub(crate) ppods: Ppods,
    /// Which of the adapter's four page sizes they are in.
    pub(crate) size_idx: u8,
    /// How many of them are written to the adapter already.
    pub(crate) written: u32,
}

#[derive(Debug, Default)]
enum Body<P> {
    #[default]
    Free,
    /// A worker is holding the pages now.
    Wanted { key: PageKey, serial: u32 },
    Held {
        key: PageKey,
        pages: P,
        pods: Option<SetPods>,
        /// Some page was taken away from what is mapped: never to be found again.
        gone: bool,
    },
}

/// One page set, or room for one. Opaque; made by [`Default`].
#[derive(Debug)]
pub struct Slot<P> {
    body: Body<P>,
    /// Clock of the last use.
    stamp: u32,
}

impl<P> Default for Slot<P> {
    fn default() -> Self {
        Slot {
            body: Body::Free,
            stamp: 0,
        }
    }
}

/// Right to fill one reserved slot, once: by [`PageSets::fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a reserved slot stays reserved"]
pub struct Ticket {
    slot: u16,
    serial: u32,
}

impl Ticket {
    /// A slot waits for the pages, and they are charged to the budgets. Else they are held for
    /// a moment only, and not charged.
    #[must_use]
    pub fn charged(&self) -> bool {
        self.slot < COPY
    }
}

/// Slot of a ticket for no slot.
const LOOSE: u16 = u16::MAX;
/// The same, and the bytes are to be copied.
const COPY: u16 = u16::MAX - 1;

/// Pages to hold, with no lock held. A job that is cancelled before the answer is given ends only
/// then.
#[derive(Debug)]
#[must_use = "a reserved slot stays reserved"]
pub struct Want<L> {
    /// To hand back with the answer.
    pub ticket: Ticket,
    /// The job, [lent](Os::lend).
    pub job: L,
    /// First byte, a user address.
    pub addr: u64,
    /// Bytes. Address and length never span more than [`crate::ddp::MAX_SPAN`] bytes of pages.
    pub len: u32,
    /// Hold for writing (receive).
    pub write: bool,
    /// Key of the buffer, its generation read before this value was made.
    pub key: PageKey,
}

impl<L> Want<L> {
    /// Not the pages are wanted, but a copy of the bytes: [`crate::conn::Conn::copied`] is the
    /// answer.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.ticket.slot == COPY
    }
}

/// 4096-byte pages that `len` bytes from `addr` on touch.
#[must_use]
pub fn pages_of(addr: u64, len: u32) -> u32 {
    let first = addr % ppod::PAGE;
    let span = first + u64::from(len);
    u32::try_from(span.div_ceil(ppod::PAGE)).unwrap_or(u32::MAX)
}

/// A set under key `k` is for the buffer of `key`, if its pages are the program's still.
fn may_serve(k: &PageKey, key: &PageKey) -> bool {
    // A set held for reading proves itself page by page, whatever happened to the map.
    let generation = if k.write {
        k.generation
    } else {
        key.generation
    };
    *key == PageKey { generation, ..*k }
}

/// All page sets of a connection.
pub struct PageSets<O: Os> {
    slots: O::Slots,
    clock: u32,
    limit: u16,
    /// A set may be there that will not be found again and had a user: [`PageSets::trim`] looks.
    leaving: bool,
}

impl<O: Os> PageSets<O> {
    /// `slots` must be all free ([`Slot::default`]); more than 65534 are not used. There may be
    /// none at first: [`PageSets::provide`].
    pub fn new(slots: O::Slots) -> Self {
        PageSets {
            slots,
            clock: 0,
            limit: u16::MAX,
            leaving: false,
        }
    }

    /// There is room for sets.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.slots.as_ref().is_empty()
    }

    /// Give room to sets that have none; what they do not need is given back.
    pub fn provide(&mut self, slots: O::Slots) -> Option<O::Slots> {
        if self.has_room() {
            return Some(slots);
        }
        self.slots = slots;
        None
    }

    /// Have at most `limit` sets from now on ([`crate::shared::Tunables::cache`]), those in use
    /// included. Up to [`MIN_SLOTS`] may be in use at a time even so; none is kept beside them.
    pub fn set_limit(&mut self, limit: u16) {
        self.limit = limit;
    }

    /// Find a set for the buffer of this key whose pages are the program's still, and mark it as
    /// used now ([`Counter::CacheHit`]). Does not add a user. One that is not is let go.
    pub fn lookup(&mut self, os: &mut O, key: &PageKey) -> Option<u16> {
        let stamp = self.tick();
        let found = |(i, s): (u16, &Slot<O::Pages>)| match &s.body {
            Body::Held {
                key: k,
                pages,
                gone: false,
                ..
            } if may_serve(k, key) => {
                let shown = k.write || pages.shown();
                Some((i, shown && pages.intact(pages.count())))
            }
            _ => None,
        };
        let (id, current) = (0..).zip(self.slots.as_ref()).find_map(found)?;
        let i = usize::from(id);
        if current {
            self.slots.as_mut().get_mut(i)?.stamp = stamp;
            os.count(Counter::CacheHit, 1);
            return Some(id);
        }
        if os.slot_users(id) == 0 {
            self.drop_slot(os, i);
        } else {
            let held = self.slots.as_mut().get_mut(i).map(|s| &mut s.body);
            match held {
                Some(Body::Held { gone, .. }) => *gone = true,
                _ => debug_assert!(false, "it was found just now"),
            }
            self.leaving = true;
        }
        None
    }

    /// A ticket for pages that are not kept: [`PageSets::fill`] knows none such.
    pub(crate) fn loose_ticket(&mut self) -> Ticket {
        Ticket {
            slot: LOOSE,
            serial: self.tick(),
        }
    }

    /// A ticket for a copy.
    pub(crate) fn copy_ticket(&mut self) -> Ticket {
        Ticket {
            slot: COPY,
            serial: self.tick(),
        }
    }

    /// Reserve a slot for the pages of `key`, about to be held for `job`, and charge them to the
    /// budgets. Sets without users are evicted if need be, to have room and to get under the
    /// budgets: those that can never be found again first, then the longest unused.
    /// `None`: every set is in use, or the budgets are exhausted by others.
    pub fn reserve(&mut self, os: &mut O, job: &O::Job, key: PageKey) -> Option<Ticket> {
        let limit = usize::from(self.limit);
        let most = limit.max(MIN_SLOTS).min(self.slots.as_ref().len());
        while self.taken() >= limit.min(most) {
            if self.evict(os, Some(&key)).is_some() {
                continue;
            }
            if self.taken() >= most {
                return None;
            }
            break;
        }
        let free = |s: &Slot<O::Pages>| matches!(s.body, Body::Free);
        let i = self.slots.as_ref().iter().position(free)?;
        let id = u16::try_from(i).ok()?;
        let pages = pages_of(key.addr, key.len);
        while !os.charge_pages(job, pages) {
            self.evict(os, Some(&key))?;
        }
        let serial = self.tick();
        self.slots.as_mut().get_mut(i)?.body = Body::Wanted { key, serial };
        let ticket = Ticket { slot: id, serial };
        Some(ticket)
    }

    /// Answer a ticket: put the held pages in the reserved slot, or free the slot. Does not add
    /// a user.
    ///
    /// # Errors
    /// The error handed in, or EFAULT if the pages are not as many as the buffer touches (they
    /// are released).
    pub fn fill(
        &mut self,
        _os: &mut O,
        ticket: Ticket,
        pages: Result<O::Pages, Errno>,
    ) -> Result<u16, Errno> {
        let stamp = self.tick();
        let s = self.slots.as_mut().get_mut(usize::from(ticket.slot));
        let s = s.ok_or(Errno::EFAULT)?;
        let key = match s.body {
            Body::Wanted { key, serial } if serial == ticket.serial => key,
            _ => return Err(Errno::EFAULT),
        };
        s.body = Body::Free;
        let pages = pages?;
        if usize::try_from(pages_of(key.addr, key.len)) != Ok(pages.count()) {
            return Err(Errno::EFAULT);
        }
        s.stamp = stamp;
        s.body = Body::Held {
            key,
            pages,
            pods: None,
            gone: false,
        };
        Ok(ticket.slot)
    }

    /// Release sets without users that will not be found again, then get back under the limit, as
    /// far as sets without users go. To be called when a set may have lost its last user.
    pub(crate) fn trim(&mut self, os: &mut O) {
        if self.leaving {
            self.leaving = self.drop_gone(os);
        }
        let limit = usize::from(self.limit);
        if limit < self.slots.as_ref().len() {
            while self.taken() > limit && self.evict(os, None).is_some() {}
        }
    }

    fn tick(&mut self) -> u32 {
        self.clock = self.clock.wrapping_add(1);
        self.clock
    }

    /// The held pages of a slot.
    #[must_use]
    pub fn pages(&self, slot: u16) -> Option<&O::Pages> {
        match &self.get(slot)?.body {
            Body::Held { pages, .. } => Some(pages),
            _ => None,
        }
    }

    /// The key of a slot's set.
    #[must_use]
    pub fn key(&self, slot: u16) -> Option<&PageKey> {
        match &self.get(slot)?.body {
            Body::Held { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Mark a slot's pages dirty: bytes were placed in or copied to them.
    pub fn dirty(&mut self, slot: u16) {
        let body = self.slots.as_mut().get_mut(usize::from(slot));
        match body.map(|s| &mut s.body) {
            Some(Body::Held { pages, .. }) => pages.dirty(),
            _ => debug_assert!(false, "only held pages are written to"),
        }
    }

    /// Page pods of a slot's set, with its pages and key.
    pub(crate) fn pods_mut(
        &mut self,
        slot: u16,
    ) -> Option<(&PageKey, &O::Pages, &mut Option<SetPods>)> {
        match &mut self.slots.as_mut().get_mut(usize::from(slot))?.body {
            Body::Held {
                key, pages, pods, ..
            } => Some((key, pages, pods)),
            _ => None,
        }
    }

    /// Page pods of a slot's set.
    pub(crate) fn pods(&self, slot: u16) -> Option<&SetPods> {
        match &self.get(slot)?.body {
            Body::Held { pods, .. } => pods.as_ref(),
            _ => None,
        }
    }

    /// Give back the page pods of sets without users (their pages stay held). Returns the pods
    /// given back.
    pub fn shed_ppods(&mut self, os: &mut O) -> u32 {
        let mut n = 0;
        for (id, s) in (0..).zip(self.slots.as_mut()) {
            if let Body::Held { pods, .. } = &mut s.body
                && os.slot_users(id) == 0
                && let Some(p) = pods.take()
            {
                n += p.ppods.count();
                os.ppod_free(p.ppods);
            }
        }
        n
    }

    /// Release every set without users: pages unwired, pods given back. True if none is left:
    /// no slot is held or reserved. To be called when the connection ends, and again when the
    /// last user of a slot is gone.
    pub fn release_idle(&mut self, os: &mut O) -> bool {
        let mut clean = true;
        for i in 0..self.slots.as_ref().len() {
            let id = u16::try_from(i).unwrap_or(LOOSE);
            let held = match self.slots.as_ref().get(i).map(|s| &s.body) {
                Some(Body::Held { .. }) => true,
                Some(Body::Wanted { .. }) => {
                    clean = false;
                    false
                }
                _ => false,
            };
            if held {
                if os.slot_users(id) == 0 {
                    self.drop_slot(os, i);
                } else {
                    clean = false;
                }
            }
        }
        clean
    }

    /// Slots there are.
    pub(crate) fn slots(&self) -> usize {
        self.slots.as_ref().len()
    }

    /// Release the sets without users, of one address space if that is given, because others
    /// need the room. To the counters that is eviction.
    pub fn relieve(&mut self, os: &mut O, space: Option<u64>) {
        for i in 0..self.slots.as_ref().len() {
            let id = u16::try_from(i).unwrap_or(LOOSE);
            let its = |k: &PageKey| space.is_none_or(|s| s == k.space);
            if self.key(id).is_some_and(its) && os.slot_users(id) == 0 {
                os.count(Counter::CacheEvict, 1);
                self.drop_slot(os, i);
            }
        }
    }

    /// An address space goes: its process exits or execs, and has no job any more. Its sets are
    /// released; one that mbufs still refer to follows with the last of them
    /// ([`PageSets::trim`]).
    pub fn forget(&mut self, os: &mut O, space: u64) {
        for s in self.slots.as_mut() {
            if let Body::Held { key, gone, .. } = &mut s.body
                && key.space == space
            {
                *gone = true;
            }
        }
        self.leaving = self.drop_gone(os);
    }

    /// Drop what will not be found again and has no user; true if some has.
    fn drop_gone(&mut self, os: &mut O) -> bool {
        let mut left = false;
        for i in 0..self.slots.as_ref().len() {
            let body = self.slots.as_ref().get(i).map(|s| &s.body);
            if !matches!(body, Some(Body::Held { gone: true, .. })) {
                continue;
            }
            if os.slot_users(u16::try_from(i).unwrap_or(LOOSE)) == 0 {
                self.drop_slot(os, i);
            } else {
                left = true;
            }
        }
        left
    }

    /// Slots held or reserved.
    #[must_use]
    pub fn taken(&self) -> usize {
        let slots = self.slots.as_ref().iter();
        slots.filter(|s| !matches!(s.body, Body::Free)).count()
    }

    /// Pages held in all slots.
    #[must_use]
    pub fn pages_held(&self) -> usize {
        let slots = self.slots.as_ref().iter();
        slots
            .map(|s| match &s.body {
                Body::Held { pages, .. } => pages.count(),
                _ => 0,
            })
            .sum()
    }

    /// Page pods reserved for all slots.
    #[must_use]
    pub fn ppods_held(&self) -> u32 {
        let slots = self.slots.as_ref().iter();
        slots
            .map(|s| match &s.body {
                Body::Held { pods: Some(p), .. } => p.ppods.count(),
                _ => 0,
            })
            .sum()
    }

    fn get(&self, slot: u16) -> Option<&Slot<O::Pages>> {
        self.slots.as_ref().get(usize::from(slot))
    }

    /// Make a slot free: of the sets without users one of `key`'s space and another generation
    /// (it will never be found again), else the longest unused.
    fn evict(&mut self, os: &mut O, key: Option<&PageKey>) -> Option<usize> {
        let mut best: Option<(usize, bool, u32)> = None;
        for (id, s) in (0_u16..).zip(self.slots.as_ref()) {
            let i = usize::from(id);
            let Body::Held { key: k, gone, .. } = &s.body else {
                continue;
            };
            if os.slot_users(id) != 0 {
                continue;
            }
            let old = |n: &PageKey| k.write && k.space == n.space && k.generation != n.generation;
            let stale = *gone || key.is_some_and(old);
            let age = self.clock.wrapping_sub(s.stamp);
            if best.is_none_or(|(_, bs, ba)| (stale, age) > (bs, ba)) {
                best = Some((i, stale, age));
            }
        }
        let (i, ..) = best?;
        os.count(Counter::CacheEvict, 1);
        self.drop_slot(os, i);
        Some(i)
    }

    fn drop_slot(&mut self, os: &mut O, i: usize) {
        let slot = self.slots.as_mut().get_mut(i);
        let body = slot.map(|s| core::mem::take(&mut s.body));
        match body {
            Some(Body::Held { pages, pods, .. }) => {
                if let Some(p) = pods {
                    os.ppod_free(p.ppods);
                }
                drop(pages);
            }
            _ => debug_assert!(false, "only what is held is dropped"),
        }
    }
}

#[cfg(test)]
mod tests;
