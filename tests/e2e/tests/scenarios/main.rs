//! The scenarios of `tests/freebsd`, on ukern: what a program may expect of aio_read(2) and
//! aio_write(2) on a TCP connection, once between the two simulated ports (`toe`) and once over
//! lo0, where nothing of toehold takes part (`loopback`), as the control. `toe::read_poll` here is
//! the test case `toe_read_poll` there.
//!
//! A scenario says the same for both paths. Where it has to tell them apart it says why.
//!
//! ukern has no kqueue, no lio_listio(2) and no way for a program to ask for a signal, so
//! completion by `signal`, `kevent`, `lio_wait` and `lio_nowait`, and `lio_mixed`, are tested on
//! FreeBSD only. Programs on ukern are closures that go on after exec(2), so `exec_outstanding`
//! execs in the process under test, and in a child there.

mod cancel;
mod complete;
mod end;
mod module;
mod neighbours;
mod process;
mod stopped;
mod transfer;
mod world;
