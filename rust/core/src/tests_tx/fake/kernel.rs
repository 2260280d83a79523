//! The trait the connection sees.

use std::format;
use std::vec::Vec;

use super::{FJob, FJobs, FPages, Fake, Ledger, content, frame_of};
use crate::errno::Errno;
use crate::os::*;
use crate::pageset::Slot;
use crate::ppod::{Geometry, Ppods};
use crate::sgl::Sgl;
use crate::txcredits::RING;

impl Os for Fake {
    type Mbuf = u32;
    type Pages = FPages;
    type Job = FJob;
    type Lent = JobId;
    type Jobs = FJobs;
    type Ring = [u32; RING];
    type Slots = Vec<Slot<FPages>>;

    fn send_wr(&mut self, q: Queue, wr: &[u8]) -> Result<(), NoWr> {
        if self.no_wr > 0 {
            self.no_wr -= 1;
            return Err(NoWr);
        }
        self.checked.check(wr);
        if self.final_cpl {
            self.errors
                .push("a work request after the final CPL".into());
        }
        self.got_wr(q, wr);
        Ok(())
    }
    fn geometry(&self) -> Geometry {
        Geometry::new(0, 1 << 20, [12, 14, 16, 18]).expect("geometry")
    }
    fn ppod_alloc(&mut self, _n: u32) -> Option<Ppods> {
        None
    }
    fn ppod_free(&mut self, _p: Ppods) {}
    fn retry_later(&mut self) {
        self.retries += 1;
    }
    fn kick_worker(&mut self) {
        self.kicks += 1;
    }
    fn complain(&mut self, tid: u32, why: &'static str) {
        self.complaints.push((tid, why));
    }
    fn orphaned(&mut self, conns: i64, pages: i64) {
        self.orphans += conns;
        self.orphaned += pages;
    }
    fn now_ms(&self) -> u64 {
        self.now
    }
    fn count(&mut self, c: Counter, n: u64) {
        self.counters[c as usize] += n;
    }
    fn rcv_avail(&self) -> u32 {
        0
    }
    fn rcv_space(&self) -> i32 {
        65536
    }
    fn rcv_hiwat(&self) -> u32 {
        65536
    }
    fn rcv_lowat(&self) -> u32 {
        1
    }
    fn rcv_held(&self) -> u32 {
        self.rcv_avail()
    }
    fn rcv_tls(&self) -> bool {
        self.tls
    }
    fn rcv_shut(&self) -> bool {
        self.rcv_shut
    }
    fn rcv_generic(&self) -> bool {
        false
    }
    fn rcv_append(&mut self, _m: u32) {}
    fn rcv_discard(&mut self, m: u32) {
        self.discarded += m;
    }
    fn rcv_copy(&mut self, _p: &FPages, _off: u32, _max: u32) -> u32 {
        0
    }
    fn rcv_io_trylock(&mut self) -> bool {
        true
    }
    fn rcv_io_unlock(&mut self) {}
    fn rcv_append_pages(&mut self, _p: &FPages, _off: u32, _len: u32) -> Result<(), NoMbuf> {
        Err(NoMbuf)
    }
    fn pages_move(&mut self, _p: &FPages, _from: u32, _to: u32, _len: u32) {}
    fn pages_copy(&mut self, _f: &FPages, _off: u32, _t: &FPages, _at: u32, _n: u32) {}
    fn mbuf_join(&mut self, head: u32, tail: u32) -> u32 {
        head + tail
    }
    fn rcv_grow(&mut self) {}
    fn rcv_cant_more(&mut self) {
        self.rcv_shut = true;
        self.eof = true;
    }
    fn snd_unsent(&mut self, max: u32, sgl: &mut Sgl) -> Unsent {
        let mut len = 0;
        let mut more = false;
        for (a, l, _) in self.runs_from(self.sent) {
            let n = l.min(max - len);
            if n == 0 || sgl.push(a, n) == 0 {
                more = true;
                break;
            }
            len += n;
            if n < l {
                more = true;
                break;
            }
        }
        Unsent { len, more }
    }
    fn snd_peek(&mut self, out: &mut [u8]) -> bool {
        let mut at = 0;
        for (a, l, _) in self.runs_from(self.sent) {
            for i in 0..u64::from(l) {
                if at == out.len() {
                    return true;
                }
                out[at] = content(a + i);
                at += 1;
            }
        }
        assert_eq!(at, out.len(), "peek past the end");
        true
    }
    fn snd_advance(&mut self, n: u32) {
        self.sent += n;
        assert!(self.sent <= self.used());
    }
    fn snd_zcopy_octets(&mut self, n: u32) -> u32 {
        let (mut left, mut z) = (n, 0);
        for (_, l, job) in self.runs_from(self.sent) {
            let k = l.min(left);
            left -= k;
            z += if job.is_some() { k } else { 0 };
        }
        assert_eq!(left, 0);
        z
    }
    fn snd_drop(&mut self, mut n: u32) {
        assert!(!self.dropped, "so_snd is gone");
        assert!(n <= self.sent, "dropping what was not sent");
        self.sent -= n;
        while n > 0 {
            let c = self.so_snd.front_mut().expect("so_snd");
            let k = n.min(c.len);
            c.len -= k;
            n -= k;
            let mut cut = k;
            while cut > 0 {
                let (a, l) = c.runs.first_mut().expect("run");
                let m = cut.min(*l);
                *a += u64::from(m);
                *l -= m;
                cut -= m;
                if *l == 0 {
                    c.runs.remove(0);
                }
            }
            if c.len == 0
                && let Some(c) = self.so_snd.pop_front()
            {
                self.free(&c);
            }
        }
    }
    fn snd_flush(&mut self) {
        assert!(!self.dropped, "so_snd is gone");
        self.flush();
    }
    fn snd_used(&self) -> u32 {
        self.used()
    }
    fn snd_space(&self) -> i32 {
        self.hiwat as i32 - self.used() as i32
    }
    fn snd_hiwat(&self) -> u32 {
        self.hiwat
    }
    fn snd_lowat(&self) -> u32 {
        self.lowat
    }
    fn snd_tls(&self) -> bool {
        self.tls
    }
    fn snd_shut(&self) -> bool {
        self.snd_shut
    }
    fn snd_autosize(&mut self) -> bool {
        if self.hiwat < self.auto_max && self.used() >= self.hiwat / 8 * 7 {
            self.hiwat = (self.hiwat + 8192).min(self.auto_max);
            return true;
        }
        false
    }
    fn snd_io_trylock(&mut self) -> bool {
        assert!(!self.locked, "locked twice");
        self.locked = !self.io_busy;
        self.locked
    }
    fn snd_io_unlock(&mut self) {
        assert!(self.locked, "not locked");
        self.locked = false;
    }
    fn snd_append_pages(
        &mut self,
        job: &FJob,
        slot: u16,
        pages: &FPages,
        off: u32,
        len: u32,
    ) -> Result<(), NoMbuf> {
        assert!(self.locked, "appending without the I/O lock");
        let most = self.hiwat.max(self.wnd_max);
        assert!(len > 0 && self.used() + len <= most, "over-full");
        if self.no_mbuf > 0 || self.mbufs == Some(0) {
            self.no_mbuf = self.no_mbuf.saturating_sub(1);
            return Err(NoMbuf);
        }
        self.mbufs = self.mbufs.map(|n| n - 1);
        let (mut at, mut left) = (u64::from(off), len);
        // The bytes must be those of the job at its progress.
        let user = job.addr + job.done as u64;
        let mut runs = Vec::new();
        while left > 0 {
            let n = left.min(4096 - (at % 4096) as u32);
            let i = (at / 4096) as usize;
            assert!(i < pages.count(), "past the held pages");
            runs.push((pages.phys(i) + at % 4096, n));
            at += u64::from(n);
            left -= n;
        }
        let first = frame_of(user >> 12) + user % 4096;
        if runs[0].0 != first {
            self.errors
                .push(format!("I2: job {} appends another's bytes", job.id));
        }
        self.push_chunk(Some(job.id), Some(slot), runs, len, true);
        self.slot_use(slot);
        let end = self.total;
        let l = self.jobs.get_mut(&job.id).expect("job");
        l.refs += 1;
        l.queued += len as usize;
        l.end = end;
        Ok(())
    }
    fn snd_append(&mut self, job: &FJob, m: u32) {
        assert!(self.locked, "appending without the I/O lock");
        assert!(m > 0 && job.done + m as usize <= job.len);
        self.append(m, true);
        self.jobs.get_mut(&job.id).expect("job").queued += m as usize;
    }
    fn snd_generic(&self) -> bool {
        self.generic
    }
    fn leaving(&self, job: &FJob) -> bool {
        self.leaving.contains(&job.id)
    }
    fn more_to_come(&self) -> bool {
        self.more_to_come
    }
    fn nonblocking(&self) -> bool {
        self.nonblocking
    }
    fn sigpipe(&mut self, _job: &FJob) {
        self.sigpipes += 1;
    }
    fn take_so_error(&mut self) -> Option<Errno> {
        self.so_error.take()
    }
    fn tcp_state(&self) -> TcpState {
        self.state
    }
    fn set_tcp_state(&mut self, s: TcpState) {
        self.state = s;
    }
    fn dropped(&self) -> bool {
        self.dropped
    }
    fn publish(&mut self, seq: &SeqState) {
        self.seq = *seq;
    }
    fn so_disconnected(&mut self) {
        self.disconnected = true;
    }
    fn arm_cancel(&mut self, job: &FJob) -> bool {
        self.jobs.insert(job.id, Ledger::default());
        !self.cancelled.contains(&job.id)
    }
    fn lend(&self, job: &FJob) -> JobId {
        job.id()
    }

    fn complete(&mut self, job: FJob, result: Result<usize, Errno>) {
        assert_eq!(job.slot, None, "a page set goes with the job");
        self.end(job.id, result);
    }
    fn page_key(&self, job: &FJob, off: usize, len: u32, write: bool) -> PageKey {
        PageKey {
            space: 1,
            generation: self.generation,
            addr: job.addr + off as u64,
            len,
            write,
        }
    }
    fn slot_use(&mut self, slot: u16) {
        *self.users.entry(slot).or_default() += 1;
    }
    fn slot_unuse(&mut self, slot: u16) {
        let n = self.users.get_mut(&slot).expect("slot");
        assert!(*n > 0, "unused slot {slot}");
        *n -= 1;
    }
    fn slot_users(&self, slot: u16) -> u32 {
        self.users.get(&slot).copied().unwrap_or(0)
    }
    fn charge_pages(&mut self, _job: &FJob, n: u32) -> bool {
        if n > self.budget {
            return false;
        }
        true
    }
}
