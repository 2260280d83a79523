//! TOE core against a driver that plays along.

mod active;
mod passive;
mod rest;
mod syncache;

use crate::kp::Kp;
use crate::net::acc::InpExt;
use crate::net::{fake, k, tcp_subr};
use crate::proc::{Child, Proc, ProcConfig, addr};
use crate::{Config, Kernel, boot, sched, sys};

pub(super) fn start(seed: u64) -> Kernel {
    let kern = boot(Config::seed(seed));
    fake::load(&kern);
    kern
}

pub(super) fn end(kern: Kernel) {
    // TIME_WAIT and the like first, while the driver is there.
    kern.run_for(700 * sched::SBT_1S);
    fake::unload(&kern);
    kern.shutdown();
}

/// A client of stack 0 that connects to 10.0.0.2:80 and goes on.
pub(super) fn client<R: 'static>(
    kern: &Kernel,
    f: impl FnOnce(&Proc, i32) -> R + 'static,
) -> Child<R> {
    let c = kern.spawn(ProcConfig::vnet(0).name("client"), |p| {
        let s = p.socket().unwrap();
        p.connect(s, addr("10.0.0.2", 80)).unwrap();
        f(p, s)
    });
    kern.run_until_idle();
    c
}

/// Ends a connection as a driver does when the last message about it came.
pub(super) fn finish(kern: &Kernel, inp: Kp<sys::inpcb>) {
    kern.exec(move || {
        fake::with_pcb(inp, |tp| {
            if !inp.dropped() && tcp_subr::close(tp).is_none() {
                k::wlock(inp.lock_rw());
            }
            true
        });
        k::wlock(inp.lock_rw());
        fake::drop_ref(inp);
    });
}

/// A server of stack 1 on port 80.
pub(super) fn server<R: 'static>(
    kern: &Kernel,
    backlog: i32,
    f: impl FnOnce(&Proc, i32) -> R + 'static,
) -> Child<R> {
    let s = kern.spawn(ProcConfig::vnet(1).name("server"), move |p| {
        let l = p.socket().unwrap();
        p.bind(l, addr("10.0.0.2", 80)).unwrap();
        p.listen(l, backlog).unwrap();
        f(p, l)
    });
    kern.run_until_idle();
    s
}
