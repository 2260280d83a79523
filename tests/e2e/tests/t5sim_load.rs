//! t5sim.ko for itself: load and unload, its sysctls, its ports, and what it does without and
//! with a TOE driver.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use toehold_e2e::bed::{Bed, CLIENT, CLIENT_IP, SERVER, SERVER_IP, TOE, kmod};
use toehold_e2e::pattern;
use toehold_e2e::transfer::{self, Shape};
use ukern::proc::{Errno, ProcConfig, addr};
use ukern::sysctl::Value;
use ukern::{Config, Kernel, ksym, mbuf};

const SIM: &str = "dev.t5nex.0.sim";

fn boot(seed: u64) -> Kernel {
    let k = ukern::boot(Config::seed(seed));
    k.kldload(kmod("t5sim")).unwrap();
    k
}

fn down(k: Kernel) {
    k.kldunload("t5sim").unwrap();
    k.shutdown();
}

fn number(k: &Kernel, name: &str) -> u64 {
    let v = k.sysctl_get(name);
    v.as_ref()
        .ok()
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("sysctl {name}: {v:?}"))
}

fn text(k: &Kernel, name: &str) -> String {
    match k.sysctl_get(name) {
        Ok(Value::Text(t)) => t,
        v => panic!("sysctl {name}: {v:?}"),
    }
}

#[test]
fn hundred_loads_leave_nothing_behind() {
    let k = ukern::boot(Config::seed(1));
    let before = k.leaks();
    for i in 0..100 {
        k.kldload(kmod("t5sim")).unwrap();
        if i % 2 == 0 {
            k.ifconfig("cxl0", "10.0.0.1/24", CLIENT, false).unwrap();
            k.ifconfig("cxl1", "10.0.0.2/24", SERVER, false).unwrap();
        }
        k.kldunload("t5sim").unwrap();
        assert!(k.ifnets().is_empty(), "load {i}: an interface stayed");
        assert!(
            k.sysctl_tree("dev.t5nex").is_empty(),
            "load {i}: a sysctl stayed"
        );
    }
    assert_eq!(k.leaks(), before);
    k.shutdown();
}

#[test]
fn the_toe_node_is_freebsds() {
    let k = boot(2);
    let prefix = format!("{TOE}.");
    let have: BTreeMap<String, String> = k
        .sysctl_tree(TOE)
        .into_iter()
        .map(|(n, v)| (n.trim_start_matches(&prefix).to_string(), v.to_string()))
        .collect();
    for (name, value) in [
        ("cong_algorithm", "-1"),
        ("sndbuf", "-1"),
        ("ddp", "0"),
        ("rx_zcopy", "0"),
        ("rx_coalesce", "-1"),
        ("tls", "0"),
        ("tx_align", "-1"),
        ("tx_zcopy", "0"),
        ("cop_managed_offloading", "0"),
        ("autorcvbuf_inc", "16384"),
        ("update_hc_on_pmtu_change", "1"),
        ("iso", "1"),
    ] {
        assert_eq!(have.get(name).map(String::as_str), Some(value), "{name}");
    }
    let read_only = [
        "timer_tick",
        "timestamp_tick",
        "dack_tick",
        "dack_timer",
        "rexmt_min",
        "rexmt_max",
        "persist_min",
        "persist_max",
        "keepalive_idle",
        "keepalive_interval",
        "initial_srtt",
        "finwait2_timer",
        "syn_rexmt_count",
        "rexmt_count",
        "keepalive_count",
        "rexmt_backoff.0",
        "rexmt_backoff.15",
    ];
    for name in read_only {
        assert!(have.contains_key(name), "{name} is missing");
        assert!(
            k.sysctl_set(&format!("{TOE}.{name}"), "1").is_err(),
            "{name} was written"
        );
    }
    assert_eq!(have.len(), 12 + 15 + 16, "{have:?}");
    for port in 0..2 {
        assert_eq!(number(&k, &format!("dev.cxl.{port}.nofldtxq")), 2);
        assert_eq!(
            number(&k, &format!("dev.cxl.{port}.first_ofld_rxq")),
            2 * port
        );
    }
    down(k);
}

#[test]
fn knobs_keep_to_their_range() {
    let k = ukern::boot(Config::seed(3));
    k.kenv("dev.t5nex.0.sim.seed", "77");
    k.kldload(kmod("t5sim")).unwrap();
    assert_eq!(number(&k, &format!("{SIM}.seed")), 77, "a loader tunable");
    let set = |n: &str, v: &str| k.sysctl_set(&format!("{SIM}.{n}"), v);
    assert_eq!(set("loss", "1000"), Ok(()));
    assert_eq!(number(&k, &format!("{SIM}.loss")), 1000);
    assert_eq!(set("line_rate", "10000000000"), Ok(()));
    assert_eq!(set("line_rate", "1"), Err(Errno::EINVAL.0));
    assert_eq!(set("seg_min", "9000000000"), Err(Errno::EINVAL.0));
    assert_eq!(number(&k, &format!("{SIM}.line_rate")), 10_000_000_000);
    assert_eq!(
        number(&k, &format!("{SIM}.seed")),
        77,
        "another knob changed the seed"
    );
    assert_eq!(set("reset_conn", "5"), Err(Errno::ENOENT.0));
    assert_eq!(set("reset_conn", "-5"), Err(Errno::EINVAL.0));
    assert_eq!(text(&k, &format!("{SIM}.check")), "ok");
    assert_eq!(text(&k, &format!("{SIM}.conns")), "");
    assert!(
        k.sysctl_set(&format!("{SIM}.stats.segments"), "1").is_err(),
        "a counter was written"
    );
    down(k);
}

#[test]
fn toe_without_a_driver_is_refused_as_on_freebsd() {
    let k = boot(4);
    assert_eq!(
        k.ifconfig("cxl0", "10.0.0.1/24", CLIENT, true),
        Err(Errno::EAGAIN)
    );
    assert_eq!(k.ifconfig_toe("cxl1", true), Err(Errno::EAGAIN));
    assert!(k.ifnets().iter().all(|i| !i.toe));
    assert!(
        k.console().iter().any(|l| l.contains("kldload toehold")),
        "{:?}",
        k.console()
    );
    // Switching off what is off is no error.
    assert_eq!(k.ifconfig_toe("cxl0", false), Ok(()));
    down(k);
}

#[test]
fn toe_goes_off_and_on_under_a_driver() {
    let bed = Bed::up(5);
    for _ in 0..3 {
        bed.k.ifconfig_toe("cxl0", false).unwrap();
        assert_eq!(bed.k.ifnets().iter().filter(|i| i.toe).count(), 1);
        bed.k.ifconfig_toe("cxl0", true).unwrap();
        assert_eq!(bed.k.ifnets().iter().filter(|i| i.toe).count(), 2);
    }
    bed.down();
}

#[test]
fn mtu_has_limits() {
    let k = boot(6);
    assert_eq!(k.ifconfig_mtu("cxl0", 9000), Ok(()));
    assert_eq!(k.ifconfig_mtu("cxl0", 9601), Err(Errno::EINVAL));
    assert_eq!(k.ifconfig_mtu("cxl0", 20), Err(Errno::EINVAL));
    let mtu = |n: &str| k.ifnets().iter().find(|i| i.name == n).map(|i| i.mtu);
    assert_eq!((mtu("cxl0"), mtu("cxl1")), (Some(9000), Some(1500)));
    down(k);
}

static IFNETS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// An address of the kernel's interface for modules.
fn symbol(name: &str) -> usize {
    ksym::lookup(name).unwrap_or_else(|| panic!("the kernel has no {name}"))
}

/// `ether_ifattach_event`: remembers where cxl0 and cxl1 are.
extern "C" fn attached(_: *mut c_void, ifp: *mut c_void) {
    // SAFETY: the type of if_name in FreeBSD 15.
    let name: extern "C" fn(*mut c_void) -> *const c_char =
        unsafe { std::mem::transmute(symbol("if_name")) };
    // SAFETY: an interface's name is a string.
    let name = unsafe { CStr::from_ptr(name(ifp)) };
    match name.to_bytes() {
        b"cxl0" => IFNETS[0].store(ifp as usize, Ordering::Relaxed),
        b"cxl1" => IFNETS[1].store(ifp as usize, Ordering::Relaxed),
        _ => {}
    }
}

type Register =
    extern "C" fn(*mut c_void, *const c_char, *mut c_void, *mut c_void, c_int) -> *mut c_void;

const EVENT: &CStr = c"ether_ifattach_event";

/// Notes the addresses of the interfaces that t5sim makes when it is loaded now.
fn load_watched(k: &Kernel) {
    // SAFETY: the type of eventhandler_register in FreeBSD 15.
    let register: Register = unsafe { std::mem::transmute(symbol("eventhandler_register")) };
    // SAFETY: the type of eventhandler_find_list in FreeBSD 15.
    let find_list: extern "C" fn(*const c_char) -> *mut c_void =
        unsafe { std::mem::transmute(symbol("eventhandler_find_list")) };
    // SAFETY: the type of eventhandler_deregister in FreeBSD 15.
    let deregister: extern "C" fn(*mut c_void, *mut c_void) =
        unsafe { std::mem::transmute(symbol("eventhandler_deregister")) };
    let none = std::ptr::null_mut();
    let func = attached as extern "C" fn(*mut c_void, *mut c_void) as *mut c_void;
    let tag = k.exec(move || register(none, EVENT.as_ptr(), func, none, 0));
    k.kldload(kmod("t5sim")).unwrap();
    // The list comes locked; deregister unlocks it.
    k.exec(move || deregister(find_list(EVENT.as_ptr()), tag));
    assert!(IFNETS.iter().all(|i| i.load(Ordering::Relaxed) != 0));
}

/// Gives a frame to a port as the network stack does.
fn transmit(k: &Kernel, port: usize, frame: &'static [u8]) -> c_int {
    // SAFETY: the type of if_transmit in FreeBSD 15.
    let send: extern "C" fn(usize, *mut mbuf::Mbuf) -> c_int =
        unsafe { std::mem::transmute(symbol("if_transmit")) };
    k.exec(move || {
        let m = mbuf::gethdr(2, 1).expect("an mbuf");
        assert!(mbuf::append(m, frame));
        send(IFNETS[port].load(Ordering::Relaxed), m.ptr())
    })
}

#[test]
fn frames_cross_from_port_to_port() {
    let k = ukern::boot(Config::seed(7));
    load_watched(&k);
    let frames_in =
        |k: &Kernel, n: &str| k.ifnets().iter().find(|i| i.name == n).map(|i| i.frames_in);
    let stat = |k: &Kernel, n: &str| number(k, &format!("{SIM}.stats.{n}"));
    assert_eq!(transmit(&k, 0, &[0; 60]), 50, "ENETDOWN: both are down");
    k.ifconfig_up("cxl0", true).unwrap();
    assert_eq!(
        transmit(&k, 0, &[0; 60]),
        50,
        "ENETDOWN: the far end is down"
    );
    assert_eq!(stat(&k, "port_frame_drops"), 2);
    k.ifconfig_up("cxl1", true).unwrap();
    for _ in 0..3 {
        assert_eq!(transmit(&k, 0, &[1; 60]), 0);
    }
    assert_eq!(transmit(&k, 1, &[2; 1514]), 0);
    k.run_until_idle();
    assert_eq!(
        (frames_in(&k, "cxl0"), frames_in(&k, "cxl1")),
        (Some(1), Some(3))
    );
    assert_eq!(
        (stat(&k, "port_frames"), stat(&k, "port_frame_drops")),
        (4, 2)
    );
    // One that is still on its way when the module goes is not lost in memory.
    assert_eq!(transmit(&k, 0, &[3; 60]), 0);
    k.ifconfig_up("cxl1", false).unwrap();
    down(k);
}

#[test]
fn the_card_accounts_for_a_transfer() {
    let bed = Bed::up(8);
    let n = 3 << 20;
    let o = transfer::run(&bed, Arc::new(pattern::bytes(8, 0, n)), Shape::default());
    assert_eq!(o.rx.sha256, o.tx.sha256);
    bed.settle();
    let stat = |n: &str| number(&bed.k, &format!("{SIM}.stats.{n}"));
    assert_eq!(stat("tx_bytes"), n as u64);
    assert_eq!(stat("ddp_bytes") + stat("cpl_bytes"), n as u64);
    assert!(stat("pods_written") > 0);
    // Connections of both ports, one control queue: that of the schedules in tests/sim.
    assert_eq!(toehold_core::egress::CTRL_QUEUE, 0);
    assert!(stat("ctrl_first") > 0);
    for none in [
        "ctrl_other",
        "wr_refused",
        "host_errors",
        "dma_faults",
        "cpls_bad_queue",
        "ddp_errors",
    ] {
        assert_eq!(stat(none), 0, "{none}");
    }
    assert_eq!(stat("tids_allocated"), stat("tids_freed"));
    assert_eq!(text(&bed.k, &format!("{SIM}.check")), "ok");
    bed.down();
}

#[test]
fn connections_can_be_seen_and_reset() {
    let bed = Bed::up(9);
    let server = bed.k.spawn(ProcConfig::vnet(SERVER), |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr(SERVER_IP, 7)).unwrap();
        p.listen(l, 1).unwrap();
        let (s, peer) = p.accept(l).unwrap();
        assert_eq!(peer.ip.to_string(), CLIENT_IP);
        p.recv_bytes(s, 1)
    });
    bed.k.run_until_idle();
    let client = bed.k.spawn(ProcConfig::vnet(CLIENT), |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr(SERVER_IP, 7)).unwrap();
        p.recv_bytes(s, 1)
    });
    bed.k.run_for(ukern::sched::SBT_1S);
    let conns = text(&bed.k, &format!("{SIM}.conns"));
    let lines: Vec<_> = conns.lines().collect();
    let [a, b] = lines.as_slice() else {
        panic!("{conns}")
    };
    assert!(
        a.contains("Established") && b.contains("Established"),
        "{conns}"
    );
    // A card that carries connections is not replaced by one with another seed.
    let busy = bed.k.sysctl_set(&format!("{SIM}.seed"), "99");
    assert_eq!(busy, Err(Errno::EBUSY.0));
    let tid: i64 = a
        .split(' ')
        .nth(1)
        .and_then(|t| t.parse().ok())
        .expect("tid N ...");
    bed.sim("reset_conn", tid);
    let ends = [client.join(), server.join()];
    assert!(
        ends.iter().all(|e| *e == Err(Errno::ECONNRESET)),
        "{ends:?}"
    );
    bed.settle();
    assert_eq!(text(&bed.k, &format!("{SIM}.conns")), "");
    bed.down();
}
