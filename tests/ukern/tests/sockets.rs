//! Sockets over the wire model: what programs see without offload.

use std::time::Duration;

use ukern::proc::{Errno, Exit, MsgFlags, Poll, Proc, ProcConfig, Prot, Shut, SigAction, Signal, SockOpt, SockOptName, addr};
use ukern::{Config, Kernel, boot};

fn kernel(seed: u64) -> Kernel {
    boot(Config::seed(seed))
}

/// A listener on the loopback.
fn listener(p: &Proc, port: u16) -> i32 {
    let l = p.socket().unwrap();
    p.setsockopt(l, SockOpt::ReuseAddr(true)).unwrap();
    p.bind(l, addr("127.0.0.1", port)).unwrap();
    p.listen(l, 8).unwrap();
    l
}

/// Connects, trying again until somebody listens.
fn dial(p: &Proc, port: u16) -> i32 {
    for _ in 0..100 {
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

/// Runs a server and a client against each other in one stack and returns what they return.
fn pair<A: 'static, B: 'static>(
    seed: u64,
    server: impl FnOnce(&Proc, i32) -> A + 'static,
    client: impl FnOnce(&Proc, i32) -> B + 'static,
) -> (A, B) {
    let k = kernel(seed);
    let s = k.spawn(ProcConfig::default().name("server"), move |p| {
        let l = listener(p, 5001);
        let (fd, _) = p.accept(l).unwrap();
        p.close(l).unwrap();
        server(p, fd)
    });
    let c = k.spawn(ProcConfig::default().name("client"), move |p| {
        let fd = dial(p, 5001);
        client(p, fd)
    });
    let a = s.join();
    let b = c.join();
    k.shutdown();
    (a, b)
}

fn pattern(n: usize, seed: u8) -> Vec<u8> {
    (0..n).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed).wrapping_add((i >> 8) as u8)).collect()
}

#[test]
fn a_byte_each_way_and_a_clean_close() {
    let (a, b) = pair(
        1,
        |p, fd| {
            let got = p.recv_exact(fd, 5).unwrap();
            p.send_all(fd, b"world").unwrap();
            assert!(p.recv_bytes(fd, 10).unwrap().is_empty(), "end of file after the peer's close");
            got
        },
        |p, fd| {
            p.send_all(fd, b"hello").unwrap();
            let got = p.recv_exact(fd, 5).unwrap();
            p.close(fd).unwrap();
            got
        },
    );
    assert_eq!((a.as_slice(), b.as_slice()), (&b"hello"[..], &b"world"[..]));
}

#[test]
fn a_megabyte_arrives_in_order_for_many_schedules() {
    for seed in 0..8 {
        let data = pattern(1 << 20, seed as u8);
        let want = data.clone();
        let (got, ()) = pair(
            seed,
            |p, fd| {
                let mut all = Vec::new();
                loop {
                    let part = p.recv_bytes(fd, 100_000).unwrap();
                    if part.is_empty() {
                        return all;
                    }
                    all.extend(part);
                }
            },
            move |p, fd| p.send_all(fd, &data).unwrap(),
        );
        assert_eq!(got.len(), want.len(), "seed {seed}");
        assert!(got == want, "seed {seed}: bytes differ");
    }
}
