//! Physical memory: one arena, its page frames and their `struct vm_page`.
//!
//! A physical address is the address of the byte in the arena, so DMA by the simulated adapter is
//! a copy. The lower half serves the kernel in runs of contiguous pages; the upper half serves user
//! memory, in an order drawn from the seed in which runs are contiguous only in part.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::global::Global;
use crate::kp::{self, Kp};
use crate::lowmem::PAGE;
use crate::{kpanic, sched, sys};

/// Bytes of the arena.
const SIZE: usize = 2 << 30;
const PAGES: usize = SIZE / PAGE;
/// Pages of the kernel's half.
const KERNEL_PAGES: usize = PAGES / 2;
/// What a free byte reads.
const POISON: u8 = 0xd7;

struct Phys {
    base: usize,
    pages: *mut sys::vm_page,
    /// Free runs of the kernel's half: first page to length.
    free: BTreeMap<usize, usize>,
    /// Allocated kernel runs: first page to length.
    used: BTreeMap<usize, usize>,
    /// Free user frames seen so far, in no order; frames from `fresh` on were never used.
    frames: Vec<u32>,
    fresh: usize,
    last_frame: usize,
    /// Frames of the runs asked for by [`crate::Api::frames_in_runs`], and what is left of one.
    run: usize,
    run_left: usize,
    user_limit: usize,
    user_used: std::collections::HashSet<u32>,
}

static PHYS: Global<Phys> = Global::new("physical memory");

/// Where the arena lies when the host allows: the same in every run, so that a seed fixes the order
/// of addresses too.
const HOME: usize = 0x2a00_0000_0000;

fn map(hint: usize, len: usize) -> usize {
    // SAFETY: a fresh anonymous mapping; the hint is no demand.
    let p = unsafe {
        libc::mmap(
            hint as *mut libc::c_void,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    assert_ne!(p, libc::MAP_FAILED, "no address space for physical memory");
    p as usize
}

fn reserve() -> (usize, usize) {
    static BASE: OnceLock<(usize, usize)> = OnceLock::new();
    *BASE.get_or_init(|| {
        (
            map(HOME, SIZE),
            map(HOME + 2 * SIZE, PAGES * size_of::<sys::vm_page>()),
        )
    })
}

fn forget(addr: usize, len: usize) {
    // SAFETY: the arena is this file's; a new kernel starts on zeroed memory.
    let rc = unsafe { libc::madvise(addr as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    assert_eq!(rc, 0, "madvise");
}

/// Starts on zeroed memory with at most `user_limit` frames for programs.
pub(crate) fn boot(user_limit: usize) {
    let (base, pages) = reserve();
    forget(base, SIZE);
    forget(pages, PAGES * size_of::<sys::vm_page>());
    PHYS.init(Phys {
        base,
        pages: pages as *mut sys::vm_page,
        free: BTreeMap::from([(0, KERNEL_PAGES)]),
        used: BTreeMap::new(),
        frames: Vec::new(),
        fresh: KERNEL_PAGES,
        last_frame: 0,
        run: 0,
        run_left: 0,
        user_limit: user_limit.min(PAGES - KERNEL_PAGES),
        user_used: std::collections::HashSet::new(),
    });
}

pub(crate) fn shutdown() {
    PHYS.take();
}

/// Start and length of the arena.
#[must_use]
pub fn arena() -> (usize, usize) {
    PHYS.with(|p| (p.base, SIZE))
}

/// Does the byte range lie in the arena?
#[must_use]
pub fn contains(addr: usize, len: usize) -> bool {
    let (base, size) = arena();
    addr >= base && len <= size && addr - base <= size - len
}

/// `PHYS_TO_VM_PAGE`: NULL outside the arena.
#[must_use]
pub fn page_of(pa: usize) -> *mut sys::vm_page {
    PHYS.with(|p| {
        if pa < p.base || pa - p.base >= SIZE {
            return std::ptr::null_mut();
        }
        let i = (pa - p.base) / PAGE;
        let m = p.pages.wrapping_add(i);
        // The array starts zeroed; the one field everyone reads is filled in on first sight.
        Kp::new(m).phys_addr = (p.base + i * PAGE) as u64;
        m
    })
}

/// `VM_PAGE_TO_PHYS`.
#[must_use]
pub fn pa_of(m: *const sys::vm_page) -> usize {
    PHYS.with(|p| {
        let i = (m as usize).wrapping_sub(p.pages as usize) / size_of::<sys::vm_page>();
        if i >= PAGES {
            kpanic!("{m:p} is no vm_page");
        }
        p.base + i * PAGE
    })
}

/// Contiguous kernel pages, not cleared; `None` when there is no such run.
#[must_use]
pub fn alloc_run(n: usize) -> Option<usize> {
    alloc_run_aligned(n, 1)
}

/// As [`alloc_run`], the first page a multiple of `align` pages.
#[must_use]
pub fn alloc_run_aligned(n: usize, align: usize) -> Option<usize> {
    let n = n.max(1);
    PHYS.with(|p| {
        let first_page = p.base / PAGE;
        let fit = |start: usize, len: usize| {
            let at = (first_page + start).next_multiple_of(align) - first_page;
            (at + n <= start + len).then_some(at)
        };
        let (start, len, at) = p
            .free
            .iter()
            .find_map(|(&s, &l)| fit(s, l).map(|at| (s, l, at)))?;
        p.free.remove(&start);
        if at > start {
            p.free.insert(start, at - start);
        }
        if at + n < start + len {
            p.free.insert(at + n, start + len - at - n);
        }
        p.used.insert(at, n);
        Some(p.base + at * PAGE)
    })
}

/// Frees a run allocated as such. Its bytes are poisoned.
pub fn free_run(addr: usize) {
    let len = PHYS.with(|p| {
        let at = addr.wrapping_sub(p.base) / PAGE;
        let n = p.used.remove(&at)?;
        let (mut s, mut l) = (at, n);
        if let Some((&ps, &pl)) = p.free.range(..at).next_back()
            && ps + pl == at
        {
            p.free.remove(&ps);
            (s, l) = (ps, pl + n);
        }
        if let Some(&nl) = p.free.get(&(at + n)) {
            p.free.remove(&(at + n));
            l += nl;
        }
        p.free.insert(s, l);
        Some(n * PAGE)
    });
    match len {
        Some(len) if len <= 64 * PAGE => kp::bytes_mut(addr as *mut u8, len).fill(POISON),
        Some(_) => {}
        None => kpanic!("freeing pages at {addr:#x}, which are not allocated"),
    }
}

impl Phys {
    /// A frame where those asked for one after the other make runs.
    fn next_of_run(&mut self) -> Option<usize> {
        if self.run_left == 0 {
            // Away from the run before, so that it ends there.
            let at = (self.fresh + 1).next_multiple_of(self.run);
            if at + self.run > PAGES {
                return None;
            }
            self.frames.extend((self.fresh..at).map(|f| f as u32));
            self.fresh = at;
            self.run_left = self.run;
        }
        let i = self.fresh;
        self.fresh += 1;
        self.run_left -= 1;
        self.last_frame = i;
        self.user_used.insert(i as u32);
        Some(self.base + i * PAGE)
    }
}

impl crate::Api {
    /// From now on user frames come in runs of `n` contiguous ones, aligned to their size and
    /// apart from each other, in the order of the faults; 0: at random, as at first.
    pub fn frames_in_runs(&self, n: usize) {
        PHYS.with(|p| (p.run, p.run_left) = (n, 0));
    }
}

/// One frame for user memory, poisoned or zeroed; `None` when memory is used up.
#[must_use]
pub fn alloc_frame(zero: bool) -> Option<usize> {
    if crate::fault::hit("pages") {
        return None;
    }
    let r = sched::random_u64();
    let pa = PHYS.with(|p| {
        if p.user_used.len() >= p.user_limit {
            return None;
        }
        if p.run > 0 {
            return p.next_of_run();
        }
        let next = p.last_frame + 1;
        let at_fresh_end = p.fresh >= PAGES;
        // Half of the time go on behind the last frame, so that runs appear; else jump.
        let i = if r & 1 == 0
            && let Some(k) = (p.frames.len().saturating_sub(64)..p.frames.len())
                .find(|&k| p.frames[k] as usize == next)
        {
            p.frames.swap_remove(k) as usize
        } else if !p.frames.is_empty() && (r & 2 == 0 || at_fresh_end) {
            let k = (r >> 8) as usize % p.frames.len();
            p.frames.swap_remove(k) as usize
        } else if at_fresh_end {
            return None;
        } else {
            // Skip up to three frames, which go on the free list.
            let skip = if r & 4 == 0 { 0 } else { (r >> 3) as usize & 3 };
            let skip = skip.min(PAGES - 1 - p.fresh);
            p.frames.extend((p.fresh..p.fresh + skip).map(|f| f as u32));
            p.fresh += skip + 1;
            p.fresh - 1
        };
        p.last_frame = i;
        p.user_used.insert(i as u32);
        Some(p.base + i * PAGE)
    })?;
    let bytes = kp::bytes_mut(pa as *mut u8, PAGE);
    bytes.fill(if zero { 0 } else { POISON });
    // SAFETY: `struct vm_page` is plain C data and nobody uses this free page's.
    let blank: sys::vm_page = unsafe { std::mem::zeroed() };
    let mut m = Kp::new(page_of(pa));
    *m = blank;
    m.phys_addr = pa as u64;
    Some(pa)
}

/// Gives a user frame back. Its bytes are poisoned, so a late DMA shows.
pub fn free_frame(pa: usize) {
    let ok = PHYS.with(|p| {
        let i = (pa.wrapping_sub(p.base) / PAGE) as u32;
        let ok = p.user_used.remove(&i);
        if ok {
            p.frames.push(i);
        }
        ok
    });
    if !ok {
        kpanic!("freeing frame {pa:#x}, which is not allocated");
    }
    kp::bytes_mut(pa as *mut u8, PAGE).fill(POISON);
}

/// User frames in use.
#[must_use]
pub fn frames_in_use() -> usize {
    PHYS.with(|p| p.user_used.len())
}

/// Is this frame in use by user memory?
#[must_use]
pub fn frame_in_use(pa: usize) -> bool {
    PHYS.with(|p| {
        p.user_used
            .contains(&((pa.wrapping_sub(p.base) / PAGE) as u32))
    })
}

/// The simulated adapter's view of memory: is every byte of the range allocated, to the kernel or
/// to a program?
#[must_use]
pub fn is_allocated(addr: usize, len: usize) -> bool {
    if !contains(addr, len) {
        return false;
    }
    PHYS.with(|p| {
        let (first, last) = (
            (addr - p.base) / PAGE,
            (addr + len.max(1) - 1 - p.base) / PAGE,
        );
        (first..=last).all(|i| {
            p.user_used.contains(&(i as u32))
                || p.used
                    .range(..=i)
                    .next_back()
                    .is_some_and(|(&s, &l)| i < s + l)
        })
    })
}
