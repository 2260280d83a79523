//! The parts of FreeBSD's TCP and socket layer that call the driver: closing, mostly.

use toehold_core::errno::Errno;
use toehold_core::os::TcpState;

use crate::world::World;

impl World {
    /// tcp_output of an offloaded connection (tcp_offload_output).
    pub(crate) fn tcp_output(&mut self, e: usize) {
        let t = self.ends[e].os.tcb;
        if !t.attached || t.dropped {
            return;
        }
        let fin = matches!(
            t.state,
            TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck
        );
        match t.state {
            // As kmod's Toepcb::send_rst().
            TcpState::Closed => self.call(e, |conn, os| {
                conn.send_rst(os);
                if conn.sending() {
                    os.take_snd();
                }
            }),
            _ if fin && !t.sent_fin => {
                self.ends[e].os.tcb.sent_fin = true;
                self.call(e, |conn, os| conn.send_fin(os));
            }
            _ => self.call(e, |conn, os| conn.output(os)),
        }
    }

    /// tcp_usrclosed.
    fn usrclosed(&mut self, e: usize) {
        let s = &mut self.ends[e].os.tcb.state;
        *s = match *s {
            TcpState::Established => TcpState::FinWait1,
            TcpState::CloseWait => TcpState::LastAck,
            other => other,
        };
    }

    /// tcp_close: the connection is over for the kernel.
    pub(crate) fn tcp_close(&mut self, e: usize) {
        let os = &mut self.ends[e].os;
        if !os.tcb.attached || os.tcb.dropped {
            return;
        }
        os.tcb.dropped = true;
        os.tcb.state = TcpState::Closed;
        os.disconnect();
        if os.sock.closed {
            self.detach(e);
        }
    }

    /// tcp_drop; `None` is errno 0.
    pub(crate) fn drop_with(&mut self, e: usize, why: Option<Errno>) {
        let end = &mut self.ends[e];
        if !end.os.tcb.attached || end.os.tcb.dropped {
            return;
        }
        end.broken = Some(why.unwrap_or(Errno::ECONNABORTED));
        end.os.tcb.state = TcpState::Closed;
        self.tcp_output(e);
        let os = &mut self.ends[e].os;
        os.sock.error = why;
        self.tcp_close(e);
    }

    /// tcp_twstart, as the shim calls it: the driver is detached first.
    pub(crate) fn tcp_twstart(&mut self, e: usize) {
        self.detach(e);
        let os = &mut self.ends[e].os;
        os.tcb.state = TcpState::TimeWait;
        os.disconnect();
    }

    /// tod_pcb_detach.
    pub(crate) fn detach(&mut self, e: usize) {
        if !self.ends[e].os.tcb.attached {
            return;
        }
        self.call(e, |conn, os| conn.detach(os));
        self.ends[e].os.tcb.attached = false;
    }

    /// shutdown(SHUT_WR).
    pub fn shutdown_wr(&mut self, e: usize) {
        let os = &mut self.ends[e].os;
        if os.sock.snd.shut {
            return;
        }
        os.sock.snd.shut = true;
        if !os.tcb.attached || os.tcb.dropped {
            return;
        }
        self.usrclosed(e);
        self.tcp_output(e);
    }

    /// shutdown(SHUT_RD): what was not read is thrown away. The shim tells the driver, before that
    /// or after it, as the release has it.
    pub fn shutdown_rd(&mut self, e: usize) {
        self.ends[e].os.sock.rcv.shut = true;
        let first = self.rng.one_in(2);
        if !first {
            self.drop_unread(e);
        }
        if self.ends[e].os.tcb.attached {
            self.call(e, |conn, os| conn.rcvd(os));
        }
        if first {
            self.drop_unread(e);
        }
    }

    fn drop_unread(&mut self, e: usize) {
        let end = &mut self.ends[e];
        let n = end.os.sock.rcv.take(usize::MAX).len() as u64;
        end.unread += n;
        end.os.book.borrow_mut().next += n;
    }

    /// close(2) of the last reference: soclose. No job is left then: jobs hold the file.
    pub fn close(&mut self, e: usize) {
        let end = &mut self.ends[e];
        assert!(end.os.book.borrow().jobs.is_empty(), "jobs hold the file");
        if std::mem::replace(&mut end.os.sock.closed, true) {
            return;
        }
        if end.os.tcb.attached && !end.os.tcb.dropped {
            end.os.sock.rcv.shut = true;
            end.os.sock.snd.shut = true;
            self.drop_unread(e);
            self.usrclosed(e);
            self.tcp_output(e);
        } else {
            self.drop_unread(e);
            self.detach(e);
        }
    }

    /// The connection is reset by its own host: SO_LINGER of 0 and close, tcpdrop(8).
    pub fn reset(&mut self, e: usize) {
        self.drop_with(e, None);
    }
}
