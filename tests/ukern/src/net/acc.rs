//! Short ways to the fields that bindgen buries in anonymous unions, and to the locks of a
//! socket and a pcb.

use crate::kp::Kp;
use crate::net::tailq::{Tailq, tailq};
use crate::sys;

/// The address of a place behind a `Kp`, with no reference formed.
macro_rules! at {
    ($kp:expr, $($field:tt)+) => {{
        let base = $kp;
        // SAFETY: address arithmetic inside a kernel structure; nothing is read.
        unsafe { &raw mut (*base.ptr()).$($field)+ }
    }};
}
pub(crate) use at;

/// Reads through a C union (or a bindgen bit-field unit): `uget!(inp.x.y)`.
macro_rules! uget {
    ($e:expr) => {{
        #[allow(unused_unsafe)]
        // SAFETY: the members of this kernel union are plain data, valid for any bits.
        let v = unsafe { $e };
        v
    }};
}
pub(crate) use uget;

/// The two buffers of a socket (`sb_which`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Rcv,
    Snd,
}

pub(crate) trait SocketExt: Copy {
    fn sb(self, which: Which) -> Kp<sys::sockbuf>;
    fn sb_mtx(self, which: Which) -> *mut sys::mtx;
    fn io_sx(self, which: Which) -> *mut sys::sx;
    fn lock_mtx(self) -> *mut sys::mtx;
    fn rcv(self) -> Kp<sys::sockbuf> {
        self.sb(Which::Rcv)
    }
    fn snd(self) -> Kp<sys::sockbuf> {
        self.sb(Which::Snd)
    }
    fn flow(self) -> Kp<sys::socket__bindgen_ty_1__bindgen_ty_1>;
    fn sol(self) -> Kp<sys::socket__bindgen_ty_1__bindgen_ty_2>;
    fn listening(self) -> bool;
    fn state(self) -> u32;
    fn set_state(self, set: u32, clear: u32);
    fn inp(self) -> Kp<sys::inpcb>;
    fn proto(self) -> Kp<sys::protosw>;
    fn timeo_chan(self) -> usize;
}

impl SocketExt for Kp<sys::socket> {
    fn sb(self, which: Which) -> Kp<sys::sockbuf> {
        Kp::new(match which {
            Which::Rcv => at!(self, __bindgen_anon_1.__bindgen_anon_1.so_rcv),
            Which::Snd => at!(self, __bindgen_anon_1.__bindgen_anon_1.so_snd),
        })
    }
    fn sb_mtx(self, which: Which) -> *mut sys::mtx {
        match which {
            Which::Rcv => at!(self, so_rcv_mtx),
            Which::Snd => at!(self, so_snd_mtx),
        }
    }
    fn io_sx(self, which: Which) -> *mut sys::sx {
        match which {
            Which::Rcv => at!(self, so_rcv_sx),
            Which::Snd => at!(self, so_snd_sx),
        }
    }
    fn lock_mtx(self) -> *mut sys::mtx {
        at!(self, so_lock)
    }
    fn flow(self) -> Kp<sys::socket__bindgen_ty_1__bindgen_ty_1> {
        Kp::new(at!(self, __bindgen_anon_1.__bindgen_anon_1))
    }
    fn sol(self) -> Kp<sys::socket__bindgen_ty_1__bindgen_ty_2> {
        Kp::new(at!(self, __bindgen_anon_1.__bindgen_anon_2))
    }
    fn listening(self) -> bool {
        self.so_options as u32 & sys::SO_ACCEPTCONN != 0
    }
    fn state(self) -> u32 {
        u32::from(self.so_state as u16)
    }
    fn set_state(mut self, set: u32, clear: u32) {
        self.so_state = ((self.state() & !clear) | set) as i16;
    }
    fn inp(self) -> Kp<sys::inpcb> {
        Kp::new(self.so_pcb.cast())
    }
    fn proto(self) -> Kp<sys::protosw> {
        Kp::new(self.so_proto)
    }
    fn timeo_chan(self) -> usize {
        at!(self, so_timeo) as usize
    }
}

pub(crate) type SbData = sys::sockbuf__bindgen_ty_2__bindgen_ty_1;

pub(crate) trait SockbufExt: Copy {
    /// The classic stream part of the buffer.
    fn d(self) -> Kp<SbData>;
    fn flags(self) -> u32;
    fn set_flags(self, set: u32, clear: u32);
    fn st(self) -> u32;
    fn space(self) -> i64;
    fn aioq(self) -> Tailq<sys::kaiocb>;
    fn acc_chan(self) -> usize;
}

impl SockbufExt for Kp<sys::sockbuf> {
    fn d(self) -> Kp<SbData> {
        Kp::new(at!(self, __bindgen_anon_1.__bindgen_anon_1))
    }
    fn flags(self) -> u32 {
        u32::from(self.sb_flags as u16)
    }
    fn set_flags(mut self, set: u32, clear: u32) {
        self.sb_flags = ((self.flags() & !clear) | set) as i16;
    }
    fn st(self) -> u32 {
        u32::from(self.sb_state as u16)
    }
    /// `sbspace`: bytes that fit, negative when overfull.
    fn space(self) -> i64 {
        let bytes = self.sb_hiwat.wrapping_sub(self.sb_ccc) as i32;
        let mbufs = self.sb_mbmax.wrapping_sub(self.sb_mbcnt) as i32;
        i64::from(bytes.min(mbufs))
    }
    fn aioq(self) -> Tailq<sys::kaiocb> {
        tailq!(at!(self, sb_aiojobq), sys::kaiocb, list)
    }
    fn acc_chan(self) -> usize {
        at!(self, sb_acc) as usize
    }
}

pub(crate) trait InpExt: Copy {
    fn lock_rw(self) -> *mut sys::rwlock;
    fn tp(self) -> Kp<sys::tcpcb>;
    fn so(self) -> Kp<sys::socket>;
    fn flags(self) -> u32;
    fn set_flags(self, set: u32, clear: u32);
    fn dropped(self) -> bool {
        self.flags() & sys::INP_DROPPED != 0
    }
    /// Address in network order.
    fn laddr(self) -> u32;
    fn faddr(self) -> u32;
    fn set_laddr(self, a: u32);
    fn set_faddr(self, a: u32);
}

impl InpExt for Kp<sys::inpcb> {
    fn lock_rw(self) -> *mut sys::rwlock {
        at!(self, inp_lock)
    }
    fn tp(self) -> Kp<sys::tcpcb> {
        // t_inpcb is the first member (asserted below), so intotcpcb() is a cast.
        Kp::new(self.ptr().cast())
    }
    fn so(self) -> Kp<sys::socket> {
        Kp::new(self.inp_socket)
    }
    fn flags(self) -> u32 {
        self.inp_flags as u32
    }
    fn set_flags(mut self, set: u32, clear: u32) {
        self.inp_flags = ((self.flags() & !clear) | set) as i32;
    }
    fn laddr(self) -> u32 {
        inc_laddr(&self.inp_inc)
    }
    fn faddr(self) -> u32 {
        inc_faddr(&self.inp_inc)
    }
    fn set_laddr(mut self, a: u32) {
        self.inp_inc.inc_ie.ie_dependladdr.id46_addr = v4(a);
    }
    fn set_faddr(mut self, a: u32) {
        self.inp_inc.inc_ie.ie_dependfaddr.id46_addr = v4(a);
    }
}

const _: () = assert!(std::mem::offset_of!(sys::tcpcb, t_inpcb) == 0);

/// An `in_addr_4in6` with the padding zeroed, as lookups expect it.
pub(crate) fn v4(s_addr: u32) -> sys::in_addr_4in6 {
    sys::in_addr_4in6 {
        ia46_pad32: [0; 3],
        ia46_addr4: sys::in_addr { s_addr },
    }
}

/// `inc_laddr`, network order.
pub(crate) fn inc_laddr(inc: &sys::in_conninfo) -> u32 {
    uget!(inc.inc_ie.ie_dependladdr.id46_addr.ia46_addr4.s_addr)
}

/// `inc_faddr`, network order.
pub(crate) fn inc_faddr(inc: &sys::in_conninfo) -> u32 {
    uget!(inc.inc_ie.ie_dependfaddr.id46_addr.ia46_addr4.s_addr)
}

pub(crate) trait TcpcbExt: Copy {
    fn inp(self) -> Kp<sys::inpcb>;
    fn st(self) -> u32;
    fn toe(self) -> bool;
}

impl TcpcbExt for Kp<sys::tcpcb> {
    fn inp(self) -> Kp<sys::inpcb> {
        Kp::new(self.ptr().cast())
    }
    fn st(self) -> u32 {
        self.t_state()
    }
    fn toe(self) -> bool {
        self.t_flags & sys::TF_TOE != 0
    }
}
