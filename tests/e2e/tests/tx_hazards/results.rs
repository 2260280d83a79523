//! What a write job says, as FreeBSD's own path would.

use ukern::proc::{AioCancel, Errno, Proc, ProcConfig, Shut, Signal, SockOpt};

use toehold_e2e::bed::{Bed, CLIENT};

use crate::help::{SOON, drain, quiet, reset, run};

fn write(p: &Proc, s: i32, len: usize) -> ukern::proc::Sys<usize> {
    let va = p.alloc(&vec![7; len]);
    let cb = p.aio_write(s, va, len)?;
    p.aio_wait(cb)
}

#[test]
fn not_connected_it_waits_as_on_any_socket() {
    let bed = Bed::up(900);
    let c = bed.k.spawn(ProcConfig::vnet(CLIENT).name("writer"), |p| {
        let s = p.socket().unwrap();
        let va = p.alloc(&[7; 10_000]);
        let cb = p.aio_write(s, va, 10_000).unwrap();
        p.sleep(SOON);
        assert_eq!(p.aio_cancel(s, Some(cb)), Ok(AioCancel::Canceled));
        let r = p.aio_wait(cb);
        p.close(s).unwrap();
        r
    });
    assert_eq!(c.join(), Err(Errno::ECANCELED));
    quiet(bed);
}

#[test]
fn after_shutdown_it_is_a_broken_pipe_and_a_signal() {
    for quiet in [false, true] {
        let ((r, pipes), _) = run(
            901,
            move |p, s| {
                p.setsockopt(s, SockOpt::NoSigpipe(quiet)).unwrap();
                p.shutdown(s, Shut::Wr).unwrap();
                let r = [write(p, s, 10_000), write(p, s, 1)];
                (r, p.signals(Signal::Pipe))
            },
            |p, s| drain(p, s, 901),
        );
        assert_eq!(r, [Err(Errno::EPIPE); 2]);
        assert_eq!(pipes, if quiet { 0 } else { 2 });
    }
}

#[test]
fn after_a_reset_it_is_a_broken_pipe() {
    let (r, ()) = run(
        902,
        |p, s| {
            p.sleep(SOON * 2);
            let r = [write(p, s, 10_000), write(p, s, 10_000)];
            p.close(s).unwrap();
            r
        },
        |p, s| {
            p.sleep(SOON);
            reset(p, s);
        },
    );
    // The connection is down: so says the generic path, which looks at CANTSENDMORE first.
    assert_eq!(r, [Err(Errno::EPIPE), Err(Errno::EPIPE)]);
}
