//! Ways to learn that a job has ended.

use toehold_e2e::pattern;
use ukern::proc::{AioCb, Errno, Proc, Prot, Sys};

use crate::world::{MS, Path, both_ways, check_at, in_progress, run};

both_ways! {
    read_poll
    read_suspend
    read_waitcomplete
    write_poll
    write_suspend
    write_waitcomplete
}

/// Waits for the one job there is and returns its result.
type Style = fn(&Proc, AioCb) -> Sys<usize>;

fn poll(p: &Proc, cb: AioCb) -> Sys<usize> {
    while in_progress(p, cb) {
        p.sleep(MS);
    }
    assert_eq!(p.aio_error(cb), Ok(0));
    p.aio_return(cb)
}

fn suspend(p: &Proc, cb: AioCb) -> Sys<usize> {
    p.aio_suspend(&[cb], None).unwrap();
    assert_eq!(p.aio_error(cb), Ok(0));
    p.aio_return(cb)
}

fn waitcomplete(p: &Proc, cb: AioCb) -> Sys<usize> {
    let (done, r) = p.aio_waitcomplete(None).unwrap();
    assert_eq!(done, cb, "another job than the one there is");
    r
}

const LEN: usize = 20_000;

fn read(path: Path, style: Style) {
    run(
        path,
        1,
        move |p, s| {
            let va = p.mmap(LEN, Prot::RW).unwrap();
            let mut at = 0;
            while at < LEN as u64 {
                let cb = p.aio_read(s, va, LEN).unwrap();
                let n = style(p, cb).unwrap();
                assert!(n > 0, "end of file at {at}");
                assert_eq!(p.aio_return(cb), Err(Errno::EINVAL), "returned twice");
                at = check_at(p, va, n, 1, at);
            }
            assert_eq!(at, LEN as u64);
        },
        |p, s| {
            // The job is there first.
            p.sleep(5 * MS);
            p.send_all(s, &pattern::bytes(1, 0, LEN)).unwrap();
            assert_eq!(p.recv_bytes(s, 1).unwrap(), b"");
        },
    );
}

fn write(path: Path, style: Style) {
    run(
        path,
        2,
        move |p, s| {
            let va = p.alloc(&pattern::bytes(2, 0, LEN));
            let cb = p.aio_write(s, va, LEN).unwrap();
            assert_eq!(style(p, cb), Ok(LEN));
            assert_eq!(p.aio_return(cb), Err(Errno::EINVAL), "returned twice");
        },
        |p, s| pattern::check(2, 0, &p.recv_exact(s, LEN).unwrap()),
    );
}

fn read_poll(path: Path) {
    read(path, poll);
}

fn read_suspend(path: Path) {
    read(path, suspend);
}

fn read_waitcomplete(path: Path) {
    read(path, waitcomplete);
}

fn write_poll(path: Path) {
    write(path, poll);
}

fn write_suspend(path: Path) {
    write(path, suspend);
}

fn write_waitcomplete(path: Path) {
    write(path, waitcomplete);
}
