//! Held pages, as a driver uses them.

use crate::kp::{Kp, bytes_mut};
use crate::proc::{Errno, Proc, ProcConfig, Prot};
use crate::vm::{self, PAGE, page};
use crate::{Config, boot, sys};

type Hold = extern "C" fn(*mut sys::vm_map, u64, u64, u8, *mut *mut sys::vm_page, i32) -> i32;
type Unhold = extern "C" fn(*mut *mut sys::vm_page, i32);
type FromPhys = extern "C" fn(*const *mut sys::vm_page, u64, i32, *mut sys::uio) -> i32;

const READ: u8 = 1;
const WRITE: u8 = 2;

fn sym(name: &str) -> usize {
    crate::ksym::lookup(name).expect("an exported name")
}

/// vm_fault_quick_hold_pages through the symbol a module would link against.
fn hold(p: &Proc, va: u64, len: usize, prot: u8, max: usize) -> Option<Vec<*mut sys::vm_page>> {
    // SAFETY: the exported function with its C signature.
    let f: Hold = unsafe { std::mem::transmute(sym("vm_fault_quick_hold_pages")) };
    let mut ma = vec![std::ptr::null_mut(); max];
    let mut space = Kp::new(p.p.p_vmspace);
    let n = f(
        &raw mut space.vm_map,
        va,
        len as u64,
        prot,
        ma.as_mut_ptr(),
        max as i32,
    );
    if n < 0 {
        return None;
    }
    ma.truncate(n as usize);
    Some(ma)
}

fn unhold(mut ma: Vec<*mut sys::vm_page>) {
    // SAFETY: the exported function with its C signature.
    let f: Unhold = unsafe { std::mem::transmute(sym("vm_page_unhold_pages")) };
    f(ma.as_mut_ptr(), ma.len() as i32);
}

fn run<R: 'static>(seed: u64, f: impl FnOnce(&Proc) -> R + 'static) -> R {
    let kern = boot(Config::seed(seed));
    let r = kern.spawn(ProcConfig::default(), f).join();
    kern.shutdown();
    r
}

/// Writes to a page as the adapter does.
fn dma(m: *mut sys::vm_page, off: usize, data: &[u8]) {
    bytes_mut((Kp::new(m).phys_addr as usize + off) as *mut u8, data.len()).copy_from_slice(data);
}

#[test]
fn holding_faults_in_wires_and_dirties() {
    run(1, |p| {
        let va = p.mmap(4 * PAGE, Prot::RW).unwrap();
        assert!(p.phys_of(va).is_none());
        let ma = hold(p, va + 100, 2 * PAGE, WRITE, 8).unwrap();
        assert_eq!(ma.len(), 3, "two pages' worth at an offset touches three");
        assert_eq!(vm::wired_pages(), 3);
        assert_eq!(p.phys_of(va), Some(Kp::new(ma[0]).phys_addr));
        assert_eq!(p.page_dirty(va), Some(true));
        assert!(p.phys_of(va + 3 * PAGE as u64).is_none());
        dma(ma[1], 7, b"from the card");
        assert_eq!(p.load_vec(va + PAGE as u64 + 7, 13), b"from the card");
        unhold(ma);
        assert_eq!(vm::wired_pages(), 0);
    });
}

#[test]
fn read_holds_do_not_break_sharing() {
    run(2, |p| {
        let va = p.alloc(b"data");
        let child = p.fork(move |c| {
            let ma = hold(c, va, 4, READ, 1).unwrap();
            let same = Kp::new(ma[0]).phys_addr;
            unhold(ma);
            let ma = hold(c, va, 4, WRITE, 1).unwrap();
            let own = Kp::new(ma[0]).phys_addr;
            unhold(ma);
            (same, own)
        });
        let mine = p.phys_of(va).unwrap();
        let (same, own) = child.unwrap().join();
        assert_eq!(same, mine);
        assert_ne!(own, mine, "a hold for writing copies first");
    });
}

#[test]
fn what_cannot_be_written_or_is_not_there_is_refused_whole() {
    run(3, |p| {
        let va = p.mmap(4 * PAGE, Prot::RW).unwrap();
        p.mprotect(va + 2 * PAGE as u64, PAGE, Prot::R).unwrap();
        assert!(hold(p, va, 4 * PAGE, WRITE, 4).is_none());
        assert_eq!(vm::wired_pages(), 0, "nothing stays wired after a refusal");
        let ma = hold(p, va, 4 * PAGE, READ, 4).unwrap();
        unhold(ma);
        assert!(
            hold(p, va + 3 * PAGE as u64, 2 * PAGE, READ, 4).is_none(),
            "runs off the mapping"
        );
        assert!(hold(p, u64::MAX - 100, 200, READ, 4).is_none());
        assert!(hold(p, 0, 10, READ, 4).is_none());
        assert_eq!(hold(p, va, 0, READ, 4).map(|m| m.len()), Some(0));
    });
}

#[test]
fn unmapped_pages_live_while_they_are_wired() {
    run(4, |p| {
        let va = p.alloc(b"old");
        let ma = hold(p, va, 3, WRITE, 1).unwrap();
        let pa = Kp::new(ma[0]).phys_addr;
        p.munmap(va, PAGE).unwrap();
        assert!(crate::phys::frame_in_use(pa as usize));
        dma(ma[0], 0, b"orphan");
        let again = p.mmap_fixed(va, PAGE, Prot::RW).unwrap();
        assert_eq!(p.load_vec(again, 6), [0; 6]);
        unhold(ma);
        assert!(
            !crate::phys::frame_in_use(pa as usize),
            "the last unwire frees it"
        );
    });
}

#[test]
fn after_fork_the_card_and_the_parent_part_ways_at_a_store() {
    run(5, |p| {
        let va = p.alloc(b"same");
        let ma = hold(p, va, 4, WRITE, 1).unwrap();
        let child = p.fork(move |c| {
            c.sleep(std::time::Duration::from_millis(1));
            c.load_vec(va, 4)
        });
        p.store(va, b"mine").unwrap();
        dma(ma[0], 0, b"card");
        assert_eq!(
            p.load_vec(va, 4),
            b"mine",
            "the store moved the parent to a copy"
        );
        assert_eq!(child.unwrap().join(), b"card");
        unhold(ma);
    });
}

#[test]
fn references_keep_the_address_space() {
    let kern = boot(Config::seed(6));
    let space = kern
        .spawn(ProcConfig::default(), |p| {
            // SAFETY: the exported function with its C signature.
            let f: extern "C" fn(*mut sys::proc_) -> *mut sys::vmspace =
                unsafe { std::mem::transmute(sym("vmspace_acquire_ref")) };
            f(p.p.ptr()) as usize
        })
        .join();
    assert!(
        kern.leaks().iter().any(|l| l.contains("address spaces")),
        "{:?}",
        kern.leaks()
    );
    kern.exec(move || {
        // SAFETY: the exported function with its C signature.
        let f: extern "C" fn(*mut sys::vmspace) =
            unsafe { std::mem::transmute(sym("vmspace_free")) };
        f(space as *mut sys::vmspace);
    });
    kern.shutdown();
}

#[test]
fn bytes_move_between_pages_and_kernel_memory() {
    run(7, |p| {
        let va = p.mmap(2 * PAGE, Prot::RW).unwrap();
        let ma = hold(p, va, 2 * PAGE, WRITE, 2).unwrap();
        // SAFETY: the exported function with its C signature.
        let f: FromPhys = unsafe { std::mem::transmute(sym("uiomove_fromphys")) };
        let mut buf = *b"across the page";
        let mut iov = sys::iovec {
            iov_base: buf.as_mut_ptr().cast(),
            iov_len: buf.len(),
        };
        let mut uio = sys::uio {
            uio_iov: &raw mut iov,
            uio_iovcnt: 1,
            uio_offset: 0,
            uio_resid: buf.len() as isize,
            uio_segflg: sys::UIO_SYSSPACE,
            uio_rw: sys::UIO_WRITE,
            uio_td: std::ptr::null_mut(),
        };
        assert_eq!(f(ma.as_ptr(), PAGE as u64 - 6, 15, &raw mut uio), 0);
        assert_eq!(uio.uio_resid, 0);
        assert_eq!(p.load_vec(va + PAGE as u64 - 6, 15), b"across the page");
        unhold(ma);
    });
}

#[test]
fn copies_between_kernel_and_program_check_every_page() {
    run(8, |p| {
        let va = p.mmap(2 * PAGE, Prot::RW).unwrap();
        p.mprotect(va + PAGE as u64, PAGE, Prot::R).unwrap();
        assert_eq!(vm::copyout(b"hello", va), 0);
        let mut buf = [0; 5];
        assert_eq!(vm::copyin(va, &mut buf), 0);
        assert_eq!(&buf, b"hello");
        assert_eq!(
            vm::copyout(&[1; 20], va + PAGE as u64 - 10),
            Errno::EFAULT.0
        );
        assert_eq!(
            vm::copyin(va + 2 * PAGE as u64 - 2, &mut buf),
            Errno::EFAULT.0
        );
    });
}

#[test]
fn faults_can_be_forbidden_and_injected() {
    run(9, |p| {
        // SAFETY: the exported function with its C signature.
        let off: extern "C" fn() -> i32 =
            unsafe { std::mem::transmute(sym("vm_fault_disable_pagefaults")) };
        // SAFETY: the exported function with its C signature.
        let on: extern "C" fn(i32) =
            unsafe { std::mem::transmute(sym("vm_fault_enable_pagefaults")) };
        let va = p.mmap(PAGE, Prot::RW).unwrap();
        let save = off();
        assert_eq!(
            vm::copyout(b"x", va),
            Errno::EFAULT.0,
            "not resident, and no faulting"
        );
        on(save);
        crate::fault::set("vm_fault", crate::fault::Plan::Nth(1));
        assert!(hold(p, va, 1, WRITE, 1).is_none());
        assert_eq!(vm::copyout(b"x", va), 0);
        unhold(hold(p, va, 1, WRITE, 1).unwrap());
    });
}

fn doomed(f: impl FnOnce(&Proc) + 'static) -> String {
    let kern = boot(Config::seed(10));
    crate::panic::set_quiet(true);
    let c = kern.spawn(ProcConfig::default(), f);
    let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| c.wait()));
    let report = *r
        .expect_err("a panic")
        .downcast::<String>()
        .expect("a kernel panic's report");
    drop(kern);
    report
}

#[test]
fn mistakes_of_a_driver_are_caught() {
    let r = doomed(|p| {
        let va = p.mmap(4 * PAGE, Prot::RW).unwrap();
        let _ = hold(p, va, 3 * PAGE, WRITE, 2);
    });
    assert!(r.contains("count 3 > max_count 2"), "{r}");
    let r = doomed(|p| {
        let va = p.alloc(b"x");
        let ma = hold(p, va, 1, WRITE, 1).unwrap();
        unhold(ma.clone());
        unhold(ma);
    });
    assert!(r.contains("is not wired"), "{r}");
    let r = doomed(|p| {
        let va = p.alloc(b"x");
        let ma = hold(p, va, 1, WRITE, 1).unwrap();
        p.munmap(va, PAGE).unwrap();
        unhold(ma.clone());
        unhold(ma);
    });
    assert!(r.contains("is free"), "{r}");
    let r = doomed(|p| {
        let va = p.mmap(PAGE, Prot::RW).unwrap();
        crate::epoch::with_net_epoch(|| hold(p, va, 1, WRITE, 1));
    });
    assert!(r.contains("sleeping in epoch"), "{r}");
    let r = doomed(|p| {
        let va = p.alloc(b"x");
        p.mlock(va, 1).unwrap();
        let pa = p.phys_of(va).unwrap();
        page::unwire(Kp::new(crate::phys::page_of(pa as usize)));
    });
    assert!(r.contains("a wiring mlock(2) made"), "{r}");
}

#[test]
fn wired_pages_left_behind_show_at_shutdown() {
    let kern = boot(Config::seed(11));
    kern.spawn(ProcConfig::default(), |p| {
        let va = p.alloc(b"x");
        hold(p, va, 1, WRITE, 1).unwrap();
    })
    .join();
    let r = kern.shutdown_report();
    assert!(
        r.leaks.iter().any(|l| l == "1 wired pages"),
        "{:?}",
        r.leaks
    );
}

fn extract(p: &Proc, va: u64) -> u64 {
    // SAFETY: the exported function with its C signature.
    let f: extern "C" fn(*mut sys::pmap, u64) -> u64 =
        unsafe { std::mem::transmute(sym("pmap_extract")) };
    let mut space = Kp::new(p.p.p_vmspace);
    f(&raw mut space.vm_pmap, va)
}

#[test]
fn a_later_write_fault_of_an_entry_moves_no_timestamp() {
    let kern = boot(Config::seed(12));
    let file = kern.api().file(3 * PAGE);
    kern.spawn(ProcConfig::default(), move |p| {
        let va = p.mmap_file(&file, 3 * PAGE, Prot::RW, false).unwrap();
        let (first, second) = (va, va + PAGE as u64);
        assert_eq!(extract(p, second), 0, "nothing has been touched");
        p.store(first, b"shadow").unwrap();
        let stamp = p.map_timestamp();
        let ma = hold(p, second, 1, READ, 1).unwrap();
        let old = Kp::new(ma[0]).phys_addr;
        assert_eq!(extract(p, second + 5), old + 5);
        p.store(second, b"copied").unwrap();
        assert_eq!(p.map_timestamp(), stamp);
        assert_ne!(extract(p, second), old);
        p.mprotect(va, 3 * PAGE, Prot::NONE).unwrap();
        assert_eq!(extract(p, second), 0);
        unhold(ma);
        p.munmap(va, 3 * PAGE).unwrap();
        assert_eq!(&file.read()[..6], &[0; 6], "a private mapping");
    })
    .join();
    kern.shutdown();
}

#[test]
fn pages_of_a_file_are_written_back_if_the_object_knows() {
    let kern = boot(Config::seed(13));
    let file = kern.api().file(2 * PAGE);
    kern.spawn(ProcConfig::default(), move |p| {
        let va = p.mmap_file(&file, 2 * PAGE, Prot::RW, true).unwrap();
        p.store(va, b"first").unwrap();
        file.sync();
        assert_eq!(p.page_dirty(va), Some(false));
        let ma = hold(p, va, 1, WRITE, 1).unwrap();
        dma(ma[0], 0, b"known");
        file.sync();
        dma(ma[0], 0, b"stray");
        page::dirty(Kp::new(ma[0]));
        assert_eq!(&file.read()[..5], b"stray", "while it is resident");
        unhold(ma);
        assert!(!file.recycle(), "mapped");
        p.munmap(va, 2 * PAGE).unwrap();
        assert!(file.recycle());
        assert_eq!(&file.read()[..5], b"known", "nobody told the object");
        let va = p.mmap_file(&file, 2 * PAGE, Prot::RW, true).unwrap();
        assert_eq!(p.load_vec(va, 5), b"known");
        p.store(va, b"store").unwrap();
        file.truncate(PAGE);
        assert_eq!(p.load(va + PAGE as u64, &mut [0]), Err(Errno::EFAULT));
        p.munmap(va, 2 * PAGE).unwrap();
        assert!(file.recycle());
        assert_eq!(&file.read()[..5], b"store");
        assert_eq!(file.read().len(), PAGE);
    })
    .join();
    kern.shutdown();
}
