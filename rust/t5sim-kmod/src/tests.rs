//! The entries as C calls them, over the fake C half.

use std::ffi::{CStr, c_char};

use toehold_sys::t5sim::{
    T5SIM_FAULT_DROP, T5SIM_FAULT_RESET, T5SIM_FAULT_STALE_TAG1, T5SIM_Q_CTRL, T5SIM_Q_OFLD,
    t5sim_card, t5sim_info,
};

use crate::entry::*;
use crate::fake::{BASE, CPLS, MEMORY, SIZE};
use crate::host::Kernel;
use t5sim::Dma;

/// A card for one test.
struct Under(*mut t5sim_card);

impl Under {
    fn new() -> Self {
        let card = t5sim_card_new();
        assert!(!card.is_null());
        Self(card)
    }

    fn info(&self) -> t5sim_info {
        let mut info = t5sim_info::default();
        // SAFETY: a live card of this thread, and a place to write to.
        unsafe { t5sim_card_info(self.0, &raw mut info) };
        info
    }

    fn submit(&self, q: u32, idx: u32, wr: &[u8]) -> i32 {
        // SAFETY: a live card of this thread, and one slice.
        unsafe { t5sim_card_submit(self.0, 0, q, idx, wr.as_ptr(), wr.len()) }
    }

    /// Runs everything there is to run.
    fn run(&self) -> u64 {
        let mut now = 0;
        loop {
            // SAFETY: a live card of this thread.
            let next = unsafe { t5sim_card_next(self.0) };
            if next == u64::MAX {
                return now;
            }
            assert!(next >= now);
            now = next;
            // SAFETY: a live card of this thread; the fake looks at no sink.
            unsafe { t5sim_card_advance(self.0, now, std::ptr::null_mut()) };
        }
    }

    fn stat(&self, name: &CStr) -> u64 {
        // SAFETY: names are strings.
        let is = |i: u32| unsafe { CStr::from_ptr(t5sim_stat_name(i)) } == name;
        let i = (0..t5sim_nstats()).find(|i| is(*i)).unwrap();
        // SAFETY: a live card of this thread.
        unsafe { t5sim_stat_get(self.0, i) }
    }

    fn knob(&self, name: &CStr) -> u32 {
        // SAFETY: names are strings.
        let is = |i: u32| unsafe { CStr::from_ptr(t5sim_knob_name(i)) } == name;
        (0..t5sim_nknobs()).find(|i| is(*i)).unwrap()
    }

    fn set(&self, knob: u32, v: u64) -> i32 {
        // SAFETY: a live card of this thread.
        unsafe { t5sim_knob_set(self.0, knob, v) }
    }

    fn fault(&self, fault: u32, arg: u32) -> i32 {
        // SAFETY: a live card of this thread.
        unsafe { t5sim_card_fault(self.0, 0, fault, arg) }
    }

    fn check(&self) -> i32 {
        let mut buf = [0_u8; 160];
        let p = buf.as_mut_ptr().cast::<c_char>();
        // SAFETY: a live card of this thread, and a place to write to.
        unsafe { t5sim_card_check(self.0, p, buf.len()) }
    }

    fn tcb(&self, tid: u32) -> [u8; 128] {
        let mut tcb = [0xee; 128];
        // SAFETY: a live card of this thread, and a place to write to.
        unsafe { t5sim_card_tcb(self.0, tid, tcb.as_mut_ptr()) };
        tcb
    }

    fn conn(&self, n: u32) -> Option<String> {
        let mut buf = [0_u8; 200];
        let p = buf.as_mut_ptr().cast::<c_char>();
        // SAFETY: a live card of this thread, and a place to write to.
        let rc = unsafe { t5sim_card_conn(self.0, n, p, buf.len()) };
        (rc == 0).then(|| {
            CStr::from_bytes_until_nul(&buf)
                .unwrap()
                .to_str()
                .unwrap()
                .into()
        })
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        // SAFETY: made by t5sim_card_new, not used again.
        unsafe { t5sim_card_free(self.0) };
        CPLS.take();
    }
}

/// An active open to an address nobody listens at, from port 0.
fn act_open() -> Vec<u8> {
    let m = wire::ActOpenReq {
        atid: wire::QidTid {
            tid: 5,
            cookie: 4,
            qid: 16,
        },
        local_ip: 0x0a00_0001,
        local_port: 1000,
        peer_ip: 0x0a00_0002,
        peer_port: 2000,
        ..wire::ActOpenReq::default()
    };
    let mut b = vec![0; wire::ActOpenReq::len(wire::Chip::T5)];
    m.emit(&mut b, wire::Chip::T5).unwrap();
    b
}

#[test]
fn info_describes_the_default_card() {
    let card = Under::new();
    let (info, cfg) = (card.info(), t5sim::Config::default());
    assert_eq!(
        (info.chip, info.ntids, info.natids),
        (5, crate::entry::NTIDS, cfg.natids)
    );
    assert_eq!(info.ddp_size, cfg.ppods * 64);
    assert_eq!(info.line_rate, 40_000);
    assert_eq!(info.page_shift, [12, 14, 16, 18]);
    assert_eq!((info.mtus, info.macs), (cfg.mtus, cfg.macs));
}

#[test]
fn a_refused_connection_answers_with_one_cpl() {
    let card = Under::new();
    assert_eq!(card.submit(T5SIM_Q_CTRL, 0, &act_open()), 0);
    assert_eq!(card.conn(0), None);
    assert!(card.run() > 0);
    let cpls = CPLS.take();
    let [(rxq, cpl, payload)] = cpls.as_slice() else {
        panic!("{cpls:?}")
    };
    assert_eq!(
        (*rxq, cpl[0], payload.len()),
        (16, 0x25, 0),
        "CPL_ACT_OPEN_RPL"
    );
    assert_eq!(card.stat(c"wr_act_open"), 1);
    assert_eq!(card.stat(c"cpls"), 1);
    assert_eq!(card.check(), 0);
    let line = card.conn(0).unwrap();
    assert!(line.starts_with("tid 0 port 0 "), "{line}");
}

/// A TCB read from memory is what CPL_GET_TCB_RPL has, in units of 16 bytes from the other end.
#[test]
fn a_tcb_in_memory_is_the_one_in_the_reply() {
    let card = Under::new();
    assert_eq!(card.tcb(0), [0; 128], "no connection, no TCB");
    assert_eq!(card.tcb(u32::MAX), [0; 128]);
    assert_eq!(card.submit(T5SIM_Q_CTRL, 0, &act_open()), 0);
    card.run();
    CPLS.take();
    let get = wire::GetTcb {
        tid: 0,
        reply: wire::ReplyCtrl {
            queue: 17,
            no_reply: false,
            ..wire::ReplyCtrl::default()
        },
        ..wire::GetTcb::default()
    };
    let mut wr = vec![0; wire::GetTcb::LEN];
    get.emit(&mut wr).unwrap();
    assert_eq!(card.submit(T5SIM_Q_CTRL, 0, &wr), 0);
    card.run();
    let cpls = CPLS.take();
    let [(17, _, reply)] = cpls.as_slice() else {
        panic!("{cpls:?}")
    };
    let tcb = card.tcb(0);
    assert_ne!(tcb, [0; 128]);
    let mut turned: Vec<u8> = tcb.chunks(16).rev().flatten().copied().collect();
    // Scales and MSS are in the reply alone: the low byte of word 4, the high one of word 3.
    let mut reply = reply.clone();
    for at in [4 * (31 - 4) + 3, 4 * (31 - 3)] {
        turned[at] = 0;
        reply[at] = 0;
    }
    assert_eq!(turned, reply);
}

#[test]
fn a_key_to_decrypt_with() {
    let enc = *b"\x2b\x7e\x15\x16\x28\xae\xd2\xa6\xab\xf7\x15\x88\x09\xcf\x4f\x3c";
    let mut dec = [0; 17];
    // SAFETY: as many bytes as the key has bits for, in both.
    unsafe { t5sim_aes_deckey(dec.as_mut_ptr(), enc.as_ptr(), 128) };
    assert_eq!(dec[..4], [0xb6, 0x63, 0x0c, 0xa6]);
    assert_eq!(dec[12..], [0xd0, 0x14, 0xf9, 0xa8, 0]);
    for bits in [0, 64, 127, 8 * 33, u32::MAX] {
        let was = dec;
        // SAFETY: lengths that are no key's are not read.
        unsafe { t5sim_aes_deckey(dec.as_mut_ptr(), enc.as_ptr(), bits) };
        assert_eq!(dec, was);
    }
}

#[test]
fn faults_need_a_connection() {
    let card = Under::new();
    for fault in T5SIM_FAULT_RESET..=T5SIM_FAULT_STALE_TAG1 {
        assert_eq!(card.fault(fault, 77), 2, "ENOENT");
    }
    assert_eq!(card.fault(T5SIM_FAULT_DROP, 2), 0);
    assert_eq!(card.fault(99, 0), 22, "EINVAL");
}

#[test]
fn nonsense_is_refused_and_counted() {
    let card = Under::new();
    assert_eq!(card.submit(T5SIM_Q_OFLD, 0, &[0xff; 32]), 22);
    assert_eq!(card.submit(T5SIM_Q_CTRL, 0, &[]), 22);
    assert_eq!(card.submit(9, 0, &act_open()), 22, "no such kind of queue");
    assert_eq!(
        card.submit(T5SIM_Q_CTRL, 300, &act_open()),
        22,
        "no such queue"
    );
    assert_eq!(card.stat(c"wr_refused"), 2);
    assert_eq!(card.run(), 0);
}

/// A driver that gives each wrqe the bytes of its message, and two requests to one of them.
#[test]
fn requests_come_as_they_lie_in_a_queue() {
    let card = Under::new();
    assert_eq!(card.submit(T5SIM_Q_CTRL, 0, &act_open()), 0);
    card.run();
    let mut end = vec![0; wire::CloseListsrvReq::LEN];
    wire::CloseListsrvReq::default().emit(&mut end).unwrap();
    end.truncate(24);
    let mut two = act_open();
    two.resize(two.len().next_multiple_of(64), 0);
    two.extend(&end);
    assert_eq!(card.submit(T5SIM_Q_CTRL, 0, &two), 0);
    assert_eq!(card.stat(c"wr_refused"), 0);
    end.truncate(15);
    assert_eq!(card.submit(T5SIM_Q_CTRL, 0, &end), 22, "more is missing");
    assert_eq!(card.stat(c"wr_refused"), 1);
}

#[test]
fn knobs_by_index() {
    let card = Under::new();
    let rto = card.knob(c"rto");
    assert_eq!(card.set(rto, 9_000_000), 0);
    // SAFETY: a live card of this thread.
    assert_eq!(unsafe { t5sim_knob_get(card.0, rto) }, 9_000_000);
    assert_eq!(card.set(rto, 0), 22, "EINVAL");
    assert_eq!(card.set(u32::MAX, 1), 22, "EINVAL");
    assert_eq!(card.submit(T5SIM_Q_CTRL, 0, &act_open()), 0);
    assert_eq!(card.set(rto, 1_000_000), 16, "EBUSY");
    for i in 0..t5sim_nknobs() {
        // SAFETY: descriptions are strings.
        assert!(!unsafe { CStr::from_ptr(t5sim_knob_descr(i)) }.is_empty());
    }
    for i in 0..t5sim_nstats() {
        // SAFETY: descriptions are strings.
        assert!(!unsafe { CStr::from_ptr(t5sim_stat_descr(i)) }.is_empty());
    }
}

#[test]
fn dma_reaches_memory_and_nothing_else() {
    // SAFETY: no CPL is sent in this test.
    let mut k = unsafe { Kernel::new(std::ptr::null_mut()) };
    assert_eq!(k.write(BASE + 100, b"abc"), Ok(()));
    MEMORY.with_borrow(|m| assert_eq!(&m[100..103], b"abc"));
    let mut buf = [0; 3];
    assert_eq!(k.read(BASE + 100, &mut buf), Ok(()));
    assert_eq!(&buf, b"abc");
    let end = BASE + SIZE as u64;
    assert!(k.write(end - 2, b"abc").is_err());
    assert!(k.read(0, &mut buf).is_err());
    MEMORY.with_borrow(|m| assert_eq!(&m[SIZE - 2..], [0, 0]));
}
