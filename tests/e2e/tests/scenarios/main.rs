//! The scenarios of `tests/freebsd`, on ukern: what a program may expect of aio_read(2) and
//! aio_write(2) on a TCP connection, once between the two simulated ports (`toe`) and once over
//! lo0, where nothing of toehold takes part (`loopback`), as the control. `toe::read_poll` here is
//! the test case `toe_read_poll` there.
//!
//! A scenario says the same for both paths. Where it has to tell them apart it says why.
//!
//! ukern has no kqueue, no lio_listio(2) and no way for a program to ask for a signal, so
//! completion by `kevent`, `signal`, `lio_wait` and `lio_nowait` is tested on FreeBSD only. What
//! is here in its stead is exec(2) in the process under test: ukern's programs are closures, and
//! go on after it.

mod cancel;
mod complete;
mod end;
mod module;
mod process;
mod transfer;
mod world;
