//! A TOE driver for tests: it records every call with the locks held, and plays just enough of a
//! driver to bring connections up and down.

use std::ffi::{c_int, c_ulong, c_void};

use crate::global::Global;
use crate::kmem::{self, M_TOE};
use crate::kp::Kp;
use crate::net::acc::{InpExt, SocketExt, TcpcbExt, Which};
use crate::net::{ifnet, k, m, route, socket, tcp_subr, toecore};
use crate::{Api, sched, sys, vnet};

/// A call into the driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    pub(crate) what: &'static str,
    /// The pcb was write-locked.
    pub(crate) wlocked: bool,
    /// In the net epoch.
    pub(crate) epoch: bool,
    /// Other locks held, by name.
    pub(crate) locks: Vec<String>,
    /// Whatever else the method notes.
    pub(crate) note: String,
}

#[derive(Default)]
pub(crate) struct Fake {
    tod: usize,
    pub(crate) calls: Vec<Call>,
    /// What tod_connect answers; 0 offloads.
    pub(crate) connect_answer: i32,
    /// pcbs tod_connect took, each with a reference.
    pub(crate) connecting: Vec<usize>,
    /// What tod_syncache_respond answers; 0 sends the SYN|ACK.
    pub(crate) respond_answer: i32,
    /// SYN|ACK packets.
    pub(crate) synacks: Vec<Vec<u8>>,
}

static FAKE: Global<Fake> = Global::new("fake toedev");

pub(crate) fn fake<R>(f: impl FnOnce(&mut Fake) -> R) -> R {
    FAKE.with(f)
}

/// The calls of this name so far.
pub(crate) fn calls(what: &str) -> Vec<Call> {
    fake(|f| f.calls.iter().filter(|c| c.what == what).cloned().collect())
}

pub(crate) fn count(what: &str) -> usize {
    calls(what).len()
}

fn note(what: &'static str, inp: Option<Kp<sys::inpcb>>, note: String) {
    let held: Vec<String> = sched::current()
        .held
        .iter()
        .map(|h| h.to_string())
        .collect();
    let names = ["toedev lock", "tcp_sc_head", "socket", "so_snd", "so_rcv"];
    let locks = names
        .iter()
        .filter(|n| held.iter().any(|h| h.contains(&format!("\"{n}\""))))
        .map(|n| (*n).to_string())
        .collect();
    let wlocked = inp.is_some_and(|i| crate::locks::rw_wowned(Kp::new(i.lock_rw())));
    let epoch = crate::epoch::inside(crate::epoch::net_epoch());
    fake(|f| {
        f.calls.push(Call {
            what,
            wlocked,
            epoch,
            locks,
            note,
        })
    });
}

fn take(tp: Kp<sys::tcpcb>) {
    let mut tp = tp;
    tp.tod = tod().ptr();
    tp.t_toe = 0x70e as *mut c_void;
    tp.t_flags |= sys::TF_TOE;
}

fn release(tp: Kp<sys::tcpcb>) {
    let mut tp = tp;
    tp.tod = std::ptr::null_mut();
    tp.t_toe = std::ptr::null_mut();
    tp.t_flags &= !sys::TF_TOE;
}

pub(crate) fn tod() -> Kp<sys::toedev> {
    Kp::new(fake(|f| f.tod) as *mut sys::toedev)
}

mod tods {
    use super::*;

    pub(super) unsafe extern "C" fn connect(
        _t: *mut sys::toedev,
        so: *mut sys::socket,
        nh: *mut sys::nhop_object,
        _nam: *mut sys::sockaddr,
    ) -> c_int {
        let inp = Kp::new(so).inp();
        let ifp = ifnet::name(Kp::new(Kp::new(nh).nh_ifp));
        note("connect", Some(inp), ifp);
        let e = fake(|f| f.connect_answer);
        if e == 0 {
            crate::net::inpcb::hold(inp);
            take(inp.tp());
            fake(|f| f.connecting.push(inp.addr()));
        }
        e
    }
    macro_rules! tp_int {
        ($($f:ident)*) => {
            $(pub(super) unsafe extern "C" fn $f(_t: *mut sys::toedev, tp: *mut sys::tcpcb) -> c_int {
                let tp = Kp::new(tp);
                let more = if tp.t_flags & sys::TF_MORETOCOME != 0 { " more" } else { "" };
                let used = if tp.st() == sys::TCPS_LISTEN { 0 } else { tp.inp().so().snd().sb_ccc };
                note(stringify!($f), Some(tp.inp()), format!("{}{more} snd {used}", tcp_subr::STATES[tp.st() as usize]));
                0
            })*
        };
    }
    tp_int!(listen_start listen_stop output send_rst send_fin);

    pub(super) unsafe extern "C" fn rcvd(_t: *mut sys::toedev, tp: *mut sys::tcpcb) {
        note("rcvd", Some(Kp::new(tp).inp()), String::new());
    }
    pub(super) unsafe extern "C" fn pcb_detach(_t: *mut sys::toedev, tp: *mut sys::tcpcb) {
        let tp = Kp::new(tp);
        note(
            "pcb_detach",
            Some(tp.inp()),
            tcp_subr::STATES[tp.st() as usize].to_string(),
        );
        release(tp);
    }
    pub(super) unsafe extern "C" fn l2_update(
        _t: *mut sys::toedev,
        _ifp: *mut sys::ifnet,
        sa: *mut sys::sockaddr,
        ll: *mut u8,
        vtag: u16,
    ) {
        let ip = Kp::<sys::sockaddr_in>::new(sa.cast())
            .sin_addr
            .s_addr
            .to_ne_bytes();
        let mac = if ll.is_null() {
            "gone".to_string()
        } else {
            format!("{:x?}", crate::kp::bytes(ll, 6))
        };
        note("l2_update", None, format!("{ip:?} {mac} {vtag:#x}"));
    }
    pub(super) unsafe extern "C" fn syncache_added(_t: *mut sys::toedev, ctx: *mut c_void) {
        note("syncache_added", None, format!("{:#x}", ctx as usize));
    }
    pub(super) unsafe extern "C" fn syncache_removed(_t: *mut sys::toedev, ctx: *mut c_void) {
        note("syncache_removed", None, format!("{:#x}", ctx as usize));
    }
    pub(super) unsafe extern "C" fn syncache_respond(
        _t: *mut sys::toedev,
        _ctx: *mut c_void,
        mb: *mut sys::mbuf,
    ) -> c_int {
        let mb = Kp::new(mb);
        let pkt = m::bytes_of(mb);
        fake(|f| f.synacks.push(pkt));
        m::freem(mb);
        note("syncache_respond", None, String::new());
        fake(|f| f.respond_answer)
    }
    pub(super) unsafe extern "C" fn offload_socket(
        _t: *mut sys::toedev,
        _ctx: *mut c_void,
        so: *mut sys::socket,
    ) {
        let so = Kp::new(so);
        let inp = so.inp();
        let st = tcp_subr::STATES[inp.tp().st() as usize];
        note(
            "offload_socket",
            Some(inp),
            format!("{st} count {}", so.so_count),
        );
        crate::net::inpcb::hold(inp);
        take(inp.tp());
    }
    pub(super) unsafe extern "C" fn ctloutput(
        _t: *mut sys::toedev,
        tp: *mut sys::tcpcb,
        dir: c_int,
        name: c_int,
    ) {
        note(
            "ctloutput",
            Some(Kp::new(tp).inp()),
            format!("{dir} {name}"),
        );
    }
}

/// SIOCSIFCAP as a driver does it.
unsafe extern "C" fn ioctl(
    ifp: *mut sys::ifnet,
    cmd: c_ulong,
    data: *mut std::ffi::c_char,
) -> c_int {
    let mut ifp = Kp::new(ifp);
    if cmd == ifnet::SIOCSIFCAP {
        let ifr: Kp<sys::ifreq> = Kp::new(data.cast());
        let want = crate::net::acc::uget!(ifr.ifr_ifru.ifru_cap)[0];
        ifp.if_capenable = want;
        ifp.if_llsoftc = if want & route::IFCAP_TOE4 != 0 {
            tod().void()
        } else {
            std::ptr::null_mut()
        };
    }
    0
}

trait Void {
    fn void(self) -> *mut c_void;
}
impl<T> Void for Kp<T> {
    fn void(self) -> *mut c_void {
        self.ptr().cast()
    }
}

fn add_if(name: &'static std::ffi::CStr, last: u8) {
    let call = |sym: &str| crate::ksym::lookup(sym).expect("an exported name");
    let mut ifp = ifnet::alloc(sys::IFT_ETHER as u8);
    // SAFETY: the exported functions, with their C signatures.
    let initname: extern "C" fn(*mut sys::ifnet, *const std::ffi::c_char, c_int) =
        unsafe { std::mem::transmute(call("if_initname")) };
    // SAFETY: as above.
    let attach: extern "C" fn(*mut sys::ifnet, *const u8) =
        unsafe { std::mem::transmute(call("ether_ifattach")) };
    initname(ifp.ptr(), name.as_ptr(), 0);
    ifp.if_ioctl = Some(ioctl);
    ifp.if_capabilities = route::IFCAP_TOE4;
    let mac = [2, 0, 0, 0, 0, last];
    attach(ifp.ptr(), mac.as_ptr());
}

/// Loads the driver: two ports, `fakea0` as 10.0.0.1 in stack 0, `fakeb0` as 10.0.0.2 in stack 1.
pub(crate) fn load(api: &Api) {
    FAKE.init(Fake::default());
    api.exec(|| {
        let t: Kp<sys::toedev> = kmem::alloc_zeroed(&M_TOE);
        fake(|f| f.tod = t.addr());
        toecore::c::init_toedev(t);
        let mut t = t;
        t.tod_connect = Some(tods::connect);
        t.tod_listen_start = Some(tods::listen_start);
        t.tod_listen_stop = Some(tods::listen_stop);
        t.tod_output = Some(tods::output);
        t.tod_send_rst = Some(tods::send_rst);
        t.tod_send_fin = Some(tods::send_fin);
        t.tod_rcvd = Some(tods::rcvd);
        t.tod_pcb_detach = Some(tods::pcb_detach);
        t.tod_l2_update = Some(tods::l2_update);
        t.tod_syncache_added = Some(tods::syncache_added);
        t.tod_syncache_removed = Some(tods::syncache_removed);
        t.tod_syncache_respond = Some(tods::syncache_respond);
        t.tod_offload_socket = Some(tods::offload_socket);
        t.tod_ctloutput = Some(tods::ctloutput);
        assert_eq!(toecore::c::register_toedev(t), 0);
        add_if(c"fakea", 1);
        add_if(c"fakeb", 2);
    });
    api.ifconfig("fakea0", "10.0.0.1/24", 0, true)
        .expect("ifconfig");
    api.ifconfig("fakeb0", "10.0.0.2/24", 1, true)
        .expect("ifconfig");
}

/// Unloads it.
pub(crate) fn unload(api: &Api) {
    api.exec(|| {
        for name in ["fakea0", "fakeb0"] {
            let ifp = ifnet::by_name(name).expect("the interface");
            let detach = crate::ksym::lookup("ether_ifdetach").expect("an exported name");
            // SAFETY: the exported function, with its C signature.
            let detach: extern "C" fn(*mut sys::ifnet) = unsafe { std::mem::transmute(detach) };
            detach(ifp.ptr());
            ifnet::free(ifp);
        }
        let t = tod();
        assert_eq!(toecore::c::unregister_toedev(t), 0);
        kmem::free_obj(t, &M_TOE);
    });
    FAKE.take();
}

fn in_conn<R>(inp: Kp<sys::inpcb>, f: impl FnOnce() -> R) -> R {
    vnet::with_vnet(crate::net::inpcb::vnet_of(inp), || k::net_epoch(f))
}

/// The handshake of the oldest connection that tod_connect took completes. Its pcb, still referenced.
pub(crate) fn establish() -> Kp<sys::inpcb> {
    let inp: Kp<sys::inpcb> = Kp::new(fake(|f| f.connecting.remove(0)) as *mut _);
    k::wlock(inp.lock_rw());
    in_conn(inp, || up(inp));
    k::wunlock(inp.lock_rw());
    inp
}

/// Moves a locked connection to ESTABLISHED, as make_established does.
pub(crate) fn up(inp: Kp<sys::inpcb>) {
    let tp = inp.tp();
    tcp_subr::rcvseqinit(tp, 1000);
    tcp_subr::state_change(tp, sys::TCPS_ESTABLISHED);
    socket::isconnected(inp.so());
}

/// Takes a connection that the kernel did not offer. Its pcb is write-locked.
pub(crate) fn adopt(inp: Kp<sys::inpcb>) {
    crate::net::inpcb::hold(inp);
    take(inp.tp());
}

/// The oldest attempt fails.
pub(crate) fn fail(error: i32) {
    let inp: Kp<sys::inpcb> = Kp::new(fake(|f| f.connecting.remove(0)) as *mut _);
    k::wlock(inp.lock_rw());
    in_conn(inp, || toecore::c::toe_connect_failed(tod(), inp, error));
    drop_ref(inp);
}

/// Gives the driver's reference back. The pcb is write-locked.
pub(crate) fn drop_ref(inp: Kp<sys::inpcb>) {
    if !crate::net::inpcb::rele_wlocked(inp) {
        k::wunlock(inp.lock_rw());
    }
}

/// Bytes arrive.
pub(crate) fn deliver(inp: Kp<sys::inpcb>, data: &[u8]) {
    k::wlock(inp.lock_rw());
    let so = inp.so();
    k::mtx_lock(so.sb_mtx(Which::Rcv));
    crate::net::sockbuf::append_stream_locked(so.rcv(), m::from_bytes(data));
    socket::sorwakeup_locked(so);
    k::wunlock(inp.lock_rw());
}

/// The peer acknowledges `n` bytes.
pub(crate) fn ack(inp: Kp<sys::inpcb>, n: u32) {
    k::wlock(inp.lock_rw());
    let so = inp.so();
    k::mtx_lock(so.sb_mtx(Which::Snd));
    crate::net::sockbuf::drop_locked(so.snd(), n);
    socket::sowwakeup_locked(so);
    k::wunlock(inp.lock_rw());
}

/// Runs `f` with the pcb write-locked, in its stack and the net epoch; `f` says whether the lock
/// is still held.
pub(crate) fn with_pcb(inp: Kp<sys::inpcb>, f: impl FnOnce(Kp<sys::tcpcb>) -> bool) {
    k::wlock(inp.lock_rw());
    if in_conn(inp, || f(inp.tp())) {
        k::wunlock(inp.lock_rw());
    }
}

/// The SYN of a connection from 10.0.0.9 to the listener on `port` of stack 1.
pub(crate) struct Syn {
    pub(crate) inc: sys::in_conninfo,
    pub(crate) th: sys::tcphdr,
    pub(crate) to: sys::tcpopt,
}

impl Syn {
    pub(crate) fn new(fport: u16, port: u16) -> Syn {
        // SAFETY: plain C data.
        let mut s: Syn = unsafe { std::mem::zeroed() };
        s.inc.inc_ie.ie_dependfaddr.id46_addr =
            crate::net::acc::v4(u32::from_ne_bytes([10, 0, 0, 9]));
        s.inc.inc_ie.ie_dependladdr.id46_addr =
            crate::net::acc::v4(u32::from_ne_bytes([10, 0, 0, 2]));
        s.inc.inc_ie.ie_fport = fport.to_be();
        s.inc.inc_ie.ie_lport = port.to_be();
        s.th.th_seq = 5000;
        s.th.th_flags = sys::TH_SYN as u8;
        s.to.to_flags = sys::TOF_MSS | sys::TOF_TS | sys::TOF_SCALE | sys::TOF_SACKPERM;
        s.to.to_mss = 1460;
        s.to.to_tsval = 77;
        s.to.to_wscale = 3;
        s
    }

    fn in_stack<R>(f: impl FnOnce() -> R) -> R {
        vnet::with_vnet(crate::net::vnet_by_id(1), || k::net_epoch(f))
    }

    fn listener(&self) -> Kp<sys::inpcb> {
        let port = self.inc.inc_ie.ie_lport;
        crate::net::inpcb::find_listener(
            crate::net::vnet_by_id(1),
            u32::from_ne_bytes([10, 0, 0, 2]),
            port,
        )
        .expect("a listener")
    }

    /// The driver tells the kernel.
    pub(crate) fn add(&mut self, ctx: usize) {
        let inp = self.listener();
        Syn::in_stack(|| {
            k::rlock(inp.lock_rw());
            toecore::c::toe_syncache_add(
                Kp::new(&raw mut self.inc),
                Kp::new(&raw mut self.to),
                Kp::new(&raw mut self.th),
                inp,
                tod().void(),
                ctx as *mut c_void,
                0,
            );
        });
    }

    /// The peer's reset, or what the driver makes up as one.
    pub(crate) fn reset(&mut self) {
        let (inc, th) = (Kp::new(&raw mut self.inc), Kp::new(&raw mut self.th));
        Syn::in_stack(|| toecore::c::syncache_chkrst(inc, th, std::ptr::null_mut(), 0));
    }

    /// The handshake's last ACK, `off` away from the right acknowledgement number.
    pub(crate) fn expand(&mut self, off: u32) -> (i32, *mut sys::socket) {
        let synack = fake(|f| f.synacks.last().cloned()).expect("a SYN|ACK");
        self.expand_of(&synack, off)
    }

    /// The same for a certain SYN|ACK.
    pub(crate) fn expand_of(&mut self, synack: &[u8], off: u32) -> (i32, *mut sys::socket) {
        let iss = u32::from_be_bytes([synack[24], synack[25], synack[26], synack[27]]);
        self.th.th_flags = sys::TH_ACK as u8;
        self.th.th_seq = 5001;
        self.th.th_ack = iss.wrapping_add(1).wrapping_add(off);
        let l = self.listener();
        let mut lso = l.inp_socket;
        let r = Syn::in_stack(|| {
            toecore::c::toe_syncache_expand(
                Kp::new(&raw mut self.inc),
                Kp::new(&raw mut self.to),
                Kp::new(&raw mut self.th),
                Kp::new(&raw mut lso),
            )
        });
        (r, lso)
    }
}
