//! What a process does with itself and its memory while jobs are outstanding.

use toehold_e2e::pattern;
use ukern::proc::{Errno, Exit, Proc, Prot};

use crate::world::{
    MS, Path, SOON, World, both_ways, check_at, ended, in_progress, read_to_end, run,
};

both_ways! {
    fork_outstanding
    exec_outstanding
    exit_outstanding
    munmap_posted
    remap_reused
}

/// More than fits both ends.
const BIG: usize = 4 << 20;

/// The jobs stay the parent's. (Neither touches the buffers before they end: toehold(4), CAVEATS.)
fn fork_outstanding(path: Path) {
    run(
        path,
        60,
        |p, s| {
            let va = p.mmap(8192, Prot::RW).unwrap();
            let a = p.aio_read(s, va, 4096).unwrap();
            let b = p.aio_read(s, va + 4096, 4096).unwrap();
            p.sleep(5 * MS);
            let child = p
                .fork(move |p| {
                    assert_eq!(p.aio_error(a), Ok(Errno::EINVAL.0), "a job was inherited");
                    p.exit(7);
                })
                .unwrap();
            let _: () = match child.wait() {
                Exit::Code(7) => (),
                other => panic!("the child ended with {other:?}"),
            };
            assert!(
                in_progress(p, a) && in_progress(p, b),
                "the child's end ended the parent's jobs"
            );
            p.send_all(s, b"!").unwrap();
            let mut at = check_at(p, va, ended(p, a).unwrap(), 60, 0);
            at = check_at(p, va + 4096, ended(p, b).unwrap(), 60, at);
            assert_eq!(read_to_end(p, s, 60, at), 50_000);
        },
        |p, s| {
            p.recv_exact(s, 1).unwrap();
            p.send_all(s, &pattern::bytes(60, 0, 50_000)).unwrap();
            p.close(s).unwrap();
        },
    );
}

/// Reads and a write that cannot come to an end.
fn submit(p: &Proc, s: i32) {
    for _ in 0..4 {
        let va = p.mmap(65_536, Prot::RW).unwrap();
        let _ = p.aio_read(s, va, 65_536).unwrap();
    }
    let va = p.alloc(&pattern::bytes(61, 0, BIG));
    let _ = p.aio_write(s, va, BIG).unwrap();
    p.sleep(5 * MS);
    assert_eq!(p.aio_pending(), 5);
}

/// exec(2) ends them all. The descriptor lives on, and no byte that came is lost.
fn exec_outstanding(path: Path) {
    run(
        path,
        61,
        |p, s| {
            submit(p, s);
            p.exec().unwrap();
            assert_eq!(p.aio_pending(), 0);
            assert_eq!(read_to_end(p, s, 62, 0), 50_000);
        },
        |p, s| {
            p.sleep(SOON);
            // Whatever was sent is a prefix of the stream.
            let t = p
                .thread(move |p| {
                    p.sleep(10 * MS);
                    p.send_all(s, &pattern::bytes(62, 0, 50_000)).unwrap();
                    p.shutdown(s, ukern::proc::Shut::Wr).unwrap();
                })
                .unwrap();
            let n = read_to_end(p, s, 61, 0);
            assert!(n > 0 && n < BIG as u64, "{n}");
            t.join().unwrap();
        },
    );
}

/// So does exit(2), and with them the connection.
fn exit_outstanding(path: Path) {
    let w = World::up(path, 63);
    let peer = w.peers(1, |p, fds| {
        p.sleep(SOON);
        let mut at = 0;
        loop {
            match p.recv_bytes(fds[0], 65_536) {
                Ok(b) if !b.is_empty() => {
                    pattern::check(61, at, &b);
                    at += b.len() as u64;
                }
                Ok(_) | Err(Errno::ECONNRESET) => return at,
                Err(e) => panic!("{e:?}"),
            }
        }
    });
    let program = w.program(|p, s| {
        submit(p, s);
        p.exit(3);
    });
    let end: Exit<()> = program.wait();
    assert_eq!(end, Exit::Code(3));
    assert!(peer.join() < BIG as u64);
    w.down();
}

/// A buffer that is unmapped under its read. What comes goes to pages that only the adapter still
/// holds, or the copy finds no memory; either way the stream goes on where the count says.
fn munmap_posted(path: Path) {
    run(
        path,
        64,
        |p, s| {
            let va = p.mmap(65_536, Prot::RW).unwrap();
            let cb = p.aio_read(s, va, 65_536).unwrap();
            p.sleep(5 * MS);
            p.munmap(va, 65_536).unwrap();
            p.send_all(s, b"!").unwrap();
            let at = match ended(p, cb) {
                Ok(n) => n as u64,
                Err(e) => {
                    assert_eq!(e, Errno::EFAULT);
                    0
                }
            };
            assert_eq!(read_to_end(p, s, 64, at), 50_000);
        },
        |p, s| {
            p.recv_exact(s, 1).unwrap();
            p.send_all(s, &pattern::bytes(64, 0, 50_000)).unwrap();
            p.close(s).unwrap();
        },
    );
}

/// Other memory at the address of a buffer that was used before.
fn remap_reused(path: Path) {
    run(
        path,
        65,
        |p, s| {
            let va = p.mmap(65_536, Prot::RW).unwrap();
            let mut at = 0;
            for _ in 0..4 {
                p.send_all(s, b"!").unwrap();
                let cb = p.aio_read(s, va, 65_536).unwrap();
                at = check_at(p, va, ended(p, cb).unwrap(), 65, at);
                p.munmap(va, 65_536).unwrap();
                assert_eq!(p.mmap_fixed(va, 65_536, Prot::RW), Ok(va));
                p.fill(va, 65_536, 0xa5).unwrap();
            }
            assert_eq!(
                p.load_vec(va, 65_536),
                [0xa5; 65_536],
                "the new memory was written to"
            );
            p.shutdown(s, ukern::proc::Shut::Wr).unwrap();
            assert_eq!(read_to_end(p, s, 65, at), 40_000);
        },
        |p, s| {
            for i in 0..4 {
                p.recv_exact(s, 1).unwrap();
                p.sleep(5 * MS);
                p.send_all(s, &pattern::bytes(65, 10_000 * i, 10_000))
                    .unwrap();
            }
            p.close(s).unwrap();
        },
    );
}
