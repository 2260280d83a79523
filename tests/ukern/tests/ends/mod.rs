//! Two programs with a connection between them.
#![allow(dead_code)]

use std::time::Duration;

use ukern::proc::{Errno, Proc, ProcConfig, SockOpt, addr};
use ukern::{Config, Kernel, boot};

pub(crate) const PORT: u16 = 5001;

pub(crate) fn kernel(seed: u64) -> Kernel {
    boot(Config::seed(seed))
}

/// A listener on the loopback.
pub(crate) fn listener(p: &Proc, port: u16) -> i32 {
    let l = p.socket().unwrap();
    p.setsockopt(l, SockOpt::ReuseAddr(true)).unwrap();
    p.bind(l, addr("127.0.0.1", port)).unwrap();
    p.listen(l, 8).unwrap();
    l
}

/// Connects, trying again until somebody listens.
pub(crate) fn dial(p: &Proc, port: u16) -> i32 {
    for _ in 0..1000 {
        let s = p.socket().unwrap();
        match p.connect(s, addr("127.0.0.1", port)) {
            Ok(()) => return s,
            Err(Errno::ECONNREFUSED) => {
                p.close(s).unwrap();
                p.sleep(Duration::from_millis(1));
            }
            Err(e) => panic!("connect: {e}"),
        }
    }
    panic!("nobody listens on {port}");
}

/// Runs a server and a client against each other in one stack, checks that nothing is left over,
/// and returns what they return.
pub(crate) fn pair<A: 'static, B: 'static>(
    seed: u64,
    server: impl FnOnce(&Proc, i32) -> A + 'static,
    client: impl FnOnce(&Proc, i32) -> B + 'static,
) -> (A, B) {
    let k = kernel(seed);
    let s = k.spawn(ProcConfig::default().name("server"), move |p| {
        let l = listener(p, PORT);
        let (fd, _) = p.accept(l).unwrap();
        p.close(l).unwrap();
        server(p, fd)
    });
    let c = k.spawn(ProcConfig::default().name("client"), move |p| {
        let fd = dial(p, PORT);
        client(p, fd)
    });
    let a = s.join();
    let b = c.join();
    k.shutdown();
    (a, b)
}

/// One program alone.
pub(crate) fn alone<R: 'static>(seed: u64, f: impl FnOnce(&Proc) -> R + 'static) -> R {
    let k = kernel(seed);
    let r = k.spawn(ProcConfig::default(), f).join();
    k.shutdown();
    r
}

pub(crate) fn pattern(n: usize, seed: u8) -> Vec<u8> {
    (0..n)
        .map(|i| {
            (i as u8)
                .wrapping_mul(31)
                .wrapping_add(seed)
                .wrapping_add((i >> 8) as u8)
        })
        .collect()
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
