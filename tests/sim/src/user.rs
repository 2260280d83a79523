//! What programs do: reads and writes, by aio and without, and what they check of the results.

use toehold_core::errno::Errno;
use toehold_core::os::{Job, JobId, TcpState};

use crate::buf::BufId;
use crate::job::{Ended, Record, SimJob};
use crate::pattern;
use crate::sock::Stay;
use crate::world::{End, Ev, World};

/// Most work requests a connection's payload may be spread over is far less than this.
const FAR: u64 = 1 << 31;

impl World {
    /// aio_read of `len` bytes at `off` of a buffer.
    pub fn aio_read(&mut self, e: usize, b: BufId, off: usize, len: usize) -> JobId {
        self.aio(e, b, off, len, None)
    }

    /// aio_write of `len` bytes at `off` of a buffer, filled with the pattern.
    pub fn aio_write(&mut self, e: usize, b: BufId, off: usize, len: usize) -> JobId {
        self.aio_write_as(e, b, off, len, false)
    }

    /// The same, or aio_writev.
    pub fn aio_write_as(
        &mut self,
        e: usize,
        b: BufId,
        off: usize,
        len: usize,
        vectored: bool,
    ) -> JobId {
        let any = self.rng.range(0, 1 << 40);
        let place = self.bufs.place(b, off).unwrap_or(any);
        self.aio(e, b, off, len, Some((place, vectored)))
    }

    fn aio(
        &mut self,
        e: usize,
        b: BufId,
        off: usize,
        len: usize,
        write: Option<(u64, bool)>,
    ) -> JobId {
        let (write, vectored) = (write.map(|w| w.0), write.is_some_and(|w| w.1));
        assert!(off + len <= self.bufs.size(b));
        let addr = self.bufs.addr(b, off);
        let host = self.ends[e].host;
        let constant = self.bufs.place(b, off).is_some();
        if !constant {
            self.bufs.take(b);
        }
        if let Some(place) = write.filter(|_| !constant) {
            let mut bytes = vec![0; len];
            pattern::fill(place, &mut bytes);
            self.mem.borrow_mut().user_write(host, addr, &bytes);
        }
        let book = &self.ends[e].os.book;
        let job = SimJob::new(book, write.is_some(), addr, len, write.unwrap_or(0));
        let id = job.id();
        let tun = self.ends[e].tun;
        let end = &mut self.ends[e];
        let writes = end.generic.iter().filter(|j| j.is_write()).count();
        end.os.sock.snd.generic = writes;
        end.os.sock.rcv.generic = end.generic.len() - writes;
        let declined = if self.ends[e].os.tcb.attached {
            self.call(e, |conn, os| {
                conn.set_tunables(tun);
                let r = if vectored {
                    conn.aio_writev(os, job)
                } else if job.is_write() {
                    conn.aio_write(os, job)
                } else {
                    conn.aio_read(os, job)
                };
                r.err()
            })
        } else {
            Some(job)
        };
        match declined {
            // The generic path's.
            Some(job) => {
                self.ends[e].generic.push_back(job);
                self.user_pump(e);
            }
            None => self.serve(e),
        }
        id
    }

    /// exit(2), or execve(2): all jobs are cancelled. To be said again until none is left.
    pub fn exit(&mut self, e: usize) {
        for r in self.ends[e].os.book.borrow_mut().jobs.values_mut() {
            r.leaving = true;
        }
        for id in self.jobs(e) {
            self.cancel(e, id);
        }
    }

    /// aio_cancel. As the kernel does, a job of ours is left to the driver.
    pub fn cancel(&mut self, e: usize, id: JobId) {
        if let Some(r) = self.ends[e].os.book.borrow_mut().jobs.get_mut(&id) {
            if std::mem::replace(&mut r.cancelled, true) {
                return;
            }
        } else {
            return;
        }
        if let Some(i) = self.ends[e].generic.iter().position(|j| j.id() == id) {
            let job = self.ends[e].generic.remove(i).expect("just found");
            let r = if job.done() > 0 {
                Ok(job.done())
            } else {
                Err(Errno::ECANCELED)
            };
            job.release();
            self.ends[e].os.book.borrow_mut().end(id, r);
            self.look_at_ended(e);
        } else if self.ends[e].os.tcb.attached {
            self.call(e, |conn, os| conn.cancel(os, id));
        }
    }

    /// The jobs of an end that have not ended, oldest first.
    #[must_use]
    pub fn jobs(&self, e: usize) -> Vec<JobId> {
        self.ends[e].os.book.borrow().jobs.keys().copied().collect()
    }

    /// How a job ended, if it has.
    #[must_use]
    pub fn result(&self, e: usize, id: JobId) -> Option<Ended> {
        self.ends[e].results.get(&id).copied()
    }

    /// write(2), non-blocking: as much as fits. EPIPE and the like are the caller's to see.
    pub fn write(&mut self, e: usize, n: usize) -> usize {
        let end = &mut self.ends[e];
        let ok = matches!(
            end.os.tcb.state,
            TcpState::Established | TcpState::CloseWait
        );
        let space = usize::try_from(end.os.sock.snd.space()).unwrap_or(0);
        let n = n.min(space);
        let open = ok && end.os.tcb.attached && !end.os.tcb.dropped && !end.os.sock.snd.shut;
        if n == 0 || !open || end.os.sock.snd.writer {
            return 0;
        }
        let place = self.rng.range(0, 1 << 40);
        self.ends[e].os.write_copy(place, n, 0);
        self.ends[e].promised += n as u64;
        self.tcp_output(e);
        n
    }

    /// sendfile(2), non-blocking: as [`World::write`], but the data comes up to `ns` later.
    pub fn sendfile(&mut self, e: usize, n: usize, ns: u64) -> usize {
        let end = &mut self.ends[e];
        let space = usize::try_from(end.os.sock.snd.space()).unwrap_or(0);
        let n = n.min(space);
        if n == 0 || !self.can_write(e) || self.ends[e].os.sock.snd.writer {
            return 0;
        }
        let place = self.rng.range(0, 1 << 40);
        let end = &mut self.ends[e];
        end.files += 1;
        let file = end.files;
        end.os.write_copy(place, n, file);
        end.promised += n as u64;
        self.after_ns((1, ns), Ev::FileReady(e, file));
        self.tcp_output(e);
        n
    }

    /// write(2), blocking, of `n` bytes: inside the send I/O lock until all are in so_snd.
    pub fn write_blocking(&mut self, e: usize, n: usize) {
        let end = &mut self.ends[e];
        if end.os.sock.snd.writer || n == 0 {
            return;
        }
        end.os.sock.snd.writer = true;
        end.writer = Some(n);
        self.user_pump(e);
    }

    /// read(2), non-blocking. Checks what it gets.
    pub fn read(&mut self, e: usize, max: usize) -> usize {
        if self.ends[e].os.sock.rcv.reader {
            return 0;
        }
        self.take_read(e, max)
    }

    /// read(2), blocking: inside the receive I/O lock until there is something, or for `ns`.
    pub fn read_blocking(&mut self, e: usize, max: usize, ns: u64) {
        if self.read_staying(e, max, Stay::Any) {
            self.after_ns((ns, ns), Ev::ReaderLeaves(e));
        }
    }

    /// recv(2) that does not leave the receive I/O lock before it has what it waits for. False:
    /// another is inside.
    pub fn read_staying(&mut self, e: usize, max: usize, stay: Stay) -> bool {
        let rcv = &mut self.ends[e].os.sock.rcv;
        if rcv.reader || max == 0 {
            return false;
        }
        rcv.reader = true;
        if let Stay::Lowat(least) = stay {
            rcv.lowat = least.min(rcv.hiwat);
        }
        self.ends[e].reader = Some((max, stay));
        self.user_pump(e);
        true
    }

    fn take_read(&mut self, e: usize, max: usize) -> usize {
        let End { os, hears, .. } = &mut self.ends[e];
        let bytes = os.sock.rcv.take(max);
        let at = os.book.borrow().next;
        if let Some(why) = hears.borrow().check(at, &bytes) {
            panic!("end {e}, read(2): {why} (I2)");
        }
        os.book.borrow_mut().next += bytes.len() as u64;
        if os.sock.rcv.is_empty() && os.sock.rcv.shut && max > 0 && bytes.is_empty() {
            self.ends[e].eof = true;
        }
        if !bytes.is_empty() && self.ends[e].os.tcb.attached && !self.ends[e].os.tcb.dropped {
            self.call(e, |conn, os| conn.rcvd(os));
        }
        bytes.len()
    }

    /// Those who sleep in the kernel look whether they can go on.
    pub(crate) fn user_pump(&mut self, e: usize) {
        if std::mem::replace(&mut self.ends[e].pumping, true) {
            return;
        }
        while self.writer_goes_on(e) || self.reader_goes_on(e) || self.generic_goes_on(e) {}
        self.ends[e].pumping = false;
    }

    fn can_write(&self, e: usize) -> bool {
        let os = &self.ends[e].os;
        os.tcb.attached
            && !os.tcb.dropped
            && !os.sock.snd.shut
            && matches!(os.tcb.state, TcpState::Established | TcpState::CloseWait)
    }

    fn writer_goes_on(&mut self, e: usize) -> bool {
        let Some(left) = self.ends[e].writer else {
            return false;
        };
        let space = usize::try_from(self.ends[e].os.sock.snd.space()).unwrap_or(0);
        let lowat = self.ends[e].os.sock.snd.lowat as usize;
        let open = self.can_write(e);
        if open && space < left.min(lowat) {
            return false;
        }
        let n = left.min(space);
        if open && n > 0 {
            let place = self.rng.range(0, 1 << 40);
            self.ends[e].os.write_copy(place, n, 0);
            self.ends[e].promised += n as u64;
            self.ends[e].os.tcb.more_to_come = n < left;
            self.tcp_output(e);
            self.ends[e].os.tcb.more_to_come = false;
        }
        self.ends[e].writer = (open && n < left).then_some(left - n);
        self.ends[e].os.sock.snd.writer = self.ends[e].writer.is_some();
        true
    }

    fn reader_goes_on(&mut self, e: usize) -> bool {
        let Some((max, stay)) = self.ends[e].reader else {
            return false;
        };
        let r = &self.ends[e].os.sock.rcv;
        if r.len() < max.min(r.lowat as usize) && !r.shut {
            return false;
        }
        // pr_rcvd is called with the lock held.
        let n = self.take_read(e, max);
        let rcv = &mut self.ends[e].os.sock.rcv;
        let stays = stay == Stay::All && n < max && !rcv.shut;
        rcv.reader = stays;
        self.ends[e].reader = stays.then_some((max - n, stay));
        true
    }

    /// soaio_process_job, for the jobs the driver declined.
    fn generic_goes_on(&mut self, e: usize) -> bool {
        let ready = |j: &SimJob| {
            let os = &self.ends[e].os;
            if j.is_write() {
                !os.sock.snd.writer && (!self.can_write(e) || os.sock.snd.space() > 0)
            } else {
                !os.sock.rcv.reader && (!os.sock.rcv.is_empty() || os.sock.rcv.shut)
            }
        };
        let Some(i) = self.ends[e].generic.iter().position(ready) else {
            return false;
        };
        let mut job = self.ends[e].generic.remove(i).expect("just found");
        let (id, host) = (job.id(), self.ends[e].host);
        let r = if job.is_write() {
            if self.can_write(e) {
                let os = &mut self.ends[e].os;
                let n = (os.sock.snd.space() as usize).min(job.len() - job.done());
                let bytes = self
                    .mem
                    .borrow()
                    .user_read(host, job.addr() + job.done() as u64, n);
                let place = os.book.borrow().jobs[&id].place + job.done() as u64;
                assert_eq!(pattern::differs(place, &bytes), None);
                os.write_copy(place, n, 0);
                os.in_turn(id);
                job.set_done(job.done() + n);
                self.tcp_output(e);
                if job.done() < job.len() && !self.ends[e].os.sock.nonblocking {
                    self.ends[e].generic.push_front(job);
                    return true;
                }
                Ok(job.done())
            } else if job.done() > 0 {
                Ok(job.done())
            } else {
                Err(Errno::EPIPE)
            }
        } else {
            let bytes = self.ends[e].os.sock.rcv.take(job.len());
            if bytes.is_empty() && !job.is_empty() {
                self.ends[e].eof = true;
            }
            self.mem.borrow_mut().user_write(host, job.addr(), &bytes);
            job.set_done(bytes.len());
            if self.ends[e].os.tcb.attached && !self.ends[e].os.tcb.dropped {
                self.call(e, |conn, os| conn.rcvd(os));
            }
            Ok(bytes.len())
        };
        job.release();
        self.ends[e].os.book.borrow_mut().end(id, r);
        self.look_at_ended(e);
        true
    }

    /// Jobs that have ended: is it true what they say?
    pub(crate) fn look_at_ended(&mut self, e: usize) {
        loop {
            let ended = self.ends[e].os.book.borrow_mut().ended.pop_front();
            let Some((id, rec, r)) = ended else { return };
            if rec.write {
                let sent = if r == Err(Errno::EIO) {
                    Ok(rec.done)
                } else {
                    r
                };
                self.ends[e].promised += sent.unwrap_or(0) as u64;
                self.written(e, id, &rec, r);
            } else {
                self.was_read(e, id, &rec, r);
            }
            let host = self.ends[e].host;
            // A process that is gone writes to nothing.
            // The adapter may go on to use the buffer: nobody else does.
            if !(rec.write && rec.leaving) && r != Err(Errno::EIO) {
                self.bufs.give(rec.addr, host, rec.len);
            }
            self.ends[e].results.insert(id, r);
        }
    }

    fn written(&self, e: usize, id: JobId, rec: &Record, r: Ended) {
        self.error_is_true(e, id, rec, r);
        let end = &self.ends[e];
        let bytes = self.mem.borrow().user_read(end.host, rec.addr, rec.len);
        assert_eq!(
            pattern::differs(rec.place, &bytes),
            None,
            "a source was written to"
        );
        // What was promised is with the peer's adapter (I3), unless the connection is no more.
        let conn = end.tid.and_then(|t| self.card.connection(t));
        if let (Ok(_), Some(c), false) = (r, conn, end.over || rec.leaving)
            && rec.end > 0
            && c.state != t5sim::TcpState::Closed
            && c.state != t5sim::TcpState::Aborting
        {
            let acked = u64::from(c.snd_una.wrapping_sub(end.snd_isn));
            let want = rec.end & 0xffff_ffff;
            assert!(
                acked >= want || want - acked > FAR,
                "end {e}: {id:?} ends with {r:?}, acknowledged {acked} of {want} (I3)"
            );
        }
    }

    fn was_read(&mut self, e: usize, id: JobId, rec: &Record, r: Ended) {
        self.error_is_true(e, id, rec, r);
        if r == Ok(0) && rec.len > 0 {
            self.ends[e].eof = true;
            let end = &self.ends[e];
            let open = !end.os.sock.rcv.shut && !self.aborted(e);
            assert!(!open, "end {e}: {id:?} got 0 bytes with the stream open");
        }
        let end = &self.ends[e];
        let n: usize = rec.pieces.iter().map(|p| p.2).sum();
        assert!(r == Err(Errno::EIO) || r.unwrap_or(0) == n);
        let m = self.mem.borrow();
        for &(off, at, n) in &rec.pieces {
            let bytes = m.user_read(end.host, rec.addr + off as u64, n);
            if let Some(why) = end.hears.borrow().check(at, &bytes) {
                panic!("end {e}, {id:?}, byte {off} on: {why} (I2)\n{rec:?}");
            }
        }
    }

    /// The adapter has given the connection up, or was told to.
    fn aborted(&self, e: usize) -> bool {
        let conn = self.ends[e].tid.and_then(|t| self.card.connection(t));
        let over = [t5sim::TcpState::Aborting, t5sim::TcpState::Closed];
        conn.is_none_or(|c| over.contains(&c.state))
    }

    fn error_is_true(&self, e: usize, id: JobId, rec: &Record, r: Ended) {
        let Err(why) = r else { return };
        let end = &self.ends[e];
        let s = &self.short;
        let connected = end.os.tcb.attached
            && !end.os.tcb.dropped
            && matches!(
                end.os.tcb.state,
                TcpState::Established | TcpState::CloseWait
            );
        let aborted = self.aborted(e);
        let ok = match why {
            Errno::ECANCELED => rec.cancelled,
            Errno::EFAULT => s.fault > 0,
            Errno::ENOMEM => s.nomem > 0,
            Errno::EIO => end.os.book.borrow().silent,
            Errno::EPIPE if rec.write => end.os.sock.snd.shut || !connected || aborted,
            _ => !connected || aborted || end.os.sock.error.is_some() || end.broken.is_some(),
        };
        assert!(
            ok,
            "end {e}: {id:?} ends with {why:?} for no reason: {rec:?}"
        );
    }
}
