//! What the MMU has of an address space: pages that faults entered, and whether stores pass.
//!
//! A program reads and writes through these entries alone. They may be fewer than what the map
//! allows, never more, as in FreeBSD's pmap(9); a miss is a page fault.

use std::collections::BTreeMap;
use std::ops::Range;

use super::page::Page;
use crate::proc::Prot;

/// One page table entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pte {
    pub(crate) page: Page,
    pub(crate) write: bool,
}

/// The entries, by the address of the page.
#[derive(Default)]
pub(crate) struct Pmap {
    ptes: BTreeMap<u64, Pte>,
}

impl Pmap {
    /// `pmap_enter`: replaces what was there.
    pub(crate) fn enter(&mut self, va: u64, page: Page, write: bool) {
        self.ptes.insert(va, Pte { page, write });
    }

    /// The entry of the page that `va` lies in.
    pub(crate) fn get(&self, va: u64) -> Option<Pte> {
        self.ptes.get(&(va & !(super::PAGE as u64 - 1))).copied()
    }

    /// `pmap_remove`.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        self.ptes.retain(|va, _| !range.contains(va));
    }

    /// `pmap_protect`: takes rights away, never gives any.
    pub(crate) fn protect(&mut self, range: Range<u64>, prot: Prot) {
        if !prot.read {
            self.remove(range);
        } else if !prot.write {
            for (_, pte) in self.ptes.range_mut(range) {
                pte.write = false;
            }
        }
    }

    /// `pmap_remove_all`, of this pmap's share.
    pub(crate) fn forget(&mut self, page: Page) {
        self.ptes.retain(|_, pte| pte.page.ptr() != page.ptr());
    }

    /// `pmap_remove_write`, of this pmap's share.
    pub(crate) fn forbid_stores(&mut self, page: Page) {
        for pte in self.ptes.values_mut() {
            if pte.page.ptr() == page.ptr() {
                pte.write = false;
            }
        }
    }
}
